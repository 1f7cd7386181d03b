/* SPDX-License-Identifier: MIT */
#ifndef DP_CONTENTION_H
#define DP_CONTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "perf/record.h"
#include "src/delta.h"
#include "src/locks.h"

/*
 * The contention source: futex calls and wake-ups go in, cumulative counters per stack come out:
 * block on the waiter's stack, mutex on the stack of the thread that ended the wait by releasing a
 * lock.
 */

struct dp_contention;

struct dp_contention_options {
	uint64_t pid;
	uint64_t rate_ns; /* waits at least this long are kept, shorter ones with probability d /
			     rate; 1: all */
	uint64_t seed;
	size_t max_threads; /* bound of threads with a futex call under way */
};

/*
 * Gives the id of the stack of a FUTEX_EXIT, WAIT, WAKING or RELEASE event and, for a waiter, the
 * kind of its wait; called only for what is kept.
 * @ret_kind: NULL for a waker.
 */
typedef uint32_t dp_contention_stack_fn(void *context, const struct dp_event *event,
					enum dp_wait_kind *ret_kind);

/*
 * Every call is counted in exactly one of the others once it is over: n_calls = n_waits +
 * n_not_slept + n_other_calls + n_abandoned + n_forgotten + n_no_room + dp_contention_pending();
 * and every wait: n_waits = n_released + n_ended_otherwise.
 */
struct dp_contention_stats {
	uint64_t n_calls;	/* futex calls entered */
	uint64_t n_waits;	/* waits that slept and ended */
	uint64_t n_kept;	/* of these, kept by the sampler */
	uint64_t n_lost;	/* of these, kept by the kernel sampler and lost on the way */
	uint64_t n_not_slept;	/* wait calls that returned at once (EAGAIN, EINVAL, …) */
	uint64_t n_other_calls; /* calls that do not wait (wake, requeue, …) and returned */
	uint64_t n_released; /* waits ended by a thread of the process inside its own futex call */
	uint64_t n_ended_otherwise;	 /* waits ended by a time-out, a signal, another process: in
					    block only */
	uint64_t n_lock_ended_otherwise; /* of these, waits for a lock, scaled as contentions are:
					    what mutex lacks */
	uint64_t n_unpaired_exits; /* returns whose entry was not seen (in flight at attach, or
				      lost) or had no room */
	uint64_t n_forgotten; /* calls under way when records were lost, or when their thread's next
				 call showed that their return was */
	uint64_t n_abandoned; /* calls whose thread ended before they returned */
	uint64_t n_no_room;   /* calls beyond the bound of threads */
};

/*
 * @stack: called with @context, from within dp_contention_event().
 * Returns 0, -ENOMEM, or -EINVAL for a rate or a bound of 0; *@ret only on success.
 */
int dp_contention_new(struct dp_contention **ret, const struct dp_contention_options *options,
		      dp_contention_stack_fn *stack, void *context);
void dp_contention_free(struct dp_contention *contention); /* NULL is allowed */

/*
 * Takes in a FUTEX_ENTER, FUTEX_EXIT or WAKING event, in the order of time; the kernel delivers a
 * WAKING to the waker's event and to the wakee's, so it may come twice. Or, where the kernel has
 * decided, RELEASE and WAIT events; these are in no statistics but n_kept and
 * n_lock_ended_otherwise. Others, and those of other processes, are ignored.
 * Returns 0, or -ENOMEM: the event is as if it had not been given, and may be given again.
 */
int dp_contention_event(struct dp_contention *contention, const struct dp_event *event);

/* Thread @tid ended: its call, if any, will not return. */
void dp_contention_thread_exit(struct dp_contention *contention, uint32_t tid);

/* Records were lost: calls under way are forgotten. */
void dp_contention_gap(struct dp_contention *contention);

/* Calls that were entered and have not returned. */
size_t dp_contention_pending(const struct dp_contention *contention);

/*
 * Add the cumulative counters to a pass of @delta; values: contentions, delay in nanoseconds. A
 * block row's tag is its enum dp_wait_kind; a mutex row's is 0. Rounded so that the sum of rounded
 * differences is the rounded whole. A row beyond the delta's bound is left out
 * (dp_delta_overflowed()). Return 0, or -ENOMEM with the pass incomplete.
 */
int dp_contention_feed_block(const struct dp_contention *contention, struct dp_delta *delta);
int dp_contention_feed_mutex(const struct dp_contention *contention, struct dp_delta *delta);

const struct dp_contention_stats *dp_contention_get_stats(const struct dp_contention *contention);

/* The delta spec that the feeds need, for at most @max_rows rows. */
struct dp_delta_spec dp_contention_delta_spec(size_t max_rows);

#endif
