// SPDX-License-Identifier: MIT

//go:build !go1.24

package main

const hidesInternalRuntime = false
