/* SPDX-License-Identifier: MIT */
#include "tests/contention_fixture.h"

#include <linux/futex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static uint32_t stack_of(void *context, const struct dp_event *event, enum dp_wait_kind *ret_kind)
{
	struct contention_fixture *fx = context;

	if (event->type == DP_EVENT_WAKING) {
		assert_null(ret_kind);
		fx->n_waker_stacks++;
		return WAKER_STACK + event->tid;
	}
	assert_int_equal(event->type, DP_EVENT_FUTEX_EXIT);
	assert_non_null(ret_kind);
	fx->n_waiter_stacks++;
	*ret_kind = fx->kinds[event->tid];
	return event->tid;
}

void fixture_start_with(struct contention_fixture *fx, uint64_t rate_ns, uint64_t seed,
			size_t max_threads)
{
	const struct dp_contention_options options = {
		.pid = PID, .rate_ns = rate_ns, .seed = seed, .max_threads = max_threads};

	*fx = (struct contention_fixture){0};
	for (size_t i = 0; i < MAX_TIDS; i++)
		fx->kinds[i] = DP_WAIT_MUTEX;
	assert_int_equal(dp_contention_new(&fx->contention, &options, stack_of, fx), 0);
}

void fixture_start(struct contention_fixture *fx)
{
	fixture_start_with(fx, 1, 0, 16);
}

void fixture_stop(struct contention_fixture *fx)
{
	fixture_assert_balance(fx);
	dp_contention_free(fx->contention);
}

static void take(struct contention_fixture *fx, const struct dp_event *event)
{
	assert_int_equal(dp_contention_event(fx->contention, event), 0);
}

void fixture_enter(struct contention_fixture *fx, uint32_t tid, uint32_t op, uint64_t time_ns)
{
	take(fx,
	     &(struct dp_event){.type = DP_EVENT_FUTEX_ENTER,
				.pid = PID,
				.tid = tid,
				.time_ns = time_ns,
				.futex_enter = {.uaddr = 0x1000, .op = op | FUTEX_PRIVATE_FLAG}});
}

void fixture_leave(struct contention_fixture *fx, uint32_t tid, int64_t result, uint64_t time_ns)
{
	take(fx, &(struct dp_event){.type = DP_EVENT_FUTEX_EXIT,
				    .pid = PID,
				    .tid = tid,
				    .time_ns = time_ns,
				    .futex_exit = {.result = result}});
}

void fixture_waking(struct contention_fixture *fx, uint32_t tid, uint32_t wakee_tid,
		    uint64_t time_ns)
{
	take(fx, &(struct dp_event){.type = DP_EVENT_WAKING,
				    .pid = PID,
				    .tid = tid,
				    .time_ns = time_ns,
				    .waking = {.wakee_tid = wakee_tid}});
}

void fixture_wake(struct contention_fixture *fx, uint32_t tid, uint32_t op, uint32_t wakee_tid,
		  uint64_t time_ns)
{
	fixture_enter(fx, tid, op, time_ns - 10);
	fixture_waking(fx, tid, wakee_tid, time_ns);
	fixture_leave(fx, tid, 1, time_ns + 10);
}

typedef int feed_fn(const struct dp_contention *contention, struct dp_delta *delta);

static struct contention_values read_row(const struct contention_fixture *fx, feed_fn *feed,
					 uint32_t stack, uint64_t tag)
{
	const struct dp_delta_spec spec = dp_contention_delta_spec(MAX_TIDS * DP_N_WAIT_KINDS);
	struct contention_values values = {0};
	const struct dp_delta_row *rows;
	struct dp_delta *delta;
	size_t n;

	assert_int_equal(dp_delta_new(&delta, &spec), 0);
	dp_delta_begin(delta);
	assert_int_equal(feed(fx->contention, delta), 0);
	assert_int_equal(dp_delta_end(delta, &rows, &n), 0);
	for (size_t i = 0; i < n; i++) {
		if (rows[i].stack == stack && rows[i].tag == tag)
			values = (struct contention_values){rows[i].values[0], rows[i].values[1]};
	}
	dp_delta_free(delta);
	return values;
}

struct contention_values fixture_block(const struct contention_fixture *fx, uint32_t stack,
				       enum dp_wait_kind kind)
{
	return read_row(fx, dp_contention_feed_block, stack, kind);
}

struct contention_values fixture_mutex(const struct contention_fixture *fx, uint32_t stack)
{
	return read_row(fx, dp_contention_feed_mutex, stack, 0);
}

void fixture_assert_balance(const struct contention_fixture *fx)
{
	const struct dp_contention_stats *stats = dp_contention_get_stats(fx->contention);

	assert_int_equal(stats->n_calls, stats->n_waits + stats->n_not_slept +
						 stats->n_other_calls + stats->n_abandoned +
						 stats->n_forgotten + stats->n_no_room +
						 dp_contention_pending(fx->contention));
	assert_int_equal(stats->n_waits, stats->n_released + stats->n_ended_otherwise);
	assert_true(stats->n_kept <= stats->n_waits);
}
