/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_GO_BINARY_H
#define DP_SYMBOLIZE_GO_BINARY_H

#include <stdbool.h>

/*
 * Whether the file that is open at @fd is a program, or a library, that Go's linker made: it has a
 * section .go.buildinfo or .gopclntab, or, where sections were stripped, the magic of Go's build
 * information in the first MiB of a writable segment. False for anything that is no ELF file.
 * Nothing in the file is trusted.
 *
 * Reads the file, a few MiB at most; may block on it; keeps nothing of it.
 * Source: Go's cmd/link/internal/ld/data.go, buildinfo(); debug/buildinfo.
 */
bool dp_file_is_go(int fd);

#endif
