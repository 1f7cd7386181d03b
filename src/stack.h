/* SPDX-License-Identifier: MIT */
#ifndef DP_STACK_H
#define DP_STACK_H

#include <stddef.h>
#include <stdint.h>

/*
 * Stack interning: a stack of frames becomes a small number that stays valid for the life of the
 * table, so that everything to the right deals with 4 bytes a stack.
 */

struct dp_stacks;

/* The id of every stack that did not fit any more: its samples are kept, their stack is not. */
#define DP_STACK_OVERFLOW 0u

/*
 * Creates a table of at most @max_stacks distinct stacks and @max_frames frames in all.
 * Returns 0 or -ENOMEM.
 */
int dp_stacks_new(struct dp_stacks **ret, uint32_t max_stacks, size_t max_frames);

/* NULL is allowed. */
void dp_stacks_free(struct dp_stacks *stacks);

/*
 * Gives the id of the stack of @n_frames frames (src/base/frame.h) at @frames, leaf first; the same
 * frames give the same id. A stack beyond the bounds, or one that no memory is left for, gives
 * DP_STACK_OVERFLOW and is counted.
 */
uint32_t dp_stacks_intern(struct dp_stacks *stacks, const uint64_t *frames, size_t n_frames);

/*
 * The frames of stack @id, leaf first, valid until the next dp_stacks_intern(); *@ret_n is 0 for
 * DP_STACK_OVERFLOW and for an id that was never given.
 */
const uint64_t *dp_stacks_get(const struct dp_stacks *stacks, uint32_t id, size_t *ret_n);

/* Distinct stacks held, and calls of dp_stacks_intern() that overflowed. */
uint32_t dp_stacks_count(const struct dp_stacks *stacks);
uint64_t dp_stacks_overflowed(const struct dp_stacks *stacks);

/*
 * A cache in front of the table: the same raw bytes (the kernel's callchain and the word at the
 * stack pointer, as addresses of the process) give the same id as long as the address space does
 * not change, without normalising again.
 */
struct dp_stack_cache;

/* The kernel's callchain at its default limit, with markers and the word at the stack pointer. */
#define DP_STACK_CACHE_WORDS 160

/* @n_slots: a power of two. Returns 0, -ENOMEM, or -EINVAL for another @n_slots. */
int dp_stack_cache_new(struct dp_stack_cache **ret, size_t n_slots);
void dp_stack_cache_free(struct dp_stack_cache *cache);

/*
 * Looks up @n_words words at @words for address-space generation @generation.
 * Returns 1 and the id in *@ret_id when it is known; 0 when not.
 */
int dp_stack_cache_get(const struct dp_stack_cache *cache, uint64_t generation,
		       const uint64_t *words, size_t n_words, uint32_t *ret_id);

/*
 * Remembers @id for the words, in the place of what held that slot. More words than an entry has
 * room for (DP_STACK_CACHE_WORDS), or words that no memory is left for, are not remembered.
 */
void dp_stack_cache_put(struct dp_stack_cache *cache, uint64_t generation, const uint64_t *words,
			size_t n_words, uint32_t id);

#endif
