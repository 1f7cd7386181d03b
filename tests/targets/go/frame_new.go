// SPDX-License-Identifier: MIT

//go:build go1.21

package main

import (
	"runtime"
	_ "unsafe"
)

// What runtime/pprof uses; from Go 1.23 on only with -ldflags=-checklinkname=0.
//
//go:linkname startLine runtime/pprof.runtime_FrameStartLine
func startLine(frame *runtime.Frame) int

//go:linkname fullName runtime/pprof.runtime_FrameSymbolName
func fullName(frame *runtime.Frame) string
