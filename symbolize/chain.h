/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_CHAIN_H
#define DP_SYMBOLIZE_CHAIN_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/map.h"
#include "symbolize/cfi.h"
#include "symbolize/space.h"
#include "symbolize/unwind.h"

/*
 * Goes on where a copy of the stack ends: with the kernel's callchain, as long as the code keeps
 * frame pointers. A part of symbolize/unwind.
 */

/* How stacks end that were unwound to their outermost frame: frame → the frame outside it, 0 where
 * there are several. Zeroed memory knows none. */
struct dp_chain_ends {
	struct dp_map outer;
};

/* Remembers the last frames of a whole stack. */
void dp_chain_learn(struct dp_chain_ends *ends, const uint64_t *frames, size_t n_frames);

void dp_chain_ends_clear(struct dp_chain_ends *ends);

struct dp_chain {
	const struct dp_space *space;
	struct dp_cfi *cfi;
	const struct dp_chain_ends *ends;
	const struct dp_unwind_sample *sample;
};

/*
 * The frames outside @frame, whose frame pointer was @bp and whose caller lies beyond the copy.
 *
 * @ret_frames: room for @max_frames. *@ret_end: DP_UNWIND_OUTERMOST, DP_UNWIND_LIMIT, or
 * DP_UNWIND_STACK_CUT where the callchain ends too or cannot be relied on.
 * Returns their number, or -ENOMEM.
 */
ptrdiff_t dp_chain_go_on(const struct dp_chain *chain, uint64_t frame, uint64_t bp,
			 uint64_t *ret_frames, size_t max_frames, enum dp_unwind_end *ret_end);

/* Whether @rule is that of code that keeps a frame pointer: the caller's lies where it points, and
 * the return address behind it. */
static inline bool dp_cfi_keeps_frame_pointer(uint64_t rule)
{
	return dp_cfi_shape(rule) == DP_CFI_USUAL &&
	       dp_cfi_usual_register(rule) == DP_UNWIND_REG_BP && dp_cfi_usual_offset(rule) == 16 &&
	       dp_cfi_usual_saved(rule, 1) == 16;
}

#endif
