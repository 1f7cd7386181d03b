/* SPDX-License-Identifier: MIT */
#include "src/contention.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "perf/futex_rules.h"
#include "src/base/array.h"
#include "src/base/map.h"
#include "src/base/random.h"
#include "src/wait_rows.h"

/*
 * The hard idea: what ended a wait is known only when it returns. A waking may be spurious (a late
 * one of an earlier wait; a priority-inheritance lock that another thread took first), so a later
 * one replaces it, and a wait that returned an error was not ended by any. Each wait therefore
 * carries one random number from its start, and whether it is kept follows from that number and the
 * delay up to its release, whichever release it turns out to be: one draw that decides both sides,
 * as fair as if it were drawn at the end. From the release until the thread runs again it may take
 * long where processors are busy; that counts as waited for too, scaled by the same chance.
 *
 * The futex words' addresses are not compared. A waiter that was requeued is woken through another
 * word than it waits on, memory mapped twice has two addresses, and inside a waker's own futex call
 * nothing but that call or an interrupt wakes anybody; whom an interrupt (a timer, a signal) woke
 * returns an error.
 *
 * Where the kernel decides (perf/kernel.bpf.c, by the same perf/futex_rules.h) only what is kept
 * comes here.
 *
 * Not seen: the rest of a wait with a time-out that was stopped and goes on in restart_syscall(2);
 * by the direct sampler the calls futex_waitv(2), futex_wait, futex_wake and futex_requeue of later
 * kernels.
 */

/* A futex call under way. */
struct call {
	uint32_t tid;
	enum dp_futex_role role;
	uint64_t serial; /* from 1 */
	uint64_t enter_ns;
	/* Of a wait: */
	double luck;		   /* in [0, 1) */
	bool woken;		   /* by whomever */
	uint64_t released_by;	   /* serial of the newest waker's call; 0: nobody's */
	uint64_t release_delay_ns; /* then */
	uint32_t releaser_stack;   /* if a wait of that delay is kept */
};

struct dp_contention {
	struct dp_contention_options options;
	dp_contention_stack_fn *stack;
	void *context;
	struct dp_random random;
	struct call *calls; /* in no order */
	size_t n_calls, calls_capacity;
	struct dp_map positions; /* tid to index into calls */
	struct dp_map releases;	 /* decided by the kernel: tid to the stack that ended its wait */
	struct dp_wait_rows block, mutex;
	double lock_ended_otherwise;
	struct dp_contention_stats stats;
};

int dp_contention_new(struct dp_contention **ret, const struct dp_contention_options *options,
		      dp_contention_stack_fn *stack, void *context)
{
	struct dp_contention *contention;

	if (options->rate_ns == 0 || options->max_threads == 0)
		return -EINVAL;
	contention = calloc(1, sizeof(*contention));
	if (!contention)
		return -ENOMEM;
	contention->options = *options;
	contention->stack = stack;
	contention->context = context;
	dp_random_seed(&contention->random, options->seed);
	*ret = contention;
	return 0;
}

void dp_contention_free(struct dp_contention *contention)
{
	if (!contention)
		return;
	free(contention->calls);
	dp_map_clear(&contention->positions);
	dp_map_clear(&contention->releases);
	dp_wait_rows_clear(&contention->block);
	dp_wait_rows_clear(&contention->mutex);
	free(contention);
}

static struct call *find_call(const struct dp_contention *contention, uint32_t tid)
{
	uint64_t position;

	if (!dp_map_get(&contention->positions, tid, &position))
		return NULL;
	return &contention->calls[position];
}

/* Makes room for a call of @tid, which has none. Returns 0, -ENOSPC or -ENOMEM. */
static int add_call(struct dp_contention *contention, uint32_t tid, struct call **ret)
{
	int r;

	if (contention->n_calls >= contention->options.max_threads)
		return -ENOSPC;
	r = dp_array_reserve((void **)&contention->calls, &contention->calls_capacity,
			     contention->n_calls + 1, sizeof(*contention->calls));
	if (r == 0)
		r = dp_map_set(&contention->positions, tid, contention->n_calls);
	if (r < 0)
		return -ENOMEM;
	*ret = &contention->calls[contention->n_calls++];
	return 0;
}

/* The last call takes the place of the one that goes. */
static void remove_call(struct dp_contention *contention, struct call *call)
{
	const struct call *last = &contention->calls[--contention->n_calls];
	int r;

	dp_map_remove(&contention->positions, call->tid);
	if (last == call)
		return;
	/* Nothing has to grow: there is one key less than there was, and this one is old. */
	r = dp_map_set(&contention->positions, last->tid, (uint64_t)(call - contention->calls));
	assert(r == 0);
	*call = *last;
}

static int enter(struct dp_contention *contention, const struct dp_event *event)
{
	struct call *call = find_call(contention, event->tid);
	int r;

	if (call) {
		contention->stats.n_forgotten++;
	} else {
		r = add_call(contention, event->tid, &call);
		if (r == -ENOMEM)
			return r;
		if (r < 0)
			contention->stats.n_no_room++;
	}
	contention->stats.n_calls++;
	if (!call)
		return 0;
	*call = (struct call){
		.tid = event->tid,
		.role = dp_futex_role((uint32_t)event->futex_enter.op),
		.serial = contention->stats.n_calls,
		.enter_ns = event->time_ns,
	};
	if (dp_futex_is_wait(call->role))
		call->luck = (double)(dp_random_u64(&contention->random) >> 11) * 0x1p-53;
	return 0;
}

/* From the call's entry to @event, at least 1 ns. */
static uint64_t delay_until(const struct call *call, const struct dp_event *event)
{
	return event->time_ns > call->enter_ns ? event->time_ns - call->enter_ns : 1;
}

/* With probability min(1, delay / rate), and the same answer each time it is asked. */
static bool is_kept(const struct dp_contention *contention, const struct call *call,
		    uint64_t delay_ns)
{
	uint64_t rate_ns = contention->options.rate_ns;

	return delay_ns >= rate_ns || call->luck * (double)rate_ns < (double)delay_ns;
}

static void waking(struct dp_contention *contention, const struct dp_event *event)
{
	struct call *wait = find_call(contention, event->waking.wakee_tid);
	const struct call *waker = find_call(contention, event->tid);

	if (!wait || !dp_futex_is_wait(wait->role))
		return;
	wait->woken = true;
	/* Only a thread of the process inside its own futex call releases; and once in that call,
	 * since the record may come twice. */
	if (event->pid != contention->options.pid || !waker || waker->role != DP_FUTEX_WAKES ||
	    wait->released_by == waker->serial)
		return;
	wait->released_by = waker->serial;
	wait->release_delay_ns = delay_until(wait, event);
	if (is_kept(contention, wait, wait->release_delay_ns))
		wait->releaser_stack = contention->stack(contention->context, event, NULL);
}

/* A wait that is kept. */
struct kept {
	uint64_t drawn_ns; /* the delay that it was kept for, up to its release */
	uint64_t
		delay_ns; /* how long it took in the end, until the thread ran again: this counts */
	bool released;
	uint32_t releaser_stack;
};

/* Adds it to both sides, or on failure to none. */
static int count_wait(struct dp_contention *contention, const struct dp_event *event,
		      const struct kept *kept)
{
	uint64_t rate_ns = contention->options.rate_ns;
	double contentions =
		kept->drawn_ns >= rate_ns ? 1 : (double)rate_ns / (double)kept->drawn_ns;
	uint64_t scaled_ns = dp_wait_round((double)kept->delay_ns * contentions);
	enum dp_wait_kind kind = DP_WAIT_FUTEX;
	uint32_t stack = contention->stack(contention->context, event, &kind);
	struct dp_wait_row *waiter, *releaser = NULL;
	int r;

	r = dp_wait_rows_get(&contention->block, stack, kind, &waiter);
	if (r == 0 && kept->released && dp_wait_kind_is_lock(kind))
		r = dp_wait_rows_get(&contention->mutex, kept->releaser_stack, 0, &releaser);
	if (r < 0)
		return r;
	dp_wait_row_add(waiter, contentions, scaled_ns);
	if (releaser)
		dp_wait_row_add(releaser, contentions, scaled_ns);
	else if (dp_wait_kind_is_lock(kind))
		contention->lock_ended_otherwise += contentions;
	contention->stats.n_lock_ended_otherwise = dp_wait_round(contention->lock_ended_otherwise);
	contention->stats.n_kept++;
	return 0;
}

static int end_wait(struct dp_contention *contention, const struct call *call,
		    const struct dp_event *event)
{
	struct kept kept = {.delay_ns = delay_until(call, event),
			    .released = call->released_by && event->futex_exit.result == 0,
			    .releaser_stack = call->releaser_stack};
	int r;

	kept.drawn_ns = kept.released ? call->release_delay_ns : kept.delay_ns;
	if (is_kept(contention, call, kept.drawn_ns)) {
		r = count_wait(contention, event, &kept);
		if (r < 0)
			return r;
	}
	contention->stats.n_waits++;
	if (kept.released)
		contention->stats.n_released++;
	else
		contention->stats.n_ended_otherwise++;
	return 0;
}

static int leave(struct dp_contention *contention, const struct dp_event *event)
{
	struct call *call = find_call(contention, event->tid);
	int r;

	if (!call) {
		contention->stats.n_unpaired_exits++;
		return 0;
	}
	if (!dp_futex_is_wait(call->role)) {
		contention->stats.n_other_calls++;
	} else if (!dp_futex_has_slept(call->role, call->woken, event->futex_exit.result)) {
		contention->stats.n_not_slept++;
	} else {
		r = end_wait(contention, call, event);
		if (r < 0)
			return r;
	}
	remove_call(contention, call);
	return 0;
}

/* The waker's side of a wait that the kernel would keep; a later one takes its place. */
static int decided_release(struct dp_contention *contention, const struct dp_event *event)
{
	return dp_map_set(&contention->releases, event->waking.wakee_tid,
			  contention->stack(contention->context, event, NULL));
}

/* A wait that the kernel keeps. Without a record of its release it counts as ended otherwise. */
static int decided_wait(struct dp_contention *contention, const struct dp_event *event)
{
	struct kept kept = {.drawn_ns = event->wait.drawn_ns, .delay_ns = event->wait.delay_ns};
	uint64_t stack = 0;
	int r;

	kept.released =
		dp_map_get(&contention->releases, event->tid, &stack) && event->wait.released;
	kept.releaser_stack = (uint32_t)stack;
	r = count_wait(contention, event, &kept);
	if (r == 0)
		dp_map_remove(&contention->releases, event->tid);
	return r;
}

int dp_contention_event(struct dp_contention *contention, const struct dp_event *event)
{
	/* Whoever wakes, the wait is the process's own. */
	if (event->type == DP_EVENT_WAKING)
		waking(contention, event);
	if (event->pid != contention->options.pid)
		return 0;
	if (event->type == DP_EVENT_FUTEX_ENTER)
		return enter(contention, event);
	if (event->type == DP_EVENT_FUTEX_EXIT)
		return leave(contention, event);
	if (event->type == DP_EVENT_RELEASE)
		return decided_release(contention, event);
	if (event->type == DP_EVENT_WAIT)
		return decided_wait(contention, event);
	return 0;
}

void dp_contention_thread_exit(struct dp_contention *contention, uint32_t tid)
{
	struct call *call = find_call(contention, tid);

	dp_map_remove(&contention->releases, tid);
	if (!call)
		return;
	contention->stats.n_abandoned++;
	remove_call(contention, call);
}

void dp_contention_gap(struct dp_contention *contention)
{
	contention->stats.n_forgotten += contention->n_calls;
	contention->n_calls = 0;
	dp_map_clear(&contention->positions);
}

size_t dp_contention_pending(const struct dp_contention *contention)
{
	return contention->n_calls;
}

int dp_contention_feed_block(const struct dp_contention *contention, struct dp_delta *delta)
{
	return dp_wait_rows_feed(&contention->block, delta);
}

int dp_contention_feed_mutex(const struct dp_contention *contention, struct dp_delta *delta)
{
	return dp_wait_rows_feed(&contention->mutex, delta);
}

const struct dp_contention_stats *dp_contention_get_stats(const struct dp_contention *contention)
{
	return &contention->stats;
}

struct dp_delta_spec dp_contention_delta_spec(size_t max_rows)
{
	return (struct dp_delta_spec){
		.n_values = 2,
		.delta_mask = 0x3,
		.negative_moves_base = true,
		.max_rows = max_rows,
	};
}
