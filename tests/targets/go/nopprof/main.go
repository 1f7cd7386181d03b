// SPDX-License-Identifier: MIT

// Nopprof: nothing in it reaches runtime.MemProfile, so the linker turns the heap profile off.
package main

import (
	"bufio"
	"os"
	"strconv"
)

var kept [][]byte

func main() {
	os.Stdout.WriteString("ready " + strconv.Itoa(os.Getpid()) + "\n")
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() && commands.Text() != "quit" {
		for i := 0; i < 1000; i++ {
			kept = append(kept, make([]byte, 10000))
		}
		os.Stdout.WriteString("{\"ok\": true}\n")
	}
}
