// SPDX-License-Identifier: MIT

//go:build !go1.23

package main

import "runtime"

func heapRecords() []heapRecord {
	n, ok := runtime.MemProfile(nil, true)
	var records []runtime.MemProfileRecord
	for {
		records = make([]runtime.MemProfileRecord, n+50)
		n, ok = runtime.MemProfile(records, true)
		if ok {
			break
		}
	}
	out := make([]heapRecord, n)
	for i := range out {
		r := &records[i]
		out[i] = heapRecord{r.AllocObjects, r.FreeObjects, 0, r.Stack()}
		if r.AllocObjects != 0 {
			out[i].size = r.AllocBytes / r.AllocObjects
		}
	}
	return out
}

func countRecords(read func([]runtime.BlockProfileRecord) (int, bool)) []countRecord {
	n, ok := read(nil)
	var records []runtime.BlockProfileRecord
	for {
		records = make([]runtime.BlockProfileRecord, n+50)
		n, ok = read(records)
		if ok {
			break
		}
	}
	out := make([]countRecord, n)
	for i := range out {
		out[i] = countRecord{records[i].Count, records[i].Cycles, records[i].Stack()}
	}
	return out
}

func blockRecords() []countRecord { return countRecords(runtime.BlockProfile) }
func mutexRecords() []countRecord { return countRecords(runtime.MutexProfile) }
