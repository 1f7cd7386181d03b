// SPDX-License-Identifier: MIT

package main

/*
#include <stdlib.h>
*/
import "C"

// Memory of C's own, beside Go's.
var ofC = C.malloc(12345)
