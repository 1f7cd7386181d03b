/* SPDX-License-Identifier: MIT */
#ifndef DP_DELTA_H
#define DP_DELTA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The delta engine: cumulative counters per stack go in, what changed since the last delivered
 * profile comes out. It knows no I/O, no clock and no source.
 *
 * One pass: dp_delta_begin(), dp_delta_add() for every counter that the source has, dp_delta_end()
 * which gives the rows; then dp_delta_commit() when they were delivered, or dp_delta_abort() when
 * not: after an abort the next pass gives the same differences and what came on top.
 */

#define DP_DELTA_MAX_VALUES 4

struct dp_delta;

struct dp_delta_spec {
	size_t n_values;     /* 1 … DP_DELTA_MAX_VALUES */
	unsigned delta_mask; /* bit i: value i comes out as a difference, else as it is now */
	/*
	 * A difference that would be negative suppresses the whole row. Does the row's new value
	 * become the base of the next difference all the same? Heap: no. Mutex and block: yes. As
	 * godeltaprof does.
	 */
	bool negative_moves_base;
	size_t max_rows; /* bound of distinct (stack, tag) */
};

struct dp_delta_row {
	uint32_t stack;
	uint64_t tag; /* what else tells rows apart: object size, kind of wait; 0 */
	int64_t values[DP_DELTA_MAX_VALUES];
};

/* Returns 0, -ENOMEM, or -EINVAL for an impossible spec. */
int dp_delta_new(struct dp_delta **ret, const struct dp_delta_spec *spec);

/* NULL is allowed. */
void dp_delta_free(struct dp_delta *delta);

/* Starts a pass. A pass that was neither committed nor aborted is aborted. */
void dp_delta_begin(struct dp_delta *delta);

/*
 * Adds cumulative @values (spec.n_values of them) of (@stack, @tag) to the pass; the same key added
 * twice in one pass is summed. Returns 0, -ENOMEM, or -ENOSPC when a new key is beyond the bound
 * (counted).
 */
int dp_delta_add(struct dp_delta *delta, uint32_t stack, uint64_t tag, const int64_t *values);

/*
 * Ends the pass. *@ret_rows: *@ret_n rows in the order of first addition in this pass, borrowed
 * until the next dp_delta_begin(). A key that was not added in this pass gives no row; neither does
 * a row that is all zero, nor one with a value that would be negative (counted). Returns 0, or
 * -ENOMEM: the pass is still open, and may be ended again or aborted.
 */
int dp_delta_end(struct dp_delta *delta, const struct dp_delta_row **ret_rows, size_t *ret_n);

/*
 * The rows of the last pass were delivered: they are the base of the next. Only after
 * dp_delta_end() succeeded.
 */
void dp_delta_commit(struct dp_delta *delta);

/* The rows of the last pass were not delivered, or the pass is given up before its end. */
void dp_delta_abort(struct dp_delta *delta);

/*
 * Rows suppressed because a value would have been negative (again in each pass that ends so), and
 * additions beyond the bound.
 */
uint64_t dp_delta_suppressed(const struct dp_delta *delta);
uint64_t dp_delta_overflowed(const struct dp_delta *delta);

#endif
