// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"strings"
)

var kept = map[string][]interface{}{}

// Sites that are told how many objects of which size they are to make.

//go:noinline
func siteA(size int) interface{} { return make([]byte, size) }

//go:noinline
func siteB(size int) interface{} { return make([]byte, size) }

//go:noinline
func siteDeep(depth, size int) interface{} {
	if depth > 1 {
		return siteDeep(depth-1, size)
	}
	return make([]byte, size)
}

// Three calls that are inlined into one.
func chainLeaf(size int) []byte   { return make([]byte, size) }
func chainMiddle(size int) []byte { return chainLeaf(size) }
func chainTop(size int) []byte    { return chainMiddle(size) }

//go:noinline
func siteChain(size int) interface{} { return chainTop(size) }

func genericLeaf[T any](n int) []T   { return make([]T, n) }
func genericMiddle[T any](n int) []T { return genericLeaf[T](n) }
func genericTop[T any](n int) []T    { return genericMiddle[T](n) }

//go:noinline
func siteGenericChain(size int) interface{} { return genericTop[uint64](size / 8) }

//go:noinline
func genericAlloc[T any](n int) []T { return make([]T, n) }

// Instances whose printed names are the same, but not their shapes.
func siteHash32(size int) interface{} { return genericAlloc[uint32](size / 4) }
func siteHash64(size int) interface{} { return genericAlloc[uint64](size / 8) }

var sites = map[string]func(int) interface{}{
	"a": siteA, "b": siteB, "chain": siteChain, "genericchain": siteGenericChain,
	"hash32": siteHash32, "hash64": siteHash64,
	"deep64":  func(size int) interface{} { return siteDeep(64, size) },
	"deep200": func(size int) interface{} { return siteDeep(200, size) },
}

func allocAt(name string, n, size int) {
	site := sites[name]
	if site == nil {
		fail(fmt.Errorf("no such site: %s", name))
	}
	for i := 0; i < n; i++ {
		kept[name] = append(kept[name], site(size))
	}
}

func freeAt(name string, n int) {
	for i := 0; i < n; i++ {
		kept[name][i] = nil
	}
	kept[name] = kept[name][n:]
}

// Everything that allocates.

type shape struct {
	name string
	next *shape
	pad  [24]int64
}

func (s *shape) grow() *shape { return &shape{next: s, name: "grown"} }
func (s shape) copied() *shape {
	s.name = "copied"
	return &s
}

// Called through the interface, copied has a wrapper that the compiler made.
type copier interface{ copied() *shape }

type pair[K comparable, V any] struct {
	key   K
	value V
	more  *pair[K, V]
}

//go:noinline
func (p *pair[K, V]) push(key K, value V) *pair[K, V] { return &pair[K, V]{key, value, p} }

var workKept []interface{}

func keep(i int, what interface{}) {
	if i%3 == 0 {
		workKept = append(workKept, what)
	}
}

//go:noinline
func growMap(n int) map[int]*[4]int {
	m := map[int]*[4]int{}
	for i := 0; i < n; i++ {
		m[i] = nil
	}
	return m
}

//go:noinline
func growStringMap(n int) map[string]int {
	m := make(map[string]int)
	for i := 0; i < n; i++ {
		m[strings.Repeat("k", i%50+1)] = i
	}
	return m
}

//go:noinline
func growSlice(n int) []int {
	var s []int
	for i := 0; i < n; i++ {
		s = append(s, i)
	}
	return s
}

//go:noinline
func concat(a, b string) string { return a + b + a }

//go:noinline
func closure(n int) func() []byte { return func() []byte { return make([]byte, n) } }

//go:noinline
func manySizes(i int) []byte { return make([]byte, 16<<(uint(i)%10)) }

//go:noinline
func deferred(i int) (made []byte) {
	defer func() { made = make([]byte, 200) }()
	return nil
}

//go:noinline
func panics(i int) (made interface{}) {
	defer func() { made = fmt.Sprint(recover(), i) }()
	var none *shape
	return none.next.name
}

//go:noinline
func work(n int) {
	var c copier = shape{}
	for i := 0; i < n; i++ {
		keep(i, chainTop(48))
		keep(i, genericTop[int32](100))
		keep(i, genericAlloc[string](12))
		keep(i, genericAlloc[shape](2))
		keep(i, (&pair[string, float64]{}).push("a", 1))
		keep(i, (&pair[int, *shape]{}).push(1, nil).push(2, nil))
		keep(i, (&shape{}).grow())
		keep(i, c.copied())
		keep(i, closure(300)())
		keep(i, siteDeep(40, 64))
		keep(i, siteDeep(200, 640))
		keep(i, growMap(20+i%100))
		keep(i, growStringMap(60))
		keep(i, growSlice(100))
		keep(i, concat("one", strings.Repeat("x", i%64)))
		keep(i, manySizes(i))
		keep(i, deferred(i))
		keep(i, panics(i))
		keep(i, make(chan int, 16))
		keep(i, []byte(strings.Repeat("y", 1000)))
		keep(i, fmt.Sprintf("%d %v", i, c))
		keep(i, new([70000]byte))
		done := make(chan []int)
		go func() { done <- growSlice(30) }()
		keep(i, <-done)
	}
}

func dropWork() { workKept = nil }
