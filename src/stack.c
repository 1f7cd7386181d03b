/* SPDX-License-Identifier: MIT */
#include "src/stack.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/array.h"
#include "src/base/hash.h"

/*
 * The hard idea: equal hashes never merge two stacks (every hit is compared in full), and frames
 * never move (they lie in chunks that are only ever added), so that interning a known stack touches
 * one slot, one entry and the frames, and copies nothing.
 *
 * Id i is entry i - 1; slots hold ids, 0 for an empty one.
 */

#define CHUNK_FRAMES ((size_t)64 * 1024)
#define MIN_SLOTS ((size_t)1024)

struct entry {
	uint64_t hash;
	const uint64_t *frames;
	size_t n_frames;
};

struct slot {
	uint32_t hash; /* upper half: saves a look at most entries that are not the one */
	uint32_t id;
};

struct dp_stacks {
	uint32_t max_stacks;
	size_t max_frames;

	struct slot *slots;
	size_t n_slots; /* a power of two */

	struct entry *entries;
	size_t entries_capacity;
	uint32_t n_entries;

	uint64_t **chunks;
	size_t chunks_capacity;
	size_t n_chunks;
	uint64_t *chunk_next; /* the free end of the last chunk, of chunk_room frames */
	size_t chunk_room;
	size_t n_frames;

	uint64_t n_overflowed;
};

int dp_stacks_new(struct dp_stacks **ret, uint32_t max_stacks, size_t max_frames)
{
	struct dp_stacks *stacks = calloc(1, sizeof(*stacks));

	if (!stacks)
		return -ENOMEM;
	stacks->slots = calloc(MIN_SLOTS, sizeof(*stacks->slots));
	if (!stacks->slots) {
		dp_stacks_free(stacks);
		return -ENOMEM;
	}
	stacks->n_slots = MIN_SLOTS;
	stacks->max_stacks = max_stacks;
	stacks->max_frames = max_frames;
	*ret = stacks;
	return 0;
}

void dp_stacks_free(struct dp_stacks *stacks)
{
	if (!stacks)
		return;
	for (size_t i = 0; i < stacks->n_chunks; i++)
		free(stacks->chunks[i]);
	free(stacks->chunks);
	free(stacks->entries);
	free(stacks->slots);
	free(stacks);
}

static bool entry_is(const struct entry *entry, uint64_t hash, const uint64_t *frames,
		     size_t n_frames)
{
	return entry->hash == hash && entry->n_frames == n_frames &&
	       (n_frames == 0 || memcmp(entry->frames, frames, n_frames * sizeof(*frames)) == 0);
}

/* The slot that holds the stack, or the empty one where it belongs. */
static struct slot *find_slot(const struct dp_stacks *stacks, uint64_t hash, const uint64_t *frames,
			      size_t n_frames)
{
	size_t mask = stacks->n_slots - 1;

	for (size_t i = (size_t)hash & mask;; i = (i + 1) & mask) {
		struct slot *slot = &stacks->slots[i];

		if (slot->id == 0)
			return slot;
		if (slot->hash == (uint32_t)(hash >> 32) &&
		    entry_is(&stacks->entries[slot->id - 1], hash, frames, n_frames))
			return slot;
	}
}

/* Makes room for one stack more, at most three quarters full. */
static int reserve_slots(struct dp_stacks *stacks)
{
	size_t n_slots = stacks->n_slots * 2;
	struct slot *slots;

	if ((size_t)stacks->n_entries + 1 <= stacks->n_slots / 4 * 3)
		return 0;
	slots = calloc(n_slots, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	for (uint32_t id = 1; id <= stacks->n_entries; id++) {
		uint64_t hash = stacks->entries[id - 1].hash;
		size_t i = (size_t)hash & (n_slots - 1);

		while (slots[i].id)
			i = (i + 1) & (n_slots - 1);
		slots[i] = (struct slot){(uint32_t)(hash >> 32), id};
	}
	free(stacks->slots);
	stacks->slots = slots;
	stacks->n_slots = n_slots;
	return 0;
}

/* Makes the last chunk have room for @n_frames; what was left in the one before is given up. */
static int reserve_frames(struct dp_stacks *stacks, size_t n_frames)
{
	size_t room = n_frames > CHUNK_FRAMES ? n_frames : CHUNK_FRAMES;
	uint64_t *chunk;
	int r;

	if (n_frames <= stacks->chunk_room)
		return 0;
	r = dp_array_reserve((void **)&stacks->chunks, &stacks->chunks_capacity,
			     stacks->n_chunks + 1, sizeof(*stacks->chunks));
	if (r < 0)
		return r;
	chunk = malloc(room * sizeof(*chunk));
	if (!chunk)
		return -ENOMEM;
	stacks->chunks[stacks->n_chunks++] = chunk;
	stacks->chunk_next = chunk;
	stacks->chunk_room = room;
	return 0;
}

/* Adds a stack that is not held; 0 if it does not fit. */
static uint32_t add(struct dp_stacks *stacks, uint64_t hash, const uint64_t *frames,
		    size_t n_frames)
{
	uint32_t id;

	if (stacks->n_entries >= stacks->max_stacks ||
	    n_frames > stacks->max_frames - stacks->n_frames)
		return 0;
	if (reserve_slots(stacks) < 0 || reserve_frames(stacks, n_frames) < 0 ||
	    dp_array_reserve((void **)&stacks->entries, &stacks->entries_capacity,
			     (size_t)stacks->n_entries + 1, sizeof(*stacks->entries)) < 0)
		return 0;

	id = stacks->n_entries + 1;
	*find_slot(stacks, hash, frames, n_frames) = (struct slot){(uint32_t)(hash >> 32), id};
	if (n_frames)
		memcpy(stacks->chunk_next, frames, n_frames * sizeof(*frames));
	stacks->entries[id - 1] = (struct entry){hash, stacks->chunk_next, n_frames};
	stacks->chunk_next += n_frames;
	stacks->chunk_room -= n_frames;
	stacks->n_frames += n_frames;
	stacks->n_entries = id;
	return id;
}

uint32_t dp_stacks_intern(struct dp_stacks *stacks, const uint64_t *frames, size_t n_frames)
{
	uint64_t hash = dp_hash_words(frames, n_frames);
	uint32_t id = find_slot(stacks, hash, frames, n_frames)->id;

	if (id == 0)
		id = add(stacks, hash, frames, n_frames);
	if (id == 0) {
		stacks->n_overflowed++;
		return DP_STACK_OVERFLOW;
	}
	return id;
}

const uint64_t *dp_stacks_get(const struct dp_stacks *stacks, uint32_t id, size_t *ret_n)
{
	if (id == DP_STACK_OVERFLOW || id > stacks->n_entries) {
		*ret_n = 0;
		return NULL;
	}
	*ret_n = stacks->entries[id - 1].n_frames;
	return stacks->entries[id - 1].frames;
}

uint32_t dp_stacks_count(const struct dp_stacks *stacks)
{
	return stacks->n_entries;
}

uint64_t dp_stacks_overflowed(const struct dp_stacks *stacks)
{
	return stacks->n_overflowed;
}
