/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: a goroutine is its address (g). What readies it ends its wait, on whatever thread
 * and whatever goroutine that is; until then it cannot park again, and afterwards the address may
 * be another goroutine's. So a park at an address that waits already means that an end was missed.
 *
 * A semaphore that was released may be taken by another goroutine before the one that was readied
 * for it runs, which then parks again inside of the same call. To Go's block profile that is one
 * wait, up to the last release; so what follows the first is added to its time and not counted. It
 * is told by the goroutine's not having asked for a semaphore in between.
 *
 * Each park carries one random number, and whether its wait is kept follows from that and how long
 * it was, as in src/contention.
 */
#include "src/go_waits.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "perf/arch.h"
#include "perf/kernel_abi.h"
#include "src/base/array.h"
#include "src/base/frame.h"
#include "src/base/map.h"
#include "src/base/random.h"
#include "src/go_layout.h"
#include "src/wait_rows.h"
#include "symbolize/normalize.h"

/* A goroutine that waits. */
struct parked {
	uint64_t g;
	uint64_t time_ns;
	double luck; /* in [0, 1) */
	uint32_t stack;
	enum dp_go_wait_class class;
	bool is_semaphore;
	bool goes_on; /* with the wait before */
	bool ended;   /* by time_ns; remembered as it may go on, see below */
};

struct dp_go_waits {
	struct dp_go_waits_options options;
	uint64_t reason_mask;
	uint8_t semaphore; /* the reason's number */
	struct dp_go_places *places;
	const struct dp_space *space;
	struct dp_stacks *stacks;
	struct dp_random random;
	uint64_t semaphore_mask;
	size_t n_waiting;      /* of the parked, those that have not ended */
	struct parked *parked; /* in no order */
	size_t n_parked, capacity;
	struct dp_map positions; /* g to index into parked */
	struct dp_wait_rows block, mutex;
	double locks_otherwise;
	struct dp_go_waits_stats stats;
};

uint64_t dp_go_waits_reason_mask(const uint8_t *reasons)
{
	uint64_t mask = 0;

	for (size_t i = 0; i < DP_GO_N_REASONS; i++) {
		if (reasons[i] < 64)
			mask |= UINT64_C(1) << reasons[i];
	}
	return mask;
}

uint64_t dp_go_waits_semaphore_mask(const uint8_t *reasons)
{
	static const enum dp_go_reason semaphores[] = {
		DP_GO_SEMACQUIRE,   DP_GO_MUTEX_LOCK,	  DP_GO_RWMUTEX_RLOCK,
		DP_GO_RWMUTEX_LOCK, DP_GO_WAITGROUP_WAIT, DP_GO_SYNCTEST_WAITGROUP};
	uint64_t mask = 0;

	for (size_t i = 0; i < sizeof(semaphores) / sizeof(semaphores[0]); i++) {
		if (reasons[semaphores[i]] < 64)
			mask |= UINT64_C(1) << reasons[semaphores[i]];
	}
	return mask;
}

int dp_go_waits_new(struct dp_go_waits **ret, const struct dp_go_waits_options *options,
		    struct dp_go_places *places, const struct dp_space *space,
		    struct dp_stacks *stacks)
{
	struct dp_go_waits *waits;

	if (options->rate_ns == 0 || options->max_parked == 0)
		return -EINVAL;
	waits = calloc(1, sizeof(*waits));
	if (!waits)
		return -ENOMEM;
	waits->options = *options;
	waits->reason_mask = dp_go_waits_reason_mask(options->reasons);
	waits->semaphore_mask = dp_go_waits_semaphore_mask(options->reasons);
	waits->semaphore = options->reasons[DP_GO_SEMACQUIRE];
	waits->places = places;
	waits->space = space;
	waits->stacks = stacks;
	dp_random_seed(&waits->random, options->seed);
	*ret = waits;
	return 0;
}

void dp_go_waits_free(struct dp_go_waits *waits)
{
	if (!waits)
		return;
	free(waits->parked);
	dp_map_clear(&waits->positions);
	dp_wait_rows_clear(&waits->block);
	dp_wait_rows_clear(&waits->mutex);
	free(waits);
}

/* ---- stacks ---- */

struct stack {
	uint64_t buffer[DP_STACK_MAX_FRAMES + 2];
	uint64_t *frames; /* where it begins, in buffer */
	size_t n;
	bool is_cut; /* at the outer end */
};

static void normalize(struct dp_go_waits *waits, const uint64_t *words, size_t n, uint64_t stack0,
		      size_t max_words, struct stack *ret)
{
	struct dp_normalize_stats stats = {0};

	ret->frames = ret->buffer;
	ret->n = dp_normalize_entry(waits->space, words, n, stack0, max_words, ret->buffer, &stats);
	ret->is_cut = stats.n_stacks_truncated > 0;
}

/* From a callchain of the kernel's. */
static void take_callchain(struct dp_go_waits *waits, const struct dp_user_state *user,
			   uint64_t stack0, struct stack *ret)
{
	normalize(waits, user->callchain, user->n_callchain, stack0, waits->options.max_callchain,
		  ret);
}

/* From the addresses that the kernel sampler read. The first one is behind the call with which
 * gopark() has left, so it is gopark's as it stands. */
static void take_frames(struct dp_go_waits *waits, const struct dp_event *event, struct stack *ret)
{
	uint64_t words[DP_KERNEL_GO_FRAMES];
	size_t n =
		event->go.n_frames < DP_KERNEL_GO_FRAMES ? event->go.n_frames : DP_KERNEL_GO_FRAMES;

	memcpy(words, event->go.frames, n * sizeof(*words));
	normalize(waits, words, n, 0, DP_KERNEL_GO_FRAMES, ret);
}

static uint32_t intern(struct dp_go_waits *waits, struct stack *stack)
{
	if (stack->n == 0)
		return DP_STACK_OVERFLOW;
	if (stack->is_cut) {
		waits->stats.n_truncated++;
		stack->frames[stack->n++] = DP_FRAME_MARK_CUT;
	}
	return dp_stacks_intern(waits->stacks, stack->frames, stack->n);
}

static uint32_t intern_waiter(struct dp_go_waits *waits, uint32_t reason, struct stack *stack,
			      enum dp_go_wait_class *ret_class)
{
	*ret_class = dp_go_places_cut_waiter(waits->places, reason == waits->semaphore,
					     &stack->frames, &stack->n);
	return *ret_class == DP_GO_WAIT_INTERNAL ? DP_STACK_OVERFLOW : intern(waits, stack);
}

/* The stack of who ended a wait for a lock. Returns false if no lock is released there. */
static bool intern_waker(struct dp_go_waits *waits, const struct dp_event *event, uint32_t *ret)
{
	struct stack stack;

	take_callchain(waits, &event->go.user, 0, &stack);
	if (!dp_go_places_cut_waker(waits->places, &stack.frames, &stack.n))
		return false;
	*ret = intern(waits, &stack);
	return true;
}

/* ---- what is counted ---- */

/* Counts a wait that is kept on both sides, or on failure on none. */
static int count_wait(struct dp_go_waits *waits, const struct dp_event *event, uint32_t stack,
		      enum dp_go_wait_class class, bool goes_on, uint64_t delay_ns)
{
	uint64_t rate_ns = waits->options.rate_ns;
	double contentions = delay_ns >= rate_ns ? 1 : (double)rate_ns / (double)delay_ns;
	uint64_t scaled_ns = delay_ns >= rate_ns ? delay_ns : rate_ns;
	struct dp_wait_row *waiter, *waker = NULL;
	uint32_t waker_stack;
	int r;

	if (class == DP_GO_WAIT_INTERNAL) {
		waits->stats.n_internal++;
		return 0;
	}
	r = dp_wait_rows_get(&waits->block, stack, 0, &waiter);
	if (r == 0 && class == DP_GO_WAIT_LOCK && intern_waker(waits, event, &waker_stack))
		r = dp_wait_rows_get(&waits->mutex, waker_stack, 0, &waker);
	if (r < 0)
		return r;
	dp_wait_row_add(waiter, goes_on ? 0 : contentions, scaled_ns);
	if (waker)
		dp_wait_row_add(waker, contentions, scaled_ns);
	else if (class == DP_GO_WAIT_LOCK)
		waits->locks_otherwise += contentions;
	waits->stats.n_locks_otherwise = dp_wait_round(waits->locks_otherwise);
	waits->stats.n_kept++;
	return 0;
}

static int decided_wait(struct dp_go_waits *waits, const struct dp_event *event)
{
	enum dp_go_wait_class class;
	struct stack stack;
	uint32_t id;

	take_frames(waits, event, &stack);
	id = intern_waiter(waits, event->go.reason, &stack, &class);
	return count_wait(waits, event, id, class, event->go.goes_on,
			  event->go.delay_ns > 0 ? event->go.delay_ns : 1);
}

/* ---- pairing ---- */

static struct parked *find_parked(const struct dp_go_waits *waits, uint64_t g)
{
	uint64_t position;

	return dp_map_get(&waits->positions, g, &position) ? &waits->parked[position] : NULL;
}

/* The last one takes the place of the one that goes. */
static void remove_parked(struct dp_go_waits *waits, struct parked *parked)
{
	const struct parked *last = &waits->parked[--waits->n_parked];
	int r;

	waits->n_waiting -= !parked->ended;
	dp_map_remove(&waits->positions, parked->g);
	if (last == parked)
		return;
	/* Nothing has to grow: there is one key less than there was, and this one is old. */
	r = dp_map_set(&waits->positions, last->g, (uint64_t)(parked - waits->parked));
	assert(r == 0);
	*parked = *last;
}

/* Makes room for @g, which does not wait. Returns 0, -ENOSPC or -ENOMEM. */
static int add_parked(struct dp_go_waits *waits, uint64_t g, struct parked **ret)
{
	int r;

	if (waits->n_parked >= waits->options.max_parked)
		return -ENOSPC;
	r = dp_array_reserve((void **)&waits->parked, &waits->capacity, waits->n_parked + 1,
			     sizeof(*waits->parked));
	if (r == 0)
		r = dp_map_set(&waits->positions, g, waits->n_parked);
	if (r < 0)
		return -ENOMEM;
	*ret = &waits->parked[waits->n_parked++];
	**ret = (struct parked){.g = g, .ended = true};
	return 0;
}

static bool counts(const struct dp_go_waits *waits, uint32_t reason)
{
	return reason < 64 && (waits->reason_mask >> reason & 1);
}

static int park(struct dp_go_waits *waits, const struct dp_event *event)
{
	struct parked *parked = find_parked(waits, event->go.g);
	uint64_t begin_ns = event->time_ns;
	struct stack stack;
	bool goes_on;
	int r = 0;

	if (parked && !parked->ended)
		waits->stats.n_forgotten++;
	if (!counts(waits, event->go.reason)) {
		if (parked)
			remove_parked(waits, parked);
		return 0;
	}
	goes_on = parked && parked->ended && (waits->semaphore_mask >> event->go.reason & 1);
	if (goes_on)
		begin_ns = parked->time_ns;
	if (!parked)
		r = add_parked(waits, event->go.g, &parked);
	if (r == -ENOMEM)
		return r;
	waits->stats.n_parks++;
	if (r < 0) {
		waits->stats.n_no_room++;
		return 0;
	}
	waits->n_waiting += parked->ended;
	*parked = (struct parked){.g = event->go.g,
				  .time_ns = begin_ns,
				  .goes_on = goes_on,
				  .is_semaphore = waits->semaphore_mask >> event->go.reason & 1,
				  .luck = (double)(dp_random_u64(&waits->random) >> 11) * 0x1p-53};
	take_callchain(waits, &event->go.user,
		       waits->options.gopark_has_frame ? 0 : event->go.stack0, &stack);
	parked->stack = intern_waiter(waits, event->go.reason, &stack, &parked->class);
	return 0;
}

static int ready(struct dp_go_waits *waits, const struct dp_event *event)
{
	struct parked *parked = find_parked(waits, event->go.g);
	uint64_t rate_ns = waits->options.rate_ns;
	uint64_t delay_ns;
	int r;

	if (!parked || parked->ended) {
		waits->stats.n_other_readies++;
		return 0;
	}
	delay_ns = event->time_ns > parked->time_ns ? event->time_ns - parked->time_ns : 1;
	if (delay_ns >= rate_ns || parked->luck * (double)rate_ns < (double)delay_ns) {
		r = count_wait(waits, event, parked->stack, parked->class, parked->goes_on,
			       delay_ns);
		if (r < 0)
			return r;
	} else {
		waits->stats.n_skipped++;
	}
	waits->stats.n_waits++;
	waits->stats.n_going_on += parked->goes_on;
	if (!parked->is_semaphore) {
		remove_parked(waits, parked);
		return 0;
	}
	waits->n_waiting--;
	parked->ended = true;
	parked->time_ns = event->time_ns;
	return 0;
}

/* The semaphore before has been got. */
static void acquire(struct dp_go_waits *waits, const struct dp_event *event)
{
	struct parked *parked = find_parked(waits, event->go.g);

	if (!parked)
		return;
	waits->stats.n_forgotten += !parked->ended;
	remove_parked(waits, parked);
}

int dp_go_waits_event(struct dp_go_waits *waits, const struct dp_event *event)
{
	if (event->pid != waits->options.pid)
		return 0;
	if (event->type == DP_EVENT_GO_PARK)
		return park(waits, event);
	if (event->type == DP_EVENT_GO_READY)
		return ready(waits, event);
	if (event->type == DP_EVENT_GO_ACQUIRE)
		acquire(waits, event);
	if (event->type == DP_EVENT_GO_WAIT)
		return decided_wait(waits, event);
	return 0;
}

void dp_go_waits_gap(struct dp_go_waits *waits)
{
	waits->stats.n_forgotten += waits->n_waiting;
	waits->n_parked = waits->n_waiting = 0;
	dp_map_clear(&waits->positions);
}

size_t dp_go_waits_pending(const struct dp_go_waits *waits)
{
	return waits->n_waiting;
}

int dp_go_waits_feed_block(const struct dp_go_waits *waits, struct dp_delta *delta)
{
	return dp_wait_rows_feed(&waits->block, delta);
}

int dp_go_waits_feed_mutex(const struct dp_go_waits *waits, struct dp_delta *delta)
{
	return dp_wait_rows_feed(&waits->mutex, delta);
}

const struct dp_go_waits_stats *dp_go_waits_get_stats(const struct dp_go_waits *waits)
{
	return &waits->stats;
}
