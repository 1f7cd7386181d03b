/* SPDX-License-Identifier: MIT */
#include "symbolize/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/*
 * The one hard idea: names are many, small and live as long as the symbolizer, so they cost their
 * bytes and nothing else: no header each, no free.
 */

#define BLOCK_BYTES (64u << 10)

struct dp_arena_block {
	struct dp_arena_block *next;
	size_t n_used, n_bytes;
	alignas(max_align_t) char bytes[];
};

struct dp_arena_text {
	struct dp_arena_text *next; /* with the same hash */
	char bytes[];
};

void dp_arena_clear(struct dp_arena *arena)
{
	struct dp_arena_block *block, *next;

	for (block = arena->blocks; block; block = next) {
		next = block->next;
		free(block);
	}
	arena->blocks = NULL;
	dp_map_clear(&arena->texts);
}

static struct dp_arena_block *block_new(size_t n_bytes)
{
	struct dp_arena_block *block;

	if (n_bytes > SIZE_MAX - sizeof(*block))
		return NULL;
	block = malloc(sizeof(*block) + n_bytes);
	if (block)
		*block = (struct dp_arena_block){.n_bytes = n_bytes};
	return block;
}

void *dp_arena_alloc(struct dp_arena *arena, size_t n_bytes)
{
	const size_t alignment = alignof(max_align_t);
	struct dp_arena_block *block = arena->blocks;
	void *result;

	if (n_bytes > SIZE_MAX - alignment)
		return NULL;
	n_bytes = (n_bytes + alignment - 1) & ~(alignment - 1);
	if (!block || block->n_bytes - block->n_used < n_bytes) {
		block = block_new(n_bytes > BLOCK_BYTES ? n_bytes : BLOCK_BYTES);
		if (!block)
			return NULL;
		block->next = arena->blocks;
		arena->blocks = block;
	}
	result = block->bytes + block->n_used;
	block->n_used += n_bytes;
	return result;
}

/* FNV-1a; a file full of colliding names only costs itself time. */
static uint64_t hash_text(const char *text)
{
	uint64_t hash = 0xcbf29ce484222325ULL;

	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * 0x100000001b3ULL;
	return hash;
}

const char *dp_arena_intern(struct dp_arena *arena, const char *text)
{
	uint64_t hash = hash_text(text), found = 0;
	size_t n_bytes = strlen(text) + 1;
	struct dp_arena_text *entry;

	dp_map_get(&arena->texts, hash, &found);
	for (entry = (struct dp_arena_text *)(uintptr_t)found; entry; entry = entry->next) {
		if (strcmp(entry->bytes, text) == 0)
			return entry->bytes;
	}
	entry = dp_arena_alloc(arena, sizeof(*entry) + n_bytes);
	if (!entry)
		return NULL;
	entry->next = (struct dp_arena_text *)(uintptr_t)found;
	memcpy(entry->bytes, text, n_bytes);
	if (dp_map_set(&arena->texts, hash, (uintptr_t)entry) < 0)
		return NULL;
	return entry->bytes;
}
