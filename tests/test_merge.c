/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "perf/merge.h"
#include "tests/alloc_fail.h"

#define PLENTY ((size_t)64 << 20)
#define ALWAYS UINT64_MAX

static struct dp_merge *new_merge(unsigned n_rings, size_t max_bytes)
{
	struct dp_merge *m = NULL;

	assert_int_equal(dp_merge_new(&m, n_rings, max_bytes), 0);
	return m;
}

/* Records of these tests are one word that names them. */
static void push(struct dp_merge *m, unsigned i_ring, uint64_t time_ns, uint64_t name)
{
	assert_int_equal(dp_merge_push(m, i_ring, &name, sizeof(name), time_ns), 0);
}

static void expect_pop(struct dp_merge *m, uint64_t watermark_ns, uint64_t name)
{
	const void *record;
	size_t n_bytes;

	assert_true(dp_merge_pop(m, watermark_ns, &record, &n_bytes));
	assert_int_equal(n_bytes, sizeof(name));
	assert_int_equal(*(const uint64_t *)record, name);
}

static void expect_none(struct dp_merge *m, uint64_t watermark_ns)
{
	const void *record = &record;
	size_t n_bytes = 99;

	assert_false(dp_merge_pop(m, watermark_ns, &record, &n_bytes));
	assert_ptr_equal(record, &record);
	assert_int_equal(n_bytes, 99);
}

static void nothing_comes_out_of_empty_queues(void **state)
{
	struct dp_merge *m = new_merge(3, PLENTY);

	(void)state;
	expect_none(m, ALWAYS);
	expect_none(m, ALWAYS);
	dp_merge_free(m);
	dp_merge_free(NULL);
	assert_int_equal(dp_merge_new(&m, 0, PLENTY), -EINVAL);
}

static void records_of_two_rings_come_in_order_of_time(void **state)
{
	struct dp_merge *m = new_merge(2, PLENTY);

	(void)state;
	push(m, 0, 10, 1);
	push(m, 0, 30, 3);
	push(m, 1, 20, 2);
	push(m, 1, 40, 4);
	for (uint64_t name = 1; name <= 4; name++)
		expect_pop(m, ALWAYS, name);
	expect_none(m, ALWAYS);
	dp_merge_free(m);
}

static void a_record_at_the_watermark_waits(void **state)
{
	struct dp_merge *m = new_merge(2, PLENTY);

	(void)state;
	push(m, 0, 10, 1);
	push(m, 1, 11, 2);
	expect_none(m, 10);
	expect_pop(m, 11, 1);
	expect_none(m, 11);
	expect_pop(m, 12, 2);
	dp_merge_free(m);
}

static void a_record_pushed_later_may_still_come_first(void **state)
{
	struct dp_merge *m = new_merge(2, PLENTY);

	(void)state;
	push(m, 0, 10, 1);
	push(m, 0, 30, 3);
	expect_pop(m, 20, 1);
	expect_none(m, 20);
	push(m, 1, 25, 2);
	expect_pop(m, 40, 2);
	expect_pop(m, 40, 3);
	assert_int_equal(dp_merge_get_stats(m)->n_released_late, 0);
	dp_merge_free(m);
}

static void equal_times_come_by_ring_and_then_by_arrival(void **state)
{
	struct dp_merge *m = new_merge(3, PLENTY);

	(void)state;
	push(m, 2, 7, 5);
	push(m, 1, 7, 3);
	push(m, 0, 7, 1);
	push(m, 2, 7, 6);
	push(m, 0, 7, 2);
	push(m, 1, 7, 4);
	for (uint64_t name = 1; name <= 6; name++)
		expect_pop(m, ALWAYS, name);
	assert_int_equal(dp_merge_get_stats(m)->n_out_of_order, 0);
	dp_merge_free(m);
}

static void a_ring_keeps_its_order_where_time_goes_backwards(void **state)
{
	struct dp_merge *m = new_merge(2, PLENTY);

	(void)state;
	push(m, 0, 20, 2);
	push(m, 0, 10, 3); /* waits for the one before it */
	push(m, 1, 15, 1);
	push(m, 1, 30, 4);
	for (uint64_t name = 1; name <= 4; name++)
		expect_pop(m, ALWAYS, name);
	assert_int_equal(dp_merge_get_stats(m)->n_out_of_order, 1);
	assert_int_equal(dp_merge_get_stats(m)->n_released_late, 1);
	dp_merge_free(m);
}

static void a_record_that_comes_too_late_is_released_and_counted(void **state)
{
	struct dp_merge *m = new_merge(2, PLENTY);

	(void)state;
	push(m, 0, 20, 1);
	expect_pop(m, 30, 1);
	push(m, 1, 19, 2);
	push(m, 1, 20, 3);
	expect_pop(m, 30, 2);
	expect_pop(m, 30, 3);
	assert_int_equal(dp_merge_get_stats(m)->n_out_of_order, 0);
	assert_int_equal(dp_merge_get_stats(m)->n_released_late, 1);
	dp_merge_free(m);
}

static void a_full_queue_refuses_records_and_counts_them(void **state)
{
	const size_t entry_bytes = sizeof(uint64_t) + DP_MERGE_RECORD_OVERHEAD_BYTES;
	struct dp_merge *m = new_merge(2, 3 * entry_bytes);
	uint64_t name = 9;

	(void)state;
	for (uint64_t i = 1; i <= 3; i++)
		push(m, 0, i, i);
	assert_int_equal(dp_merge_push(m, 0, &name, sizeof(name), 4), -ENOBUFS);
	push(m, 1, 4, 4); /* the bound is each ring's own */
	assert_int_equal(dp_merge_get_stats(m)->n_dropped, 1);
	assert_int_equal(dp_merge_get_stats(m)->n_pushed, 4);
	assert_int_equal(dp_merge_get_stats(m)->n_queued, 4);
	assert_int_equal(dp_merge_get_stats(m)->queued_bytes, 4 * entry_bytes);
	expect_pop(m, ALWAYS, 1);
	push(m, 0, 5, 5); /* what was given out makes room */
	for (uint64_t i = 2; i <= 5; i++)
		expect_pop(m, ALWAYS, i);
	assert_int_equal(dp_merge_get_stats(m)->n_released, 5);
	assert_int_equal(dp_merge_get_stats(m)->n_queued, 0);
	assert_int_equal(dp_merge_get_stats(m)->queued_bytes, 0);
	assert_int_equal(dp_merge_get_stats(m)->max_queued_bytes, 4 * entry_bytes);
	dp_merge_free(m);
}

static void a_record_beyond_the_bound_is_refused_even_alone(void **state)
{
	struct dp_merge *m = new_merge(1, 100);
	static const uint8_t record[101];

	(void)state;
	assert_int_equal(dp_merge_push(m, 0, record, 101, 1), -ENOBUFS);
	assert_int_equal(dp_merge_push(m, 0, record, 85, 1), -ENOBUFS); /* 88 + 16 */
	assert_int_equal(dp_merge_push(m, 0, record, 80, 1), 0);
	assert_int_equal(dp_merge_get_stats(m)->n_dropped, 2);
	dp_merge_free(m);
}

static uint8_t pattern(size_t n_bytes, size_t i)
{
	return (uint8_t)(n_bytes * 31 + i * 7);
}

/* Sizes that leave the chunks of a queue with every kind of rest, some larger than a chunk. */
static size_t next_size(size_t n_bytes)
{
	return n_bytes + 1 + n_bytes / 16;
}

static void push_all_sizes(struct dp_merge *m)
{
	static uint8_t record[65536];

	for (size_t n = 1; n <= sizeof(record); n = next_size(n)) {
		for (size_t i = 0; i < n; i++)
			record[i] = pattern(n, i);
		assert_int_equal(dp_merge_push(m, 0, record, n, n), 0);
	}
}

static void expect_all_sizes(struct dp_merge *m)
{
	for (size_t n = 1; n <= 65536; n = next_size(n)) {
		const void *record;
		size_t n_bytes;

		assert_true(dp_merge_pop(m, ALWAYS, &record, &n_bytes));
		assert_int_equal(n_bytes, n);
		assert_int_equal((uintptr_t)record % 8, 0);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(((const uint8_t *)record)[i], pattern(n, i));
	}
	expect_none(m, ALWAYS);
}

static void records_of_all_sizes_come_out_whole_and_aligned(void **state)
{
	static const uint8_t large[65536];
	struct dp_merge *m = new_merge(1, PLENTY);

	(void)state;
	for (int round = 0; round < 2; round++) {
		push_all_sizes(m);
		expect_all_sizes(m);
	}
	/* A spare chunk is there now, too small for this one. */
	assert_int_equal(dp_merge_push(m, 0, large, sizeof(large), 1), 0);
	dp_merge_free(m);
}

static void push_kilobytes(struct dp_merge *m, unsigned n, int *ret)
{
	static const uint8_t record[1024 - DP_MERGE_RECORD_OVERHEAD_BYTES];

	*ret = 0;
	for (unsigned i = 0; i < n && *ret == 0; i++)
		*ret = dp_merge_push(m, 0, record, sizeof(record), 1);
}

static void drain(struct dp_merge *m)
{
	const void *record;
	size_t n_bytes;

	while (dp_merge_pop(m, ALWAYS, &record, &n_bytes))
		;
}

static void a_queue_gives_its_memory_back_after_a_burst(void **state)
{
	struct dp_merge *m = new_merge(2, PLENTY);
	int r;

	(void)state;
	push_kilobytes(m, 16 * 1024, &r);
	assert_int_equal(r, 0);
	drain(m);
	/* No more than 2 MiB are left, so that the next burst has to allocate again. */
	alloc_fail_at(1);
	push_kilobytes(m, 2 * 1024 + 64, &r);
	alloc_fail_at(0);
	assert_int_equal(r, -ENOMEM);
	drain(m);
	dp_merge_free(m);
}

static void a_steady_flow_does_not_allocate(void **state)
{
	struct dp_merge *m = new_merge(2, PLENTY);
	int r;

	(void)state;
	push_kilobytes(m, 1024, &r);
	drain(m);
	alloc_fail_at(1);
	for (int round = 0; round < 10; round++) {
		push_kilobytes(m, 1024, &r);
		assert_int_equal(r, 0);
		drain(m);
	}
	assert_false(alloc_fail_happened());
	alloc_fail_at(0);
	dp_merge_free(m);
}

static int try_new(void)
{
	struct dp_merge *m = NULL;
	int r = dp_merge_new(&m, 4, PLENTY);

	if (r)
		assert_null(m);
	dp_merge_free(m);
	return r;
}

static void want_of_memory_is_told_and_loses_nothing_else(void **state)
{
	struct dp_merge *m = new_merge(2, PLENTY);
	uint64_t name = 7;

	(void)state;
	ALLOC_FAIL_EACH(try_new());
	push(m, 0, 5, 1);
	alloc_fail_at(1);
	assert_int_equal(dp_merge_push(m, 1, &name, sizeof(name), 3), -ENOMEM);
	alloc_fail_at(0);
	assert_int_equal(dp_merge_get_stats(m)->n_dropped, 1);
	assert_int_equal(dp_merge_get_stats(m)->n_pushed, 1);
	push(m, 1, 6, 2);
	expect_pop(m, ALWAYS, 1);
	expect_pop(m, ALWAYS, 2);
	expect_none(m, ALWAYS);
	dp_merge_free(m);
}

/* A random flow through many rings, against a plain sort. */

#define N_RINGS 256
#define N_ROUNDS 50
#define PER_ROUND 1000

struct item {
	uint64_t time_ns;
	unsigned i_ring;
	uint64_t name; /* in order of arrival */
};

static int compare_items(const void *a, const void *b)
{
	const struct item *x = a;
	const struct item *y = b;

	if (x->time_ns != y->time_ns)
		return x->time_ns < y->time_ns ? -1 : 1;
	if (x->i_ring != y->i_ring)
		return x->i_ring < y->i_ring ? -1 : 1;
	return x->name < y->name ? -1 : x->name > y->name;
}

static uint32_t next_random(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005 + 1442695040888963407;
	return (uint32_t)(*seed >> 33);
}

static size_t release(struct dp_merge *m, uint64_t watermark_ns, uint64_t *released, size_t n)
{
	const void *record;
	size_t n_bytes;

	while (dp_merge_pop(m, watermark_ns, &record, &n_bytes)) {
		assert_true(n < N_ROUNDS * PER_ROUND);
		released[n++] = *(const uint64_t *)record;
	}
	return n;
}

static void a_random_flow_comes_out_sorted(void **state)
{
	struct dp_merge *m = new_merge(N_RINGS, PLENTY);
	struct item *items = calloc(N_ROUNDS * PER_ROUND, sizeof(*items));
	uint64_t *released = calloc(N_ROUNDS * PER_ROUND, sizeof(*released));
	uint64_t newest_ns[N_RINGS] = {0};
	uint64_t seed = 1;
	size_t n = 0, n_released = 0;

	(void)state;
	assert_non_null(items);
	assert_non_null(released);
	for (uint64_t round = 0; round < N_ROUNDS; round++) {
		for (unsigned i = 0; i < PER_ROUND; i++, n++) {
			unsigned i_ring = next_random(&seed) % N_RINGS;
			/* Few distinct times, so that many are equal; never back in one ring,
			 * nor before what the round's watermark lets out. */
			uint64_t time_ns = round * 100 + next_random(&seed) % 150;

			if (time_ns < newest_ns[i_ring])
				time_ns = newest_ns[i_ring];
			newest_ns[i_ring] = time_ns;
			items[n] = (struct item){time_ns, i_ring, n};
			push(m, i_ring, time_ns, n);
		}
		n_released = release(m, round * 100, released, n_released);
	}
	n_released = release(m, ALWAYS, released, n_released);
	assert_int_equal(n_released, n);
	qsort(items, n, sizeof(*items), compare_items);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(released[i], items[i].name);
	assert_int_equal(dp_merge_get_stats(m)->n_released, n);
	assert_int_equal(dp_merge_get_stats(m)->n_out_of_order, 0);
	assert_int_equal(dp_merge_get_stats(m)->n_released_late, 0);
	free(items);
	free(released);
	dp_merge_free(m);
}

static void reserved_memory_is_used_and_kept(void **state)
{
	static uint8_t record[1000];
	struct dp_merge *merge = NULL;
	const void *popped;
	size_t n_bytes;

	(void)state;
	assert_int_equal(dp_merge_new(&merge, 2, 1 << 20), 0);
	assert_int_equal(dp_merge_reserve(merge, 4 * 32 * 1024), 0);
	/* From now on nothing can be had: what was reserved takes 100 records, twice. */
	for (int turn = 0; turn < 2; turn++) {
		alloc_fail_at(1);
		for (int i = 0; i < 100; i++)
			assert_int_equal(
				dp_merge_push(merge, (unsigned)i % 2, record, sizeof(record), 1),
				0);
		alloc_fail_at(0);
		for (int i = 0; i < 100; i++)
			assert_true(dp_merge_pop(merge, 2, &popped, &n_bytes));
	}
	alloc_fail_at(1);
	assert_int_equal(dp_merge_reserve(merge, 1 << 20), -ENOMEM);
	alloc_fail_at(0);
	dp_merge_free(merge);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reserved_memory_is_used_and_kept),
		cmocka_unit_test(nothing_comes_out_of_empty_queues),
		cmocka_unit_test(records_of_two_rings_come_in_order_of_time),
		cmocka_unit_test(a_record_at_the_watermark_waits),
		cmocka_unit_test(a_record_pushed_later_may_still_come_first),
		cmocka_unit_test(equal_times_come_by_ring_and_then_by_arrival),
		cmocka_unit_test(a_ring_keeps_its_order_where_time_goes_backwards),
		cmocka_unit_test(a_record_that_comes_too_late_is_released_and_counted),
		cmocka_unit_test(a_full_queue_refuses_records_and_counts_them),
		cmocka_unit_test(a_record_beyond_the_bound_is_refused_even_alone),
		cmocka_unit_test(records_of_all_sizes_come_out_whole_and_aligned),
		cmocka_unit_test(a_queue_gives_its_memory_back_after_a_burst),
		cmocka_unit_test(a_steady_flow_does_not_allocate),
		cmocka_unit_test(want_of_memory_is_told_and_loses_nothing_else),
		cmocka_unit_test(a_random_flow_comes_out_sorted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
