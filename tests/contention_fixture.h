/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_CONTENTION_FIXTURE_H
#define DP_TESTS_CONTENTION_FIXTURE_H

#include <stddef.h>
#include <stdint.h>

#include "src/contention.h"

/*
 * A contention source that is fed by hand, event by event. A thread's id is the stack that it waits
 * on, and WAKER_STACK + its id the one that it wakes on.
 */

#define PID 100
#define OTHER_PID 200
#define MAX_TIDS 64
#define WAKER_STACK 1000

/* Kernel-internal results. Source: the kernel's include/linux/errno.h. */
#define KERNEL_ERESTARTSYS 512
#define KERNEL_ERESTARTNOINTR 513
#define KERNEL_ERESTART_RESTARTBLOCK 516

struct contention_fixture {
	struct dp_contention *contention;
	enum dp_wait_kind kinds[MAX_TIDS];	/* of what each thread waits for; mutex at first */
	size_t n_waiter_stacks, n_waker_stacks; /* stacks that were asked for */
};

/* Rate 1 and 16 threads, or as told. Call fixture_stop() at the end. */
void fixture_start(struct contention_fixture *fx);
void fixture_start_with(struct contention_fixture *fx, uint64_t rate_ns, uint64_t seed,
			size_t max_threads);
void fixture_stop(struct contention_fixture *fx);

/* One event each, which must be taken. The operation's private flag is set. */
void fixture_enter(struct contention_fixture *fx, uint32_t tid, uint32_t op, uint64_t time_ns);
void fixture_leave(struct contention_fixture *fx, uint32_t tid, int64_t result, uint64_t time_ns);
void fixture_waking(struct contention_fixture *fx, uint32_t tid, uint32_t wakee_tid,
		    uint64_t time_ns);

/* A whole call of a waker: enters 10 ns before @time_ns, wakes then, returns 10 ns after. */
void fixture_wake(struct contention_fixture *fx, uint32_t tid, uint32_t op, uint32_t wakee_tid,
		  uint64_t time_ns);

/* All that was ever counted of one row; zeros if there is none. */
struct contention_values {
	int64_t contentions, delay_ns;
};
struct contention_values fixture_block(const struct contention_fixture *fx, uint32_t stack,
				       enum dp_wait_kind kind);
struct contention_values fixture_mutex(const struct contention_fixture *fx, uint32_t stack);

/* Fails the test unless every call and every wait is in exactly one counter. */
void fixture_assert_balance(const struct contention_fixture *fx);

#endif
