/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_HOSTILE_H
#define DP_TESTS_HOSTILE_H

#include <stddef.h>
#include <stdint.h>

#include "symbolize/unwind.h"

/*
 * Everything that the profiler does with a mapped file, done with a file that lies. Failures that a
 * file has no business to cause end the program by assert().
 */

struct hostile_result {
	size_t n_named;	  /* addresses with a name */
	size_t n_found;	  /* functions found by name */
	size_t n_unwound; /* frames beyond the first, of all stacks */
	struct dp_unwind_stats unwinder;
};

/*
 * Opens the file at @fd (closed on return) as a module, looks functions up by name, names the code
 * at each of @file_off, and unwinds a stack from each of them, whose words are addresses of that
 * code and of the stack.
 */
void hostile_look(int fd, const uint64_t *file_off, size_t n, struct hostile_result *ret);

/* The same for a file in memory. */
void hostile_look_at_bytes(const uint8_t *bytes, size_t n_bytes, const uint64_t *file_off, size_t n,
			   struct hostile_result *ret);

#endif
