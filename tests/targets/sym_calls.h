/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_SYM_CALLS_H
#define DP_TESTS_SYM_CALLS_H

/* Inlined from another file than the caller's, two deep. */

static inline __attribute__((always_inline)) int sym_header_inner(int x, volatile int *sink)
{
	*sink += x;
	return x * *sink;
}

static inline __attribute__((always_inline)) int sym_header_outer(int x, volatile int *sink)
{
	int y = sym_header_inner(x + 1, sink);

	if (y & 1)
		y += sym_header_inner(y, sink);
	return y;
}

#endif
