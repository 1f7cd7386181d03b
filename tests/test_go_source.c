/* SPDX-License-Identifier: MIT */
/* A Go process's source: what comes out of made-up memory as rows of the delta engine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/base/frame.h"
#include "src/go_rates.h"
#include "src/go_source.h"
#include "tests/alloc_fail.h"
#include "tests/go_memory_fixture.h"

#define TICKS_PER_SECOND UINT64_C(3000000000)

static const uint64_t stack[] = {0x401001, 0x402002, 0x403003};
static const uint64_t other[] = {0x401001, 0x402002, 0x404004};

struct fixture {
	struct go_fake *fake;
	struct dp_modules *modules;
	struct dp_space *space;
	struct dp_stacks *stacks;
	struct dp_go_source *source;
	struct dp_delta *delta;
	const struct dp_delta_row *rows;
	size_t n_rows;
};

static void make(struct fixture *f, unsigned minor)
{
	*f = (struct fixture){.fake = go_fake_new(minor)};
	f->fake->heap_rate = 1;
	/* Where the runtime keeps what it has calibrated; the last word is that of every layout. */
	for (size_t i = 0; i < 4; i++)
		f->fake->ticks[i] = TICKS_PER_SECOND;
	assert_int_equal(dp_modules_new(&f->modules), 0);
	assert_int_equal(dp_space_new(&f->space, f->modules, getpid()), 0);
	assert_int_equal(dp_stacks_new(&f->stacks, 1024, 65536), 0);
}

static void attach(struct fixture *f, enum dp_go_list list)
{
	const struct dp_delta_spec spec = dp_go_delta_spec(list, 1024);
	struct dp_error err;

	assert_int_equal(dp_go_source_new(&f->source, &f->fake->runtime, f->space, f->stacks, &err),
			 0);
	assert_int_equal(dp_delta_new(&f->delta, &spec), 0);
}

/* One profile that was delivered. */
static void profile(struct fixture *f, enum dp_go_list list)
{
	dp_delta_begin(f->delta);
	assert_int_equal(dp_go_source_feed(f->source, list, f->delta), 0);
	assert_int_equal(dp_delta_end(f->delta, &f->rows, &f->n_rows), 0);
	dp_delta_commit(f->delta);
}

static void clear(struct fixture *f)
{
	dp_delta_free(f->delta);
	dp_go_source_free(f->source);
	dp_stacks_free(f->stacks);
	dp_space_free(f->space);
	dp_modules_free(f->modules);
	go_fake_free(f->fake);
}

static void set_event(uint64_t *record, unsigned minor, int64_t count, int64_t cycles)
{
	double number = (double)count;

	if (minor >= 17)
		memcpy(&record[0], &number, sizeof(number));
	else
		record[0] = (uint64_t)count;
	record[1] = (uint64_t)cycles;
}

static void what_was_there_at_the_attach_is_the_base_and_in_use_is_absolute(void **state)
{
	struct fixture f;
	uint64_t *record, *later;

	(void)state;
	make(&f, 24);
	record = go_fake_add(f.fake, DP_GO_HEAP, 96, stack, 3);
	go_fake_set(f.fake, record, -1, 96, 100, 40);
	attach(&f, DP_GO_HEAP);
	profile(&f, DP_GO_HEAP);
	assert_int_equal(f.n_rows, 1);
	assert_int_equal(f.rows[0].values[0], 0);
	assert_int_equal(f.rows[0].values[2], 60);
	assert_int_equal(f.rows[0].tag, 96);

	go_fake_set(f.fake, record, -1, 96, 107, 41);
	later = go_fake_add(f.fake, DP_GO_HEAP, 32, other, 3);
	go_fake_set(f.fake, later, -1, 32, 5, 5);
	profile(&f, DP_GO_HEAP);
	assert_int_equal(f.n_rows, 2);
	/* The newest bucket is first, as in the runtime. */
	assert_int_equal(f.rows[0].tag, 32);
	assert_int_equal(f.rows[0].values[0], 5);
	assert_int_equal(f.rows[0].values[2], 0);
	assert_int_equal(f.rows[1].values[0], 7);
	assert_int_equal(f.rows[1].values[2], 66);
	clear(&f);
}

static void frames_are_the_calls_of_the_recorded_return_addresses(void **state)
{
	const uint64_t *frames;
	struct fixture f;
	size_t n;

	(void)state;
	make(&f, 24);
	go_fake_set(f.fake, go_fake_add(f.fake, DP_GO_HEAP, 96, stack, 3), -1, 96, 1, 0);
	attach(&f, DP_GO_HEAP);
	profile(&f, DP_GO_HEAP);
	frames = dp_stacks_get(f.stacks, f.rows[0].stack, &n);
	assert_int_equal(n, 3);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(frames[i], dp_frame_make(0, stack[i] - 1));
	clear(&f);
}

static void equal_stacks_are_one_row_and_sizes_tell_rows_apart(void **state)
{
	struct fixture f;

	(void)state;
	make(&f, 24);
	attach(&f, DP_GO_HEAP);
	go_fake_set(f.fake, go_fake_add(f.fake, DP_GO_HEAP, 96, stack, 3), -1, 96, 239, 0);
	go_fake_set(f.fake, go_fake_add(f.fake, DP_GO_HEAP, 96, stack, 3), -1, 96, 7, 0);
	go_fake_set(f.fake, go_fake_add(f.fake, DP_GO_HEAP, 48, stack, 3), -1, 48, 3, 1);
	profile(&f, DP_GO_HEAP);
	assert_int_equal(f.n_rows, 2);
	assert_int_equal(f.rows[0].values[0], 3);
	assert_int_equal(f.rows[1].values[0], 246);
	profile(&f, DP_GO_HEAP);
	assert_int_equal(f.n_rows, 2); /* in use, and nothing new */
	assert_int_equal(f.rows[1].values[0], 0);
	assert_int_equal(f.rows[1].values[2], 246);
	clear(&f);
}

/* The golden values of godeltaprof's TestDeltaHeap: the difference first, then scaled. */
static void rows_of_the_heap_are_scaled_as_go_scales_them(void **state)
{
	const struct dp_go_rates rates = {.heap_bytes = 524288};
	struct dp_delta_row row = {.tag = 327680, .values = {3, 0, 5, 0}};

	(void)state;
	assert_true(dp_go_source_scale(&rates, &row));
	assert_int_equal(row.values[0], 6);
	assert_int_equal(row.values[1], 2115253);
	assert_int_equal(row.values[2], 10);
	assert_int_equal(row.values[3], 3525422);
	row = (struct dp_delta_row){.tag = 0, .values = {3, 0, 5, 0}};
	assert_false(dp_go_source_scale(&rates, &row));
	row = (struct dp_delta_row){.tag = UINT64_MAX / 2, .values = {INT64_MAX, 0, 0, 0}};
	assert_true(dp_go_source_scale(&rates, &row));
	assert_true(row.values[1] > 0);
}

/* As godeltaprof: the difference of what was converted, both cut off. */
static void delays_are_differences_of_converted_ticks_over_equal_stacks_together(void **state)
{
	struct fixture f;
	uint64_t *a, *b;

	(void)state;
	make(&f, 24);
	f.fake->block_rate = 1;
	a = go_fake_add(f.fake, DP_GO_BLOCK, 0, stack, 3);
	set_event(a, 24, 10, 1000);
	attach(&f, DP_GO_BLOCK);
	assert_true(dp_go_source_has(f.source, DP_GO_BLOCK));
	assert_false(dp_go_source_has(f.source, DP_GO_MUTEX));
	profile(&f, DP_GO_BLOCK);
	assert_int_equal(f.n_rows, 0);

	set_event(a, 24, 12, 1001); /* 1000 ticks are 333 ns, 1001 + 1 are 334 */
	b = go_fake_add(f.fake, DP_GO_BLOCK, 0, stack, 3);
	set_event(b, 24, 1, 1);
	profile(&f, DP_GO_BLOCK);
	assert_int_equal(f.n_rows, 1);
	assert_int_equal(f.rows[0].values[0], 3);
	assert_int_equal(f.rows[0].values[1], 1);

	set_event(b, 24, 1, 2); /* 1003: still 334 */
	profile(&f, DP_GO_BLOCK);
	assert_int_equal(f.n_rows, 0);
	clear(&f);
}

static void a_mutex_event_before_go_1_20_counts_as_often_as_the_fraction_says(void **state)
{
	static const struct {
		unsigned minor;
		int64_t count, ns;
	} cases[] = {{19, 10, 5000}, {20, 2, 1000}};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct fixture f;
		uint64_t *record;

		make(&f, cases[i].minor);
		f.fake->mutex_fraction = 5;
		record = go_fake_add(f.fake, DP_GO_MUTEX, 0, stack, 3);
		attach(&f, DP_GO_MUTEX);
		set_event(record, cases[i].minor, 2, 3000);
		profile(&f, DP_GO_MUTEX);
		assert_int_equal(f.n_rows, 1);
		assert_int_equal(f.rows[0].values[0], cases[i].count);
		assert_int_equal(f.rows[0].values[1], cases[i].ns);
		clear(&f);
	}
}

static void counters_that_go_back_are_counted_and_give_no_row(void **state)
{
	struct dp_go_source_stats stats;
	struct fixture f;
	uint64_t *record;

	(void)state;
	make(&f, 24);
	f.fake->block_rate = 1;
	record = go_fake_add(f.fake, DP_GO_BLOCK, 0, stack, 3);
	set_event(record, 24, 10, 3000);
	attach(&f, DP_GO_BLOCK);
	set_event(record, 24, 4, 300);
	profile(&f, DP_GO_BLOCK);
	assert_int_equal(f.n_rows, 0);
	dp_go_source_get_stats(f.source, &stats);
	assert_int_equal(stats.lists[DP_GO_BLOCK].n_kept, 1);
	set_event(record, 24, 11, 3300);
	profile(&f, DP_GO_BLOCK);
	assert_int_equal(f.n_rows, 1);
	assert_int_equal(f.rows[0].values[0], 1);
	assert_int_equal(f.rows[0].values[1], 100);
	clear(&f);
}

/* The runtime's lock is held all the time that the source is being made. */
static void a_bucket_that_cannot_be_read_at_the_attach_counts_from_its_first_reading(void **state)
{
	struct dp_go_source_stats stats;
	struct fixture f;
	uint64_t *record;

	(void)state;
	make(&f, 24);
	f.fake->block_rate = 1;
	record = go_fake_add(f.fake, DP_GO_BLOCK, 0, stack, 3);
	set_event(record, 24, 1000, 3000000);
	f.fake->events_lock = 1;
	attach(&f, DP_GO_BLOCK);
	f.fake->events_lock = 0;
	set_event(record, 24, 1010, 3300000);
	profile(&f, DP_GO_BLOCK);
	assert_int_equal(f.n_rows, 0);
	dp_go_source_get_stats(f.source, &stats);
	assert_int_equal(stats.n_late, 1);
	set_event(record, 24, 1015, 3600000);
	profile(&f, DP_GO_BLOCK);
	assert_int_equal(f.n_rows, 1);
	assert_int_equal(f.rows[0].values[0], 5);
	assert_int_equal(f.rows[0].values[1], 100000);
	clear(&f);
}

static void the_same_of_the_heap(void **state)
{
	struct dp_go_source_stats stats;
	struct fixture f;
	uint64_t *record;

	(void)state;
	make(&f, 24);
	record = go_fake_add(f.fake, DP_GO_HEAP, 96, stack, 3);
	go_fake_set(f.fake, record, -1, 96, 1000, 400);
	go_fake_set(f.fake, record, 0, 96, 10, 0);
	f.fake->heap_lock = 1;
	attach(&f, DP_GO_HEAP);
	profile(&f, DP_GO_HEAP);
	assert_int_equal(f.n_rows, 0); /* nothing is known of it */
	f.fake->heap_lock = 0;
	profile(&f, DP_GO_HEAP);
	dp_go_source_get_stats(f.source, &stats);
	assert_int_equal(stats.n_late, 1);
	assert_int_equal(f.n_rows, 1);
	assert_int_equal(f.rows[0].values[0], 0);
	assert_int_equal(f.rows[0].values[2], 610);
	go_fake_set(f.fake, record, 0, 96, 17, 0);
	profile(&f, DP_GO_HEAP);
	assert_int_equal(f.rows[0].values[0], 7);
	clear(&f);
}

/* The process is a child that shares nothing; its end is the end of its memory. */
static void what_is_read_after_the_end_is_as_it_was_before(void **state)
{
	struct dp_go_source_stats stats;
	struct fixture f;
	uint64_t *record;
	pid_t pid;

	(void)state;
	make(&f, 24);
	record = go_fake_add(f.fake, DP_GO_HEAP, 96, stack, 3);
	go_fake_set(f.fake, record, -1, 96, 8, 3);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		pause();
		_exit(0);
	}
	f.fake->runtime.pid = pid;
	attach(&f, DP_GO_HEAP);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	profile(&f, DP_GO_HEAP);
	assert_int_equal(f.n_rows, 1);
	assert_int_equal(f.rows[0].values[0], 0);
	assert_int_equal(f.rows[0].values[2], 5);
	dp_go_source_get_stats(f.source, &stats);
	assert_int_equal(stats.n_failed, 1);
	clear(&f);
}

static void a_process_that_cannot_be_read_is_refused(void **state)
{
	struct dp_error err;
	struct fixture f;

	(void)state;
	make(&f, 24);
	f.fake->runtime.pid = 0x3fffffff;
	assert_int_equal(dp_go_source_new(&f.source, &f.fake->runtime, f.space, f.stacks, &err),
			 -ENOENT);
	assert_non_null(strstr(err.text, "reading the memory of a Go program"));
	clear(&f);
}

static void no_allocation_that_fails_leaks_or_loses(void **state)
{
	struct fixture f;
	struct dp_error err;
	int r = -ENOMEM;

	(void)state;
	make(&f, 24);
	f.fake->block_rate = 1;
	set_event(go_fake_add(f.fake, DP_GO_BLOCK, 0, stack, 3), 24, 10, 3000);
	go_fake_set(f.fake, go_fake_add(f.fake, DP_GO_HEAP, 96, stack, 3), -1, 96, 8, 3);
	for (int k = 1; r == -ENOMEM; k++) {
		assert_true(k < 1000);
		alloc_fail_at((unsigned long)k);
		r = dp_go_source_new(&f.source, &f.fake->runtime, f.space, f.stacks, &err);
		alloc_fail_at(0);
		assert_true(r == 0 || (r == -ENOMEM && !f.source));
	}
	clear(&f);
}

static void rates_are_written_only_where_they_are_off_and_taken_back(void **state)
{
	const struct dp_go_wishes wishes = {
		.heap_bytes = 4096, .block_ns = 1000, .mutex_fraction = 7};
	struct dp_go_changes changes;
	struct dp_error err;
	struct fixture f;

	(void)state;
	make(&f, 24);
	f.fake->heap_rate = 0;
	assert_int_equal(dp_go_rates_change(&f.fake->runtime, &wishes, &changes, &err), 0);
	assert_int_equal(f.fake->heap_rate, 4096);
	assert_int_equal(f.fake->block_rate, 3000);
	assert_int_equal(f.fake->mutex_fraction, 7);
	f.fake->mutex_fraction = 8; /* by the program itself, meanwhile */
	dp_go_rates_restore(&changes);
	assert_int_equal(f.fake->heap_rate, 0);
	assert_int_equal(f.fake->block_rate, 0);
	assert_int_equal(f.fake->mutex_fraction, 8);

	assert_int_equal(dp_go_rates_change(&f.fake->runtime, &wishes, &changes, &err), -EBUSY);
	assert_non_null(strstr(err.text, "--go-mutex-fraction"));
	dp_go_rates_restore(&changes);
	assert_int_equal(f.fake->heap_rate, 0);
	assert_int_equal(f.fake->block_rate, 0);
	clear(&f);
}

static void a_heap_rate_is_refused_where_the_runtime_would_not_see_it(void **state)
{
	const struct dp_go_wishes wishes = {.heap_bytes = 4096};
	struct dp_go_changes changes;
	struct dp_error err;
	struct fixture f;

	(void)state;
	make(&f, 23);
	f.fake->heap_rate = 0;
	assert_int_equal(dp_go_rates_change(&f.fake->runtime, &wishes, &changes, &err),
			 -EOPNOTSUPP);
	dp_go_rates_restore(&changes);
	assert_int_equal(f.fake->heap_rate, 0);
	clear(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_there_at_the_attach_is_the_base_and_in_use_is_absolute),
		cmocka_unit_test(frames_are_the_calls_of_the_recorded_return_addresses),
		cmocka_unit_test(equal_stacks_are_one_row_and_sizes_tell_rows_apart),
		cmocka_unit_test(rows_of_the_heap_are_scaled_as_go_scales_them),
		cmocka_unit_test(
			delays_are_differences_of_converted_ticks_over_equal_stacks_together),
		cmocka_unit_test(a_mutex_event_before_go_1_20_counts_as_often_as_the_fraction_says),
		cmocka_unit_test(counters_that_go_back_are_counted_and_give_no_row),
		cmocka_unit_test(
			a_bucket_that_cannot_be_read_at_the_attach_counts_from_its_first_reading),
		cmocka_unit_test(the_same_of_the_heap),
		cmocka_unit_test(what_is_read_after_the_end_is_as_it_was_before),
		cmocka_unit_test(a_process_that_cannot_be_read_is_refused),
		cmocka_unit_test(no_allocation_that_fails_leaks_or_loses),
		cmocka_unit_test(rates_are_written_only_where_they_are_off_and_taken_back),
		cmocka_unit_test(a_heap_rate_is_refused_where_the_runtime_would_not_see_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
