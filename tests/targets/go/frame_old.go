// SPDX-License-Identifier: MIT

//go:build !go1.21
// +build !go1.21

package main

import "runtime"

func startLine(*runtime.Frame) int { return 0 }

func fullName(frame *runtime.Frame) string { return frame.Function }
