/* SPDX-License-Identifier: MIT */
#ifndef DP_LIVE_H
#define DP_LIVE_H

#include <stdbool.h>
#include <stddef.h>

#include "src/heap.h"

/*
 * The live sampled objects of one process by address: a part of the heap source (src/heap.h).
 */

struct dp_live {
	struct dp_heap_object *slots; /* addr 0: empty */
	size_t n_slots;		      /* 0 or a power of two */
	size_t n_objects;
	size_t max_objects;
};

/* An empty table of at most @max_objects; allocates nothing yet. */
void dp_live_init(struct dp_live *live, size_t max_objects);

/* Frees what the table holds; it may be initialised again. */
void dp_live_deinit(struct dp_live *live);

/*
 * Makes sure that the table can hold @n_objects at once: until then dp_live_put() cannot fail.
 * Returns 0, -ENOSPC beyond the bound, or -ENOMEM; the table is untouched on failure.
 */
int dp_live_reserve(struct dp_live *live, size_t n_objects);

/* Adds @object, whose address is not 0 and not in the table. There must be reserved room. */
void dp_live_put(struct dp_live *live, const struct dp_heap_object *object);

/* Takes the object at @addr out into *@ret. Returns false, with *@ret untouched, if there is none.
 */
bool dp_live_take(struct dp_live *live, uint64_t addr, struct dp_heap_object *ret);

#endif
