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
var large []byte

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
		// Up to Go 1.23 each processor goes on to its next sample, chosen at the rate before: there is
		// one for a moment, an object that is surely sampled makes it choose anew, the others are new.
		n := runtime.GOMAXPROCS(1)
		large = make([]byte, 64<<20)
		large = nil
		runtime.GOMAXPROCS(n)
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
