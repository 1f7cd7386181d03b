/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_JIT_NAMES_H
#define DP_SYMBOLIZE_JIT_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The text of a perf map, and the name that it has for an address: that of the last line whose
 * range holds it. A line is "START SIZE NAME", both numbers hexadecimal without a prefix; the name
 * is the rest of the line, spaces included. Source: Linux, tools/perf/Documentation/
 * jit-interface.txt.
 */

#define DP_JIT_NAME_MAX 4096u
#define DP_JIT_LINE_MAX (DP_JIT_NAME_MAX + 64u)

/* A stretch of code, and where its name begins in the text. */
struct dp_jit_segment {
	uint64_t start, end; /* avma, end exclusive */
	uint32_t name;
};

struct dp_jit_stats {
	uint64_t n_lines;      /* understood, kept or not */
	uint64_t n_bad;	       /* lines that are not of that form, too long, or of no code */
	uint64_t n_over_limit; /* lines without room: beyond 1 Mi lines or 64 MiB of names */
};

/* Zeroed memory has read nothing. */
struct dp_jit_names {
	struct dp_jit_segment *segments; /* sorted, none overlaps another */
	size_t n_segments;
	struct dp_jit_segment *lines; /* fed, in the text's order, and not in segments yet */
	size_t n_lines, lines_capacity;
	char *text; /* names, each ended by a NUL */
	size_t n_text, text_capacity;
	char carry[DP_JIT_LINE_MAX]; /* the beginning of a line whose end is not there yet */
	size_t n_carry;
	bool skipping; /* to the end of a line that is too long */
	struct dp_jit_stats stats;
};

/* Frees what it holds; it has read nothing again. */
void dp_jit_names_clear(struct dp_jit_names *names);

/*
 * Takes in the next @n_bytes of the text, cut anywhere. A line counts once its newline is there.
 * Returns 0, or -ENOMEM: @names is then only good for dp_jit_names_clear().
 */
int dp_jit_names_feed(struct dp_jit_names *names, const char *bytes, size_t n_bytes);

/*
 * Makes the lines that were fed since the last call count in dp_jit_names_find(). Takes time in
 * proportion to all that is known. Returns 0 or -ENOMEM (nothing changed).
 */
int dp_jit_names_commit(struct dp_jit_names *names);

/* The name of the code at @avma, valid until @names changes; NULL if there is none. */
const char *dp_jit_names_find(const struct dp_jit_names *names, uint64_t avma);

#endif
