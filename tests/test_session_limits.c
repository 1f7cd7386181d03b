/* SPDX-License-Identifier: MIT */
/* A session where something must not be used, whatever this kernel and the target could bear. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/session.h"
#include "tests/perf_fixture.h"

#define CALLS 300

static void *volatile kept;

/* Two allocations and as many frees a call, in turns. */
static void allocate(struct shared *shared)
{
	for (;;) {
		sem_post(&shared->ready);
		await(&shared->go);
		if (atomic_load(&shared->stop))
			return;
		for (int i = 0; i < CALLS; i++) {
			kept = malloc(64);
			kept = realloc(kept, 128);
			free(kept);
		}
		sem_post(&shared->done);
	}
}

static void start(struct target *target)
{
	target_start(target, allocate);
	await(&target->shared->ready);
}

static void one_turn(struct target *target)
{
	sem_post(&target->shared->go);
	await(&target->shared->done);
	await(&target->shared->ready);
}

static void end(struct target *target)
{
	atomic_store(&target->shared->stop, true);
	sem_post(&target->shared->go);
	target_join(target);
}

static struct dp_session_options options_of(const struct target *target)
{
	return (struct dp_session_options){.pid = target->pid,
					   .heap = true,
					   .heap_rate_bytes = 1,
					   .block_rate_ns = 1,
					   .heap_unwound = true,
					   .stacks_go_on = true};
}

static struct dp_session *open_session(const struct dp_session_options *options)
{
	struct dp_session *session = NULL;
	struct dp_error err = {""};

	if (dp_session_open(&session, options, &err) < 0)
		fail_msg("%s", err.text);
	return session;
}

static void without_returns_only_entries_are_probed(void **state)
{
	struct dp_session_stats stats;
	struct dp_session_options options;
	struct dp_session *session;
	struct target target;

	(void)state;
	start(&target);
	options = options_of(&target);
	options.without_returns = true;
	session = open_session(&options);
	one_turn(&target);
	assert_int_equal(dp_session_stop(session), 0);
	dp_session_get_stats(session, &stats);
	assert_int_equal(stats.sampler.n_entry_hits, 2 * CALLS);
	assert_int_equal(stats.sampler.n_return_hits, 0);
	assert_int_equal(stats.sampler.n_free_hits, 0);
	assert_int_equal(stats.sampler.n_hits, 2 * CALLS);
	assert_int_equal(stats.pairing.n_calls, 2 * CALLS);
	assert_int_equal(stats.heap.n_sampled, 2 * CALLS);
	assert_int_equal(stats.heap.n_live, 0);
	assert_non_null(stats.no_returns);
	dp_session_close(session);
	end(&target);
}

static void with_returns_there_is_nothing_to_explain(void **state)
{
	struct dp_session_stats stats;
	struct dp_session_options options;
	struct dp_session *session;
	struct target target;

	(void)state;
	start(&target);
	options = options_of(&target);
	session = open_session(&options);
	if (dp_session_safety(session)->off & DP_OFF_RETURN_PROBES)
		skip();
	one_turn(&target);
	assert_int_equal(dp_session_stop(session), 0);
	dp_session_get_stats(session, &stats);
	assert_null(stats.no_returns);
	assert_int_equal(stats.sampler.n_return_hits, 2 * CALLS);
	assert_int_equal(stats.sampler.n_free_hits, CALLS);
	dp_session_close(session);
	end(&target);
}

static void without_callchains_frame_pointers_are_refused_with_a_sentence(void **state)
{
	struct dp_session *const untouched = (struct dp_session *)&errno;
	struct dp_session *session = untouched;
	struct dp_session_options options;
	struct dp_error err = {""};
	struct target target;

	(void)state;
	start(&target);
	options = options_of(&target);
	options.without_callchains = true;
	options.heap_unwound = false;
	assert_int_equal(dp_session_open(&session, &options, &err), -EOPNOTSUPP);
	assert_ptr_equal(session, untouched);
	assert_non_null(strstr(err.text, "--stacks auto or dwarf"));
	end(&target);
}

static void without_callchains_copies_do_not_go_on(void **state)
{
	struct dp_session_options options;
	struct dp_session *session;
	struct target target;

	(void)state;
	start(&target);
	options = options_of(&target);
	session = open_session(&options);
	assert_int_equal(dp_session_options(session)->stacks_go_on,
			 !(dp_session_safety(session)->off & DP_OFF_CALLCHAINS));
	dp_session_close(session);
	options.without_callchains = true;
	session = open_session(&options);
	assert_false(dp_session_options(session)->stacks_go_on);
	dp_session_close(session);
	/* Waits are always copied: nothing is to be refused. */
	options.heap = false;
	options.heap_unwound = false;
	options.contention = true;
	session = open_session(&options);
	dp_session_close(session);
	end(&target);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_returns_only_entries_are_probed),
		cmocka_unit_test(with_returns_there_is_nothing_to_explain),
		cmocka_unit_test(without_callchains_frame_pointers_are_refused_with_a_sentence),
		cmocka_unit_test(without_callchains_copies_do_not_go_on),
	};
	int r = perf_must_skip();

	return r ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
