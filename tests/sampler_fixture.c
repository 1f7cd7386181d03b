/* SPDX-License-Identifier: MIT */
#include "tests/sampler_fixture.h"

#include "src/base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum dp_sampler_mode sampler_mode(void)
{
	const char *name = getenv("DP_TEST_SAMPLER");

	if (name && strcmp(name, "kernel") == 0)
		return DP_SAMPLER_KERNEL;
	if (name && strcmp(name, "kernel events") == 0)
		return DP_SAMPLER_KERNEL_EVENTS;
	return DP_SAMPLER_DIRECT;
}

void sampler_sites(struct dp_probe_site sites[2], int fd)
{
	sites[0] = (struct dp_probe_site){.fd = fd,
					  .file_off = program_file_off(probed_alloc),
					  .i_count = -1,
					  .i_pointer = -1,
					  .i_align = -1};
	sites[1] = (struct dp_probe_site){.fd = fd,
					  .file_off = program_file_off(probed_free),
					  .kind = DP_KERNEL_FREE,
					  .i_size = -1,
					  .i_count = -1,
					  .i_align = -1};
}

struct dp_sampler *sampler_open_with(const struct target *target, struct dp_sampler_options options,
				     bool heap)
{
	int fd = program_fd();
	struct dp_probe_site sites[2];
	struct dp_sampler *sampler = NULL;
	struct dp_error err = {0};
	int r;

	sampler_sites(sites, fd);
	options.pid = target->pid;
	options.mode = sampler_mode();
	options.heap_rate_bytes = 1;
	options.block_rate_ns = 1;
	options.sites = heap ? sites : NULL;
	options.n_sites = heap ? 2 : 0;
	r = dp_sampler_open(&sampler, &options, &err);
	close(fd);
	if (r < 0)
		fail_msg("%s", err.text);
	return sampler;
}

struct dp_sampler *sampler_open(const struct target *target)
{
	return sampler_open_with(target, (struct dp_sampler_options){0}, true);
}

void sampler_drain(struct dp_sampler *sampler,
		   void (*take)(void *context, const struct dp_event *event), void *context)
{
	uint64_t now_ns = dp_monotonic_ns();
	struct dp_event event;

	do {
		dp_sampler_round(sampler);
		while (dp_sampler_next(sampler, UINT64_MAX, &event) == 1)
			take(context, &event);
	} while (dp_sampler_horizon_ns(sampler) <= now_ns);
}

struct tally *tally_new(const struct shared *shared)
{
	struct tally *tally = calloc(1, sizeof(*tally));

	assert_non_null(tally);
	tally->shared = shared;
	return tally;
}

/* The thread that made a call, by what it gave to the function. */
static size_t check_thread(const struct tally *tally, const struct dp_event *event, uint64_t number)
{
	assert_true(number < TARGET_MAX_THREADS);
	assert_int_equal(event->tid, atomic_load(&tally->shared->tids[number]));
	return (size_t)number;
}

static void check_call(const struct tally *tally, uint64_t i_call, uint64_t *expected)
{
	if (tally->with_gaps)
		assert_true(i_call >= *expected);
	else
		assert_int_equal(i_call, *expected);
	*expected = i_call + 1;
}

static void take_entry(struct tally *tally, const struct dp_event *event)
{
	size_t i = check_thread(tally, event, event->entry.args[1]);
	uintptr_t caller = (uintptr_t)target_calls;

	assert_true(event->entry.stack0 > caller && event->entry.stack0 < caller + 512);
	assert_int_equal(event->entry.probe_avma, (uintptr_t)probed_alloc);
	assert_int_equal(event->entry.sp % 8, 0);
	assert_true(event->entry.user.n_callchain >= 1 || event->entry.user.stack_bytes > 0);
	tally->asked_bytes = event->entry.user.asked_bytes;
	check_call(tally, event->entry.args[0], &tally->threads[i].n_entries);
	tally->threads[i].sp = event->entry.sp;
}

/* @value: probed_result() of the call's arguments. */
static void take_result(struct tally *tally, const struct dp_event *event, uint64_t value)
{
	bool returned = event->type == DP_EVENT_ALLOC_RETURN;
	size_t i = check_thread(tally, event, value / 16 >> 32);

	assert_int_equal(value % 16, 0);
	check_call(tally, value / 16 & UINT32_MAX,
		   returned ? &tally->threads[i].n_returns : &tally->threads[i].n_frees);
	if (!returned) {
		assert_int_equal(event->entry.probe_avma, (uintptr_t)probed_free);
		return;
	}
	assert_int_equal(event->ret.probe_avma, (uintptr_t)probed_alloc);
	if (!tally->with_gaps) {
		assert_int_equal(tally->threads[i].n_returns, tally->threads[i].n_entries);
		assert_int_equal(event->ret.sp, tally->threads[i].sp + 8);
	}
}

static void take_and_check(void *context, const struct dp_event *event)
{
	struct tally *tally = context;

	tally->n[event->type]++;
	if (event->time_ns < tally->youngest_ns)
		tally->n_younger_first++;
	else
		tally->youngest_ns = event->time_ns;
	switch (event->type) {
	case DP_EVENT_ALLOC_ENTRY:
		take_entry(tally, event);
		break;
	case DP_EVENT_ALLOC_RETURN:
		take_result(tally, event, event->ret.retval);
		break;
	case DP_EVENT_FREE:
		take_result(tally, event, event->entry.args[0]);
		break;
	case DP_EVENT_FUTEX_ENTER:
	case DP_EVENT_FUTEX_EXIT:
	case DP_EVENT_WAKING:
		break;
	case DP_EVENT_LOST:
		tally->n_lost += event->lost.n_records;
		return;
	default:
		return;
	}
	tally->n_samples++;
}

void tally_drain(struct tally *tally, struct dp_sampler *sampler)
{
	sampler_drain(sampler, take_and_check, tally);
}

void tally_finish(struct tally *tally, struct dp_sampler *sampler)
{
	dp_sampler_disable(sampler);
	tally_drain(tally, sampler);
}

void expect_every_call_once(const struct tally *tally, struct dp_sampler *sampler,
			    struct dp_sampler_stats *stats)
{
	unsigned long long n_calls = total_calls(tally->shared);

	dp_sampler_get_stats(sampler, stats);
	for (size_t i = 0; i < TARGET_MAX_THREADS; i++) {
		unsigned long long n = atomic_load(&tally->shared->calls[i]);

		assert_int_equal(tally->threads[i].n_entries, n);
		assert_int_equal(tally->threads[i].n_returns, n);
		assert_int_equal(tally->threads[i].n_frees, n);
	}
	assert_int_equal(tally->n[DP_EVENT_ALLOC_ENTRY], n_calls);
	assert_int_equal(tally->n[DP_EVENT_ALLOC_RETURN], n_calls);
	assert_int_equal(tally->n[DP_EVENT_FREE], n_calls);
	assert_int_equal(stats->n_delivered, tally->n_samples);
	assert_int_equal(stats->n_lost, 0);
	assert_int_equal(stats->n_dropped, 0);
	assert_int_equal(stats->n_malformed, 0);
	assert_int_equal(stats->n_out_of_order, tally->n_younger_first);
	assert_int_equal(stats->n_entry_lost + stats->n_return_lost + stats->n_free_lost, 0);
}
