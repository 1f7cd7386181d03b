/* SPDX-License-Identifier: MIT */
#include "src/interner.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "src/base/frame.h"
#include "symbolize/normalize.h"

size_t dp_interner_max_callchain(void)
{
	FILE *file = fopen("/proc/sys/kernel/perf_event_max_stack", "re");
	unsigned limit = 127;

	if (!file)
		return limit;
	if (fscanf(file, "%u", &limit) != 1)
		limit = 127;
	fclose(file);
	return limit;
}

uint32_t dp_interner_entry(void *context, const struct dp_event *event)
{
	struct dp_interner *interner = context;
	uint64_t words[DP_STACK_MAX_FRAMES + 1];
	uint64_t frames[DP_STACK_MAX_FRAMES + 2];
	size_t n = event->entry.user.n_callchain;
	uint64_t generation = dp_space_generation(interner->space);
	struct dp_normalize_stats stats = {0};
	size_t n_frames;
	uint32_t n_known, id;

	if (n > DP_STACK_MAX_FRAMES)
		n = DP_STACK_MAX_FRAMES;
	memcpy(words, event->entry.user.callchain, n * sizeof(*words));
	words[n] = event->entry.stack0;
	if (dp_stack_cache_get(interner->cache, generation, words, n + 1, &id) == 1)
		return id;
	n_frames = dp_normalize_entry(interner->space, words, n, event->entry.stack0,
				      interner->max_callchain, frames, &stats);
	if (stats.n_stacks_truncated > 0)
		frames[n_frames++] = DP_FRAME_MARK_CUT;
	n_known = dp_stacks_count(interner->stacks);
	id = dp_stacks_intern(interner->stacks, frames, n_frames);
	if (dp_stacks_count(interner->stacks) > n_known) {
		interner->n_truncated += stats.n_stacks_truncated;
		interner->n_cut += stats.n_frames_invented > 0;
	}
	dp_stack_cache_put(interner->cache, generation, words, n + 1, id);
	return id;
}

/* Whose stack is being unwound: the context of pending_return(). */
struct returning {
	const struct dp_pairing *pairing; /* NULL: allocations are not observed */
	const struct dp_user_state *user;
	uint32_t tid;
};

static uint64_t pending_return(void *context, uint64_t avma)
{
	const struct returning *returning = context;

	if (avma == returning->user->pending_sp)
		return returning->user->pending_return;
	return returning->pairing
		       ? dp_pairing_return_address(returning->pairing, returning->tid, avma)
		       : 0;
}

static enum dp_frame_mark mark_of(const struct dp_unwind_result *result)
{
	static const enum dp_frame_mark marks[] = {[DP_UNWIND_OUTERMOST] = (enum dp_frame_mark)0,
						   [DP_UNWIND_STACK_CUT] = DP_FRAME_MARK_CUT,
						   [DP_UNWIND_NO_CFI] = DP_FRAME_MARK_NO_CFI,
						   [DP_UNWIND_LIMIT] = DP_FRAME_MARK_CUT,
						   [DP_UNWIND_BROKEN] = DP_FRAME_MARK_BROKEN};

	if (result->n_fp_steps > 0)
		return DP_FRAME_MARK_GUESSED;
	return marks[result->end];
}

/*
 * Unwinds @user, of thread @tid, which is at a function's entry or behind a system call.
 *
 * @ret_frames: room for one more than DP_STACK_MAX_FRAMES, the mark of a stack that is not whole.
 * Returns the number of frames, or 0 if nothing is known.
 */
static size_t unwind(struct dp_interner *interner, uint32_t tid, const struct dp_user_state *user,
		     bool at_entry, struct dp_unwind_counts *counts, uint64_t *ret_frames)
{
	struct returning returning = {interner->pairing, user, tid};
	struct dp_unwind_sample sample = {
		.stack = user->stack,
		.stack_bytes = user->stack_bytes,
		.leaf_is_call = !at_entry,
		.at_entry = at_entry,
		.pending = pending_return,
		.context = &returning,
		.callchain = user->n_callchain > 0 ? user->callchain : NULL,
		.n_callchain = user->n_callchain,
	};
	struct dp_unwind_result result;
	enum dp_frame_mark mark;
	ptrdiff_t n;

	if (!user->has_regs) {
		interner->n_missing++;
		return 0;
	}
	memcpy(sample.regs, user->regs, sizeof(sample.regs));
	n = dp_unwind(interner->unwinder, interner->space, &sample, ret_frames, DP_STACK_MAX_FRAMES,
		      &result);
	if (n < 0)
		return 0;
	dp_unwind_count(counts, &result);
	dp_stack_size_note(&interner->size, &result, sample.regs[DP_UNWIND_REG_SP]);
	mark = mark_of(&result);
	if (mark)
		ret_frames[n++] = mark;
	return (size_t)n;
}

uint32_t dp_interner_entry_unwound(void *context, const struct dp_event *event)
{
	struct dp_interner *interner = context;
	uint64_t frames[DP_STACK_MAX_FRAMES + 1];
	size_t n = unwind(interner, event->tid, &event->entry.user, true, &interner->heap, frames);

	return n == 0 ? DP_STACK_OVERFLOW : dp_stacks_intern(interner->stacks, frames, n);
}

/*
 * The frame of the function that was called: where a library names its inner ones too, a lock's
 * wait is several functions of one kind that call one another, from @frames[*@i_frame] outwards.
 */
static void find_called(const struct dp_locks *locks, const uint64_t *frames, size_t n_frames,
			enum dp_wait_kind kind, size_t *i_frame)
{
	size_t i_unused;

	while (kind != DP_WAIT_FUTEX && *i_frame + 1 < n_frames &&
	       dp_locks_classify(locks, frames + *i_frame + 1, 1, &i_unused) == kind)
		++*i_frame;
}

uint32_t dp_interner_wait(void *context, const struct dp_event *event, enum dp_wait_kind *ret_kind)
{
	struct dp_interner *interner = context;
	uint64_t frames[DP_STACK_MAX_FRAMES + 1];
	const struct dp_user_state *user = dp_event_user(event);
	enum dp_wait_kind kind;
	size_t i_known, n;

	assert(user); /* of a wait's events each has one */
	n = unwind(interner, event->tid, user, false, &interner->waits, frames);

	if (ret_kind)
		*ret_kind = DP_WAIT_FUTEX;
	if (n == 0)
		return DP_STACK_OVERFLOW;
	kind = dp_locks_classify(interner->locks, frames, n, &i_known);
	find_called(interner->locks, frames, n, kind, &i_known);
	if (ret_kind)
		*ret_kind = kind;
	/* What the C library does below its own function, or inside it, is no one's concern. */
	frames[i_known] = dp_locks_entry(interner->locks, frames[i_known]);
	return dp_stacks_intern(interner->stacks, frames + i_known, n - i_known);
}
