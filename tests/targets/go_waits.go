// SPDX-License-Identifier: MIT

// A program whose goroutines wait in every way that Go's block and mutex profiles know, and that
// tells what these say of it. Commands come as lines: "run N", "park N" (so many goroutines wait,
// until "wake"), "grow N", "dump", "sym" and what is to be named; each is answered up to a line
// "done".
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func spin(d time.Duration) {
	for begin := time.Now(); time.Since(begin) < d; {
	}
}

func pingPong(n int) {
	ping, pong := make(chan int), make(chan int)
	go func() {
		for v := range ping {
			pong <- v
		}
		close(pong)
	}()
	for i := 0; i < n; i++ {
		ping <- i
		<-pong
	}
	close(ping)
	<-pong
}

func buffered(n int) {
	c, done := make(chan int, 4), make(chan bool)
	for i := 0; i < 3; i++ {
		go func() {
			for {
				if _, ok := <-c; !ok {
					done <- true
					return
				}
				spin(5 * time.Microsecond)
			}
		}()
	}
	for i := 0; i < n; i++ {
		c <- i
	}
	close(c)
	for i := 0; i < 3; i++ {
		<-done
	}
}

func selects(n int) {
	a, b, stop := make(chan int), make(chan int), make(chan bool)
	done := make(chan bool)
	go func() {
		for {
			select {
			case <-a:
			case <-b:
			case <-stop:
				done <- true
				return
			}
		}
	}()
	for i := 0; i < n; i++ {
		if i%2 == 0 {
			a <- i
		} else {
			b <- i
		}
		spin(10 * time.Microsecond)
	}
	close(stop)
	<-done
}

//go:noinline
func locked(m *sync.Mutex, d time.Duration) {
	m.Lock()
	spin(d)
	m.Unlock()
}

func mutexes(n int) {
	var m sync.Mutex
	var group sync.WaitGroup
	for i := 0; i < 6; i++ {
		group.Add(1)
		go func() {
			for i := 0; i < n; i++ {
				locked(&m, 50*time.Microsecond)
			}
			group.Done()
		}()
	}
	group.Wait()
}

//go:noinline
func reading(m *sync.RWMutex) {
	m.RLock()
	spin(20 * time.Microsecond)
	m.RUnlock()
}

//go:noinline
func writing(m *sync.RWMutex) {
	m.Lock()
	spin(50 * time.Microsecond)
	m.Unlock()
}

func rwMutexes(n int) {
	var m sync.RWMutex
	var group sync.WaitGroup
	for i := 0; i < 6; i++ {
		group.Add(1)
		go func(i int) {
			for j := 0; j < n; j++ {
				if i < 2 {
					writing(&m)
				} else {
					reading(&m)
				}
			}
			group.Done()
		}(i)
	}
	group.Wait()
}

func conds(n int) {
	var m sync.Mutex
	var group sync.WaitGroup
	c, turn, waiting := sync.NewCond(&m), 0, 0
	for i := 0; i < 3; i++ {
		group.Add(1)
		go func() {
			m.Lock()
			for mine := 0; mine < n; mine++ {
				waiting++
				for turn <= mine {
					c.Wait()
				}
			}
			m.Unlock()
			group.Done()
		}()
	}
	for i := 0; i < n; {
		m.Lock()
		if waiting == 3*(i+1) {
			turn++
			i++
			c.Broadcast()
		}
		m.Unlock()
		runtime.Gosched()
	}
	group.Wait()
}

func groups(n int) {
	for i := 0; i < n; i++ {
		var group sync.WaitGroup
		group.Add(2)
		for j := 0; j < 2; j++ {
			go func() {
				spin(30 * time.Microsecond)
				group.Done()
			}()
		}
		group.Wait()
	}
}

var sink byte

//go:noinline
func deeper(n int, c chan int) {
	var room [96]byte
	if n > 0 {
		deeper(n-1, c)
	} else {
		<-c
	}
	sink += room[n&63]
}

// Goroutines of small stacks that park at each depth, so that many grow in gopark.
func grow(n int) {
	for i := 0; i < n; i++ {
		c, begun := make(chan int), make(chan bool)
		go func(i int) {
			begun <- true
			deeper(i%64, c)
			begun <- true
		}(i)
		<-begun
		time.Sleep(20 * time.Microsecond)
		c <- 1
		<-begun
	}
}

func names(pcs []uintptr) string {
	var out []string
	frames := runtime.CallersFrames(pcs)
	for {
		frame, more := frames.Next()
		if frame.Function != "runtime.goexit" && frame.Function != "" {
			out = append(out, fmt.Sprintf("%s:%d", frame.Function, frame.Line))
		}
		if !more {
			break
		}
	}
	return strings.Join(out, ";")
}

func ticksPerNs() float64 {
	var text bytes.Buffer
	pprof.Lookup("mutex").WriteTo(&text, 1)
	i := strings.Index(text.String(), "cycles/second=")
	var perSecond float64
	fmt.Sscanf(text.String()[i:], "cycles/second=%f", &perSecond)
	return perSecond / 1e9
}

func dump() {
	records := make([]runtime.BlockProfileRecord, 65536)
	perNs := ticksPerNs()
	for kind, profile := range map[string]func([]runtime.BlockProfileRecord) (int, bool){
		"block": runtime.BlockProfile, "mutex": runtime.MutexProfile} {
		n, _ := profile(records)
		for _, r := range records[:n] {
			fmt.Printf("%s %d %d %s\n", kind, r.Count, int64(float64(r.Cycles)/perNs),
				names(r.Stack()))
		}
	}
}

func sym(words []string) {
	var pcs []uintptr
	for _, word := range words[3:] {
		pc, _ := strconv.ParseUint(word, 16, 64)
		pcs = append(pcs, uintptr(pc))
	}
	fmt.Println(words[0], words[1], words[2], names(pcs))
}

var parked chan bool
var parkedGroup sync.WaitGroup

func park(n int) {
	parked = make(chan bool)
	for i := 0; i < n; i++ {
		parkedGroup.Add(1)
		go func() {
			<-parked
			parkedGroup.Done()
		}()
	}
}

func cpuNs() int64 {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return usage.Utime.Nano() + usage.Stime.Nano()
}

// Wall-clock and processor time of a round trip.
func timed(n int) {
	begin, cpu := time.Now(), cpuNs()
	pingPong(n)
	fmt.Println("ns", int64(time.Since(begin))/int64(n), (cpuNs()-cpu)/int64(n))
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "on" {
		runtime.SetBlockProfileRate(1)
		runtime.SetMutexProfileFraction(1)
	}
	fmt.Println("ready", os.Getpid())
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		n := 0
		if len(words) > 1 {
			n, _ = strconv.Atoi(words[1])
		}
		switch words[0] {
		case "run":
			pingPong(10 * n)
			buffered(10 * n)
			selects(10 * n)
			mutexes(n)
			rwMutexes(n)
			conds(n)
			groups(n)
		case "grow":
			grow(n)
		case "park":
			park(n)
		case "wake":
			close(parked)
			parkedGroup.Wait()
		case "time":
			timed(n)
		case "dump":
			dump()
		case "sym":
			sym(words[1:])
		}
		fmt.Println("done")
	}
}
