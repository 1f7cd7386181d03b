/* SPDX-License-Identifier: MIT */
/* Threads that come and go while a sampler is opened and works. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/sampler_fixture.h"

#define CALLS 25
#define MAX_WORKERS 400

static void start_thread(pthread_t *thread, void *(*body)(void *), void *context)
{
	if (pthread_create(thread, NULL, body, context))
		abort();
}

/* A thread that counts itself in n_settled once it creates no others any more. */
static void start_due(void *(*body)(void *), struct shared *shared)
{
	pthread_t thread;

	atomic_fetch_add(&shared->n_due, 1);
	start_thread(&thread, body, shared);
	pthread_detach(thread);
}

static void settle_and_work(struct shared *shared, unsigned number)
{
	atomic_fetch_add(&shared->n_settled, 1);
	await(&shared->go);
	target_calls(shared, number, CALLS);
	sem_post(&shared->done);
}

/* Three of four workers start with creating another one. */
static void *work_when_told(void *context)
{
	struct shared *shared = context;
	unsigned number = target_thread_number(shared);

	if (number % 4 != 0)
		start_due(work_when_told, shared);
	settle_and_work(shared, number);
	return NULL;
}

static void *do_nothing(void *context)
{
	return context;
}

/* A thread that creates others as fast as it can, until told: some stay to work, some end at once.
 */
static void *create_threads(void *context)
{
	struct shared *shared = context;
	unsigned number = target_thread_number(shared);
	pthread_t thread;

	sem_post(&shared->ready);
	while (!atomic_load(&shared->stop)) {
		if (atomic_load(&shared->n_threads) < MAX_WORKERS)
			start_due(work_when_told, shared);
		start_thread(&thread, do_nothing, NULL);
		pthread_join(thread, NULL);
	}
	start_due(work_when_told, shared);
	sem_post(&shared->ready);
	settle_and_work(shared, number);
	return NULL;
}

#define CREATORS 3

static void create_all_the_time(struct shared *shared)
{
	for (int i = 0; i < CREATORS; i++)
		start_due(create_threads, shared);
	await(&shared->end);
}

static void start_creators(struct target *target)
{
	target_start(target, create_all_the_time);
	await_times(&target->shared->ready, CREATORS);
}

static void stop_creators(struct target *target)
{
	atomic_store(&target->shared->stop, true);
	await_times(&target->shared->ready, CREATORS);
}

/* Lets every thread do its work, once none creates others any more. */
static void let_work(struct target *target)
{
	struct shared *shared = target->shared;
	unsigned n;

	while (atomic_load(&shared->n_settled) != atomic_load(&shared->n_due))
		usleep(1000);
	n = atomic_load(&shared->n_threads);
	raise_times(&target->shared->go, n);
	await_times(&target->shared->done, n);
}

static void end(struct target *target)
{
	sem_post(&target->shared->end);
	target_join(target);
}

static void nothing_is_missed_or_doubled_while_threads_are_created(void **state)
{
	(void)state;
	for (int i = 0; i < 5; i++) {
		struct dp_sampler_stats stats;
		struct dp_sampler *sampler;
		struct target target;
		struct tally *tally;

		start_creators(&target);
		sampler = sampler_open(&target);
		dp_sampler_enable(sampler);
		stop_creators(&target);
		let_work(&target);
		tally = tally_new(target.shared);
		tally_finish(tally, sampler);
		expect_every_call_once(tally, sampler, &stats);
		assert_int_equal(stats.n_entry_hits + stats.n_return_hits + stats.n_free_hits,
				 stats.n_delivered + stats.n_duplicates);
		free(tally);
		dp_sampler_close(sampler);
		end(&target);
	}
}

static void a_close_while_threads_are_created_leaves_nothing_behind(void **state)
{
	unsigned n_fds = count_fds();
	struct target target;

	(void)state;
	start_creators(&target);
	for (int i = 0; i < 5; i++) {
		struct dp_sampler *sampler = sampler_open(&target);

		dp_sampler_enable(sampler);
		dp_sampler_close(sampler);
		assert_false(has_breakpoint(target.pid, probed_alloc));
		assert_int_equal(count_own_definitions(), 0);
		assert_int_equal(count_fds(), n_fds);
	}
	stop_creators(&target);
	let_work(&target);
	end(&target);
}

static void *create_one_when_told(void *context)
{
	struct shared *shared = context;
	unsigned number = target_thread_number(shared);

	sem_post(&shared->ready);
	await(&shared->create);
	start_due(work_when_told, shared);
	settle_and_work(shared, number);
	return NULL;
}

static void create_one(struct shared *shared)
{
	start_due(create_one_when_told, shared);
	await(&shared->end);
}

static void threads_that_are_created_later_are_seen_and_so_are_theirs(void **state)
{
	struct dp_sampler_stats stats;
	struct dp_sampler *sampler;
	struct target target;
	struct tally *tally;

	(void)state;
	target_start(&target, create_one);
	await(&target.shared->ready);
	sampler = sampler_open(&target);
	dp_sampler_enable(sampler);
	sem_post(&target.shared->create);
	let_work(&target);
	assert_true(atomic_load(&target.shared->n_threads) > 3);
	tally = tally_new(target.shared);
	tally_finish(tally, sampler);
	expect_every_call_once(tally, sampler, &stats);
	assert_int_equal(stats.n_duplicates, 0);
	assert_true(tally->n[DP_EVENT_FORK] >= 3);
	free(tally);
	dp_sampler_close(sampler);
	end(&target);
}

static void *create_one_and_outlive(void *context)
{
	struct shared *shared = context;

	start_due(create_one_when_told, shared);
	await(&shared->end);
	_exit(0);
}

static void leave_the_others_alone(struct shared *shared)
{
	pthread_t thread;

	start_thread(&thread, create_one_and_outlive, shared);
	await(&shared->leave);
	pthread_exit(NULL);
}

static void leave(struct target *target)
{
	sem_post(&target->shared->leave);
	while (!main_thread_has_ended(target->pid))
		usleep(1000);
}

static void expect_the_others_seen(bool leaves_before)
{
	struct dp_sampler_stats stats;
	struct dp_sampler *sampler;
	struct target target;
	struct tally *tally;

	target_start(&target, leave_the_others_alone);
	await(&target.shared->ready);
	if (leaves_before)
		leave(&target);
	sampler = sampler_open(&target);
	dp_sampler_enable(sampler);
	if (!leaves_before)
		leave(&target);
	sem_post(&target.shared->create);
	let_work(&target);
	tally = tally_new(target.shared);
	tally_finish(tally, sampler);
	expect_every_call_once(tally, sampler, &stats);
	free(tally);
	dp_sampler_close(sampler);
	end(&target);
}

static void when_the_main_thread_ends_the_others_are_still_seen(void **state)
{
	(void)state;
	expect_the_others_seen(false);
}

static void when_the_main_thread_has_ended_the_others_are_seen(void **state)
{
	(void)state;
	expect_the_others_seen(true);
}

/* No return and no free is probed, nor once the main thread has ended. */
static void expect_entries_alone(bool leaves)
{
	const struct dp_sampler_options options = {.without_returns = true};
	struct dp_sampler_stats stats;
	struct dp_sampler *sampler;
	struct target target;
	struct tally *tally;
	uint64_t n_calls;

	target_start(&target, leave_the_others_alone);
	await(&target.shared->ready);
	sampler = sampler_open_with(&target, options, true);
	assert_true(has_breakpoint(target.pid, probed_alloc));
	assert_false(has_breakpoint(target.pid, probed_free));
	dp_sampler_enable(sampler);
	if (leaves)
		leave(&target);
	sem_post(&target.shared->create);
	let_work(&target);
	tally = tally_new(target.shared);
	tally_finish(tally, sampler);
	n_calls = total_calls(target.shared);
	dp_sampler_get_stats(sampler, &stats);
	assert_true(n_calls > 0);
	assert_int_equal(tally->n[DP_EVENT_ALLOC_ENTRY], n_calls);
	assert_int_equal(tally->n_samples, n_calls);
	assert_int_equal(stats.n_entry_hits, n_calls);
	assert_int_equal(stats.n_hits, n_calls);
	assert_int_equal(stats.n_return_hits + stats.n_free_hits, 0);
	assert_int_equal(stats.n_entry_lost + stats.n_lost + stats.n_dropped, 0);
	free(tally);
	dp_sampler_close(sampler);
	end(&target);
}

static void without_returns_entries_alone_are_seen(void **state)
{
	(void)state;
	expect_entries_alone(false);
}

static void without_returns_the_others_are_seen_when_the_main_thread_ends(void **state)
{
	(void)state;
	expect_entries_alone(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_missed_or_doubled_while_threads_are_created),
		cmocka_unit_test(a_close_while_threads_are_created_leaves_nothing_behind),
		cmocka_unit_test(threads_that_are_created_later_are_seen_and_so_are_theirs),
		cmocka_unit_test(when_the_main_thread_ends_the_others_are_still_seen),
		cmocka_unit_test(when_the_main_thread_has_ended_the_others_are_seen),
		cmocka_unit_test(without_returns_entries_alone_are_seen),
		cmocka_unit_test(without_returns_the_others_are_seen_when_the_main_thread_ends),
	};
	int r = perf_must_skip();

	return r ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
