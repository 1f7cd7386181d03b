// SPDX-License-Identifier: MIT

// Profiles: allocates and waits in known ways, and says what its own runtime has recorded of it.
//
// Commands, one a line; each is answered with one line of JSON:
//
//	alloc SITE N SIZE    N objects of SIZE bytes, kept, made at SITE (sites.go)
//	free SITE N          forgets the N oldest that SITE made
//	work N               N rounds of everything that allocates (sites.go)
//	drop                 forgets what work has kept
//	wait N               N rounds of everything that blocks (blocking.go)
//	contend W N US       W goroutines take one mutex N times each and hold it for US microseconds
//	genericblock         10 goroutines, 2 contended turns each, in generic functions
//	rates HEAP BLOCK MUTEX   sets runtime.MemProfileRate and the other two, -1: as it is
//	quiet                two collections: all that was done is in the profiles
//	dump PREFIX          quiet, then PREFIX.heap.txt and so on: what godeltaprof would write now (delta.go;
//	                     the first holds all since the start); with "full" behind it also
//	                     PREFIX.heap.pb.gz and so on by runtime/pprof; PREFIX "-": no files
//	exec PATH ARG...     becomes another program
//	quit
//
// The collector runs only when a command says so. Between two of its runs nothing that the heap profile
// shows changes: what happens while a dump is written, and what the dump itself allocates, shows up after
// the next one, in the next dump as in anybody else's profile. So nothing has to be left out.
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
	"syscall"
	"time"
)

func number(s string) int {
	n, err := strconv.Atoi(s)
	fail(err)
	return n
}

func do(words []string) bool {
	result := map[string]interface{}{"ok": true}
	switch words[0] {
	case "alloc":
		allocAt(words[1], number(words[2]), number(words[3]))
	case "free":
		freeAt(words[1], number(words[2]))
	case "work":
		work(number(words[1]))
	case "drop":
		dropWork()
	case "wait":
		waitForAll(number(words[1]))
	case "contend":
		contend(number(words[1]), number(words[2]), time.Duration(number(words[3]))*time.Microsecond)
	case "genericblock":
		triggerGenericBlock[int]()
	case "rates":
		setRates(number(words[1]), number(words[2]), number(words[3]))
	case "quiet":
		quiet()
	case "dump":
		dump(words[1], len(words) > 2 && words[2] == "full")
		result["rate"] = runtime.MemProfileRate
	case "exec":
		fail(syscall.Exec(words[1], words[1:], os.Environ()))
	case "quit":
		return false
	default:
		result["error"] = "no such command: " + words[0]
	}
	answer(result)
	return true
}

func main() {
	heap := flag.Int("heap-rate", -1, "runtime.MemProfileRate")
	block := flag.Int("block-rate", -1, "runtime.SetBlockProfileRate's argument")
	mutex := flag.Int("mutex-fraction", -1, "runtime.SetMutexProfileFraction's argument")
	flag.Parse()
	debug.SetGCPercent(-1)
	setRates(*heap, *block, *mutex)
	// From here on the ticks have their length, which whoever looks from outside can read.
	time.Sleep(10 * time.Millisecond)
	ticksPerSecond()
	fmt.Println("ready", os.Getpid())
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		words := strings.Fields(commands.Text())
		if len(words) > 0 && !do(words) {
			break
		}
	}
}
