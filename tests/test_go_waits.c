/* SPDX-License-Identifier: MIT */
/* Goroutines' waits from made-up events: pairing, classes, cuts, estimates, bounds. */
#include "src/go_waits.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/frame.h"
#include "src/contention.h"
#include "src/go_layout.h"
#include "tests/alloc_fail.h"

#define PID 4711
#define TEXT 0x400000u
#define TEXT_BYTES 0x100000u
#define FUNCTION_BYTES 0x100u
#define MAX_WORDS 16

/* The made-up program: the i-th function begins at TEXT + 0x1000 + i * FUNCTION_BYTES. */
static const char *const program[] = {
	"runtime.gopark",
	"runtime.chanrecv",
	"runtime.chanrecv1",
	"main.worker",
	"runtime.goexit",
	"runtime.semacquire1",
	"internal/sync.runtime_SemacquireMutex",
	"internal/sync.(*Mutex).lockSlow",
	"main.locks",
	"runtime.ready",
	"runtime.goready.func1",
	"runtime.semrelease1",
	"internal/sync.runtime_Semrelease",
	"internal/sync.(*Mutex).unlockSlow",
	"main.unlocks",
	"sync.runtime_Semacquire",
	"sync.(*WaitGroup).Wait",
	"runtime.semacquire",
	"main.timer",
};

#define N_PROGRAM (sizeof(program) / sizeof(program[0]))

struct fixture {
	struct dp_modules *modules;
	struct dp_space *space;
	struct dp_stacks *stacks;
	struct dp_go_places *places;
	struct dp_go_waits *waits;
	uint32_t module;
	uint64_t now_ns;
};

static size_t number_of(const char *name)
{
	size_t i = 0;

	while (i < N_PROGRAM && strcmp(program[i], name) != 0)
		i++;
	return i;
}

static uint64_t code_in(const char *name)
{
	size_t i = number_of(name);

	assert_true(i < N_PROGRAM);
	return TEXT + 0x1000 + i * FUNCTION_BYTES + 0x20;
}

static bool find(void *context, const char *name, uint64_t *ret_frame, uint64_t *ret_bytes)
{
	const struct fixture *f = context;

	if (number_of(name) == N_PROGRAM)
		return false;
	*ret_frame = dp_space_frame(f->space, code_in(name) - 0x20);
	*ret_bytes = FUNCTION_BYTES;
	return true;
}

static void open_fixture(struct fixture *f, uint64_t rate_ns, size_t max_parked)
{
	const struct dp_go_names names = {.find = find, .context = f};
	struct dp_go_waits_options options = {.pid = PID,
					      .rate_ns = rate_ns,
					      .seed = 1,
					      .max_parked = max_parked,
					      .max_callchain = 127};
	struct dp_go_layout layout;

	*f = (struct fixture){.now_ns = 1000000};
	assert_int_equal(dp_go_layout_get(24, &layout), 0);
	options.reasons = layout.wait_reasons;
	assert_int_equal(dp_modules_new(&f->modules), 0);
	assert_int_equal(dp_space_new(&f->space, f->modules, getpid()), 0);
	assert_int_equal(dp_space_add(f->space, TEXT, TEXT + TEXT_BYTES, 0, "/made/up", NULL), 0);
	assert_int_equal(dp_stacks_new(&f->stacks, 1000, 100000), 0);
	assert_int_equal(dp_go_places_new(&f->places, &names), 0);
	assert_int_equal(dp_go_waits_new(&f->waits, &options, f->places, f->space, f->stacks), 0);
}

static void close_fixture(struct fixture *f)
{
	dp_go_waits_free(f->waits);
	dp_go_places_free(f->places);
	dp_stacks_free(f->stacks);
	dp_space_free(f->space);
	dp_modules_free(f->modules);
}

/* Fills @words with a user's callchain through the functions, leaf first; NULL ends them. */
static size_t fill_chain(uint64_t *words, const char *const *names)
{
	size_t n = 0;

	for (; names[n]; n++)
		words[n] = code_in(names[n]);
	return n;
}

static const char *const receives[] = {"runtime.gopark", "runtime.chanrecv", "runtime.chanrecv1",
				       "main.worker",	 "runtime.goexit",   NULL};
static const char *const locks[] = {"runtime.gopark",
				    "runtime.semacquire1",
				    "internal/sync.runtime_SemacquireMutex",
				    "internal/sync.(*Mutex).lockSlow",
				    "main.locks",
				    "runtime.goexit",
				    NULL};
static const char *const unlocks[] = {"runtime.ready",
				      "runtime.goready.func1",
				      "runtime.semrelease1",
				      "internal/sync.runtime_Semrelease",
				      "internal/sync.(*Mutex).unlockSlow",
				      "main.unlocks",
				      "main.worker",
				      "runtime.goexit",
				      NULL};
static const char *const waits_for_group[] = {
	"runtime.gopark",	  "runtime.semacquire1", "sync.runtime_Semacquire",
	"sync.(*WaitGroup).Wait", "main.worker",	 NULL};
static const char *const stops_the_world[] = {"runtime.gopark", "runtime.semacquire1",
					      "runtime.semacquire", "main.worker", NULL};
static const char *const sends[] = {"runtime.ready", "runtime.goready.func1", "main.timer", NULL};

/* Reasons of Go 1.24. */
enum { RECEIVE = 14, SEMACQUIRE = 18, SLEEP = 19, MUTEX_LOCK = 21 };

static int give(struct fixture *f, enum dp_event_type type, uint64_t g, uint32_t reason,
		const char *const *names)
{
	uint64_t words[MAX_WORDS];
	const struct dp_event event = {
		.type = type,
		.pid = PID,
		.tid = 1,
		.time_ns = f->now_ns,
		.go = {.g = g,
		       .reason = reason,
		       .user = {.callchain = words, .n_callchain = fill_chain(words, names)}}};

	return dp_go_waits_event(f->waits, &event);
}

static void wait(struct fixture *f, uint64_t g, uint32_t reason, const char *const *waiter,
		 uint64_t delay_ns, const char *const *waker)
{
	assert_int_equal(give(f, DP_EVENT_GO_PARK, g, reason, waiter), 0);
	f->now_ns += delay_ns;
	assert_int_equal(give(f, DP_EVENT_GO_READY, g, 0, waker), 0);
}

typedef int feed_fn(const struct dp_go_waits *waits, struct dp_delta *delta);

/* The rows of a profile must be one of @contentions and @delay_ns whose stack begins in @leaf and
 * has @n_frames; or none if @leaf is NULL. */
static void expect_row(const struct fixture *f, feed_fn *feed, int64_t contentions,
		       int64_t delay_ns, const char *leaf, size_t n_frames)
{
	const struct dp_delta_spec spec = dp_contention_delta_spec(100);
	const struct dp_delta_row *rows;
	struct dp_delta *delta;
	const uint64_t *frames;
	size_t n;

	assert_int_equal(dp_delta_new(&delta, &spec), 0);
	dp_delta_begin(delta);
	assert_int_equal(feed(f->waits, delta), 0);
	assert_int_equal(dp_delta_end(delta, &rows, &n), 0);
	assert_int_equal(n, leaf ? 1 : 0);
	if (leaf) {
		assert_int_equal(rows[0].values[0], contentions);
		assert_int_equal(rows[0].values[1], delay_ns);
		frames = dp_stacks_get(f->stacks, rows[0].stack, &n);
		assert_int_equal(n, n_frames);
		assert_int_equal(dp_frame_offset(frames[0]) / FUNCTION_BYTES,
				 (code_in(leaf) - TEXT) / FUNCTION_BYTES);
	}
	dp_delta_free(delta);
}

static void a_channels_wait_is_on_the_stack_from_the_public_operation_outwards(void **state)
{
	struct fixture f;

	(void)state;
	open_fixture(&f, 1, 100);
	wait(&f, 0xc000, RECEIVE, receives, 500, sends);
	wait(&f, 0xd000, RECEIVE, receives, 300, sends);
	expect_row(&f, dp_go_waits_feed_block, 2, 800, "runtime.chanrecv1", 2);
	expect_row(&f, dp_go_waits_feed_mutex, 0, 0, NULL, 0);
	close_fixture(&f);
}

static void a_wait_for_a_lock_is_charged_to_who_unlocks_it(void **state)
{
	struct fixture f;

	(void)state;
	open_fixture(&f, 1, 100);
	wait(&f, 0xc000, MUTEX_LOCK, locks, 500, unlocks);
	expect_row(&f, dp_go_waits_feed_block, 1, 500, "main.locks", 1);
	expect_row(&f, dp_go_waits_feed_mutex, 1, 500, "main.unlocks", 2);
	close_fixture(&f);
}

static void a_lock_that_nobody_released_is_in_block_only(void **state)
{
	struct fixture f;

	(void)state;
	open_fixture(&f, 1, 100);
	wait(&f, 0xc000, MUTEX_LOCK, locks, 500, sends);
	expect_row(&f, dp_go_waits_feed_block, 1, 500, "main.locks", 1);
	expect_row(&f, dp_go_waits_feed_mutex, 0, 0, NULL, 0);
	assert_int_equal(dp_go_waits_get_stats(f.waits)->n_locks_otherwise, 1);
	close_fixture(&f);
}

static void a_semaphore_counts_if_its_function_says_so(void **state)
{
	struct fixture f;

	(void)state;
	open_fixture(&f, 1, 100);
	wait(&f, 0xc000, SEMACQUIRE, waits_for_group, 500, unlocks);
	wait(&f, 0xc000, SEMACQUIRE, stops_the_world, 700, unlocks);
	expect_row(&f, dp_go_waits_feed_block, 1, 500, "sync.(*WaitGroup).Wait", 2);
	expect_row(&f, dp_go_waits_feed_mutex, 0, 0, NULL, 0);
	assert_int_equal(dp_go_waits_get_stats(f.waits)->n_internal, 1);
	assert_int_equal(dp_go_waits_get_stats(f.waits)->n_kept, 1);
	assert_int_equal(dp_go_waits_get_stats(f.waits)->n_waits, 2);
	close_fixture(&f);
}

static void a_semaphore_that_was_not_got_is_waited_for_once(void **state)
{
	struct fixture f;

	(void)state;
	open_fixture(&f, 1, 100);
	wait(&f, 0xc000, MUTEX_LOCK, locks, 500, unlocks);
	f.now_ns += 30; /* until it runs, and finds the lock taken */
	wait(&f, 0xc000, MUTEX_LOCK, locks, 70, unlocks);
	expect_row(&f, dp_go_waits_feed_block, 1, 600, "main.locks", 1);
	expect_row(&f, dp_go_waits_feed_mutex, 2, 600, "main.unlocks", 2);
	assert_int_equal(dp_go_waits_get_stats(f.waits)->n_going_on, 1);
	give(&f, DP_EVENT_GO_ACQUIRE, 0xc000, 0, locks);
	f.now_ns += 1000;
	wait(&f, 0xc000, MUTEX_LOCK, locks, 5, unlocks);
	expect_row(&f, dp_go_waits_feed_block, 2, 605, "main.locks", 1);
	f.now_ns += 1000;
	wait(&f, 0xc000, RECEIVE, receives, 5, sends);
	assert_int_equal(dp_go_waits_get_stats(f.waits)->n_going_on, 1);
	assert_int_equal(dp_go_waits_get_stats(f.waits)->n_forgotten, 0);
	assert_int_equal(dp_go_waits_pending(f.waits), 0);
	close_fixture(&f);
}

static void a_decided_wait_brings_both_stacks(void **state)
{
	struct fixture f;
	uint64_t waker[MAX_WORDS], waiter[MAX_WORDS];
	uint8_t bytes[sizeof(waiter) + 4];
	struct dp_event event = {
		.type = DP_EVENT_GO_WAIT,
		.pid = PID,
		.go = {.g = 0xc000,
		       .reason = MUTEX_LOCK,
		       .delay_ns = 250,
		       .frames = bytes + 4,
		       .n_frames = fill_chain(waiter, locks),
		       .user = {.callchain = waker, .n_callchain = fill_chain(waker, unlocks)}}};

	(void)state;
	open_fixture(&f, 1000, 100);
	memcpy(bytes + 4, waiter, sizeof(waiter)); /* as in a ring: not aligned */
	assert_int_equal(dp_go_waits_event(f.waits, &event), 0);
	expect_row(&f, dp_go_waits_feed_block, 4, 1000, "main.locks", 1);
	expect_row(&f, dp_go_waits_feed_mutex, 4, 1000, "main.unlocks", 2);
	close_fixture(&f);
}

static void a_park_whose_end_was_not_seen_is_forgotten(void **state)
{
	struct fixture f;

	(void)state;
	open_fixture(&f, 1, 100);
	give(&f, DP_EVENT_GO_PARK, 0xc000, RECEIVE, receives);
	f.now_ns += 100000;
	wait(&f, 0xc000, RECEIVE, receives, 10, sends);
	give(&f, DP_EVENT_GO_PARK, 0xc000, RECEIVE, receives);
	give(&f, DP_EVENT_GO_PARK, 0xc000, SLEEP, receives);
	give(&f, DP_EVENT_GO_READY, 0xc000, 0, sends);
	expect_row(&f, dp_go_waits_feed_block, 1, 10, "runtime.chanrecv1", 2);
	assert_int_equal(dp_go_waits_get_stats(f.waits)->n_forgotten, 2);
	assert_int_equal(dp_go_waits_get_stats(f.waits)->n_other_readies, 1);
	assert_int_equal(dp_go_waits_pending(f.waits), 0);
	close_fixture(&f);
}

static void a_gap_forgets_whoever_waits(void **state)
{
	struct fixture f;

	(void)state;
	open_fixture(&f, 1, 100);
	give(&f, DP_EVENT_GO_PARK, 0xc000, RECEIVE, receives);
	give(&f, DP_EVENT_GO_PARK, 0xd000, RECEIVE, receives);
	dp_go_waits_gap(f.waits);
	give(&f, DP_EVENT_GO_READY, 0xc000, 0, sends);
	expect_row(&f, dp_go_waits_feed_block, 0, 0, NULL, 0);
	assert_int_equal(dp_go_waits_get_stats(f.waits)->n_forgotten, 2);
	close_fixture(&f);
}

static void goroutines_beyond_the_bound_are_counted(void **state)
{
	const struct dp_go_waits_stats *stats;
	struct fixture f;

	(void)state;
	open_fixture(&f, 1, 10);
	for (uint64_t g = 1; g <= 15; g++)
		give(&f, DP_EVENT_GO_PARK, g << 12, RECEIVE, receives);
	f.now_ns += 5;
	for (uint64_t g = 15; g >= 1; g--)
		give(&f, DP_EVENT_GO_READY, g << 12, 0, sends);
	stats = dp_go_waits_get_stats(f.waits);
	assert_int_equal(stats->n_parks, 15);
	assert_int_equal(stats->n_no_room, 5);
	assert_int_equal(stats->n_waits, 10);
	assert_int_equal(stats->n_other_readies, 5);
	expect_row(&f, dp_go_waits_feed_block, 10, 50, "runtime.chanrecv1", 2);
	close_fixture(&f);
}

static void others_are_ignored(void **state)
{
	struct dp_event event = {.type = DP_EVENT_GO_READY, .pid = PID + 1, .go = {.g = 0xc000}};
	struct fixture f;

	(void)state;
	open_fixture(&f, 1, 10);
	give(&f, DP_EVENT_GO_PARK, 0xc000, RECEIVE, receives);
	assert_int_equal(dp_go_waits_event(f.waits, &event), 0);
	assert_int_equal(dp_go_waits_pending(f.waits), 1);
	close_fixture(&f);
}

/* Of 40 000 waits a quarter of the rate long each is kept with 1/4 and counts 4: the sum's standard
 * deviation is sqrt(40 000 * 3) = 346. */
static void short_waits_are_estimated_without_bias(void **state)
{
	const struct dp_delta_spec spec = dp_contention_delta_spec(100);
	const struct dp_go_waits_stats *stats;
	const struct dp_delta_row *rows;
	struct dp_delta *delta;
	struct fixture f;
	size_t n;

	(void)state;
	open_fixture(&f, 1000, 10);
	for (int i = 0; i < 40000; i++)
		wait(&f, 0xc000, RECEIVE, receives, 250, sends);
	stats = dp_go_waits_get_stats(f.waits);
	assert_int_equal(stats->n_kept + stats->n_skipped, 40000);
	assert_int_equal(dp_delta_new(&delta, &spec), 0);
	dp_delta_begin(delta);
	assert_int_equal(dp_go_waits_feed_block(f.waits, delta), 0);
	assert_int_equal(dp_delta_end(delta, &rows, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(rows[0].values[0], 4 * stats->n_kept);
	assert_int_equal(rows[0].values[1], 1000 * stats->n_kept);
	assert_true(fabs((double)rows[0].values[0] - 40000) < 4 * 346);
	dp_delta_free(delta);
	close_fixture(&f);
}

static int build_all(const struct fixture *f)
{
	const struct dp_go_names names = {.find = find, .context = (void *)(uintptr_t)f};
	static const uint8_t reasons[DP_GO_N_REASONS] = {RECEIVE};
	const struct dp_go_waits_options options = {
		.rate_ns = 1, .max_parked = 1, .reasons = reasons};
	struct dp_go_places *places = NULL;
	struct dp_go_waits *waits = NULL;
	int r = dp_go_places_new(&places, &names);

	if (r == 0)
		r = dp_go_waits_new(&waits, &options, places, f->space, f->stacks);
	dp_go_waits_free(waits);
	dp_go_places_free(places);
	return r;
}

static void what_no_memory_is_left_for_is_as_if_it_had_not_been(void **state)
{
	struct fixture f;

	(void)state;
	open_fixture(&f, 1, 100);
	ALLOC_FAIL_EACH(build_all(&f));
	/* The stack is known, so that only the table of those that wait allocates. */
	wait(&f, 0xd000, RECEIVE, receives, 1, sends);
	for (uint64_t g = 1; g <= 64; g++)
		ALLOC_FAIL_EACH(give(&f, DP_EVENT_GO_PARK, g << 12, RECEIVE, receives));
	assert_int_equal(dp_go_waits_pending(f.waits), 64);
	assert_int_equal(dp_go_waits_get_stats(f.waits)->n_parks, 65);
	close_fixture(&f);
}

static void impossible_options_are_refused(void **state)
{
	static const uint8_t reasons[DP_GO_N_REASONS];
	struct dp_go_waits_options options = {.rate_ns = 0, .max_parked = 1, .reasons = reasons};
	struct dp_go_waits *waits = NULL;

	(void)state;
	assert_int_equal(dp_go_waits_new(&waits, &options, NULL, NULL, NULL), -EINVAL);
	options = (struct dp_go_waits_options){.rate_ns = 1, .reasons = reasons};
	assert_int_equal(dp_go_waits_new(&waits, &options, NULL, NULL, NULL), -EINVAL);
	assert_null(waits);
	dp_go_waits_free(NULL);
	dp_go_places_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			a_channels_wait_is_on_the_stack_from_the_public_operation_outwards),
		cmocka_unit_test(a_wait_for_a_lock_is_charged_to_who_unlocks_it),
		cmocka_unit_test(a_lock_that_nobody_released_is_in_block_only),
		cmocka_unit_test(a_semaphore_counts_if_its_function_says_so),
		cmocka_unit_test(a_semaphore_that_was_not_got_is_waited_for_once),
		cmocka_unit_test(a_decided_wait_brings_both_stacks),
		cmocka_unit_test(a_park_whose_end_was_not_seen_is_forgotten),
		cmocka_unit_test(a_gap_forgets_whoever_waits),
		cmocka_unit_test(goroutines_beyond_the_bound_are_counted),
		cmocka_unit_test(others_are_ignored),
		cmocka_unit_test(short_waits_are_estimated_without_bias),
		cmocka_unit_test(what_no_memory_is_left_for_is_as_if_it_had_not_been),
		cmocka_unit_test(impossible_options_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
