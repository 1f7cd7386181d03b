// SPDX-License-Identifier: MIT

package main

import (
	"sync"
	"time"
)

const shortly = 300 * time.Microsecond

func inlinedReceive(c chan int) int { return <-c }

//go:noinline
func receives() {
	c := make(chan int)
	go func() {
		time.Sleep(shortly)
		c <- 1
	}()
	inlinedReceive(c)
}

//go:noinline
func sends() {
	c := make(chan int)
	go func() {
		time.Sleep(shortly)
		<-c
	}()
	c <- 1
}

//go:noinline
func closes() {
	c := make(chan int)
	go func() {
		time.Sleep(shortly)
		close(c)
	}()
	for range c {
	}
}

//go:noinline
func selects() {
	a, b := make(chan int), make(chan int)
	go func() {
		time.Sleep(shortly)
		b <- 1
	}()
	select {
	case <-a:
	case <-b:
	}
}

type guarded struct {
	mu sync.Mutex
	n  int
}

func (g *guarded) add() {
	g.mu.Lock()
	g.n++
	g.mu.Unlock()
}

//go:noinline
func locks() {
	var g guarded
	var group sync.WaitGroup
	group.Add(1)
	g.mu.Lock()
	go func() {
		defer group.Done()
		g.add()
	}()
	time.Sleep(shortly)
	g.mu.Unlock()
	group.Wait()
}

//go:noinline
func readsLocked() {
	var mu sync.RWMutex
	done := make(chan int)
	mu.Lock()
	go func() {
		mu.RLock()
		mu.RUnlock()
		done <- 1
	}()
	time.Sleep(shortly)
	mu.Unlock()
	<-done
}

//go:noinline
func writesLocked() {
	var mu sync.RWMutex
	done := make(chan int)
	mu.RLock()
	go func() {
		mu.Lock()
		mu.Unlock()
		done <- 1
	}()
	time.Sleep(shortly)
	mu.RUnlock()
	<-done
}

//go:noinline
func waitsForCondition() {
	var mu sync.Mutex
	cond := sync.NewCond(&mu)
	ready := false
	go func() {
		time.Sleep(shortly)
		mu.Lock()
		ready = true
		cond.Broadcast()
		mu.Unlock()
	}()
	mu.Lock()
	for !ready {
		cond.Wait()
	}
	mu.Unlock()
}

//go:noinline
func waitsForGroup() {
	var group sync.WaitGroup
	for i := 0; i < 3; i++ {
		group.Add(1)
		go func() {
			time.Sleep(shortly)
			group.Done()
		}()
	}
	group.Wait()
}

// The slow path of a lock, through frames that are not the leaf's own and inlined.
func viaInline(mu *sync.Mutex) {
	mu.Lock()
	mu.Unlock()
}

//go:noinline
func waitForAll(n int) {
	for i := 0; i < n; i++ {
		receives()
		sends()
		closes()
		selects()
		locks()
		readsLocked()
		writesLocked()
		waitsForCondition()
		waitsForGroup()
	}
}

func contendWorker(mu *sync.Mutex, n int, hold time.Duration, group *sync.WaitGroup) {
	for i := 0; i < n; i++ {
		mu.Lock()
		time.Sleep(hold)
		mu.Unlock()
	}
	group.Done()
}

//go:noinline
func contend(workers, n int, hold time.Duration) {
	var mu sync.Mutex
	var group sync.WaitGroup
	group.Add(workers)
	for i := 0; i < workers; i++ {
		go contendWorker(&mu, n, hold, &group)
	}
	group.Wait()
}

//go:noinline
func genericBlock[T any](mu *sync.Mutex, value T) T {
	mu.Lock()
	time.Sleep(2 * time.Millisecond)
	mu.Unlock()
	return value
}

// triggerGenericBlock: of the 20 acquisitions all but the first have to wait.
func triggerGenericBlock[T any]() {
	var mu sync.Mutex
	var group sync.WaitGroup
	group.Add(10)
	for i := 0; i < 10; i++ {
		go func() {
			var value T
			for j := 0; j < 2; j++ {
				value = genericBlock(&mu, value)
			}
			group.Done()
		}()
	}
	group.Wait()
}
