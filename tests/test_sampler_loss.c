/* SPDX-License-Identifier: MIT */
/* Rings that are too small: what is lost is counted, by the kernel and by us alike. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/sampler_fixture.h"

#define CALLS 300 /* on each CPU; a call writes about 350 bytes */

/* Moves this thread to the next CPU above @cpu that it may use; returns it, -1 if there is none. */
static int next_cpu(const cpu_set_t *allowed, int cpu)
{
	cpu_set_t one;

	do
		cpu++;
	while (cpu < CPU_SETSIZE && !CPU_ISSET(cpu, allowed));
	if (cpu == CPU_SETSIZE)
		return -1;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one) < 0)
		abort();
	return cpu;
}

static void call_on_each_cpu(struct shared *shared, unsigned number, unsigned n)
{
	cpu_set_t allowed;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
		abort();
	for (int cpu = next_cpu(&allowed, -1); cpu >= 0; cpu = next_cpu(&allowed, cpu))
		target_calls(shared, number, n);
	sched_setaffinity(0, sizeof(allowed), &allowed);
}

static void work_on_each_cpu(struct shared *shared)
{
	unsigned number = target_thread_number(shared);

	sem_post(&shared->ready);
	for (;;) {
		await(&shared->go);
		if (atomic_load(&shared->stop))
			return;
		call_on_each_cpu(shared, number, (unsigned)shared->words[0]);
		sem_post(&shared->done);
	}
}

static void work(struct target *target, unsigned n_calls)
{
	target->shared->words[0] = n_calls;
	sem_post(&target->shared->go);
	await(&target->shared->done);
}

static void expect_all_accounted(const struct tally *tally, const struct dp_sampler_stats *stats)
{
	unsigned long long n_calls = total_calls(tally->shared);
	uint64_t n_kernel_lost = stats->n_entry_lost + stats->n_return_lost + stats->n_free_lost;

	assert_int_equal(stats->n_entry_hits, n_calls);
	assert_int_equal(stats->n_return_hits, n_calls);
	assert_int_equal(stats->n_free_hits, n_calls);
	assert_int_equal(stats->n_delivered, tally->n_samples);
	assert_int_equal(stats->n_lost, tally->n_lost);
	if (sampler_mode() == DP_SAMPLER_DIRECT) {
		assert_int_equal(stats->n_delivered + stats->n_lost, 3 * n_calls);
	} else { /* what other processes began and mapped may be lost too */
		assert_true(stats->n_lost >= n_kernel_lost);
		assert_int_equal(stats->n_delivered + n_kernel_lost, 3 * n_calls);
	}
	if (n_kernel_lost > 0) { /* a kernel before 6.0 does not say */
		if (sampler_mode() == DP_SAMPLER_DIRECT)
			assert_int_equal(stats->n_lost, n_kernel_lost);
		assert_int_equal(tally->n[DP_EVENT_ALLOC_ENTRY] + stats->n_entry_lost, n_calls);
		assert_int_equal(tally->n[DP_EVENT_ALLOC_RETURN] + stats->n_return_lost, n_calls);
		assert_int_equal(tally->n[DP_EVENT_FREE] + stats->n_free_lost, n_calls);
	}
	assert_int_equal(stats->n_malformed, 0);
	assert_int_equal(stats->n_dropped, 0);
}

static void expect_loss_counted(size_t ring_bytes)
{
	struct dp_sampler_options options = {.ring_bytes = ring_bytes};
	struct dp_sampler_stats stats;
	struct dp_sampler *sampler;
	struct target target;
	struct tally *tally;

	target_start(&target, work_on_each_cpu);
	await(&target.shared->ready);
	sampler = sampler_open_with(&target, options, true);
	dp_sampler_enable(sampler);
	tally = tally_new(target.shared);
	tally->with_gaps = true;
	for (int i = 0; i < 3; i++) {
		work(&target, CALLS);
		tally_drain(tally, sampler);
	}
	work(&target, 1); /* what is lost at last is only told by a record after it */
	tally_finish(tally, sampler);
	dp_sampler_get_stats(sampler, &stats);
	assert_true(stats.n_lost > 0);
	assert_true(stats.n_delivered > 0);
	expect_all_accounted(tally, &stats);
	free(tally);
	dp_sampler_close(sampler);
	atomic_store(&target.shared->stop, true);
	sem_post(&target.shared->go);
	target_join(&target);
}

static void a_ring_of_one_page_tells_what_it_lost(void **state)
{
	(void)state;
	expect_loss_counted((size_t)sysconf(_SC_PAGESIZE));
}

static void a_ring_of_four_pages_tells_what_it_lost(void **state)
{
	(void)state;
	expect_loss_counted((size_t)sysconf(_SC_PAGESIZE) * 4);
}

static void what_is_lost_is_told_at_the_latest_by_the_kernels_count(void **state)
{
	struct dp_sampler_options options = {.ring_bytes = (size_t)sysconf(_SC_PAGESIZE)};
	struct dp_sampler_stats stats;
	struct dp_sampler *sampler;
	struct target target;
	struct tally *tally;
	uint64_t n_kernel_lost;

	(void)state;
	target_start(&target, work_on_each_cpu);
	await(&target.shared->ready);
	sampler = sampler_open_with(&target, options, true);
	dp_sampler_enable(sampler);
	work(&target, CALLS);
	tally = tally_new(target.shared);
	tally->with_gaps = true;
	tally_finish(tally, sampler);
	dp_sampler_get_stats(sampler, &stats);
	if (sampler_mode() == DP_SAMPLER_DIRECT)
		assert_int_equal(stats.n_lost, 0); /* no record has come after the gap */
	n_kernel_lost = stats.n_entry_lost + stats.n_return_lost + stats.n_free_lost;
	if (n_kernel_lost > 0)
		assert_int_equal(stats.n_delivered + n_kernel_lost, 3 * total_calls(target.shared));
	free(tally);
	dp_sampler_close(sampler);
	target_kill(&target);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_ring_of_one_page_tells_what_it_lost),
		cmocka_unit_test(a_ring_of_four_pages_tells_what_it_lost),
		cmocka_unit_test(what_is_lost_is_told_at_the_latest_by_the_kernels_count),
	};
	int r = perf_must_skip();

	return r ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
