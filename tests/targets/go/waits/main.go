// SPDX-License-Identifier: MIT

// Waits: goroutines that wait for known times in known functions. The waiting side notes when it begins,
// the waking side when it wakes: the time between is what the runtime's block profile, and for mutexes its
// mutex profile, is about. It has no part in which the woken goroutine only waits to run.
//
// Commands, one a line; each is answered with one line of JSON:
//
//	run N           N rounds of every scene; what each came to since the start, by the function that
//	                waits (block) and the one that unlocks (mutex): {"block": {"main.f": [COUNT, NS]}, …}
//	rates HEAP BLOCK MUTEX, dump PREFIX, quit   as of profiles
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

type figure [2]int64

var blocked, unlocked = map[string]*figure{}, map[string]*figure{}

func note(where map[string]*figure, function string, ns int64) {
	f := where["main."+function]
	if f == nil {
		f = &figure{}
		where["main."+function] = f
	}
	f[0]++
	f[1] += ns
}

var start = time.Now()

func now() int64 { return int64(time.Since(start)) }

var hold time.Duration

// A scene's waiting side calls begin right before it waits. The other side calls letWait, which returns
// when that has gone on for the hold, and right after it wakes.
type turn struct{ began int64 }

func (t *turn) begin() { atomic.StoreInt64(&t.began, now()) }

func (t *turn) letWait() int64 {
	for atomic.LoadInt64(&t.began) == 0 {
		time.Sleep(50 * time.Microsecond)
	}
	time.Sleep(hold)
	return now() - atomic.LoadInt64(&t.began)
}

//go:noinline
func waitReceive(t *turn, c chan int) {
	t.begin()
	<-c
}

//go:noinline
func waitReceiveOk(t *turn, c chan int) {
	t.begin()
	_, ok := <-c
	_ = ok
}

//go:noinline
func waitSend(t *turn, c chan int) {
	t.begin()
	c <- 1
}

//go:noinline
func waitSelect(t *turn, a, b chan int) {
	t.begin()
	select {
	case <-a:
	case <-b:
	}
}

//go:noinline
func waitClosed(t *turn, c chan int) {
	t.begin()
	<-c
}

//go:noinline
func waitMutex(t *turn, mu *sync.Mutex) {
	t.begin()
	mu.Lock()
	mu.Unlock()
}

//go:noinline
func wakeMutex(mu *sync.Mutex) { mu.Unlock() }

//go:noinline
func waitReader(t *turn, mu *sync.RWMutex) {
	t.begin()
	mu.RLock()
	mu.RUnlock()
}

//go:noinline
func wakeReader(mu *sync.RWMutex) { mu.Unlock() }

//go:noinline
func waitWriter(t *turn, mu *sync.RWMutex) {
	t.begin()
	mu.Lock()
	mu.Unlock()
}

//go:noinline
func wakeWriter(mu *sync.RWMutex) { mu.RUnlock() }

//go:noinline
func waitCondition(t *turn, cond *sync.Cond) {
	cond.L.Lock()
	t.begin()
	cond.Wait()
	cond.L.Unlock()
}

//go:noinline
func waitGroup(t *turn, group *sync.WaitGroup) {
	t.begin()
	group.Wait()
}

// scene runs the waiting side in a goroutine and wakes it.
func scene(wait func(*turn), wake func()) int64 {
	var t turn
	var done int32
	go func() {
		wait(&t)
		atomic.StoreInt32(&done, 1)
	}()
	ns := t.letWait()
	wake()
	for atomic.LoadInt32(&done) == 0 {
		time.Sleep(20 * time.Microsecond)
	}
	return ns
}

func round() {
	c, other := make(chan int), make(chan int)
	note(blocked, "waitReceive", scene(func(t *turn) { waitReceive(t, c) }, func() { c <- 1 }))
	note(blocked, "waitReceiveOk", scene(func(t *turn) { waitReceiveOk(t, c) }, func() { c <- 1 }))
	note(blocked, "waitSend", scene(func(t *turn) { waitSend(t, c) }, func() { <-c }))
	note(blocked, "waitSelect", scene(func(t *turn) { waitSelect(t, c, other) }, func() { other <- 1 }))
	note(blocked, "waitClosed", scene(func(t *turn) { waitClosed(t, c) }, func() { close(c) }))

	var mu sync.Mutex
	mu.Lock()
	ns := scene(func(t *turn) { waitMutex(t, &mu) }, func() { wakeMutex(&mu) })
	note(blocked, "waitMutex", ns)
	note(unlocked, "wakeMutex", ns)

	var rw sync.RWMutex
	rw.Lock()
	ns = scene(func(t *turn) { waitReader(t, &rw) }, func() { wakeReader(&rw) })
	note(blocked, "waitReader", ns)
	note(unlocked, "wakeReader", ns)
	rw.RLock()
	ns = scene(func(t *turn) { waitWriter(t, &rw) }, func() { wakeWriter(&rw) })
	note(blocked, "waitWriter", ns)
	note(unlocked, "wakeWriter", ns)

	cond := sync.NewCond(&sync.Mutex{})
	note(blocked, "waitCondition", scene(func(t *turn) { waitCondition(t, cond) }, func() {
		cond.L.Lock()
		cond.Signal()
		cond.L.Unlock()
	}))
	var group sync.WaitGroup
	group.Add(1)
	note(blocked, "waitGroup", scene(func(t *turn) { waitGroup(t, &group) }, group.Done))
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	fail(err)
	return n
}

func main() {
	block := flag.Int("block-rate", -1, "runtime.SetBlockProfileRate's argument")
	mutex := flag.Int("mutex-fraction", -1, "runtime.SetMutexProfileFraction's argument")
	holdUs := flag.Int("hold", 5000, "how long the scenes wait, in microseconds")
	flag.Parse()
	hold = time.Duration(*holdUs) * time.Microsecond
	debug.SetGCPercent(-1)
	setRates(-1, *block, *mutex)
	time.Sleep(10 * time.Millisecond)
	ticksPerSecond()
	runtime.GC()
	fmt.Println("ready", os.Getpid())
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		words := strings.Fields(commands.Text())
		switch words[0] {
		case "run":
			for i := number(words[1]); i > 0; i-- {
				round()
			}
			answer(map[string]interface{}{"block": blocked, "mutex": unlocked})
		case "rates":
			setRates(number(words[1]), number(words[2]), number(words[3]))
			answer(map[string]bool{"ok": true})
		case "dump":
			dump(words[1], false)
			answer(map[string]bool{"ok": true})
		case "quit":
			return
		}
	}
}
