// SPDX-License-Identifier: MIT

//go:build go1.20

package main

import (
	"runtime"
	_ "unsafe"
)

func mutexFactor() int64 { return 1 }

//go:linkname frameSymbolName runtime/pprof.runtime_FrameSymbolName
func frameSymbolName(frame *runtime.Frame) string

//go:linkname frameStartLine runtime/pprof.runtime_FrameStartLine
func frameStartLine(frame *runtime.Frame) int

// nameOf gives the full name, with the types of a generic function.
func nameOf(frame *runtime.Frame) (string, int) { return frameSymbolName(frame), frameStartLine(frame) }
