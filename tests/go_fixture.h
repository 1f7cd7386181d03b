/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_GO_FIXTURE_H
#define DP_TESTS_GO_FIXTURE_H

#include <stddef.h>
#include <stdint.h>

/*
 * A small ELF file with a Go function table, written by hand from Go's sources. Its functions:
 *
 *	main.f           0x401000-0x401100, f.go, from line 7; line 10, from 0x401040 on line 20;
 *	                 at 0x401010-0x40101f main.inner (from line 5) is inlined, called at
 *0x401040 main.g[int]      0x401100-0x401200, line 10, from 0x401140 on line 20 runtime.sigpanic
 *0x401200-0x401300, nothing known
 */

enum go_fixture_format { GO_FIXTURE_1_16, GO_FIXTURE_1_18, GO_FIXTURE_1_20, GO_FIXTURE_1_26 };

#define GO_FIXTURE_BYTES 0x2400
#define GO_FIXTURE_TABLE 0x200 /* where in the file, and so the svma - 0x400000 */
#define GO_FIXTURE_TREES 0x800
#define GO_FIXTURE_TREES_BYTES 40
#define GO_FIXTURE_MODULE 0x2100 /* svma 0x402100 */
#define GO_FIXTURE_MODULE_BYTES 400

struct go_fixture {
	uint8_t bytes[GO_FIXTURE_BYTES];
	size_t n_table_bytes;
};

/* Without sections, as a packer leaves it: the table must be looked for. */
void go_fixture_build(struct go_fixture *ret, enum go_fixture_format format);

/* A file of @bytes, to be closed. */
int go_fixture_open(const void *bytes, size_t n_bytes);

#endif
