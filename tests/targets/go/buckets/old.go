// SPDX-License-Identifier: MIT

//go:build !go1.23

package main

import "runtime"

var (
	heap  = make([]runtime.MemProfileRecord, maxRecords)
	events = make([]runtime.BlockProfileRecord, maxRecords)
)

func countRecords() { runtime.MemProfile(heap, true) }

func dumpWaits(kind string, n int) {
	for i := range events[:n] {
		r := &events[i]
		line(kind, 0, r.Count, r.Cycles, r.Stack())
	}
}

func dump() {
	n, _ := runtime.MemProfile(heap, true)
	for i := range heap[:n] {
		r := &heap[i]
		size := int64(0)
		if r.AllocObjects != 0 {
			size = r.AllocBytes / r.AllocObjects
		}
		line("heap", size, r.AllocObjects, r.FreeObjects, r.Stack())
	}
	n, _ = runtime.BlockProfile(events)
	dumpWaits("block", n)
	n, _ = runtime.MutexProfile(events)
	dumpWaits("mutex", n)
}
