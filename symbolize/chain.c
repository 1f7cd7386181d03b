/* SPDX-License-Identifier: MIT */
#include "symbolize/chain.h"

#include <errno.h>

#include "src/base/frame.h"
#include "src/base/trampoline.h"
#include "symbolize/expression.h"

/*
 * The one hard idea: the kernel's chain is right from one frame to the next exactly where the CFI
 * of the frame's own address says that the frame pointer leads to the caller. So each of its steps
 * is confirmed, and the place in it at which the copy ends is found by taking the kernel's walk
 * again over the copy. The last frames, in a C library without frame pointers, are those that whole
 * stacks of the process ended in.
 */

#define WORD sizeof(uint64_t)
/* The kernel's markers, PERF_CONTEXT_*. Source: linux/perf_event.h, enum perf_callchain_context. */
#define FIRST_MARKER ((uint64_t)-4095)
#define CONTEXT_USER ((uint64_t)-512)
#define MAX_ENDS 256

void dp_chain_ends_clear(struct dp_chain_ends *ends)
{
	dp_map_clear(&ends->outer);
}

static void learn_one(struct dp_chain_ends *ends, uint64_t frame, uint64_t outer)
{
	uint64_t known;

	if (dp_map_get(&ends->outer, frame, &known)) {
		if (known != outer && known != 0)
			dp_map_set(&ends->outer, frame, 0);
		return;
	}
	/* Where there is no memory for it, it is learned from another stack. */
	if (ends->outer.n < MAX_ENDS)
		dp_map_set(&ends->outer, frame, outer);
}

void dp_chain_learn(struct dp_chain_ends *ends, const uint64_t *frames, size_t n_frames)
{
	if (n_frames < 3)
		return;
	learn_one(ends, frames[n_frames - 2], frames[n_frames - 1]);
	/* main's caller has a caller of its own before the program's entry; a thread's function is
	 * in another file than what started it. */
	if (dp_frame_module(frames[n_frames - 3]) == dp_frame_module(frames[n_frames - 2]))
		learn_one(ends, frames[n_frames - 3], frames[n_frames - 2]);
}

/* The user's part of the callchain: the sample's own pc and return addresses. */
static const uint64_t *user_part(const struct dp_unwind_sample *sample, size_t *ret_n)
{
	const uint64_t *words = sample->callchain;
	size_t first = 0, n;

	for (size_t i = 0; i < sample->n_callchain; i++) {
		if (words[i] == CONTEXT_USER)
			first = i + 1;
	}
	for (n = first; n < sample->n_callchain && words[n] < FIRST_MARKER && words[n]; n++)
		continue;
	*ret_n = n - first;
	return words + first;
}

/*
 * Where in the chain of @n the return address behind frame pointer @bp stands; 0 if the chain does
 * not come past it. A kernel that knows the probed instruction for a function's first one puts the
 * word at the stack pointer in front.
 */
static size_t find_place(const struct dp_unwind_sample *sample, const uint64_t *words, size_t n,
			 uint64_t bp)
{
	uint64_t at = sample->regs[DP_UNWIND_REG_BP], top, word, outer;
	size_t i = 1;

	if (n > 1 && !sample->leaf_is_call &&
	    dp_stack_read(sample, sample->regs[DP_UNWIND_REG_SP], WORD, &top) && words[1] == top)
		i = 2;
	for (; i < n; i++) {
		if (at == bp)
			return i;
		if (!dp_stack_read(sample, at + WORD, WORD, &word) ||
		    !dp_stack_read(sample, at, WORD, &outer) || outer <= at ||
		    (word != words[i] && !dp_is_return_trampoline(word)))
			return 0;
		at = outer;
	}
	return 0;
}

/* The frames outside @frame as learned. Returns their number, 0 if they are not known to the end.
 */
static size_t add_ends(const struct dp_chain *chain, uint64_t frame, uint64_t *ret_frames,
		       size_t max_frames)
{
	uint64_t outer, rule;

	for (size_t n = 0; n < max_frames && n < 2; frame = outer) {
		if (!dp_map_get(&chain->ends->outer, frame, &outer) || outer == 0)
			return 0;
		ret_frames[n++] = outer;
		if (dp_cfi_find(chain->cfi, outer, &rule) == 0 &&
		    dp_cfi_shape(rule) == DP_CFI_OUTERMOST)
			return n;
	}
	return 0;
}

ptrdiff_t dp_chain_go_on(const struct dp_chain *chain, uint64_t frame, uint64_t bp,
			 uint64_t *ret_frames, size_t max_frames, enum dp_unwind_end *ret_end)
{
	size_t n_words, n = 0, n_ends;
	const uint64_t *words = user_part(chain->sample, &n_words);
	size_t i = find_place(chain->sample, words, n_words, bp);
	uint64_t rule;

	*ret_end = DP_UNWIND_STACK_CUT;
	if (i == 0 || dp_cfi_find(chain->cfi, frame, &rule) < 0 ||
	    !dp_cfi_keeps_frame_pointer(rule))
		return 0;
	for (; i < n_words && dp_space_holds(chain->space, words[i] - 1); i++) {
		if (n == max_frames) {
			*ret_end = DP_UNWIND_LIMIT;
			break;
		}
		frame = dp_space_frame(chain->space, words[i] - 1);
		ret_frames[n++] = frame;
		if (dp_cfi_find(chain->cfi, frame, &rule) < 0)
			return -ENOMEM;
		if (dp_cfi_keeps_frame_pointer(rule))
			continue;
		n_ends = add_ends(chain, frame, ret_frames + n, max_frames - n);
		n += n_ends;
		if (n_ends > 0 || dp_cfi_shape(rule) == DP_CFI_OUTERMOST)
			*ret_end = DP_UNWIND_OUTERMOST;
		break;
	}
	return (ptrdiff_t)n;
}
