/* SPDX-License-Identifier: MIT */
#ifndef DP_TAIL_CALLS_H
#define DP_TAIL_CALLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "symbolize/module.h"

/*
 * Finds the functions that a function jumps to instead of calling them, which then run without a
 * frame of the one that jumped: a part of src/locks.h.
 */

#define DP_TAIL_MAX_SEGMENTS 8

/* What is needed of a module to look for them; filled by dp_tail_calls_open(). */
struct dp_tail_calls {
	struct dp_modules *modules;
	uint32_t module;
	size_t n_segments;
	struct dp_tail_segment {
		uint64_t svma, file_off, n_bytes;
	} segments[DP_TAIL_MAX_SEGMENTS]; /* executable */
	uint64_t hdr_svma, hdr_file_off;  /* of .eh_frame_hdr */
	uint32_t n_functions;		  /* in its table */
};

struct dp_tail_call {
	uint64_t file_off;   /* where the function that is jumped to begins */
	uint64_t size_bytes; /* up to where the next one begins */
};

/*
 * Reads what is needed of module @id; *@ret borrows @modules. Reads the file, may block on it; does
 * not allocate, there is nothing to release.
 *
 * Returns false where tail calls cannot be found: not an x86-64 ELF file, or one without a table of
 * its functions (.eh_frame_hdr in the only form that linkers write).
 * Source: elf(5); Linux Standard Base Core 5.0, 10.6.2 "The .eh_frame_hdr section".
 */
bool dp_tail_calls_open(struct dp_tail_calls *ret, struct dp_modules *modules, uint32_t id);

/*
 * The functions that the function of @size_bytes at @file_off jumps to.
 *
 * @ret: room for @max of them; what is beyond is left out. The same one may be there twice.
 * Returns how many were written.
 */
size_t dp_tail_calls_find(const struct dp_tail_calls *tail_calls, uint64_t file_off,
			  uint64_t size_bytes, struct dp_tail_call *ret, size_t max);

#endif
