/* SPDX-License-Identifier: MIT */
/*
 * Open addressing with linear probing; a removal shifts the run behind it back, so there are no
 * tombstones and a map that comes and goes does not decay.
 */
#include "src/base/map.h"

#include <errno.h>
#include <stdlib.h>

#include "src/base/hash.h"

struct dp_map_slot {
	uint64_t key;
	uint64_t value;
	bool used;
};

void dp_map_clear(struct dp_map *map)
{
	free(map->slots);
	*map = (struct dp_map){0};
}

/* The slot that holds @key, or the free one where it belongs. There must be a free slot. */
static struct dp_map_slot *find(const struct dp_map *map, uint64_t key)
{
	size_t mask = map->n_slots - 1;
	size_t i = dp_hash_u64(key) & mask;

	while (map->slots[i].used && map->slots[i].key != key)
		i = (i + 1) & mask;
	return &map->slots[i];
}

static int grow(struct dp_map *map)
{
	struct dp_map bigger = {.n_slots = map->n_slots ? map->n_slots * 2 : 16, .n = map->n};

	bigger.slots = calloc(bigger.n_slots, sizeof(*bigger.slots));
	if (!bigger.slots)
		return -ENOMEM;
	for (size_t i = 0; i < map->n_slots; i++) {
		if (map->slots[i].used)
			*find(&bigger, map->slots[i].key) = map->slots[i];
	}
	free(map->slots);
	*map = bigger;
	return 0;
}

int dp_map_set(struct dp_map *map, uint64_t key, uint64_t value)
{
	struct dp_map_slot *slot;
	int r;

	if ((map->n + 1) * 4 > map->n_slots * 3) {
		r = grow(map);
		if (r < 0)
			return r;
	}
	slot = find(map, key);
	map->n += !slot->used;
	*slot = (struct dp_map_slot){.key = key, .value = value, .used = true};
	return 0;
}

bool dp_map_get(const struct dp_map *map, uint64_t key, uint64_t *ret)
{
	const struct dp_map_slot *slot;

	if (map->n == 0)
		return false;
	slot = find(map, key);
	if (!slot->used)
		return false;
	if (ret)
		*ret = slot->value;
	return true;
}

void dp_map_remove(struct dp_map *map, uint64_t key)
{
	size_t mask = map->n_slots - 1;
	struct dp_map_slot *slot;
	size_t hole, i;

	if (map->n == 0)
		return;
	slot = find(map, key);
	if (!slot->used)
		return;
	hole = (size_t)(slot - map->slots);
	for (i = (hole + 1) & mask; map->slots[i].used; i = (i + 1) & mask) {
		size_t home = dp_hash_u64(map->slots[i].key) & mask;

		/* Only what may move back without passing its home fills the hole. */
		if (((i - home) & mask) >= ((i - hole) & mask)) {
			map->slots[hole] = map->slots[i];
			hole = i;
		}
	}
	map->slots[hole].used = false;
	map->n--;
}
