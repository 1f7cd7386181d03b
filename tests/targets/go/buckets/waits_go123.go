// SPDX-License-Identifier: MIT

//go:build go1.23

package main

import _ "unsafe"

// As internal/profilerecord has it: what runtime/pprof gets, with whole stacks as recorded.
type waitRecord struct {
	Count, Cycles int64
	Stack         []uintptr
}

//go:linkname memProfile runtime.pprof_memProfileInternal
func memProfile(p []heapRecord, inuseZero bool) (n int, ok bool)

//go:linkname blockProfile runtime.pprof_blockProfileInternal
func blockProfile(p []waitRecord) (n int, ok bool)

//go:linkname mutexProfile runtime.pprof_mutexProfileInternal
func mutexProfile(p []waitRecord) (n int, ok bool)

var (
	heap   = make([]heapRecord, maxRecords)
	events = make([]waitRecord, maxRecords)
)

func countRecords() { memProfile(heap, true) }

func dumpWaits(kind string, n int) {
	for i := range events[:n] {
		r := &events[i]
		line(kind, 0, r.Count, r.Cycles, r.Stack)
	}
}

func dump() {
	n, _ := memProfile(heap, true)
	for i := range heap[:n] {
		r := &heap[i]
		line("heap", r.size(), r.AllocObjects, r.FreeObjects, r.Stack)
	}
	n, _ = blockProfile(events)
	dumpWaits("block", n)
	n, _ = mutexProfile(events)
	dumpWaits("mutex", n)
}
