// SPDX-License-Identifier: MIT

//go:build withcgo

package main

/*
#include <stdlib.h>
static void *c_alloc(size_t n) { return malloc(n); }
*/
import "C"

func init() {
	usesC = true
	C.free(C.c_alloc(64))
}
