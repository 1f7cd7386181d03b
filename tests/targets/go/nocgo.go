// SPDX-License-Identifier: MIT

//go:build !cgo
// +build !cgo

package main

func throughC(n int) int { return recursive(n) }
