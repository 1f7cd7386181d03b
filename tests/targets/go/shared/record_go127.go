// SPDX-License-Identifier: MIT

//go:build go1.27

package main

type memProfileRecord struct {
	ObjectSize                int64
	AllocObjects, FreeObjects int64
	Stack                     []uintptr
}

func (r *memProfileRecord) size() int64 { return r.ObjectSize }
