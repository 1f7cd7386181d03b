/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "src/base/random.h"
#include "src/heap.h"
#include "src/live.h"
#include "tests/alloc_fail.h"

static struct dp_heap *new_heap(uint64_t rate_bytes, size_t max_live, uint64_t seed)
{
	const struct dp_heap_options options = {
		.rate_bytes = rate_bytes, .seed = seed, .max_live = max_live};
	struct dp_heap *heap = NULL;

	assert_int_equal(dp_heap_new(&heap, &options), 0);
	return heap;
}

static struct dp_delta *new_delta(size_t max_rows)
{
	const struct dp_delta_spec spec = dp_heap_delta_spec(max_rows);
	struct dp_delta *delta = NULL;

	assert_int_equal(dp_delta_new(&delta, &spec), 0);
	return delta;
}

/* One interval: the values of stack 0 … n_stacks - 1, zeros for those without a row. */
static void read_interval(const struct dp_heap *heap, struct dp_delta *delta,
			  int64_t (*ret)[DP_DELTA_MAX_VALUES], size_t n_stacks)
{
	const struct dp_delta_row *rows;
	size_t n;

	memset(ret, 0, n_stacks * sizeof(*ret));
	dp_delta_begin(delta);
	assert_int_equal(dp_heap_feed(heap, delta), 0);
	assert_int_equal(dp_delta_end(delta, &rows, &n), 0);
	for (size_t i = 0; i < n; i++) {
		assert_true(rows[i].stack < n_stacks);
		memcpy(ret[rows[i].stack], rows[i].values, sizeof(*ret));
	}
	dp_delta_commit(delta);
}

/* All that was ever counted of stack 0. */
static void assert_values(const struct dp_heap *heap, int64_t alloc_objects, int64_t alloc_space,
			  int64_t inuse_objects, int64_t inuse_space)
{
	struct dp_delta *delta = new_delta(1);
	int64_t values[1][DP_DELTA_MAX_VALUES];

	read_interval(heap, delta, values, 1);
	assert_int_equal(values[0][0], alloc_objects);
	assert_int_equal(values[0][1], alloc_space);
	assert_int_equal(values[0][2], inuse_objects);
	assert_int_equal(values[0][3], inuse_space);
	dp_delta_free(delta);
}

static void allocate(struct dp_heap *heap, uint64_t size, uint64_t addr)
{
	assert_int_equal(dp_heap_alloc(heap, 0, size, addr), 0);
}

static void rate_one_counts_every_object_and_byte(void **state)
{
	struct dp_heap *heap = new_heap(1, 100, 0);

	(void)state;
	for (uint64_t i = 0; i < 50; i++) {
		assert_true(dp_heap_draw(heap, i));
		dp_heap_count_drawn(heap, true);
		allocate(heap, i, 0x1000 + i * 64);
	}
	assert_values(heap, 50, 49 * 50 / 2, 50, 49 * 50 / 2);
	for (uint64_t i = 0; i < 20; i++)
		dp_heap_release(heap, 0x1000 + i * 64);
	assert_values(heap, 50, 49 * 50 / 2, 30, 49 * 50 / 2 - 19 * 20 / 2);
	assert_int_equal(dp_heap_get_stats(heap)->n_seen, 50);
	assert_int_equal(dp_heap_get_stats(heap)->n_sampled, 50);
	assert_int_equal(dp_heap_get_stats(heap)->n_frees, 20);
	assert_int_equal(dp_heap_get_stats(heap)->n_live, 30);
	dp_heap_free_all(heap);
}

/* Beyond 2^53 a double would lose the last byte. */
static void rate_one_is_exact_beyond_what_a_double_holds(void **state)
{
	struct dp_heap *heap = new_heap(1, 100, 0);
	const int64_t huge = (INT64_C(1) << 60) + 1;

	(void)state;
	allocate(heap, (uint64_t)huge, 0x1000);
	allocate(heap, 2, 0x2000);
	assert_values(heap, 2, huge + 2, 2, huge + 2);
	dp_heap_release(heap, 0x1000);
	assert_values(heap, 2, huge + 2, 1, 2);
	dp_heap_free_all(heap);
}

/* 1 / p and size / p of one event, computed with 40 digits. */
static void an_event_counts_one_over_its_probability(void **state)
{
	struct dp_heap *heap = new_heap(524288, 100, 0);

	(void)state;
	allocate(heap, 524288, 0x1000); /* 1.58 objects, 829411.4 bytes */
	assert_values(heap, 2, 829411, 2, 829411);
	dp_heap_free_all(heap);
	heap = new_heap(524288, 100, 0);
	allocate(heap, 16, 0x1000); /* 32768.5000025 */
	assert_values(heap, 32769, 524296, 32769, 524296);
	allocate(heap, 0, 0x2000); /* like one byte: 524288.5 objects of no bytes */
	assert_values(heap, 557057, 524296, 557057, 524296);
	dp_heap_free_all(heap);
}

static void in_use_returns_to_exactly_zero_in_whatever_order_objects_die(void **state)
{
	enum { N = 5000 };
	struct dp_heap *heap = new_heap(524288, N, 0);
	struct dp_delta *delta = new_delta(1);
	int64_t values[1][DP_DELTA_MAX_VALUES];
	struct dp_random random;

	(void)state;
	dp_random_seed(&random, 1);
	for (uint64_t i = 0; i < N; i++)
		allocate(heap, dp_random_u64(&random) >> (24 + i % 40), 0x1000 + i);
	for (uint64_t i = 0; i < N; i++)
		dp_heap_release(heap, 0x1000 + (i * 1237) % N);
	assert_int_equal(dp_heap_get_stats(heap)->n_live, 0);
	assert_int_equal(dp_heap_get_stats(heap)->n_frees, N);
	read_interval(heap, delta, values, 1);
	assert_true(values[0][0] > N && values[0][1] > N);
	assert_int_equal(values[0][2], 0);
	assert_int_equal(values[0][3], 0);
	dp_delta_free(delta);
	dp_heap_free_all(heap);
}

/* Each event adds a fraction, so rounding every interval by itself would drift. */
static void the_rounded_differences_add_up_to_the_rounded_whole(void **state)
{
	struct dp_heap *heap = new_heap(524288, 0, 0);
	struct dp_delta *delta = new_delta(1), *whole = new_delta(1);
	int64_t sums[2] = {0};
	int64_t values[1][DP_DELTA_MAX_VALUES];

	(void)state;
	for (uint64_t i = 0; i < 1000; i++) {
		allocate(heap, 300000, 0x1000 + i * 64);
		read_interval(heap, delta, values, 1);
		sums[0] += values[0][0];
		sums[1] += values[0][1];
	}
	read_interval(heap, whole, values, 1);
	assert_int_equal(sums[0], values[0][0]);
	assert_int_equal(sums[1], values[0][1]);
	/* 1000 / (1 - exp(-300000 / 524288)) */
	assert_int_equal(sums[0], 2295);
	assert_int_equal(sums[1], 688515656);
	dp_delta_free(delta);
	dp_delta_free(whole);
	dp_heap_free_all(heap);
}

static void frees_of_unknown_addresses_are_counted_and_of_null_ignored(void **state)
{
	struct dp_heap *heap = new_heap(1, 100, 0);

	(void)state;
	dp_heap_release(heap, 0x1000);
	allocate(heap, 10, 0x1000);
	dp_heap_release(heap, 0x2000);
	dp_heap_release(heap, 0x1000);
	dp_heap_release(heap, 0x1000);
	dp_heap_release(heap, 0);
	assert_int_equal(dp_heap_get_stats(heap)->n_frees, 1);
	assert_int_equal(dp_heap_get_stats(heap)->n_frees_unknown, 3);
	dp_heap_free_all(heap);
}

static void an_allocation_at_a_live_address_replaces_it(void **state)
{
	struct dp_heap *heap = new_heap(1, 100, 0);

	(void)state;
	allocate(heap, 10, 0x1000);
	allocate(heap, 20, 0x1000);
	assert_values(heap, 2, 30, 1, 20);
	/* One that was not sampled does so too. */
	dp_heap_alloc_unsampled(heap, 0x1000);
	dp_heap_alloc_unsampled(heap, 0x1000);
	dp_heap_alloc_unsampled(heap, 0);
	assert_values(heap, 2, 30, 0, 0);
	assert_int_equal(dp_heap_get_stats(heap)->n_replaced, 2);
	assert_int_equal(dp_heap_get_stats(heap)->n_frees, 0);
	assert_int_equal(dp_heap_get_stats(heap)->n_live, 0);
	dp_heap_free_all(heap);
}

static void an_object_without_an_address_is_counted_as_allocated_only(void **state)
{
	struct dp_heap *heap = new_heap(1, 100, 0);

	(void)state;
	allocate(heap, 10, 0);
	assert_values(heap, 1, 10, 0, 0);
	assert_int_equal(dp_heap_get_stats(heap)->n_untracked, 1);
	dp_heap_free_all(heap);
}

static void objects_beyond_the_bound_are_counted_as_allocated_only(void **state)
{
	struct dp_heap *heap = new_heap(1, 2, 0);

	(void)state;
	for (uint64_t i = 1; i <= 4; i++)
		allocate(heap, 10, i * 64);
	assert_values(heap, 4, 40, 2, 20);
	assert_int_equal(dp_heap_get_stats(heap)->n_live_overflow, 2);
	dp_heap_release(heap, 64);
	allocate(heap, 10, 5 * 64);
	assert_values(heap, 5, 50, 2, 20);
	dp_heap_free_all(heap);
}

static void an_object_that_is_taken_is_in_use_but_not_found(void **state)
{
	struct dp_heap *heap = new_heap(1, 100, 0);
	struct dp_heap_object object, other = {0};

	(void)state;
	allocate(heap, 10, 0x1000);
	assert_true(dp_heap_take(heap, 0x1000, &object));
	assert_int_equal(object.addr, 0x1000);
	assert_int_equal(object.size, 10);
	assert_int_equal(object.stack, 0);
	assert_false(dp_heap_take(heap, 0x1000, &other));
	assert_false(dp_heap_take(heap, 0, &other));
	assert_int_equal(other.addr, 0);
	assert_values(heap, 1, 10, 1, 10);
	/* Another thread is given the address before the resize returns. */
	allocate(heap, 7, 0x1000);
	assert_values(heap, 2, 17, 2, 17);
	dp_heap_drop(heap, &object);
	assert_values(heap, 2, 17, 1, 7);
	assert_int_equal(dp_heap_get_stats(heap)->n_replaced, 0);
	assert_int_equal(dp_heap_get_stats(heap)->n_frees, 1);
	dp_heap_free_all(heap);
}

static void an_object_that_is_put_back_is_as_it_was(void **state)
{
	struct dp_heap *heap = new_heap(1, 100, 0);
	struct dp_heap_object object;

	(void)state;
	allocate(heap, 10, 0x1000);
	assert_true(dp_heap_take(heap, 0x1000, &object));
	dp_heap_put_back(heap, &object);
	assert_values(heap, 1, 10, 1, 10);
	dp_heap_release(heap, 0x1000);
	assert_values(heap, 1, 10, 0, 0);
	assert_int_equal(dp_heap_get_stats(heap)->n_live, 0);
	dp_heap_free_all(heap);
}

/* The room of a taken object is kept: what would fill it meanwhile is over the bound. */
static void putting_back_finds_room_in_a_full_table(void **state)
{
	const size_t n = 1000;
	struct dp_heap *heap = new_heap(1, n, 0);
	struct dp_heap_object objects[100];

	(void)state;
	for (uint64_t i = 1; i <= n; i++)
		allocate(heap, 1, i);
	for (uint64_t i = 0; i < 100; i++)
		assert_true(dp_heap_take(heap, 10 * i + 1, &objects[i]));
	for (uint64_t i = 1; i <= 100; i++)
		allocate(heap, 1, n + i);
	assert_int_equal(dp_heap_get_stats(heap)->n_live_overflow, 100);
	for (size_t i = 0; i < 100; i++)
		dp_heap_put_back(heap, &objects[i]);
	assert_int_equal(dp_heap_get_stats(heap)->n_live, n);
	for (uint64_t i = 1; i <= n; i++)
		dp_heap_release(heap, i);
	assert_int_equal(dp_heap_get_stats(heap)->n_frees, n);
	dp_heap_free_all(heap);
}

static void putting_back_onto_a_live_address_replaces_it(void **state)
{
	struct dp_heap *heap = new_heap(1, 100, 0);
	struct dp_heap_object object;

	(void)state;
	allocate(heap, 10, 0x1000);
	assert_true(dp_heap_take(heap, 0x1000, &object));
	allocate(heap, 7, 0x1000);
	dp_heap_put_back(heap, &object);
	assert_values(heap, 2, 17, 1, 10);
	assert_int_equal(dp_heap_get_stats(heap)->n_replaced, 1);
	dp_heap_free_all(heap);
}

static void a_stack_beyond_the_bound_of_the_delta_does_not_hide_the_others(void **state)
{
	struct dp_heap *heap = new_heap(1, 100, 0);
	struct dp_delta *delta = new_delta(1);
	const struct dp_delta_row *rows;
	size_t n;

	(void)state;
	assert_int_equal(dp_heap_alloc(heap, 5, 10, 0x1000), 0);
	dp_delta_begin(delta);
	assert_int_equal(dp_heap_feed(heap, delta), 0);
	assert_int_equal(dp_delta_end(delta, &rows, &n), 0);
	dp_delta_commit(delta);
	/* The new stack comes first and finds no room; the known one must still be told. */
	assert_int_equal(dp_heap_alloc(heap, 3, 10, 0x2000), 0);
	assert_int_equal(dp_heap_alloc(heap, 5, 10, 0x3000), 0);
	dp_delta_begin(delta);
	assert_int_equal(dp_heap_feed(heap, delta), 0);
	assert_int_equal(dp_delta_end(delta, &rows, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(rows[0].stack, 5);
	assert_int_equal(rows[0].values[0], 1);
	assert_int_equal(rows[0].values[2], 2);
	assert_int_equal(dp_delta_overflowed(delta), 1);
	dp_delta_free(delta);
	dp_heap_free_all(heap);
}

static void a_rate_of_zero_is_refused(void **state)
{
	const struct dp_heap_options options = {.rate_bytes = 0};
	struct dp_heap *heap = NULL;

	(void)state;
	assert_int_equal(dp_heap_new(&heap, &options), -EINVAL);
	assert_null(heap);
	dp_heap_free_all(NULL);
}

static int try_new(void)
{
	const struct dp_heap_options options = {.rate_bytes = 1, .max_live = 10};
	struct dp_heap *const untouched = (struct dp_heap *)&errno;
	struct dp_heap *heap = untouched;
	int r = dp_heap_new(&heap, &options);

	if (r < 0)
		assert_ptr_equal(heap, untouched);
	else
		dp_heap_free_all(heap);
	return r;
}

static void a_failed_allocation_loses_the_event_or_only_its_address(void **state)
{
	bool happened = true;

	(void)state;
	ALLOC_FAIL_EACH(try_new());
	for (unsigned long k = 1; happened; k++) {
		struct dp_heap *heap = new_heap(1, 1000, 0);
		int64_t n_counted = 0;

		alloc_fail_at(k);
		for (uint32_t i = 0; i < 200; i++) {
			int r = dp_heap_alloc(heap, i, 10, 64 * (i + 1));

			assert_true(r == 0 || r == -ENOMEM);
			n_counted += r == 0;
		}
		happened = alloc_fail_happened();
		alloc_fail_at(0);
		assert_int_equal(200 - n_counted +
					 (int64_t)dp_heap_get_stats(heap)->n_live_overflow,
				 happened);
		assert_int_equal(dp_heap_get_stats(heap)->n_live,
				 n_counted - (int64_t)dp_heap_get_stats(heap)->n_live_overflow);
		dp_heap_free_all(heap);
	}
}

/* The table against a plain array, under random puts and takes of few, clustered addresses. */
static void the_live_table_is_a_map_under_any_sequence(void **state)
{
	enum { N = 300 };
	uint64_t sizes[N] = {0}; /* 0: not there */
	size_t n_objects = 0;
	struct dp_random random;
	struct dp_live live;

	(void)state;
	dp_live_init(&live, N);
	dp_random_seed(&random, 7);
	for (uint64_t step = 1; step < 200000; step++) {
		size_t i = dp_random_u64(&random) % N;
		struct dp_heap_object object = {.addr = 16 * (i + 1), .size = step};
		struct dp_heap_object got = {.size = 1};

		if (sizes[i] == 0 && dp_random_u64(&random) % 2) {
			assert_int_equal(dp_live_reserve(&live, n_objects + 1), 0);
			dp_live_put(&live, &object);
			sizes[i] = step;
			n_objects++;
		} else {
			assert_int_equal(dp_live_take(&live, object.addr, &got), sizes[i] != 0);
			if (sizes[i]) {
				assert_int_equal(got.addr, object.addr);
				assert_int_equal(got.size, sizes[i]);
				n_objects--;
			}
			sizes[i] = 0;
		}
		assert_int_equal(live.n_objects, n_objects);
	}
	assert_int_equal(dp_live_reserve(&live, N + 1), -ENOSPC);
	dp_live_deinit(&live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rate_one_counts_every_object_and_byte),
		cmocka_unit_test(rate_one_is_exact_beyond_what_a_double_holds),
		cmocka_unit_test(an_event_counts_one_over_its_probability),
		cmocka_unit_test(in_use_returns_to_exactly_zero_in_whatever_order_objects_die),
		cmocka_unit_test(the_rounded_differences_add_up_to_the_rounded_whole),
		cmocka_unit_test(frees_of_unknown_addresses_are_counted_and_of_null_ignored),
		cmocka_unit_test(an_allocation_at_a_live_address_replaces_it),
		cmocka_unit_test(an_object_without_an_address_is_counted_as_allocated_only),
		cmocka_unit_test(objects_beyond_the_bound_are_counted_as_allocated_only),
		cmocka_unit_test(an_object_that_is_taken_is_in_use_but_not_found),
		cmocka_unit_test(an_object_that_is_put_back_is_as_it_was),
		cmocka_unit_test(putting_back_finds_room_in_a_full_table),
		cmocka_unit_test(putting_back_onto_a_live_address_replaces_it),
		cmocka_unit_test(a_stack_beyond_the_bound_of_the_delta_does_not_hide_the_others),
		cmocka_unit_test(a_rate_of_zero_is_refused),
		cmocka_unit_test(a_failed_allocation_loses_the_event_or_only_its_address),
		cmocka_unit_test(the_live_table_is_a_map_under_any_sequence),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
