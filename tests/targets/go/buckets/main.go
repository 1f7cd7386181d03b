// SPDX-License-Identifier: MIT

// A program whose runtime's profile buckets are read from outside. It obeys commands of one byte on
// its standard input, answers each with a line, and prints its own profile's records as they are:
// the stacks' raw addresses and the counters.
package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

func setting(name string, otherwise int) int {
	value, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		return otherwise
	}
	return value
}

var rates = func() bool {
	runtime.MemProfileRate = setting("BUCKETS_RATE", runtime.MemProfileRate)
	runtime.SetBlockProfileRate(setting("BUCKETS_BLOCK", 1))
	runtime.SetMutexProfileFraction(setting("BUCKETS_MUTEX", 1))
	return true
}()


const maxRecords = 1 << 17

var (
	kept    [8][][]byte
	out     = make([]byte, 0, 1<<16)
	working int32
	workers sync.WaitGroup
	mutex   sync.Mutex
)

func flush() {
	os.Stdout.Write(out)
	out = out[:0]
}

func number(value uint64, base int) {
	out = append(out, ' ')
	out = strconv.AppendUint(out, value, base)
}

func line(kind string, a, b, c int64, stack []uintptr) {
	if len(out) > cap(out)-1<<15 {
		flush()
	}
	out = append(out, kind...)
	number(uint64(a), 10)
	number(uint64(b), 10)
	number(uint64(c), 10)
	for _, pc := range stack {
		number(uint64(pc), 16)
	}
	out = append(out, '\n')
}

//go:noinline
func allocate(n int) []byte { return make([]byte, n) }

// Every path through its two calls is a stack of its own.
//
//go:noinline
func paths(depth int, path uint, n int) []byte {
	if depth == 0 {
		return allocate(n)
	}
	if path&1 != 0 {
		return paths(depth-1, path>>1, n)
	}
	return paths(depth-1, path>>1, n)
}

func allocations(worker int, n int) {
	for i := 0; i < n; i++ {
		b := paths(6, uint(i), 16<<(uint(i)%8)+worker*2048)
		if i%3 == 0 {
			kept[worker] = append(kept[worker], b)
		}
	}
	if len(kept[worker]) > 5000 {
		kept[worker] = nil
	}
}

func waits(c chan int) {
	mutex.Lock()
	time.Sleep(100 * time.Microsecond)
	mutex.Unlock()
	select {
	case c <- 1:
	case <-c:
	case <-time.After(time.Millisecond):
	}
}

func round() {
	c := make(chan int)
	for worker := 0; worker < 4; worker++ {
		workers.Add(1)
		go func(worker int) {
			defer workers.Done()
			allocations(worker, 20000)
			for i := 0; i < 20; i++ {
				waits(c)
			}
		}(worker)
	}
	workers.Wait()
}

func stress() {
	atomic.StoreInt32(&working, 1)
	for worker := 0; worker < 4; worker++ {
		workers.Add(1)
		go func(worker int) {
			defer workers.Done()
			for atomic.LoadInt32(&working) != 0 {
				allocations(worker, 1000)
			}
		}(worker)
	}
	workers.Add(1)
	go func() {
		defer workers.Done()
		for i := 0; atomic.LoadInt32(&working) != 0; i++ {
			time.Sleep(50 * time.Millisecond)
			countRecords()
			if i%8 == 7 {
				runtime.GC()
			}
		}
	}()
}

func command(c byte) {
	switch c {
	case 'w':
		round()
	case 'g':
		runtime.GC()
	case 'q': // no more collections of its own accord
		debug.SetGCPercent(-1)
	case 'm':
		for i := uint(0); i < 60000; i++ {
			paths(16, i, 64)
		}
	case 's':
		stress()
	case 'S':
		atomic.StoreInt32(&working, 0)
		workers.Wait()
		runtime.GC()
	case 'd':
		dump()
	}
	out = append(out, "end\n"...)
	flush()
}

func main() {
	in := make([]byte, 1)
	if !rates {
		return
	}
	out = append(out, "ready\n"...)
	flush()
	for {
		n, err := os.Stdin.Read(in)
		if err != nil {
			return
		}
		if n == 1 && in[0] > ' ' {
			command(in[0])
		}
	}
}
