// SPDX-License-Identifier: MIT

//go:build go1.27

package main

type heapRecord struct {
	ObjectSize                int64
	AllocObjects, FreeObjects int64
	Stack                     []uintptr
}

func (r *heapRecord) size() int64 { return r.ObjectSize }
