/* SPDX-License-Identifier: MIT */
#ifndef DP_GO_SOURCE_H
#define DP_GO_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"
#include "src/delta.h"
#include "src/go_buckets.h"
#include "src/go_runtime.h"
#include "src/stack.h"
#include "symbolize/space.h"

/*
 * The source of a Go process: what its runtime has sampled by itself, read from its memory whenever
 * counters are asked for. Stacks are kept as recorded, a frame for each logical call; they are
 * folded and trimmed where they are named (src/go_stack.h).
 */

struct dp_go_source;

/* As of the last reading. */
struct dp_go_source_stats {
	struct dp_go_rates rates;
	struct dp_go_buckets_stats lists[3]; /* enum dp_go_list; zeros for one that is not read */
	uint64_t read_ns[3];		     /* what the last reading of each took */
	uint64_t n_failed;   /* readings that gave nothing: the figures before were kept */
	uint64_t n_negative; /* counters that went back: not counted */
	uint64_t n_late;     /* buckets that could not be read whole when the source was made: they
				count from their first reading on */
};

/*
 * Takes the process's figures as they are now as the base of alloc_* and of block and mutex.
 *
 * @runtime: copied. @space, @stacks: borrowed, must outlive it, and are used by its functions only.
 * Returns 0 or a negative errno with a sentence in @err.
 */
int dp_go_source_new(struct dp_go_source **ret, const struct dp_go_runtime *runtime,
		     const struct dp_space *space, struct dp_stacks *stacks, struct dp_error *err);

/* NULL is allowed. */
void dp_go_source_free(struct dp_go_source *source);

/* Whether the runtime kept @list when the source was made. */
bool dp_go_source_has(const struct dp_go_source *source, enum dp_go_list list);

/*
 * Reads @list and adds its counters since the source was made to a pass of @delta: of the heap as
 * dp_go_delta_spec() says, of the others contentions and nanoseconds. A reading that fails, as
 * after the process's end or while it executes another program, adds the figures before. Returns 0,
 * -ENOMEM or -ENOSPC.
 */
int dp_go_source_feed(struct dp_go_source *source, enum dp_go_list list, struct dp_delta *delta);

/*
 * The delta engine's spec for @list. The heap's values are what the runtime sampled: objects
 * allocated, 0, objects in use, 0, with the objects' size as tag; see dp_go_source_scale().
 */
struct dp_delta_spec dp_go_delta_spec(enum dp_go_list list, size_t max_rows);

/*
 * Makes a row of the heap alloc_objects, alloc_space, inuse_objects and inuse_space: differences
 * first, then scaled, as Go's own tools do. Returns whether anything but zeros is left.
 */
bool dp_go_source_scale(const struct dp_go_rates *rates, struct dp_delta_row *row);

const struct dp_go_runtime *dp_go_source_runtime(const struct dp_go_source *source);
void dp_go_source_get_stats(const struct dp_go_source *source, struct dp_go_source_stats *ret);

#endif
