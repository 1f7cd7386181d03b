// SPDX-License-Identifier: MIT

//go:build go1.23

package main

import (
	"runtime"
	"unsafe"
)

// internal/profilerecord.BlockProfileRecord
type record struct {
	count, cycles int64
	stack         []uintptr
}

// What runtime/pprof uses: the public functions expand what is inlined.
//
//go:linkname blockRecords runtime.pprof_blockProfileInternal
func blockRecords(p []record) (n int, ok bool)

//go:linkname mutexRecords runtime.pprof_mutexProfileInternal
func mutexRecords(p []record) (n int, ok bool)

const sentinel = ^uintptr(0)

func listBlocked(kind string, records []record) {
	for i := range records {
		stack := records[i].stack
		if len(stack) > 0 && stack[0] == sentinel {
			stack = stack[1:]
		}
		list(kind, stack)
	}
}

func listRecords() {
	_ = unsafe.Pointer(nil)
	heap := make([]runtime.MemProfileRecord, 20000)
	n, _ := runtime.MemProfile(heap, true)
	for i := range heap[:n] {
		list("heap", heap[i].Stack())
	}
	records := make([]record, 10000)
	n, _ = blockRecords(records)
	listBlocked("block", records[:n])
	n, _ = mutexRecords(records)
	listBlocked("mutex", records[:n])
}
