/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "symbolize/range_index.h"
#include "tests/alloc_fail.h"

static struct dp_range_index index_of(const struct dp_range *ranges, size_t n)
{
	struct dp_range_index index = {0};

	for (size_t i = 0; i < n; i++)
		assert_int_equal(dp_range_index_add(&index, &ranges[i]), 0);
	assert_int_equal(dp_range_index_sort(&index), 0);
	return index;
}

#define INDEX(...)                                       \
	index_of((const struct dp_range[]){__VA_ARGS__}, \
		 sizeof((const struct dp_range[]){__VA_ARGS__}) / sizeof(struct dp_range))

/* The value found at @address, or -1. */
static int at(const struct dp_range_index *index, uint64_t address)
{
	const struct dp_range *range = dp_range_index_find(index, address);

	return range ? (int)range->value : -1;
}

static void index_finds_the_range_that_holds_an_address(void **state)
{
	struct dp_range_index index = INDEX({30, 40, 3, 0}, {10, 20, 1, 0}, {20, 25, 2, 0});
	static const int wanted[][2] = {{0, -1},  {9, -1},  {10, 1}, {19, 1}, {20, 2},	{24, 2},
					{25, -1}, {29, -1}, {30, 3}, {39, 3}, {40, -1}, {999, -1}};

	(void)state;
	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++)
		assert_int_equal(at(&index, (uint64_t)wanted[i][0]), wanted[i][1]);
	dp_range_index_clear(&index);
}

static void index_finds_the_innermost_of_nested_ranges(void **state)
{
	struct dp_range_index index = INDEX({0, 100, 1, 0}, {10, 50, 2, 0}, {20, 30, 3, 0},
					    {20, 40, 4, 0}, {60, 70, 5, 0});

	(void)state;
	assert_int_equal(at(&index, 5), 1);
	assert_int_equal(at(&index, 15), 2);
	assert_int_equal(at(&index, 25), 3);
	assert_int_equal(at(&index, 35), 4);
	/* Back out, past several that have ended. */
	assert_int_equal(at(&index, 45), 2);
	assert_int_equal(at(&index, 55), 1);
	assert_int_equal(at(&index, 99), 1);
	assert_int_equal(at(&index, 100), -1);
	dp_range_index_clear(&index);
}

static void index_finds_its_way_out_past_many_neighbours_and_overlaps(void **state)
{
	struct dp_range_index index =
		INDEX({0, 1000, 1, 0}, {0, 900, 2, 0}, {10, 20, 3, 0}, {20, 30, 4, 0},
		      {30, 40, 5, 0}, {35, 60, 6, 0}, {36, 38, 7, 0});
	static const int wanted[][2] = {{15, 3}, {25, 4}, {34, 5},  {35, 6},  {37, 7},	 {39, 6},
					{59, 6}, {60, 2}, {899, 2}, {900, 1}, {1000, -1}};

	(void)state;
	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++)
		assert_int_equal(at(&index, (uint64_t)wanted[i][0]), wanted[i][1]);
	dp_range_index_clear(&index);
}

static void index_prefers_low_ranks_and_then_low_values_among_equals(void **state)
{
	struct dp_range_index index =
		INDEX({10, 20, 1, 5}, {10, 20, 4, 2}, {10, 20, 3, 2}, {10, 20, 2, 9});

	(void)state;
	assert_int_equal(at(&index, 15), 3);
	dp_range_index_clear(&index);
}

static void index_leaves_empty_ranges_out(void **state)
{
	struct dp_range_index index = INDEX({10, 10, 1, 0}, {20, 10, 2, 0});

	(void)state;
	assert_int_equal(index.n, 0);
	assert_int_equal(at(&index, 10), -1);
	dp_range_index_clear(&index);
	dp_range_index_clear(&index);
	assert_int_equal(at(&index, 10), -1);
}

static void index_reaches_the_ends_of_the_address_space(void **state)
{
	struct dp_range_index index = INDEX({0, UINT64_MAX, 1, 0});

	(void)state;
	assert_int_equal(at(&index, 0), 1);
	assert_int_equal(at(&index, UINT64_MAX - 1), 1);
	assert_int_equal(at(&index, UINT64_MAX), -1);
	dp_range_index_clear(&index);
}

static void index_can_be_sorted_again_after_a_change(void **state)
{
	struct dp_range_index index = INDEX({10, 50, 1, 0}, {20, 50, 2, 0});

	(void)state;
	index.ranges[1].high = 30;
	assert_int_equal(dp_range_index_sort(&index), 0);
	assert_int_equal(at(&index, 25), 2);
	assert_int_equal(at(&index, 40), 1);
	dp_range_index_clear(&index);
}

static int build(void)
{
	struct dp_range_index index = {0};
	int r = dp_range_index_add(&index, &(struct dp_range){10, 20, 1, 0});

	if (r == 0)
		r = dp_range_index_sort(&index);
	dp_range_index_clear(&index);
	return r;
}

static void index_says_when_memory_is_out(void **state)
{
	(void)state;
	ALLOC_FAIL_EACH(build());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(index_finds_the_range_that_holds_an_address),
		cmocka_unit_test(index_finds_the_innermost_of_nested_ranges),
		cmocka_unit_test(index_finds_its_way_out_past_many_neighbours_and_overlaps),
		cmocka_unit_test(index_prefers_low_ranks_and_then_low_values_among_equals),
		cmocka_unit_test(index_leaves_empty_ranges_out),
		cmocka_unit_test(index_reaches_the_ends_of_the_address_space),
		cmocka_unit_test(index_can_be_sorted_again_after_a_change),
		cmocka_unit_test(index_says_when_memory_is_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
