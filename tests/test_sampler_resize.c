/* SPDX-License-Identifier: MIT */
/* The size of the stacks' copies changes while threads call, and come and go. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/sampler_fixture.h"

#define CALLERS 3
#define CALLS 5
#define MAX_THREADS 3000
#define MAX_MISSED 20

static void start_thread(pthread_t *thread, void *(*body)(void *), void *context)
{
	if (pthread_create(thread, NULL, body, context))
		abort();
}

static void *call_a_little(void *context)
{
	struct shared *shared = context;

	target_calls(shared, target_thread_number(shared), CALLS);
	return NULL;
}

static void *call_until_told(void *context)
{
	struct shared *shared = context;
	unsigned number = target_thread_number(shared);

	sem_post(&shared->ready);
	await(&shared->go);
	while (!atomic_load(&shared->stop)) {
		target_calls(shared, number, CALLS);
		usleep(1000);
	}
	sem_post(&shared->done);
	return NULL;
}

static void *create_until_told(void *context)
{
	struct shared *shared = context;
	pthread_t thread;

	sem_post(&shared->ready);
	await(&shared->go);
	while (!atomic_load(&shared->stop)) {
		if (atomic_load(&shared->n_threads) < MAX_THREADS) {
			start_thread(&thread, call_a_little, shared);
			pthread_join(thread, NULL);
		}
		usleep(1000);
	}
	sem_post(&shared->done);
	return NULL;
}

static void call_and_create(struct shared *shared)
{
	pthread_t thread;

	for (int i = 0; i < CALLERS; i++)
		start_thread(&thread, call_until_told, shared);
	start_thread(&thread, create_until_told, shared);
	await(&shared->end);
}

/* Has the sampler copy @stack_bytes, and goes on until the change is over. */
static void resize(struct dp_sampler *sampler, struct tally *tally, uint32_t stack_bytes)
{
	struct dp_error err = {""};
	int r;

	while ((r = dp_sampler_resize(sampler, stack_bytes, false, &err)) == 1)
		tally_drain(tally, sampler);
	if (r < 0)
		fail_msg("%s", err.text);
	for (int i = 0; i < 20; i++) {
		usleep(5000);
		tally_drain(tally, sampler);
	}
}

/* A hit is missed that the kernel comes to while it takes in one of the thread's new events. */
static void expect_nearly_all(const struct tally *tally, enum dp_event_type type)
{
	unsigned long long n_calls = total_calls(tally->shared);

	assert_in_range(tally->n[type], n_calls - MAX_MISSED, n_calls);
}

static void no_call_is_seen_twice_while_the_size_changes(void **state)
{
	static const uint32_t sizes[] = {2048, 512, 1536, 1024};
	const struct dp_sampler_options options = {.heap_stacks = true, .stack_bytes = 1024};
	struct dp_sampler_stats stats;
	struct dp_sampler *sampler;
	struct target target;
	struct tally *tally;

	(void)state;
	target_start(&target, call_and_create);
	await_times(&target.shared->ready, CALLERS + 1);
	sampler = sampler_open_with(&target, options, true);
	tally = tally_new(target.shared);
	tally->with_gaps = true;
	dp_sampler_enable(sampler);
	raise_times(&target.shared->go, CALLERS + 1);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		resize(sampler, tally, sizes[i]);
		assert_int_equal(dp_sampler_stack_bytes(sampler), sizes[i]);
	}
	atomic_store(&target.shared->stop, true);
	await_times(&target.shared->done, CALLERS + 1);
	tally_finish(tally, sampler);
	dp_sampler_get_stats(sampler, &stats);
	assert_int_equal(stats.n_lost + stats.n_dropped + stats.n_malformed, 0);
	/* The order of the calls has been checked: none was given twice. */
	expect_nearly_all(tally, DP_EVENT_ALLOC_ENTRY);
	expect_nearly_all(tally, DP_EVENT_ALLOC_RETURN);
	expect_nearly_all(tally, DP_EVENT_FREE);
	assert_int_equal(stats.n_hits, stats.n_delivered + stats.n_duplicates);
	/* Both sets did record. */
	assert_true(stats.n_duplicates > 0);
	assert_int_equal(tally->asked_bytes, 1024);
	free(tally);
	dp_sampler_close(sampler);
	assert_false(has_breakpoint(target.pid, probed_alloc));
	sem_post(&target.shared->end);
	target_join(&target);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_call_is_seen_twice_while_the_size_changes),
	};
	int r = perf_must_skip();

	return r ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
