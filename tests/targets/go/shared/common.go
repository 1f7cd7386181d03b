// SPDX-License-Identifier: MIT

// What the programs share: shared/*.go is compiled into each.

package main

import (
	"encoding/json"
	"os"
	"runtime"
	"runtime/pprof"
)

var usesC = false

func fail(err error) {
	if err != nil {
		answer(map[string]string{"error": err.Error()})
		os.Exit(1)
	}
}

func answer(what interface{}) {
	line, err := json.Marshal(what)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(line, '\n'))
}

func quiet() {
	runtime.GC()
	runtime.GC()
}

func setRates(heap, block, mutex int) {
	if heap >= 0 {
		runtime.MemProfileRate = heap
	}
	if block >= 0 {
		runtime.SetBlockProfileRate(block)
	}
	if mutex >= 0 {
		runtime.SetMutexProfileFraction(mutex)
	}
}

func dump(prefix string, full bool) {
	quiet()
	if full {
		for _, name := range []string{"heap", "block", "mutex"} {
			file, err := os.Create(prefix + "." + name + ".pb.gz")
			fail(err)
			fail(pprof.Lookup(name).WriteTo(file, 0))
			fail(file.Close())
		}
	}
	heap, block, mutex := heapDelta(), countDelta(&blockState), countDelta(&mutexState)
	if prefix != "-" {
		writeSamples(prefix+".heap.txt", heap)
		writeSamples(prefix+".block.txt", block)
		writeSamples(prefix+".mutex.txt", mutex)
	}
}
