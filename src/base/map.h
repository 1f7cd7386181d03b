/* SPDX-License-Identifier: MIT */
#ifndef DP_BASE_MAP_H
#define DP_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A hash map from one word to another. Zeroed memory is an empty map.
 */
struct dp_map {
	struct dp_map_slot *slots;
	size_t n_slots; /* 0 or a power of two */
	size_t n;
};

/* Frees the memory; the map is empty again. */
void dp_map_clear(struct dp_map *map);

/* Sets the value of @key, replacing an older one. Returns 0 or -ENOMEM (nothing changed). */
int dp_map_set(struct dp_map *map, uint64_t key, uint64_t value);

/* Returns whether @key is there, with its value in *@ret (may be NULL). */
bool dp_map_get(const struct dp_map *map, uint64_t key, uint64_t *ret);

/* Removes @key if it is there. */
void dp_map_remove(struct dp_map *map, uint64_t key);

#endif
