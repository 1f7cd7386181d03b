/* SPDX-License-Identifier: MIT */
#ifndef DP_STACK_SIZE_H
#define DP_STACK_SIZE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "symbolize/unwind.h"

/*
 * How much of each stack is to be copied: as little as nearly every stack of the process needs.
 */

#define DP_STACK_SIZE_MIN 2048u
/* The kernel copies less than 64 KiB. */
#define DP_STACK_SIZE_MAX 65528u
/* To begin with: where nothing is known, where the process has not begun yet, and the most. */
#define DP_STACK_SIZE_FIRST 8192u
#define DP_STACK_SIZE_FIRST_HELD 16384u
#define DP_STACK_SIZE_FIRST_MAX 32768u
/* Stack sizes are told apart in steps of this. */
#define DP_STACK_SIZE_STEP 1024u
#define DP_STACK_SIZE_N_CUT 64

/* What has been seen since the size was chosen last. Zeroed memory has seen nothing. */
struct dp_stack_size {
	uint64_t n_seen; /* stacks */
	uint64_t n_cut;	 /* of these, beyond the copy */
	uint64_t n_needing[DP_STACK_SIZE_MAX / DP_STACK_SIZE_STEP + 1]; /* whole ones, by steps */
	uint64_t cut_sp[DP_STACK_SIZE_N_CUT]; /* stack pointers of the first cut ones */
	uint64_t looked_ns;
};

/* A size to begin with: what the process's threads use at this moment, as far as /proc tells. */
uint32_t dp_stack_size_guess(pid_t pid);

/* Takes note of a stack that was unwound from a copy, from the stack pointer @sp. */
void dp_stack_size_note(struct dp_stack_size *size, const struct dp_unwind_result *result,
			uint64_t sp);

/*
 * The size that one stack of 1000 may exceed, where @bytes are copied now. To be asked often:
 * it looks at most every 20 ms, and then reads /proc.
 *
 * Returns @bytes for no change, never less.
 */
uint32_t dp_stack_size_choose(struct dp_stack_size *size, pid_t pid, uint32_t bytes,
			      uint64_t now_ns);

#endif
