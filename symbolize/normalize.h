/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_NORMALIZE_H
#define DP_SYMBOLIZE_NORMALIZE_H

#include <stddef.h>
#include <stdint.h>

#include "symbolize/space.h"

/*
 * From the kernel's callchain at a probed function's entry to frames: the place where "normalise
 * early" happens.
 */

/* The kernel gives kernel.perf_event_max_stack addresses (127 by default, 640 at the most that we
 * ask for) and markers. */
#define DP_STACK_MAX_FRAMES 640

struct dp_normalize_stats {
	uint64_t n_frames;
	uint64_t n_frames_unmapped;  /* in no executable mapping, kept */
	uint64_t n_frames_invented;  /* in none and outermost, cut off */
	uint64_t n_trampolines;	     /* a pending return probe's, dropped */
	uint64_t n_stacks_truncated; /* reached the kernel's or our limit */
};

/*
 * @callchain: @n_callchain words as the kernel wrote them, leaf first: PERF_CONTEXT_* markers open
 * each part; only the user part is used. The first user address is the probed instruction itself,
 * the others are return addresses.
 * @stack0: the word at the stack pointer at entry, i.e. the immediate caller's return address,
 * which the kernel's frame-pointer walk misses unless it recognises the probed instruction; put in
 * as the second frame unless the callchain has it there already. 0, or an address in the [uprobes]
 * page, is not put in.
 *
 * Addresses in no executable mapping are kept with module 0, except at the outermost end of the
 * chain: in code without frame pointers the kernel's walk goes on over whatever lies on the stack,
 * and what it invented there is cut off. An address of 0 ends the chain.
 *
 * @max_callchain: the limit that the kernel was given; a user part that long counts as truncated.
 * @ret_frames: room for DP_STACK_MAX_FRAMES + 1 frames; return addresses are looked up at address
 * - 1.
 * @stats: updated.
 *
 * Returns the number of frames written, 0 only if the callchain has no user part and stack0 is
 * unusable. Neither blocks nor allocates. Source: perf_event_open(2), PERF_SAMPLE_CALLCHAIN; KERNEL
 * facts in ARCHITECTURE.md.
 */
size_t dp_normalize_entry(const struct dp_space *space, const uint64_t *callchain,
			  size_t n_callchain, uint64_t stack0, size_t max_callchain,
			  uint64_t *ret_frames, struct dp_normalize_stats *stats);

#endif
