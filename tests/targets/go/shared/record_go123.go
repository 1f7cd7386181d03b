// SPDX-License-Identifier: MIT

//go:build go1.23 && !go1.27

package main

type memProfileRecord struct {
	AllocBytes, FreeBytes     int64
	AllocObjects, FreeObjects int64
	Stack                     []uintptr
}

func (r *memProfileRecord) size() int64 {
	if r.AllocObjects == 0 {
		return 0
	}
	return r.AllocBytes / r.AllocObjects
}
