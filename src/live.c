/* SPDX-License-Identifier: MIT */
#include "src/live.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "src/base/hash.h"

/*
 * The hard idea: objects come and go for days, so removal leaves no tombstone. The objects behind
 * the hole move up until each is again reachable from its own first slot (backward-shift deletion,
 * Knuth, TAOCP vol. 3, 6.4, algorithm R); a probe's length depends on what is in the table now, not
 * on what once was.
 */

#define MIN_SLOTS ((size_t)64)

void dp_live_init(struct dp_live *live, size_t max_objects)
{
	*live = (struct dp_live){.max_objects = max_objects};
}

void dp_live_deinit(struct dp_live *live)
{
	free(live->slots);
	dp_live_init(live, live->max_objects);
}

static size_t first_slot(const struct dp_live *live, uint64_t addr)
{
	return (size_t)dp_hash_u64(addr) & (live->n_slots - 1);
}

int dp_live_reserve(struct dp_live *live, size_t n_objects)
{
	struct dp_live grown = *live;

	if (n_objects > live->max_objects)
		return -ENOSPC;
	/* At most three quarters full, so that there is always an empty slot to stop at. */
	if (n_objects <= live->n_slots / 4 * 3)
		return 0;
	grown.n_slots = live->n_slots ? live->n_slots : MIN_SLOTS;
	while (n_objects > grown.n_slots / 4 * 3) {
		if (__builtin_mul_overflow(grown.n_slots, (size_t)2, &grown.n_slots))
			return -ENOMEM;
	}
	grown.slots = calloc(grown.n_slots, sizeof(*grown.slots));
	if (!grown.slots)
		return -ENOMEM;
	grown.n_objects = 0;
	for (size_t i = 0; i < live->n_slots; i++) {
		if (live->slots[i].addr)
			dp_live_put(&grown, &live->slots[i]);
	}
	free(live->slots);
	*live = grown;
	return 0;
}

/* The slot that holds @addr, or the empty one where it belongs. */
static size_t find_slot(const struct dp_live *live, uint64_t addr)
{
	size_t i = first_slot(live, addr);

	while (live->slots[i].addr && live->slots[i].addr != addr)
		i = (i + 1) & (live->n_slots - 1);
	return i;
}

void dp_live_put(struct dp_live *live, const struct dp_heap_object *object)
{
	size_t i;

	assert(object->addr && live->n_objects < live->n_slots / 4 * 3);
	i = find_slot(live, object->addr);
	assert(!live->slots[i].addr);
	live->slots[i] = *object;
	live->n_objects++;
}

/* Closes the hole at @hole. */
static void shift_back(struct dp_live *live, size_t hole)
{
	size_t mask = live->n_slots - 1;

	for (size_t i = (hole + 1) & mask; live->slots[i].addr; i = (i + 1) & mask) {
		size_t first = first_slot(live, live->slots[i].addr);

		/* It may move up unless its first slot lies behind the hole. */
		if (((i - first) & mask) < ((i - hole) & mask))
			continue;
		live->slots[hole] = live->slots[i];
		hole = i;
	}
	live->slots[hole] = (struct dp_heap_object){0};
}

bool dp_live_take(struct dp_live *live, uint64_t addr, struct dp_heap_object *ret)
{
	size_t i;

	if (live->n_objects == 0 || addr == 0)
		return false;
	i = find_slot(live, addr);
	if (!live->slots[i].addr)
		return false;
	*ret = live->slots[i];
	shift_back(live, i);
	live->n_objects--;
	return true;
}
