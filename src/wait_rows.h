/* SPDX-License-Identifier: MIT */
#ifndef DP_WAIT_ROWS_H
#define DP_WAIT_ROWS_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/map.h"
#include "src/delta.h"

/*
 * Cumulative counters of waits per (stack, tag). A part of src/contention and src/go_waits.
 */

struct dp_wait_row {
	uint32_t stack;
	uint32_t tag;
	double contentions;
	uint64_t delay_ns;
};

/* Zeroed memory is an empty table. */
struct dp_wait_rows {
	struct dp_wait_row *rows;
	size_t n, capacity;
	struct dp_map positions; /* stack and tag to index into rows */
};

/* Frees the memory; the table is empty again. */
void dp_wait_rows_clear(struct dp_wait_rows *rows);

/*
 * The row of (@stack, @tag), made if it is not there. Valid until the next call on @rows. Returns 0
 * or -ENOMEM.
 */
int dp_wait_rows_get(struct dp_wait_rows *rows, uint32_t stack, uint32_t tag,
		     struct dp_wait_row **ret);

/* @delay_ns: of all @contentions together. Saturates. */
void dp_wait_row_add(struct dp_wait_row *row, double contentions, uint64_t delay_ns);

/* Rounded, within what a signed number holds. @x: not negative. */
uint64_t dp_wait_round(double x);

/*
 * Adds every row to a pass of @delta: contentions, delay in nanoseconds. Rows beyond the delta's
 * bound are left out, which the delta counts. Returns 0, or -ENOMEM with the pass incomplete.
 */
int dp_wait_rows_feed(const struct dp_wait_rows *rows, struct dp_delta *delta);

#endif
