// SPDX-License-Identifier: MIT

// names: what a Go program's runtime itself says of its stacks, for a test to compare with.
//
//	names LISTING HEAP BLOCK MUTEX
//
// writes to LISTING, one a line: "main PC", where main.main begins; then stacks: "stack KIND",
// "pc PC" for each return address as it was recorded, "frame PC LINE START FILE|FUNCTION" for each
// frame that runtime.CallersFrames makes of them (PC is in the call; START 0 before Go 1.20), "end".
// KIND is callers, heap, block or mutex. To the other files it writes runtime/pprof's profiles.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"runtime/pprof"
	"sort"
	"strings"
	"sync"
	"time"
)

var (
	out    *bufio.Writer
	kept   [][]byte
	number = 1
	_      = everything()
)

// Called before main.init: every allocation is a sample.
func everything() int {
	runtime.MemProfileRate = 1
	return 1
}

func list(kind string, pcs []uintptr) {
	if len(pcs) == 0 {
		return
	}
	fmt.Fprintf(out, "stack %s\n", kind)
	for _, pc := range pcs {
		fmt.Fprintf(out, "pc %#x\n", pc)
	}
	frames := runtime.CallersFrames(pcs)
	for {
		frame, more := frames.Next()
		fmt.Fprintf(out, "frame %#x %d %d %s|%s\n", frame.PC, frame.Line, startLine(&frame),
			frame.File, fullName(&frame))
		if !more {
			break
		}
	}
	fmt.Fprintln(out, "end")
}

func here() int {
	pcs := make([]uintptr, 64)
	for skip := 0; skip < 6; skip++ {
		list("callers", pcs[:runtime.Callers(skip, pcs)])
		list("callers", pcs[:runtime.Callers(skip, pcs[:5])])
	}
	kept = append(kept, make([]byte, 100+number))
	number++
	return number
}

// Inlined five deep.
func one() int   { return here() + 1 }
func two() int   { return one() + 1 }
func three() int { return two() + 1 }
func four() int  { return three() + 1 }
func five() int  { return four() + 1 }

//go:noinline
func deep() int { return five() + five() }

type walker interface{ walk() int }

type inner struct{ n int }

func (i *inner) walk() int { return here() + i.n }
func (i inner) hop() int   { return here() + i.n }

//go:noinline
func (i inner) jump() int { return here() + i.n }

// Its methods are wrappers.
type outer struct {
	padding int
	*inner
}

type byValue struct{ inner }

type hopper interface {
	hop() int
	jump() int
}

type number2 interface{ ~int | ~float64 | ~string }

func apply[T number2](v T, f func(T) int) int { return f(v) + 1 }

//go:noinline
func applyOften[K comparable, V any](m map[K]V, f func(K, V) int) int {
	sum := 0
	for k, v := range m {
		sum += f(k, v)
	}
	return sum
}

type stackOf[T any] struct{ items []T }

func (s *stackOf[T]) push(v T) int {
	s.items = append(s.items, v)
	return here()
}

//go:noinline
func (s *stackOf[T]) each(f func(T) int) int {
	sum := 0
	for _, v := range s.items {
		sum += f(v)
	}
	return sum
}

func closures() int {
	n := 0
	add := func(m int) func() int {
		return func() int {
			n += m
			return here() + func() int { return one() }()
		}
	}
	return add(1)() + add(2)()
}

func deferred() (n int) {
	defer func() {
		n += here()
		_ = recover()
		n += two()
	}()
	defer here()
	var w walker
	if number > 0 {
		return w.walk()
	}
	panic(errors.New("not reached"))
}

func panicking() (n int) {
	defer func() { _ = recover(); n = three() }()
	defer func() { n = four() }()
	panic("on purpose")
}

func index(a []int, i int) (n int) {
	defer func() { n = here(); _ = recover() }()
	return a[i]
}

// A wrapper that a panic comes out of is shown.
func wrapperPanics() (n int) {
	defer func() { n = here(); _ = recover() }()
	var p *byValue
	var h hopper = p
	return h.hop()
}

func sorted() int {
	a := []int{3, 1, 2}
	sort.Slice(a, func(i, j int) bool { here(); return a[i] < a[j] })
	return strings.IndexFunc("abc", func(r rune) bool { return here() < 0 })
}

func mapped() int {
	m := map[string][]byte{}
	for i := 0; i < 200; i++ {
		m[fmt.Sprint(i)] = make([]byte, 10)
	}
	return len(m)
}

func recursive(n int) int {
	if n == 0 {
		return here()
	}
	return recursive(n-1) + 1
}

func work() int {
	var once sync.Once
	var t sync.WaitGroup
	sum := deep() + closures() + deferred() + panicking() + index(nil, number) + sorted()
	sum += wrapperPanics() + mapped() + recursive(7)
	for _, w := range []walker{&inner{1}, outer{2, &inner{3}}, &outer{4, &inner{5}}, &byValue{}} {
		sum += w.walk()
	}
	for _, h := range []hopper{inner{1}, &inner{2}, &byValue{}, outer{1, &inner{3}}} {
		f := h.hop
		sum += h.hop() + f() + h.jump()
	}
	sum += apply(1, func(int) int { return here() }) + apply("a", func(string) int { return five() })
	sum += applyOften(map[string]int{"a": 1}, func(string, int) int { return one() })
	sum += applyOften(map[inner]walker{{1}: &inner{1}}, func(i inner, w walker) int { return w.walk() + i.hop() })
	ints, texts := &stackOf[int]{}, &stackOf[map[string]int]{}
	sum += ints.push(1) + texts.push(nil)
	sum += ints.each(func(int) int { return two() }) + texts.each(func(map[string]int) int { return here() })
	once.Do(func() { sum += here() })
	t.Add(1)
	go func() { defer t.Done(); deep() }()
	t.Wait()
	done := make(chan int)
	go func(w walker) { done <- w.walk() }(outer{1, &inner{1}})
	sum += <-done
	time.AfterFunc(0, func() { done <- deep() })
	return sum + <-done + throughC(5)
}

func lockIt(m *sync.Mutex)    { m.Lock() }
func freeIt(m *sync.Mutex)    { m.Unlock() }
func waitFor(c chan int) int  { return <-c }
func waitMore(c chan int) int { return waitFor(c) + 1 }

type locker struct{ sync.Mutex }
type receiver interface{ receive() int }
type channel struct{ c chan int }
type wrapped struct {
	padding int
	*channel
}

//go:noinline
func (c *channel) receive() int { return waitMore(c.c) }

// Both waits and frees happen in inlined calls, below wrappers.
func contend(n int) {
	var m sync.Mutex
	var t sync.WaitGroup
	var l sync.Locker = &locker{}
	c, never := make(chan int), make(chan int)
	var w receiver = wrapped{1, &channel{c}}

	for i := 0; i < n; i++ {
		t.Add(2)
		go func() {
			defer t.Done()
			lockIt(&m)
			time.Sleep(time.Millisecond)
			freeIt(&m)
			l.Lock()
			time.Sleep(time.Millisecond)
			l.Unlock()
		}()
		go func() {
			defer t.Done()
			w.receive()
			select {
			case <-c:
			case <-never:
			}
		}()
		time.Sleep(time.Millisecond)
		c <- 1
	}
	for i := 0; i < n; i++ {
		c <- 1
	}
	t.Wait()
}

func writeProfile(name, path string) {
	file, err := os.Create(path)
	if err == nil {
		err = pprof.Lookup(name).WriteTo(file, 0)
		file.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: names LISTING HEAP BLOCK MUTEX")
		os.Exit(2)
	}
	file, err := os.Create(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	out = bufio.NewWriter(file)
	fmt.Fprintf(out, "main %#x\n", runtime.FuncForPC(reflect.ValueOf(main).Pointer()).Entry())
	runtime.SetBlockProfileRate(1)
	runtime.SetMutexProfileFraction(1)
	work()
	contend(4)
	runtime.SetBlockProfileRate(0)
	runtime.SetMutexProfileFraction(0)
	runtime.MemProfileRate = 0
	// Each P has one more sample before it: let there be one P, and have it over.
	runtime.GOMAXPROCS(1)
	for i := 0; i < 100; i++ {
		kept = append(kept, make([]byte, 1<<10))
	}
	runtime.GC()
	runtime.GC()
	writeProfile("heap", os.Args[2])
	writeProfile("block", os.Args[3])
	writeProfile("mutex", os.Args[4])
	listRecords()
	out.Flush()
	file.Close()
}
