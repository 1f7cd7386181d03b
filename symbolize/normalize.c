/* SPDX-License-Identifier: MIT */
#include "symbolize/normalize.h"

#include <linux/perf_event.h>
#include <stdbool.h>

#include "src/base/frame.h"
#include "src/base/trampoline.h"

/*
 * The one hard idea: the kernel's chain is a guess made from frame pointers, and the word at the
 * stack pointer is a fact. So the fact goes in as the second frame, and only what the guess adds
 * beyond it may be cut off again.
 */

/* Source: Linux, include/uapi/linux/perf_event.h: PERF_CONTEXT_MAX is the lowest marker. */
static bool is_marker(uint64_t word)
{
	return word >= (uint64_t)PERF_CONTEXT_MAX;
}

struct chain {
	const struct dp_space *space;
	struct dp_normalize_stats *stats;
	uint64_t *frames;
	size_t n;
	size_t n_doubtful; /* the last ones of n: unmapped guesses */
	bool overflowed;   /* over DP_STACK_MAX_FRAMES + 1 */
};

/* Adds the frame of @avma. @lookup: what to look up. @is_fact: kept even if nothing is mapped
 * there. */
static void push(struct chain *chain, uint64_t avma, uint64_t lookup, bool is_fact)
{
	uint64_t frame;

	if (dp_is_return_trampoline(avma)) {
		chain->stats->n_trampolines++;
		return;
	}
	if (chain->n > DP_STACK_MAX_FRAMES) {
		chain->overflowed = true;
		return;
	}
	frame = dp_space_frame(chain->space, lookup);
	chain->frames[chain->n++] = frame;
	if (dp_frame_module(frame) == 0 && !dp_space_holds(chain->space, lookup)) {
		if (!is_fact) {
			chain->n_doubtful++;
			return;
		}
		chain->stats->n_frames_unmapped++;
	}
	chain->stats->n_frames_unmapped += chain->n_doubtful;
	chain->n_doubtful = 0;
}

static void push_stack0(struct chain *chain, uint64_t stack0)
{
	if (stack0)
		push(chain, stack0, stack0 - 1, true);
}

static bool has_marker(const uint64_t *callchain, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (is_marker(callchain[i]))
			return true;
	}
	return false;
}

/* Pushes the user part and, behind its first address, stack0. Returns its length as given. */
static size_t push_user_part(struct chain *chain, const uint64_t *callchain, size_t n,
			     uint64_t stack0)
{
	bool in_user = !has_marker(callchain, n);
	size_t n_user = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t word = callchain[i];

		if (is_marker(word)) {
			in_user = word == (uint64_t)PERF_CONTEXT_USER;
			continue;
		}
		if (!in_user)
			continue;
		if (word == 0)
			break;
		if (n_user == 1 && word != stack0)
			push_stack0(chain, stack0);
		push(chain, word, n_user == 0 ? word : word - 1,
		     n_user == 0 || (n_user == 1 && word == stack0));
		n_user++;
	}
	if (n_user < 2)
		push_stack0(chain, stack0);
	return n_user;
}

size_t dp_normalize_entry(const struct dp_space *space, const uint64_t *callchain,
			  size_t n_callchain, uint64_t stack0, size_t max_callchain,
			  uint64_t *ret_frames, struct dp_normalize_stats *stats)
{
	struct chain chain = {.space = space, .stats = stats, .frames = ret_frames};
	size_t n_user = push_user_part(&chain, callchain, n_callchain, stack0);

	chain.n -= chain.n_doubtful;
	stats->n_frames_invented += chain.n_doubtful;
	stats->n_frames += chain.n;
	stats->n_stacks_truncated += n_user >= max_callchain || chain.overflowed;
	return chain.n;
}
