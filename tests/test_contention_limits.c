/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <linux/futex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "src/contention.h"
#include "tests/alloc_fail.h"
#include "tests/contention_fixture.h"

static void assert_values(struct contention_values values, int64_t contentions, int64_t delay_ns)
{
	assert_int_equal(values.contentions, contentions);
	assert_int_equal(values.delay_ns, delay_ns);
}

static const struct dp_contention_stats *stats_of(const struct contention_fixture *fx)
{
	return dp_contention_get_stats(fx->contention);
}

static void a_wait_of_no_time_counts_as_a_nanosecond(void **state)
{
	struct contention_fixture fx;

	(void)state;
	fixture_start(&fx);
	fixture_enter(&fx, 1, FUTEX_WAIT, 1000);
	fixture_leave(&fx, 1, 0, 1000);
	/* Rings of two CPUs may disagree by a little. */
	fixture_enter(&fx, 1, FUTEX_WAIT, 2000);
	fixture_leave(&fx, 1, 0, 1990);
	assert_values(fixture_block(&fx, 1, DP_WAIT_MUTEX), 2, 2);
	fixture_stop(&fx);
}

static void a_wait_of_the_rate_or_longer_is_kept_as_it_is(void **state)
{
	struct contention_fixture fx;

	(void)state;
	for (uint64_t seed = 0; seed < 100; seed++) {
		fixture_start_with(&fx, 1000, seed, 16);
		fixture_enter(&fx, 1, FUTEX_WAIT, 1000);
		fixture_wake(&fx, 2, FUTEX_WAKE, 1, 2000);
		fixture_leave(&fx, 1, 0, 2900);
		fixture_enter(&fx, 1, FUTEX_WAIT, 3000);
		fixture_leave(&fx, 1, 0, 8000);
		assert_values(fixture_block(&fx, 1, DP_WAIT_MUTEX), 2, 6900);
		assert_values(fixture_mutex(&fx, WAKER_STACK + 2), 1, 1900);
		fixture_stop(&fx);
	}
}

static void a_short_wait_is_kept_on_both_sides_or_on_none_and_scaled(void **state)
{
	struct contention_fixture fx;
	size_t n_kept = 0;

	(void)state;
	for (uint64_t seed = 0; seed < 100; seed++) {
		struct contention_values block;

		fixture_start_with(&fx, 1000, seed, 16);
		fixture_enter(&fx, 1, FUTEX_WAIT, 1000);
		fixture_wake(&fx, 2, FUTEX_WAKE, 1, 1250);
		/* Kept for the 250 ns to its release, and took 900. */
		fixture_leave(&fx, 1, 0, 1900);
		block = fixture_block(&fx, 1, DP_WAIT_MUTEX);
		if (block.contentions > 0) {
			assert_values(block, 4, 4 * 900);
			n_kept++;
		}
		assert_values(fixture_mutex(&fx, WAKER_STACK + 2), block.contentions,
			      block.delay_ns);
		/* Stacks are asked for only if they are needed. */
		assert_int_equal(fx.n_waiter_stacks, block.contentions > 0);
		assert_int_equal(fx.n_waker_stacks, block.contentions > 0);
		assert_int_equal(stats_of(&fx)->n_waits, 1);
		assert_int_equal(stats_of(&fx)->n_kept, block.contentions > 0);
		fixture_stop(&fx);
	}
	assert_true(n_kept > 5 && n_kept < 60);
}

static void the_rounded_differences_add_up_to_the_rounded_whole(void **state)
{
	const struct dp_delta_spec spec = dp_contention_delta_spec(10);
	struct contention_fixture fx;
	struct dp_delta *delta;
	int64_t sum = 0, sum_ns = 0;
	struct contention_values whole;

	(void)state;
	fixture_start_with(&fx, 1000, 5, 16);
	assert_int_equal(dp_delta_new(&delta, &spec), 0);
	for (uint64_t i = 0; i < 1000; i++) {
		const struct dp_delta_row *rows;
		size_t n;

		fixture_enter(&fx, 1, FUTEX_WAIT, i * 10000);
		fixture_leave(&fx, 1, 0, i * 10000 + 700); /* 1.43 contentions each */
		dp_delta_begin(delta);
		assert_int_equal(dp_contention_feed_block(fx.contention, delta), 0);
		assert_int_equal(dp_delta_end(delta, &rows, &n), 0);
		for (size_t k = 0; k < n; k++) {
			assert_true(rows[k].values[0] >= 1);
			sum += rows[k].values[0];
			sum_ns += rows[k].values[1];
		}
		dp_delta_commit(delta);
	}
	whole = fixture_block(&fx, 1, DP_WAIT_MUTEX);
	assert_values(whole, sum, sum_ns);
	/* The nearest whole number to n_kept / 0.7. */
	assert_int_equal(sum, (int64_t)(stats_of(&fx)->n_kept * 20 + 7) / 14);
	assert_int_equal(sum_ns, stats_of(&fx)->n_kept * 1000);
	dp_delta_free(delta);
	fixture_stop(&fx);
}

static void numbers_beyond_an_int64_stop_there(void **state)
{
	struct contention_fixture fx;

	(void)state;
	fixture_start_with(&fx, UINT64_MAX, 5, 16);
	for (int i = 0; i < 3; i++) {
		fixture_enter(&fx, 1, FUTEX_WAIT, 0);
		fixture_leave(&fx, 1, 0, UINT64_MAX);
	}
	assert_values(fixture_block(&fx, 1, DP_WAIT_MUTEX), 3, INT64_MAX);
	fixture_stop(&fx);
}

static void a_return_whose_entry_was_not_seen_is_counted_and_left(void **state)
{
	struct contention_fixture fx;

	(void)state;
	fixture_start(&fx);
	fixture_leave(&fx, 1, 0, 1900);
	assert_int_equal(stats_of(&fx)->n_unpaired_exits, 1);
	assert_int_equal(stats_of(&fx)->n_waits, 0);
	fixture_stop(&fx);
}

static void a_call_that_begins_while_one_is_under_way_replaces_it(void **state)
{
	struct contention_fixture fx;

	(void)state;
	fixture_start(&fx);
	fixture_enter(&fx, 1, FUTEX_WAIT, 1000);
	fixture_wake(&fx, 2, FUTEX_WAKE, 1, 1500);
	fixture_enter(&fx, 1, FUTEX_WAIT, 2000);
	fixture_leave(&fx, 1, 0, 2900);
	assert_values(fixture_block(&fx, 1, DP_WAIT_MUTEX), 1, 900);
	assert_values(fixture_mutex(&fx, WAKER_STACK + 2), 0, 0);
	assert_int_equal(stats_of(&fx)->n_forgotten, 1);
	fixture_stop(&fx);
}

static void a_gap_forgets_the_calls_under_way_and_nothing_else(void **state)
{
	struct contention_fixture fx;

	(void)state;
	fixture_start(&fx);
	fixture_enter(&fx, 3, FUTEX_WAIT, 500);
	fixture_leave(&fx, 3, 0, 600);
	fixture_enter(&fx, 1, FUTEX_WAIT, 1000);
	fixture_enter(&fx, 2, FUTEX_WAKE, 1200);
	dp_contention_gap(fx.contention);
	assert_int_equal(dp_contention_pending(fx.contention), 0);
	fixture_waking(&fx, 2, 1, 1300);
	fixture_leave(&fx, 2, 1, 1400);
	fixture_leave(&fx, 1, 0, 1900);
	assert_int_equal(stats_of(&fx)->n_forgotten, 2);
	assert_int_equal(stats_of(&fx)->n_unpaired_exits, 2);
	assert_values(fixture_block(&fx, 1, DP_WAIT_MUTEX), 0, 0);
	assert_values(fixture_block(&fx, 3, DP_WAIT_MUTEX), 1, 100);
	fixture_enter(&fx, 1, FUTEX_WAIT, 2000);
	fixture_wake(&fx, 2, FUTEX_WAKE, 1, 2500);
	fixture_leave(&fx, 1, 0, 2900);
	assert_values(fixture_block(&fx, 1, DP_WAIT_MUTEX), 1, 900);
	fixture_stop(&fx);
}

static void a_thread_that_ended_takes_its_call_along(void **state)
{
	struct contention_fixture fx;

	(void)state;
	fixture_start(&fx);
	fixture_enter(&fx, 1, FUTEX_WAIT, 1000);
	fixture_enter(&fx, 2, FUTEX_WAIT, 1001);
	dp_contention_thread_exit(fx.contention, 1);
	dp_contention_thread_exit(fx.contention, 1);
	dp_contention_thread_exit(fx.contention, 7);
	assert_int_equal(stats_of(&fx)->n_abandoned, 1);
	fixture_leave(&fx, 2, 0, 1901);
	assert_values(fixture_block(&fx, 2, DP_WAIT_MUTEX), 1, 900);
	/* Its id may belong to a new thread soon. */
	fixture_enter(&fx, 1, FUTEX_WAIT, 5000);
	fixture_leave(&fx, 1, 0, 5100);
	assert_values(fixture_block(&fx, 1, DP_WAIT_MUTEX), 1, 100);
	fixture_stop(&fx);
}

static void calls_beyond_the_bound_of_threads_are_counted_and_left(void **state)
{
	struct contention_fixture fx;

	(void)state;
	fixture_start_with(&fx, 1, 0, 3);
	for (uint32_t tid = 1; tid <= 5; tid++)
		fixture_enter(&fx, tid, FUTEX_WAIT, 1000);
	assert_int_equal(dp_contention_pending(fx.contention), 3);
	assert_int_equal(stats_of(&fx)->n_no_room, 2);
	/* A thread that is there already needs no room. */
	fixture_enter(&fx, 3, FUTEX_WAIT, 1100);
	for (uint32_t tid = 1; tid <= 5; tid++)
		fixture_leave(&fx, tid, 0, 1900);
	assert_int_equal(stats_of(&fx)->n_waits, 3);
	assert_int_equal(stats_of(&fx)->n_unpaired_exits, 2);
	assert_values(fixture_block(&fx, 4, DP_WAIT_MUTEX), 0, 0);
	fixture_enter(&fx, 4, FUTEX_WAIT, 2000);
	fixture_leave(&fx, 4, 0, 2900);
	assert_values(fixture_block(&fx, 4, DP_WAIT_MUTEX), 1, 900);
	fixture_stop(&fx);
}

static void rows_beyond_the_bound_of_the_delta_are_left_out(void **state)
{
	const struct dp_delta_spec spec = dp_contention_delta_spec(2);
	struct contention_fixture fx;
	const struct dp_delta_row *rows;
	struct dp_delta *delta;
	size_t n;

	(void)state;
	fixture_start(&fx);
	for (uint32_t tid = 1; tid <= 3; tid++) {
		fixture_enter(&fx, tid, FUTEX_WAIT, 1000);
		fixture_leave(&fx, tid, 0, 1900);
	}
	assert_int_equal(dp_delta_new(&delta, &spec), 0);
	dp_delta_begin(delta);
	assert_int_equal(dp_contention_feed_block(fx.contention, delta), 0);
	assert_int_equal(dp_delta_end(delta, &rows, &n), 0);
	assert_int_equal(n, 2);
	assert_int_equal(dp_delta_overflowed(delta), 1);
	dp_delta_free(delta);
	fixture_stop(&fx);
}

static void events_of_others_are_ignored(void **state)
{
	struct contention_fixture fx;
	struct dp_event event = {.type = DP_EVENT_ALLOC_ENTRY, .pid = PID, .tid = 1};

	(void)state;
	fixture_start(&fx);
	assert_int_equal(dp_contention_event(fx.contention, &event), 0);
	event.type = DP_EVENT_FUTEX_EXIT;
	event.pid = OTHER_PID;
	fixture_enter(&fx, 1, FUTEX_WAIT, 1000);
	assert_int_equal(dp_contention_event(fx.contention, &event), 0);
	assert_int_equal(dp_contention_pending(fx.contention), 1);
	assert_int_equal(stats_of(&fx)->n_unpaired_exits, 0);
	fixture_stop(&fx);
}

static void impossible_options_are_refused(void **state)
{
	struct dp_contention *contention = NULL;
	struct dp_contention_options options = {.pid = PID, .rate_ns = 0, .max_threads = 1};

	(void)state;
	assert_int_equal(dp_contention_new(&contention, &options, NULL, NULL), -EINVAL);
	options = (struct dp_contention_options){.pid = PID, .rate_ns = 1, .max_threads = 0};
	assert_int_equal(dp_contention_new(&contention, &options, NULL, NULL), -EINVAL);
	assert_null(contention);
	dp_contention_free(NULL);
}

static uint32_t any_stack(void *context, const struct dp_event *event, enum dp_wait_kind *ret_kind)
{
	(void)context;
	if (ret_kind)
		*ret_kind = DP_WAIT_MUTEX;
	return event->time_ns & 0xffff;
}

/* Gives the event again after a failure; nothing may have been counted twice. */
static int give(struct dp_contention *contention, const struct dp_event *event, int *ret_failure)
{
	int r = dp_contention_event(contention, event);

	if (r == 0)
		return 0;
	assert_int_equal(*ret_failure, 0);
	*ret_failure = r;
	return dp_contention_event(contention, event);
}

static int run_short_of_memory(void)
{
	const struct dp_contention_options options = {.pid = PID, .rate_ns = 1, .max_threads = 50};
	const struct dp_contention_stats *stats;
	struct dp_contention *contention = NULL;
	int failure = 0, r;

	r = dp_contention_new(&contention, &options, any_stack, NULL);
	if (r < 0) {
		assert_null(contention);
		return r;
	}
	for (uint32_t tid = 1; tid <= 40; tid++)
		give(contention,
		     &(struct dp_event){.type = DP_EVENT_FUTEX_ENTER, .pid = PID, .tid = tid},
		     &failure);
	for (uint32_t tid = 1; tid <= 40; tid++) {
		struct dp_event event = {.type = DP_EVENT_FUTEX_ENTER,
					 .pid = PID,
					 .tid = 50,
					 .time_ns = 1000 + tid,
					 .futex_enter = {.op = FUTEX_WAKE}};

		give(contention, &event, &failure);
		event.type = DP_EVENT_WAKING;
		event.waking.wakee_tid = tid;
		give(contention, &event, &failure);
		event.type = DP_EVENT_FUTEX_EXIT;
		event.futex_exit.result = 0;
		give(contention, &event, &failure);
		event.tid = tid;
		give(contention, &event, &failure);
	}
	stats = dp_contention_get_stats(contention);
	assert_int_equal(stats->n_calls, 80);
	assert_int_equal(stats->n_waits, 40);
	assert_int_equal(stats->n_kept, 40);
	assert_int_equal(stats->n_released, 40);
	dp_contention_free(contention);
	return failure;
}

static void an_event_that_met_no_memory_may_be_given_again(void **state)
{
	(void)state;
	ALLOC_FAIL_EACH(run_short_of_memory());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_wait_of_no_time_counts_as_a_nanosecond),
		cmocka_unit_test(a_wait_of_the_rate_or_longer_is_kept_as_it_is),
		cmocka_unit_test(a_short_wait_is_kept_on_both_sides_or_on_none_and_scaled),
		cmocka_unit_test(the_rounded_differences_add_up_to_the_rounded_whole),
		cmocka_unit_test(numbers_beyond_an_int64_stop_there),
		cmocka_unit_test(a_return_whose_entry_was_not_seen_is_counted_and_left),
		cmocka_unit_test(a_call_that_begins_while_one_is_under_way_replaces_it),
		cmocka_unit_test(a_gap_forgets_the_calls_under_way_and_nothing_else),
		cmocka_unit_test(a_thread_that_ended_takes_its_call_along),
		cmocka_unit_test(calls_beyond_the_bound_of_threads_are_counted_and_left),
		cmocka_unit_test(rows_beyond_the_bound_of_the_delta_are_left_out),
		cmocka_unit_test(events_of_others_are_ignored),
		cmocka_unit_test(impossible_options_are_refused),
		cmocka_unit_test(an_event_that_met_no_memory_may_be_given_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
