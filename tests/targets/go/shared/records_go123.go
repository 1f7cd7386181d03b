// SPDX-License-Identifier: MIT

//go:build go1.23

package main

import _ "unsafe"

// runtime.MemProfile and its like cut stacks off here; these do not. godeltaprof reads the same.

type blockProfileRecord struct {
	Count  int64
	Cycles int64
	Stack  []uintptr
}

//go:linkname memProfile runtime.pprof_memProfileInternal
func memProfile(p []memProfileRecord, inUseZero bool) (n int, ok bool)

//go:linkname blockProfile runtime.pprof_blockProfileInternal
func blockProfile(p []blockProfileRecord) (n int, ok bool)

//go:linkname mutexProfile runtime.pprof_mutexProfileInternal
func mutexProfile(p []blockProfileRecord) (n int, ok bool)

func heapRecords() []heapRecord {
	n, ok := memProfile(nil, true)
	var records []memProfileRecord
	for {
		records = make([]memProfileRecord, n+50)
		n, ok = memProfile(records, true)
		if ok {
			break
		}
	}
	out := make([]heapRecord, n)
	for i := range out {
		r := &records[i]
		out[i] = heapRecord{r.AllocObjects, r.FreeObjects, r.size(), r.Stack}
	}
	return out
}

func countRecords(read func([]blockProfileRecord) (int, bool)) []countRecord {
	n, ok := read(nil)
	var records []blockProfileRecord
	for {
		records = make([]blockProfileRecord, n+50)
		n, ok = read(records)
		if ok {
			break
		}
	}
	out := make([]countRecord, n)
	for i := range out {
		out[i] = countRecord{records[i].Count, records[i].Cycles, records[i].Stack}
	}
	return out
}

func blockRecords() []countRecord { return countRecords(blockProfile) }
func mutexRecords() []countRecord { return countRecords(mutexProfile) }
