/* SPDX-License-Identifier: MIT */
/* A sampler on a target that counts its own calls. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/clock.h"
#include "tests/alloc_fail.h"
#include "tests/sampler_fixture.h"

#define THREADS 4
#define CALLS 500

static void *work(void *context)
{
	struct shared *shared = context;
	unsigned number = target_thread_number(shared);

	sem_post(&shared->ready);
	await(&shared->go);
	target_calls(shared, number, CALLS);
	sem_post(&shared->done);
	return NULL;
}

static void work_on_threads(struct shared *shared)
{
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++) {
		if (pthread_create(&threads[i], NULL, work, shared))
			abort();
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	await(&shared->end);
}

/* One thread; CALLS calls for each go. */
static void work_in_turns(struct shared *shared)
{
	unsigned number = target_thread_number(shared);

	for (;;) {
		sem_post(&shared->ready);
		await(&shared->go);
		if (atomic_load(&shared->stop))
			return;
		target_calls(shared, number, CALLS);
		sem_post(&shared->done);
	}
}

static void start_turns(struct target *target)
{
	target_start(target, work_in_turns);
	await(&target->shared->ready);
}

static void one_turn(struct target *target)
{
	sem_post(&target->shared->go);
	await(&target->shared->done);
	await(&target->shared->ready);
}

static void end_turns(struct target *target)
{
	atomic_store(&target->shared->stop, true);
	sem_post(&target->shared->go);
	target_join(target);
}

static void every_call_is_seen_once_by_the_right_thread_in_order_of_time(void **state)
{
	struct dp_sampler_stats stats;
	struct dp_sampler *sampler;
	struct target target;
	struct tally *tally;

	(void)state;
	target_start(&target, work_on_threads);
	await_times(&target.shared->ready, THREADS);
	sampler = sampler_open(&target);
	dp_sampler_enable(sampler);
	raise_times(&target.shared->go, THREADS);
	await_times(&target.shared->done, THREADS);
	tally = tally_new(target.shared);
	tally_finish(tally, sampler);
	expect_every_call_once(tally, sampler, &stats);
	assert_int_equal(total_calls(target.shared), THREADS * CALLS);
	assert_int_equal(stats.n_entry_hits, THREADS * CALLS);
	assert_int_equal(stats.n_return_hits, THREADS * CALLS);
	assert_int_equal(stats.n_free_hits, THREADS * CALLS);
	assert_int_equal(stats.n_duplicates, 0);
	assert_int_equal(stats.n_delivered, 3 * THREADS * CALLS);
	sem_post(&target.shared->end);
	target_join(&target);
	free(tally);
	dp_sampler_close(sampler);
}

static void nothing_is_seen_before_enabling_and_after_disabling(void **state)
{
	struct dp_sampler_stats stats;
	struct dp_sampler *sampler;
	struct target target;
	struct tally *tally;

	(void)state;
	start_turns(&target);
	sampler = sampler_open(&target);
	assert_true(has_breakpoint(target.pid, probed_alloc));
	one_turn(&target);
	tally = tally_new(target.shared);
	tally->with_gaps = true;
	tally_drain(tally, sampler);
	assert_int_equal(tally->n_samples, 0);
	dp_sampler_enable(sampler);
	one_turn(&target);
	dp_sampler_disable(sampler);
	one_turn(&target);
	tally_drain(tally, sampler);
	assert_int_equal(tally->n[DP_EVENT_ALLOC_ENTRY], CALLS);
	assert_int_equal(tally->n[DP_EVENT_ALLOC_RETURN], CALLS);
	assert_int_equal(tally->n[DP_EVENT_FREE], CALLS);
	assert_int_equal(tally->threads[0].n_entries, 2 * CALLS);
	dp_sampler_get_stats(sampler, &stats);
	assert_int_equal(stats.n_entry_hits, CALLS);
	end_turns(&target);
	free(tally);
	dp_sampler_close(sampler);
}

static void an_event_is_given_once_no_older_one_can_come(void **state)
{
	uint64_t before_ns, after_ns;
	struct dp_sampler *sampler;
	struct dp_event event;
	struct target target;

	(void)state;
	start_turns(&target);
	sampler = sampler_open(&target);
	dp_sampler_enable(sampler);
	before_ns = dp_monotonic_ns();
	one_turn(&target);
	after_ns = dp_monotonic_ns();
	dp_sampler_round(sampler);
	assert_int_equal(dp_sampler_next(sampler, UINT64_MAX, &event), 0);
	dp_sampler_round(sampler);
	assert_true(dp_sampler_horizon_ns(sampler) > after_ns);
	assert_int_equal(dp_sampler_next(sampler, 0, &event), 0);
	do
		assert_int_equal(dp_sampler_next(sampler, UINT64_MAX, &event), 1);
	while (event.type != DP_EVENT_ALLOC_ENTRY);
	assert_true(event.time_ns > before_ns && event.time_ns < after_ns);
	assert_int_equal(dp_sampler_next(sampler, event.time_ns, &event), 0);
	end_turns(&target);
	dp_sampler_close(sampler);
}

static void a_ring_that_fills_can_be_polled_for(void **state)
{
	const struct pollfd *borrowed;
	struct pollfd fds[64];
	struct dp_sampler *sampler;
	struct target target;
	size_t n;

	(void)state;
	start_turns(&target);
	sampler = sampler_open_with(&target, (struct dp_sampler_options){.ring_bytes = 64 * 1024},
				    true);
	dp_sampler_enable(sampler);
	borrowed = dp_sampler_pollfds(sampler, &n);
	assert_true(n > 0 && n <= sizeof(fds) / sizeof(fds[0]));
	memcpy(fds, borrowed, n * sizeof(*fds));
	if (sampler_mode() == DP_SAMPLER_DIRECT) /* else the whole machine's threads are told of */
		assert_int_equal(poll(fds, n, 0), 0);
	one_turn(&target); /* some 150 KiB */
	assert_true(poll(fds, n, 0) > 0);
	end_turns(&target);
	dp_sampler_close(sampler);
}

static void two_samplers_on_one_target_see_the_same(void **state)
{
	struct dp_sampler_stats stats;
	struct dp_sampler *first, *second;
	struct target target;
	struct tally *tally;

	(void)state;
	start_turns(&target);
	first = sampler_open(&target);
	second = sampler_open(&target);
	dp_sampler_enable(first);
	dp_sampler_enable(second);
	one_turn(&target);
	tally = tally_new(target.shared);
	tally_finish(tally, first);
	expect_every_call_once(tally, first, &stats);
	dp_sampler_close(first);
	free(tally);
	one_turn(&target);
	tally = tally_new(target.shared);
	tally_finish(tally, second);
	expect_every_call_once(tally, second, &stats);
	assert_int_equal(stats.n_entry_hits, 2 * CALLS);
	end_turns(&target);
	free(tally);
	dp_sampler_close(second);
}

static void a_thread_that_is_left_out_is_not_seen(void **state)
{
	struct target self = {.pid = getpid()};
	struct dp_sampler_options options = {.except_tid = gettid()};
	struct dp_sampler_stats stats;
	struct dp_sampler *sampler;
	struct shared *shared = calloc(1, sizeof(*shared));
	struct tally *tally;
	pthread_t thread;
	unsigned number;

	(void)state;
	assert_non_null(shared);
	sem_init(&shared->ready, 0, 0);
	sem_init(&shared->go, 0, 0);
	sem_init(&shared->done, 0, 0);
	assert_int_equal(pthread_create(&thread, NULL, work, shared), 0);
	await(&shared->ready);
	number = target_thread_number(shared);
	sampler = sampler_open_with(&self, options, true);
	dp_sampler_enable(sampler);
	sem_post(&shared->go);
	target_calls(shared, number, CALLS);
	pthread_join(thread, NULL);
	tally = tally_new(shared);
	tally_finish(tally, sampler);
	assert_int_equal(tally->threads[0].n_entries, CALLS);
	assert_int_equal(tally->threads[number].n_entries, 0);
	dp_sampler_get_stats(sampler, &stats);
	assert_int_equal(stats.n_entry_hits, CALLS);
	assert_int_equal(stats.n_delivered, 3 * CALLS);
	free(tally);
	dp_sampler_close(sampler);
	free(shared);
}

static void a_close_leaves_nothing_behind(void **state)
{
	unsigned n_fds = count_fds();
	struct dp_sampler *sampler;
	struct target target;
	size_t n_threads, n_sampler_fds;

	(void)state;
	start_turns(&target);
	assert_false(has_breakpoint(target.pid, probed_alloc));
	sampler = sampler_open(&target);
	dp_sampler_enable(sampler);
	one_turn(&target);
	assert_true(has_breakpoint(target.pid, probed_alloc));
	assert_true(has_breakpoint(target.pid, probed_free));
	if (sampler_mode() != DP_SAMPLER_KERNEL)
		assert_int_equal(count_own_definitions(), 3);
	dp_sampler_get_size(sampler, &n_threads, &n_sampler_fds);
	assert_int_equal(n_threads, 1);
	assert_int_equal(count_fds(), n_fds + n_sampler_fds);
	dp_sampler_close(sampler);
	assert_false(has_breakpoint(target.pid, probed_alloc));
	assert_false(has_breakpoint(target.pid, probed_free));
	assert_int_equal(count_own_definitions(), 0);
	assert_int_equal(count_fds(), n_fds);
	one_turn(&target);
	end_turns(&target);
	dp_sampler_close(NULL);
}

static struct target victim;

static void hold_a_sampler(struct shared *shared)
{
	struct dp_sampler *sampler = sampler_open(&victim);

	dp_sampler_enable(sampler);
	sem_post(&shared->ready);
	await(&shared->go);
}

static void killing_the_profiler_takes_the_breakpoints_out(void **state)
{
	struct target holder;

	(void)state;
	start_turns(&victim);
	target_start(&holder, hold_a_sampler);
	await(&holder.shared->ready);
	one_turn(&victim);
	assert_true(has_breakpoint(victim.pid, probed_alloc));
	target_kill(&holder);
	await_no_breakpoint(victim.pid, probed_alloc);
	await_no_breakpoint(victim.pid, probed_free);
	one_turn(&victim);
	end_turns(&victim);
}

static void what_a_killed_target_did_is_seen_to_the_end(void **state)
{
	struct target target, kept;
	struct dp_sampler *sampler;
	struct tally *tally;

	(void)state;
	start_turns(&target);
	sampler = sampler_open(&target);
	dp_sampler_enable(sampler);
	one_turn(&target);
	kept = target;
	kill(target.pid, SIGKILL);
	tally = tally_new(kept.shared);
	while (tally->n[DP_EVENT_EXIT] == 0) {
		tally_drain(tally, sampler);
		usleep(1000);
	}
	assert_int_equal(tally->n[DP_EVENT_ALLOC_ENTRY], CALLS);
	assert_int_equal(tally->n[DP_EVENT_FREE], CALLS);
	target_kill(&target);
	free(tally);
	dp_sampler_close(sampler);
	assert_int_equal(count_own_definitions(), 0);
}

static void work_and_execute_another_program(struct shared *shared)
{
	unsigned number = target_thread_number(shared);

	sem_post(&shared->ready);
	await(&shared->go);
	target_calls(shared, number, CALLS);
	execl("/bin/sleep", "sleep", "60", (char *)NULL);
	abort();
}

static void what_a_target_did_before_it_executes_another_program_stays_counted(void **state)
{
	struct dp_sampler_stats stats;
	struct dp_sampler *sampler;
	struct target target;
	struct tally *tally;

	(void)state;
	target_start(&target, work_and_execute_another_program);
	await(&target.shared->ready);
	sampler = sampler_open(&target);
	dp_sampler_enable(sampler);
	sem_post(&target.shared->go);
	tally = tally_new(target.shared);
	while (tally->n[DP_EVENT_COMM] == 0) {
		tally_drain(tally, sampler);
		usleep(1000);
	}
	tally_finish(tally, sampler);
	expect_every_call_once(tally, sampler, &stats);
	assert_int_equal(stats.n_entry_hits, CALLS);
	assert_int_equal(stats.n_free_hits, CALLS);
	free(tally);
	dp_sampler_close(sampler);
	assert_int_equal(count_own_definitions(), 0);
	target_kill(&target);
}

static void expect_refused(const struct dp_probe_site *sites, size_t n_sites, pid_t pid,
			   const char *in_sentence)
{
	struct dp_sampler_options options = {.pid = pid,
					     .mode = sampler_mode(),
					     .heap_rate_bytes = 1,
					     .block_rate_ns = 1,
					     .sites = sites,
					     .n_sites = n_sites};
	unsigned n_fds = count_fds();
	struct dp_sampler *sampler = NULL;
	struct dp_error err = {0};

	assert_true(dp_sampler_open(&sampler, &options, &err) < 0);
	assert_null(sampler);
	if (!strstr(err.text, in_sentence))
		fail_msg("'%s' is not in: %s", in_sentence, err.text);
	assert_int_equal(count_own_definitions(), 0);
	assert_int_equal(count_fds(), n_fds);
}

/* A byte that begins no instruction; the kernel would have to run it out of line. */
#ifdef __x86_64__
__asm__(".pushsection .text\n.globl not_an_instruction\nnot_an_instruction: .byte 0x06\n"
	".popsection\n");
extern const char not_an_instruction[];
#endif

static void what_cannot_be_probed_gives_a_sentence_and_leaves_nothing_behind(void **state)
{
	int fd = program_fd();
	struct dp_probe_site sites[2];
	struct target target;

	(void)state;
	sampler_sites(sites, fd);
	start_turns(&target);
	expect_refused(sites, 1, target.pid, "no function to probe (free)");
#ifdef __x86_64__
	sites[0].file_off = program_file_off(not_an_instruction);
	expect_refused(sites, 2, target.pid, "instruction");
	sites[0].file_off = UINT64_C(1) << 40; /* beyond the file's end */
	expect_refused(sites, 2, target.pid, "pid");
#endif
	assert_false(has_breakpoint(target.pid, probed_free));
	end_turns(&target);
	close(fd);
}

static int open_and_close(pid_t pid)
{
	int fd = program_fd();
	struct dp_probe_site sites[2];
	struct dp_sampler_options options = {.pid = pid,
					     .mode = sampler_mode(),
					     .heap_rate_bytes = 1,
					     .block_rate_ns = 1,
					     .sites = sites,
					     .n_sites = 2};
	struct dp_sampler *sampler = NULL;
	struct dp_error err;
	int r;

	sampler_sites(sites, fd);
	r = dp_sampler_open(&sampler, &options, &err);
	close(fd);
	assert_true(r < 0 ? !sampler : !!sampler);
	dp_sampler_close(sampler);
	return r;
}

static void memory_that_runs_out_leaves_nothing_behind(void **state)
{
	unsigned n_fds = count_fds();
	struct target target;

	(void)state;
	start_turns(&target);
	ALLOC_FAIL_EACH(open_and_close(target.pid));
	assert_int_equal(count_fds(), n_fds);
	assert_int_equal(count_own_definitions(), 0);
	assert_false(has_breakpoint(target.pid, probed_alloc));
	end_turns(&target);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_call_is_seen_once_by_the_right_thread_in_order_of_time),
		cmocka_unit_test(nothing_is_seen_before_enabling_and_after_disabling),
		cmocka_unit_test(an_event_is_given_once_no_older_one_can_come),
		cmocka_unit_test(a_ring_that_fills_can_be_polled_for),
		cmocka_unit_test(two_samplers_on_one_target_see_the_same),
		cmocka_unit_test(a_thread_that_is_left_out_is_not_seen),
		cmocka_unit_test(a_close_leaves_nothing_behind),
		cmocka_unit_test(killing_the_profiler_takes_the_breakpoints_out),
		cmocka_unit_test(what_a_killed_target_did_is_seen_to_the_end),
		cmocka_unit_test(
			what_a_target_did_before_it_executes_another_program_stays_counted),
		cmocka_unit_test(what_cannot_be_probed_gives_a_sentence_and_leaves_nothing_behind),
		cmocka_unit_test(memory_that_runs_out_leaves_nothing_behind),
	};
	int r = perf_must_skip();

	return r ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
