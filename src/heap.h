/* SPDX-License-Identifier: MIT */
#ifndef DP_HEAP_H
#define DP_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/delta.h"

/*
 * The heap source of a native process: sampled allocations and frees go in, cumulative counters per
 * stack come out. Values are scaled per event *before* they are summed.
 */

struct dp_heap;

struct dp_heap_options {
	uint64_t rate_bytes; /* mean distance between samples; 1: every allocation */
	uint64_t seed;	     /* of the sampler's generator */
	size_t max_live;     /* bound of live sampled objects; 0: none is tracked */
};

struct dp_heap_stats {
	uint64_t n_seen;	  /* allocations that were drawn, see dp_heap_count_drawn() */
	uint64_t n_sampled;	  /* of these, kept */
	uint64_t n_frees;	  /* of addresses that were live samples, by realloc too */
	uint64_t n_frees_unknown; /* of addresses that were not (not sampled, or older than the
				     attach) */
	uint64_t n_replaced;	  /* an allocation, sampled or not, at an address that was live: a
				     free was missed */
	uint64_t n_live_overflow; /* sampled, but not tracked: the table of live objects was full */
	uint64_t n_untracked;	  /* sampled, but the address is not known (see dp_heap_alloc) */
	uint64_t n_live;	  /* live sampled objects now */
};

/* One live sampled object taken out of the table, see dp_heap_take(). */
struct dp_heap_object {
	uint64_t addr;
	uint64_t size;
	uint32_t stack;
};

/* Returns 0, -ENOMEM, or -EINVAL for a rate of 0. */
int dp_heap_new(struct dp_heap **ret, const struct dp_heap_options *options);
void dp_heap_free_all(struct dp_heap *heap); /* NULL is allowed */

/*
 * Decides whether an allocation of @size bytes is sampled: exponential distances over bytes, so the
 * decision is memoryless and p = dp_scale_probability(size, rate). One draw per allocation, in any
 * order.
 */
bool dp_heap_draw(struct dp_heap *heap, uint64_t size);

/* Counts an allocation that was drawn, and what came of it. */
void dp_heap_count_drawn(struct dp_heap *heap, bool sampled);

/*
 * A sampled allocation succeeded: counts 1/p objects and size/p bytes to @stack and tracks the
 * object.
 *
 * @addr: 0 when it is not known: counted in alloc_* only (n_untracked).
 * Returns 0 or -ENOMEM (no counters for a new stack; nothing changed). An object that the table of
 * live objects has no room or memory for is counted in alloc_* only (n_live_overflow).
 */
int dp_heap_alloc(struct dp_heap *heap, uint32_t stack, uint64_t size, uint64_t addr);

/*
 * An allocation that was not sampled gave @addr (0: not known): what is tracked there must have
 * been freed unseen (n_replaced).
 */
void dp_heap_alloc_unsampled(struct dp_heap *heap, uint64_t addr);

/* @addr was freed; 0 is ignored. */
void dp_heap_release(struct dp_heap *heap, uint64_t addr);

/*
 * realloc, first half: takes the object at @addr out of the table so that nobody finds it any more,
 * while it still counts as in use and its room in the table is kept. *@ret is to be given to
 * dp_heap_put_back() or dp_heap_drop(). Returns false when @addr is no live sample.
 */
bool dp_heap_take(struct dp_heap *heap, uint64_t addr, struct dp_heap_object *ret);

/* realloc failed: the object is where it was. */
void dp_heap_put_back(struct dp_heap *heap, const struct dp_heap_object *object);

/* realloc succeeded: the object is no longer in use. */
void dp_heap_drop(struct dp_heap *heap, const struct dp_heap_object *object);

/*
 * Adds every stack's cumulative counters to a pass of @delta, whose values are alloc_objects,
 * alloc_space, inuse_objects, inuse_space. Rounded here, so that the sum of the rounded differences
 * is the rounded whole. In-use is never negative, and 0 for a stack without live samples. A stack
 * beyond the delta's bound is left out (dp_delta_overflowed()). Returns 0, or -ENOMEM with the pass
 * incomplete.
 */
int dp_heap_feed(const struct dp_heap *heap, struct dp_delta *delta);

const struct dp_heap_stats *dp_heap_get_stats(const struct dp_heap *heap);

/* The delta spec that dp_heap_feed() needs, for at most @max_rows stacks. */
struct dp_delta_spec dp_heap_delta_spec(size_t max_rows);

#endif
