// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"runtime"
	"sort"
	"strings"
	_ "unsafe"
)

// What godeltaprof does with the runtime's records, written down anew: what has changed since the call
// before, scaled after that, by stack and object size; times as the difference of converted values. Names
// are those that runtime/pprof gives: callers that were inlined are there, and what is no frame is not.
// A sample is one line: its values, the object size (0: none), then the frames, leaf first, each
// "FUNCTION FILE:LINE:START". Tabs are between them, spaces between values.

//go:linkname ticksPerSecond runtime/pprof.runtime_cyclesPerSecond
func ticksPerSecond() int64

//go:linkname expandFinalInlineFrame runtime/pprof.runtime_expandFinalInlineFrame
func expandFinalInlineFrame(stack []uintptr) []uintptr

type heapRecord struct {
	allocs, frees, size int64
	stack               []uintptr
}

type countRecord struct {
	count, cycles int64
	stack         []uintptr
}

type sample struct {
	values []int64
	size   int64
	frames []string
}

func keyOf(stack []uintptr, size int64) string {
	return fmt.Sprintf("%x %d", stack, size)
}

func frameText(frame *runtime.Frame) string {
	name, start := nameOf(frame)
	return fmt.Sprintf("%s %s:%d:%d", name, frame.File, frame.Line, start)
}

// framesOf names the frames of a stack of return addresses.
func framesOf(stack []uintptr) []string {
	var texts []string
	if len(stack) == 0 {
		return nil
	}
	frames := runtime.CallersFrames(expandFinalInlineFrame(stack))
	for {
		frame, more := frames.Next()
		if frame.PC != 0 && frame.Function != "runtime.goexit" {
			texts = append(texts, frameText(&frame))
		}
		if !more {
			return texts
		}
	}
}

// expanded is the stack with an address for every inlined call, at most as many as runtime/pprof keeps.
func expanded(stack []uintptr) []uintptr {
	var pcs []uintptr
	frames := runtime.CallersFrames(stack)
	for len(pcs) < 128 {
		frame, more := frames.Next()
		pcs = append(pcs, frame.PC+1)
		if !more {
			break
		}
	}
	return pcs
}

func withoutRuntimeLeaf(stack []uintptr) []uintptr {
	for i, pc := range stack {
		f := runtime.FuncForPC(pc)
		if f == nil || !(strings.HasPrefix(f.Name(), "runtime.") ||
			hidesInternalRuntime && strings.HasPrefix(f.Name(), "internal/runtime/")) {
			return stack[i:]
		}
	}
	return stack
}

func scaleHeap(count, bytes, rate int64) (int64, int64) {
	if count == 0 || bytes == 0 {
		return 0, 0
	}
	if rate <= 1 {
		return count, bytes
	}
	scale := 1 / (1 - math.Exp(-(float64(bytes)/float64(count))/float64(rate)))
	return int64(float64(count) * scale), int64(float64(bytes) * scale)
}

type heapEntry struct {
	alloc, inUse int64 // of this call so far
	before       int64 // allocs at the call before
}

var heapState = map[string]*heapEntry{}

func heapDelta() []sample {
	records := heapRecords()
	rate := int64(runtime.MemProfileRate)
	for _, r := range records {
		if r.allocs == 0 && r.frees == 0 {
			continue
		}
		key := keyOf(r.stack, r.size)
		entry := heapState[key]
		if entry == nil {
			entry = &heapEntry{}
			heapState[key] = entry
		}
		entry.alloc += r.allocs
		entry.inUse += r.allocs - r.frees
	}
	var samples []sample
	for _, r := range records {
		if r.allocs == 0 && r.frees == 0 {
			continue
		}
		entry := heapState[keyOf(r.stack, r.size)]
		if entry.alloc == 0 && entry.inUse == 0 {
			continue
		}
		d := entry.alloc - entry.before
		if d < 0 {
			continue
		}
		entry.before = entry.alloc
		v0, v1 := scaleHeap(d, d*r.size, rate)
		v2, v3 := scaleHeap(entry.inUse, entry.inUse*r.size, rate)
		entry.alloc, entry.inUse = 0, 0
		if v0 == 0 && v1 == 0 && v2 == 0 && v3 == 0 {
			continue
		}
		frames := framesOf(withoutRuntimeLeaf(r.stack))
		if len(frames) == 0 {
			frames = framesOf(r.stack)
		}
		samples = append(samples, sample{[]int64{v0, v1, v2, v3}, r.size, frames})
	}
	return samples
}

type countEntry struct {
	count, cycles   int64
	countBefore, ns int64
}

type countStateOf struct {
	read    func() []countRecord
	factor  func() int64 // what the values are multiplied with when they are reported
	entries map[string]*countEntry
}

func one() int64 { return 1 }

var blockState = countStateOf{blockRecords, one, map[string]*countEntry{}}
var mutexState = countStateOf{mutexRecords, mutexFactor, map[string]*countEntry{}}

func countDelta(state *countStateOf) []sample {
	records := state.read()
	sort.Slice(records, func(i, j int) bool { return records[i].cycles > records[j].cycles })
	ticksPerNs := float64(ticksPerSecond()) / 1e9
	for _, r := range records {
		key := keyOf(r.stack, 0)
		entry := state.entries[key]
		if entry == nil {
			entry = &countEntry{}
			state.entries[key] = entry
		}
		entry.count += r.count
		entry.cycles += r.cycles
	}
	var samples []sample
	for _, r := range records {
		entry := state.entries[keyOf(r.stack, 0)]
		if entry.count == 0 && entry.cycles == 0 {
			continue
		}
		count := entry.count * state.factor()
		ns := int64(float64(entry.cycles) / ticksPerNs * float64(state.factor()))
		v0, v1 := count-entry.countBefore, ns-entry.ns
		entry.countBefore, entry.ns = count, ns
		entry.count, entry.cycles = 0, 0
		if v0 < 0 || v1 < 0 || v0 == 0 && v1 == 0 {
			continue
		}
		samples = append(samples, sample{[]int64{v0, v1}, 0, framesOf(expanded(r.stack))})
	}
	return samples
}

func writeSamples(path string, samples []sample) {
	file, err := os.Create(path)
	fail(err)
	w := bufio.NewWriter(file)
	for _, s := range samples {
		fmt.Fprintf(w, "%s\t%d\t%s\n", strings.Trim(fmt.Sprint(s.values), "[]"), s.size,
			strings.Join(s.frames, "\t"))
	}
	fail(w.Flush())
	fail(file.Close())
}
