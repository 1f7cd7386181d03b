/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/hash.h"
#include "src/stack.h"

/*
 * The hard idea: a wrong hit would charge one stack with another's bytes for good, so a hit is
 * compared in full, the generation of the address space with it; a miss costs only time. Two slots
 * that differ in the last bit of their index form a set; the one that was written last survives.
 */

#define ROOM_STEP ((size_t)32) /* a slot's room is a multiple of it, and only ever grows */

struct slot {
	uint64_t generation;
	uint64_t hash;
	uint64_t *words; /* NULL: empty */
	uint32_t id;
	uint16_t n_words;
	uint16_t room;
};

struct dp_stack_cache {
	size_t n_slots;
	struct slot *slots;
	uint8_t *newest; /* per set: which of the two was written last */
};

int dp_stack_cache_new(struct dp_stack_cache **ret, size_t n_slots)
{
	struct dp_stack_cache *cache;

	if (n_slots == 0 || (n_slots & (n_slots - 1)) != 0)
		return -EINVAL;
	cache = calloc(1, sizeof(*cache));
	if (!cache)
		return -ENOMEM;
	cache->n_slots = n_slots;
	cache->slots = calloc(n_slots, sizeof(*cache->slots));
	cache->newest = calloc(n_slots / 2 + 1, sizeof(*cache->newest));
	if (!cache->slots || !cache->newest) {
		dp_stack_cache_free(cache);
		return -ENOMEM;
	}
	*ret = cache;
	return 0;
}

void dp_stack_cache_free(struct dp_stack_cache *cache)
{
	if (!cache)
		return;
	for (size_t i = 0; cache->slots && i < cache->n_slots; i++)
		free(cache->slots[i].words);
	free(cache->slots);
	free(cache->newest);
	free(cache);
}

static bool slot_is(const struct slot *slot, uint64_t generation, uint64_t hash,
		    const uint64_t *words, size_t n_words)
{
	return slot->words && slot->hash == hash && slot->generation == generation &&
	       slot->n_words == n_words &&
	       memcmp(slot->words, words, n_words * sizeof(*words)) == 0;
}

/* The slot that holds the words, or NULL. */
static struct slot *find(const struct dp_stack_cache *cache, uint64_t generation, uint64_t hash,
			 const uint64_t *words, size_t n_words)
{
	size_t i = (size_t)hash & (cache->n_slots - 1);

	if (slot_is(&cache->slots[i], generation, hash, words, n_words))
		return &cache->slots[i];
	/* With one slot the set is that slot. */
	i = (i ^ 1) & (cache->n_slots - 1);
	if (slot_is(&cache->slots[i], generation, hash, words, n_words))
		return &cache->slots[i];
	return NULL;
}

int dp_stack_cache_get(const struct dp_stack_cache *cache, uint64_t generation,
		       const uint64_t *words, size_t n_words, uint32_t *ret_id)
{
	const struct slot *slot;

	if (n_words == 0 || n_words > DP_STACK_CACHE_WORDS)
		return 0;
	slot = find(cache, generation, dp_hash_words(words, n_words), words, n_words);
	if (!slot)
		return 0;
	*ret_id = slot->id;
	return 1;
}

/* The slot of the set that is given up for another key. */
static struct slot *pick_victim(struct dp_stack_cache *cache, uint64_t hash)
{
	size_t first = (size_t)hash & (cache->n_slots - 1) & ~(size_t)1;
	uint8_t *newest = &cache->newest[first / 2];

	if (cache->n_slots == 1)
		return &cache->slots[0];
	*newest ^= 1;
	return &cache->slots[first + *newest];
}

void dp_stack_cache_put(struct dp_stack_cache *cache, uint64_t generation, const uint64_t *words,
			size_t n_words, uint32_t id)
{
	uint64_t hash;
	struct slot *slot;

	if (n_words == 0 || n_words > DP_STACK_CACHE_WORDS)
		return;
	hash = dp_hash_words(words, n_words);
	slot = find(cache, generation, hash, words, n_words);
	if (!slot)
		slot = pick_victim(cache, hash);
	if (slot->room < n_words) {
		size_t room = (n_words + ROOM_STEP - 1) / ROOM_STEP * ROOM_STEP;
		uint64_t *grown = malloc(room * sizeof(*grown));

		if (!grown)
			return;
		free(slot->words);
		slot->words = grown;
		slot->room = (uint16_t)room;
	}
	memcpy(slot->words, words, n_words * sizeof(*words));
	slot->generation = generation;
	slot->hash = hash;
	slot->id = id;
	slot->n_words = (uint16_t)n_words;
}
