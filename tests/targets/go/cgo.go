// SPDX-License-Identifier: MIT

package main

// int goCallback(int n);
// int callBack(int n);
import "C"

//export goCallback
func goCallback(n C.int) C.int { return C.int(recursive(int(n))) }

func throughC(n int) int { return int(C.callBack(C.int(n))) }
