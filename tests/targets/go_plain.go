// SPDX-License-Identifier: MIT

// Plain: a Go program without C.
package main

func main() {
	println("ready")
}
