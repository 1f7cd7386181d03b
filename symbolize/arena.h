/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_ARENA_H
#define DP_SYMBOLIZE_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/map.h"

/*
 * Memory that is only given back as a whole, and in it every distinct text once. Zeroed memory is
 * an empty arena. What it gives never moves.
 */
struct dp_arena {
	struct dp_arena_block *blocks; /* newest first */
	struct dp_map texts;	       /* hash → address of struct dp_arena_text */
};

/* Frees everything; the arena is empty again. */
void dp_arena_clear(struct dp_arena *arena);

/* @n_bytes of uninitialised memory, aligned for any object; NULL when memory is out. */
void *dp_arena_alloc(struct dp_arena *arena, size_t n_bytes);

/* The one copy of @text (NUL-terminated); NULL when memory is out. */
const char *dp_arena_intern(struct dp_arena *arena, const char *text);

#endif
