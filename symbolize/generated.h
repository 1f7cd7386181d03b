/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_GENERATED_H
#define DP_SYMBOLIZE_GENERATED_H

#include "symbolize/arena.h"
#include "symbolize/symbolizer.h"

/*
 * Names of generated code, for the symbolizer: each distinct name becomes a line once. Zeroed
 * memory knows none.
 */
struct dp_generated {
	struct dp_perf_map *map; /* or NULL */
	bool is_current;	 /* the map was looked at since the last update */
	struct dp_map lines;	 /* hash of a name → address of its dp_line */
	size_t n_bytes;		 /* of these names */
	uint64_t n_over_limit;
};

/* Frees what it holds, but not the map. */
void dp_generated_clear(struct dp_generated *generated);

/*
 * Names the code at @avma. New names are kept in @arena, up to @max_names and 64 MiB.
 * Returns 0 or -ENOMEM.
 */
int dp_generated_resolve(struct dp_generated *generated, struct dp_arena *arena, size_t max_names,
			 uint64_t avma, struct dp_symbol *ret);

#endif
