// SPDX-License-Identifier: MIT

//go:build !go1.23
// +build !go1.23

package main

import "runtime"

// The public functions give records as they are.
func listRecords() {
	heap := make([]runtime.MemProfileRecord, 20000)
	n, _ := runtime.MemProfile(heap, true)
	for i := range heap[:n] {
		list("heap", heap[i].Stack())
	}
	records := make([]runtime.BlockProfileRecord, 10000)
	n, _ = runtime.BlockProfile(records)
	for i := range records[:n] {
		list("block", records[i].Stack())
	}
	n, _ = runtime.MutexProfile(records)
	for i := range records[:n] {
		list("mutex", records[i].Stack())
	}
}
