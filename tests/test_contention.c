/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <linux/futex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/contention.h"
#include "tests/contention_fixture.h"

#define N_OF(array) (sizeof(array) / sizeof((array)[0]))

static void assert_values(struct contention_values values, int64_t contentions, int64_t delay_ns)
{
	assert_int_equal(values.contentions, contentions);
	assert_int_equal(values.delay_ns, delay_ns);
}

static const struct dp_contention_stats *stats_of(const struct contention_fixture *fx)
{
	return dp_contention_get_stats(fx->contention);
}

static void a_released_wait_is_charged_to_both_sides_up_to_its_return(void **state)
{
	struct contention_fixture fx;

	(void)state;
	fixture_start(&fx);
	fixture_enter(&fx, 1, FUTEX_WAIT, 1000);
	fixture_wake(&fx, 2, FUTEX_WAKE, 1, 1500);
	fixture_leave(&fx, 1, 0, 1900);
	assert_values(fixture_block(&fx, 1, DP_WAIT_MUTEX), 1, 900);
	assert_values(fixture_mutex(&fx, WAKER_STACK + 2), 1, 900);
	assert_int_equal(stats_of(&fx)->n_calls, 2);
	assert_int_equal(stats_of(&fx)->n_waits, 1);
	assert_int_equal(stats_of(&fx)->n_kept, 1);
	assert_int_equal(stats_of(&fx)->n_released, 1);
	assert_int_equal(stats_of(&fx)->n_other_calls, 1);
	assert_int_equal(stats_of(&fx)->n_lock_ended_otherwise, 0);
	assert_int_equal(dp_contention_pending(fx.contention), 0);
	fixture_stop(&fx);
}

static void a_wait_that_nobody_released_lasts_to_its_return_and_is_in_block_only(void **state)
{
	static const int64_t results[] = {
		0, /* woken by another process, or before it slept */
		-ETIMEDOUT,
		-EINTR,
		-KERNEL_ERESTARTSYS,
		-KERNEL_ERESTARTNOINTR,
		-KERNEL_ERESTART_RESTARTBLOCK,
	};

	(void)state;
	for (size_t i = 0; i < N_OF(results); i++) {
		struct contention_fixture fx;

		fixture_start(&fx);
		fixture_enter(&fx, 1, FUTEX_WAIT, 1000);
		fixture_leave(&fx, 1, results[i], 1900);
		assert_values(fixture_block(&fx, 1, DP_WAIT_MUTEX), 1, 900);
		assert_int_equal(stats_of(&fx)->n_ended_otherwise, 1);
		assert_int_equal(stats_of(&fx)->n_lock_ended_otherwise, 1);
		assert_int_equal(fx.n_waker_stacks, 0);
		fixture_stop(&fx);
	}
}

static void a_call_that_returned_at_once_is_no_wait(void **state)
{
	static const int64_t results[] = {-EAGAIN,  -EINVAL, -EFAULT, -ENOSYS, -EPERM,
					  -EDEADLK, -ESRCH,  -ENOMEM, -EACCES};
	static const uint32_t ops[] = {FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_LOCK_PI, FUTEX_LOCK_PI2,
				       FUTEX_WAIT_REQUEUE_PI};
	struct contention_fixture fx;

	(void)state;
	fixture_start(&fx);
	for (size_t i = 0; i < N_OF(results); i++) {
		for (size_t k = 0; k < N_OF(ops); k++) {
			fixture_enter(&fx, 1, ops[k], 1000);
			fixture_leave(&fx, 1, results[i], 1900);
		}
	}
	assert_int_equal(stats_of(&fx)->n_not_slept, N_OF(results) * N_OF(ops));
	assert_int_equal(stats_of(&fx)->n_waits, 0);
	assert_int_equal(fx.n_waiter_stacks, 0);
	assert_values(fixture_block(&fx, 1, DP_WAIT_MUTEX), 0, 0);
	fixture_stop(&fx);
}

static void every_operation_that_waits_is_released_by_every_one_that_wakes(void **state)
{
	static const uint32_t waits[] = {FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_LOCK_PI,
					 FUTEX_LOCK_PI2, FUTEX_WAIT_REQUEUE_PI};
	static const uint32_t wakes[] = {FUTEX_WAKE,	 FUTEX_WAKE_BITSET, FUTEX_WAKE_OP,
					 FUTEX_REQUEUE,	 FUTEX_CMP_REQUEUE, FUTEX_CMP_REQUEUE_PI,
					 FUTEX_UNLOCK_PI};
	struct contention_fixture fx;

	(void)state;
	fixture_start(&fx);
	for (size_t i = 0; i < N_OF(waits); i++) {
		for (size_t k = 0; k < N_OF(wakes); k++) {
			fixture_enter(&fx, 1, waits[i] | FUTEX_CLOCK_REALTIME, 1000);
			fixture_wake(&fx, 2, wakes[k], 1, 1100);
			fixture_leave(&fx, 1, 0, 1900);
		}
	}
	assert_values(fixture_mutex(&fx, WAKER_STACK + 2), N_OF(waits) * N_OF(wakes),
		      900 * N_OF(waits) * N_OF(wakes));
	fixture_stop(&fx);
}

/* The register may hold anything above the 32 bits that the kernel looks at. */
static void an_operation_is_32_bits_wide(void **state)
{
	struct contention_fixture fx;
	const struct dp_event event = {.type = DP_EVENT_FUTEX_ENTER,
				       .pid = PID,
				       .tid = 1,
				       .time_ns = 1000,
				       .futex_enter = {.op = UINT64_C(0xdead00000089)}};

	(void)state;
	fixture_start(&fx);
	assert_int_equal(dp_contention_event(fx.contention, &event), 0);
	fixture_leave(&fx, 1, 0, 1900);
	assert_values(fixture_block(&fx, 1, DP_WAIT_MUTEX), 1, 900);
	/* One that does not exist is no wait. */
	fixture_enter(&fx, 1, 0x7fffff, 2000);
	fixture_leave(&fx, 1, 0, 2900);
	fixture_enter(&fx, 1, FUTEX_TRYLOCK_PI, 3000);
	fixture_leave(&fx, 1, 0, 3900);
	assert_int_equal(stats_of(&fx)->n_waits, 1);
	assert_int_equal(stats_of(&fx)->n_other_calls, 2);
	fixture_stop(&fx);
}

static void a_waking_outside_a_futex_call_of_the_waker_is_no_release(void **state)
{
	struct contention_fixture fx;

	(void)state;
	fixture_start(&fx);
	fixture_enter(&fx, 1, FUTEX_WAIT, 1000);
	/* A thread that ends wakes who joins it; a timer's interrupt wakes on whatever runs. */
	fixture_waking(&fx, 2, 1, 1100);
	/* Nor is the waker's call over. */
	fixture_enter(&fx, 3, FUTEX_WAKE, 1150);
	fixture_leave(&fx, 3, 0, 1160);
	fixture_waking(&fx, 3, 1, 1200);
	/* A thread that waits itself. */
	fixture_enter(&fx, 4, FUTEX_WAIT, 1300);
	fixture_waking(&fx, 4, 1, 1400);
	fixture_leave(&fx, 1, 0, 1900);
	assert_values(fixture_block(&fx, 1, DP_WAIT_MUTEX), 1, 900);
	assert_int_equal(stats_of(&fx)->n_released, 0);
	assert_int_equal(fx.n_waker_stacks, 0);
	fixture_stop(&fx);
}

static void a_waking_by_another_process_is_no_release(void **state)
{
	struct contention_fixture fx;
	struct dp_event event = {.type = DP_EVENT_FUTEX_ENTER,
				 .pid = OTHER_PID,
				 .tid = 2,
				 .time_ns = 1100,
				 .futex_enter = {.op = FUTEX_WAKE}};

	(void)state;
	fixture_start(&fx);
	fixture_enter(&fx, 1, FUTEX_WAIT, 1000);
	assert_int_equal(dp_contention_event(fx.contention, &event), 0);
	event.type = DP_EVENT_WAKING;
	event.waking.wakee_tid = 1;
	assert_int_equal(dp_contention_event(fx.contention, &event), 0);
	/* Not even if a thread of ours, ended unseen, had the same id. */
	fixture_enter(&fx, 2, FUTEX_WAKE, 1050);
	assert_int_equal(dp_contention_event(fx.contention, &event), 0);
	fixture_leave(&fx, 1, 0, 1900);
	assert_values(fixture_block(&fx, 1, DP_WAIT_MUTEX), 1, 900);
	assert_int_equal(stats_of(&fx)->n_ended_otherwise, 1);
	assert_int_equal(stats_of(&fx)->n_calls, 2);
	fixture_stop(&fx);
}

static void a_waking_that_comes_twice_counts_once(void **state)
{
	struct contention_fixture fx;

	(void)state;
	fixture_start(&fx);
	fixture_enter(&fx, 1, FUTEX_WAIT, 1000);
	fixture_enter(&fx, 2, FUTEX_WAKE, 1400);
	fixture_waking(&fx, 2, 1, 1500);
	fixture_waking(&fx, 2, 1, 1503);
	fixture_leave(&fx, 2, 1, 1600);
	fixture_leave(&fx, 1, 0, 1900);
	fixture_waking(&fx, 2, 1, 1903);
	assert_values(fixture_block(&fx, 1, DP_WAIT_MUTEX), 1, 900);
	assert_values(fixture_mutex(&fx, WAKER_STACK + 2), 1, 900);
	assert_int_equal(fx.n_waker_stacks, 1);
	fixture_stop(&fx);
}

/* A priority-inheritance lock that a third thread took first; a late waking of an earlier wait. */
static void of_several_wakings_the_last_one_ended_the_wait(void **state)
{
	struct contention_fixture fx;

	(void)state;
	fixture_start(&fx);
	fixture_enter(&fx, 1, FUTEX_LOCK_PI, 1000);
	fixture_wake(&fx, 2, FUTEX_UNLOCK_PI, 1, 1100);
	fixture_wake(&fx, 3, FUTEX_UNLOCK_PI, 1, 1700);
	fixture_leave(&fx, 1, 0, 1900);
	assert_values(fixture_block(&fx, 1, DP_WAIT_MUTEX), 1, 900);
	assert_values(fixture_mutex(&fx, WAKER_STACK + 2), 0, 0);
	assert_values(fixture_mutex(&fx, WAKER_STACK + 3), 1, 900);
	fixture_stop(&fx);
}

/* The same thread may unlock again while the waiter, overtaken, still waits. */
static void a_second_call_of_the_same_waker_releases_anew(void **state)
{
	struct contention_fixture fx;

	(void)state;
	fixture_start(&fx);
	fixture_enter(&fx, 1, FUTEX_LOCK_PI, 1000);
	fixture_wake(&fx, 2, FUTEX_UNLOCK_PI, 1, 1100);
	fixture_wake(&fx, 2, FUTEX_UNLOCK_PI, 1, 1700);
	fixture_leave(&fx, 1, 0, 1900);
	assert_values(fixture_mutex(&fx, WAKER_STACK + 2), 1, 900);
	fixture_stop(&fx);
}

/*
 * The kernel returns 0 to whoever a waker took off the queue, whatever else happened; so a waking
 * that was seen in a wait that returned an error did not end it.
 */
static void a_wait_that_returned_an_error_was_not_released(void **state)
{
	static const int64_t results[] = {-ETIMEDOUT, -EINTR, -KERNEL_ERESTARTSYS,
					  -KERNEL_ERESTARTNOINTR, -KERNEL_ERESTART_RESTARTBLOCK};

	(void)state;
	for (size_t i = 0; i < N_OF(results); i++) {
		struct contention_fixture fx;

		fixture_start(&fx);
		fixture_enter(&fx, 1, FUTEX_LOCK_PI, 1000);
		fixture_wake(&fx, 2, FUTEX_UNLOCK_PI, 1, 1100);
		fixture_leave(&fx, 1, results[i], 1900);
		assert_values(fixture_block(&fx, 1, DP_WAIT_MUTEX), 1, 900);
		assert_values(fixture_mutex(&fx, WAKER_STACK + 2), 0, 0);
		assert_int_equal(stats_of(&fx)->n_lock_ended_otherwise, 1);
		fixture_stop(&fx);
	}
}

/* Woken by the unlocker while the time-out runs off: the kernel says 0, and it was a release. */
static void a_lock_released_at_the_last_moment_is_a_release(void **state)
{
	struct contention_fixture fx;

	(void)state;
	fixture_start(&fx);
	fixture_enter(&fx, 1, FUTEX_WAIT_BITSET, 1000);
	fixture_wake(&fx, 2, FUTEX_WAKE, 1, 1700);
	fixture_waking(&fx, 3, 1, 1701); /* the timer, on whatever ran */
	fixture_leave(&fx, 1, 0, 1900);
	assert_values(fixture_mutex(&fx, WAKER_STACK + 2), 1, 900);
	fixture_stop(&fx);
}

static void a_waiter_moved_to_another_futex_is_released_through_that(void **state)
{
	struct contention_fixture fx;
	struct dp_event event = {.type = DP_EVENT_FUTEX_ENTER,
				 .pid = PID,
				 .tid = 3,
				 .time_ns = 1700,
				 .futex_enter = {.uaddr = 0x2000, .op = FUTEX_WAKE}};

	(void)state;
	fixture_start(&fx);
	fixture_enter(&fx, 1, FUTEX_WAIT, 1000);
	fixture_enter(&fx, 2, FUTEX_CMP_REQUEUE, 1200);
	fixture_leave(&fx, 2, 1, 1210);
	assert_int_equal(dp_contention_event(fx.contention, &event), 0);
	fixture_waking(&fx, 3, 1, 1710);
	fixture_leave(&fx, 1, 0, 1900);
	assert_values(fixture_mutex(&fx, WAKER_STACK + 3), 1, 900);
	fixture_stop(&fx);
}

static void a_lock_of_priority_inheritance_slept_only_if_it_was_woken(void **state)
{
	struct contention_fixture fx;

	(void)state;
	fixture_start(&fx);
	fixture_enter(&fx, 1, FUTEX_LOCK_PI, 1000);
	fixture_leave(&fx, 1, 0, 1900);
	fixture_enter(&fx, 1, FUTEX_LOCK_PI2, 2000);
	fixture_leave(&fx, 1, 0, 2900);
	assert_int_equal(stats_of(&fx)->n_not_slept, 2);
	assert_values(fixture_block(&fx, 1, DP_WAIT_MUTEX), 0, 0);
	/* By whomever: its owner may have died. */
	fixture_enter(&fx, 1, FUTEX_LOCK_PI, 3000);
	fixture_waking(&fx, 2, 1, 3500);
	fixture_leave(&fx, 1, 0, 3900);
	assert_values(fixture_block(&fx, 1, DP_WAIT_MUTEX), 1, 900);
	assert_int_equal(stats_of(&fx)->n_released, 0);
	fixture_stop(&fx);
}

/* FUTEX_WAIT_REQUEUE_PI answers a signal with EAGAIN when it had been requeued. */
static void a_wait_for_a_requeue_that_was_woken_slept_although_it_says_again(void **state)
{
	struct contention_fixture fx;

	(void)state;
	fixture_start(&fx);
	fx.kinds[1] = DP_WAIT_CONDVAR;
	fixture_enter(&fx, 1, FUTEX_WAIT_REQUEUE_PI, 1000);
	fixture_waking(&fx, 2, 1, 1500);
	fixture_leave(&fx, 1, -EAGAIN, 1900);
	assert_values(fixture_block(&fx, 1, DP_WAIT_CONDVAR), 1, 900);
	fixture_enter(&fx, 1, FUTEX_WAIT, 2000);
	fixture_waking(&fx, 2, 1, 2500);
	fixture_leave(&fx, 1, -EAGAIN, 2900);
	assert_int_equal(stats_of(&fx)->n_waits, 1);
	assert_int_equal(stats_of(&fx)->n_not_slept, 1);
	fixture_stop(&fx);
}

static void only_locks_are_in_mutex(void **state)
{
	struct contention_fixture fx;

	(void)state;
	fixture_start(&fx);
	for (unsigned kind = 0; kind < DP_N_WAIT_KINDS; kind++) {
		fx.kinds[1] = kind;
		fixture_enter(&fx, 1, FUTEX_WAIT, 1000);
		fixture_wake(&fx, 10 + kind, FUTEX_WAKE, 1, 1500);
		fixture_leave(&fx, 1, 0, 1900);
	}
	for (unsigned kind = 0; kind < DP_N_WAIT_KINDS; kind++) {
		bool is_lock = kind == DP_WAIT_MUTEX || kind == DP_WAIT_RWLOCK;

		assert_values(fixture_block(&fx, 1, kind), 1, 900);
		assert_values(fixture_mutex(&fx, WAKER_STACK + 10 + kind), is_lock,
			      is_lock ? 900 : 0);
	}
	assert_int_equal(stats_of(&fx)->n_released, DP_N_WAIT_KINDS);
	fixture_stop(&fx);
}

static void a_thread_that_waits_again_starts_afresh(void **state)
{
	struct contention_fixture fx;

	(void)state;
	fixture_start(&fx);
	fixture_enter(&fx, 1, FUTEX_WAIT, 1000);
	fixture_wake(&fx, 2, FUTEX_WAKE, 1, 1500);
	fixture_leave(&fx, 1, 0, 1900);
	/* Overtaken: the lock was gone when it came back, and it sleeps until the next. */
	fixture_enter(&fx, 1, FUTEX_WAIT, 2000);
	fixture_wake(&fx, 3, FUTEX_WAKE, 1, 2300);
	fixture_leave(&fx, 1, 0, 2900);
	fixture_enter(&fx, 1, FUTEX_WAIT, 3000);
	fixture_leave(&fx, 1, -ETIMEDOUT, 3700);
	assert_values(fixture_block(&fx, 1, DP_WAIT_MUTEX), 3, 900 + 900 + 700);
	assert_values(fixture_mutex(&fx, WAKER_STACK + 2), 1, 900);
	assert_values(fixture_mutex(&fx, WAKER_STACK + 3), 1, 900);
	fixture_stop(&fx);
}

static void one_call_may_release_many(void **state)
{
	struct contention_fixture fx;

	(void)state;
	fixture_start(&fx);
	for (uint32_t tid = 1; tid <= 10; tid++)
		fixture_enter(&fx, tid, FUTEX_WAIT, 1000 + tid);
	fixture_enter(&fx, 20, FUTEX_WAKE, 2000);
	for (uint32_t tid = 1; tid <= 10; tid++)
		fixture_waking(&fx, 20, tid, 2000 + 2 * tid);
	fixture_leave(&fx, 20, 10, 2100);
	for (uint32_t tid = 1; tid <= 10; tid++)
		fixture_leave(&fx, tid, 0, 3000);
	for (uint32_t tid = 1; tid <= 10; tid++)
		assert_values(fixture_block(&fx, tid, DP_WAIT_MUTEX), 1, 2000 - tid);
	assert_values(fixture_mutex(&fx, WAKER_STACK + 20), 10, 20000 - 55);
	fixture_stop(&fx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_released_wait_is_charged_to_both_sides_up_to_its_return),
		cmocka_unit_test(
			a_wait_that_nobody_released_lasts_to_its_return_and_is_in_block_only),
		cmocka_unit_test(a_call_that_returned_at_once_is_no_wait),
		cmocka_unit_test(every_operation_that_waits_is_released_by_every_one_that_wakes),
		cmocka_unit_test(an_operation_is_32_bits_wide),
		cmocka_unit_test(a_waking_outside_a_futex_call_of_the_waker_is_no_release),
		cmocka_unit_test(a_waking_by_another_process_is_no_release),
		cmocka_unit_test(a_waking_that_comes_twice_counts_once),
		cmocka_unit_test(of_several_wakings_the_last_one_ended_the_wait),
		cmocka_unit_test(a_second_call_of_the_same_waker_releases_anew),
		cmocka_unit_test(a_wait_that_returned_an_error_was_not_released),
		cmocka_unit_test(a_lock_released_at_the_last_moment_is_a_release),
		cmocka_unit_test(a_waiter_moved_to_another_futex_is_released_through_that),
		cmocka_unit_test(a_lock_of_priority_inheritance_slept_only_if_it_was_woken),
		cmocka_unit_test(a_wait_for_a_requeue_that_was_woken_slept_although_it_says_again),
		cmocka_unit_test(only_locks_are_in_mutex),
		cmocka_unit_test(a_thread_that_waits_again_starts_afresh),
		cmocka_unit_test(one_call_may_release_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
