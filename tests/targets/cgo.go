// SPDX-License-Identifier: MIT

// cgo: a Go program that allocates in C, from goroutines whose stacks grow and move.
//
//	go N     N goroutines grow their stacks and allocate in C on the way, deep down, and on the way back
//	report   what was allocated in all
//	quit     exit
package main

/*
#include <stdlib.h>

static void *volatile kept;

__attribute__((noipa)) static void c_allocate(size_t n_bytes)
{
	void *p = malloc(n_bytes);

	*(volatile char *)p = 1;
	p = realloc(p, 2 * n_bytes);
	*(volatile char *)p = 2;
	free(p);
	p = calloc(3, n_bytes);
	kept = p;
	free(p);
	p = realloc(NULL, n_bytes);
	kept = p;
	free(p);
}

__attribute__((noipa)) static void c_enter(size_t n_bytes)
{
	c_allocate(n_bytes);
	__asm__ volatile("");
}
*/
import "C"

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	callsPerVisit = 4    // of allocation functions, in c_allocate
	maxDepth      = 2000 // frames of 512 bytes: a megabyte of stack
	visitEvery    = 500  // frames
	bytesPerVisit = 7    // in units of the size: n, 2n, 3n, n
)

var visits, bytes uint64

func visit(size uint64) {
	C.c_enter(C.size_t(size))
	atomic.AddUint64(&visits, 1)
	atomic.AddUint64(&bytes, bytesPerVisit*size)
}

// Every frame has a pointer into the one before: when the stack moves, all of them must move too.
//
//go:noinline
func grow(depth int, size uint64, above *[64]uint64) uint64 {
	var frame [64]uint64

	frame[depth%64] = above[(depth+1)%64] + 1
	if depth%visitEvery == 0 {
		visit(size)
	}
	if depth > 0 {
		frame[0] += grow(depth-1, size, &frame)
	}
	if depth%visitEvery == 0 {
		visit(size)
	}
	return frame[0] + above[depth%64] - above[depth%64] + 1
}

func run(n int) {
	var wait sync.WaitGroup
	var bad uint64

	for i := 0; i < n; i++ {
		wait.Add(1)
		go func(size uint64) {
			var top [64]uint64

			defer wait.Done()
			if grow(maxDepth, size, &top) < maxDepth {
				atomic.AddUint64(&bad, 1)
			}
		}(uint64(16 + i%64))
	}
	wait.Wait()
	if bad > 0 {
		fmt.Println(`{"error":"a stack is damaged"}`)
		os.Exit(2)
	}
}

func main() {
	input := bufio.NewScanner(os.Stdin)

	fmt.Println("ready", os.Getpid())
	for input.Scan() {
		command := input.Text()
		switch {
		case strings.HasPrefix(command, "go "):
			var n int

			fmt.Sscan(command[3:], &n)
			run(n)
			fmt.Printf("{\"done\":%d}\n", n)
		case command == "report":
			fmt.Printf("{\"calls\":%d,\"bytes\":%d}\n", callsPerVisit*visits, bytes)
		case command == "quit":
			os.Exit(0)
		}
	}
}
