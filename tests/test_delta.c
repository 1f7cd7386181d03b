/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "src/delta.h"
#include "tests/alloc_fail.h"

/* Value 0 is a difference, value 1 is as it is now. */
static const struct dp_delta_spec heap_like = {.n_values = 2, .delta_mask = 1, .max_rows = 100};
static const struct dp_delta_spec mutex_like = {
	.n_values = 2, .delta_mask = 3, .negative_moves_base = true, .max_rows = 100};

static struct dp_delta *new_delta(const struct dp_delta_spec *spec)
{
	struct dp_delta *delta = NULL;

	assert_int_equal(dp_delta_new(&delta, spec), 0);
	return delta;
}

static void add(struct dp_delta *delta, uint32_t stack, uint64_t tag, int64_t a, int64_t b)
{
	assert_int_equal(dp_delta_add(delta, stack, tag, (int64_t[]){a, b}), 0);
}

/* Ends the pass and compares its rows: (stack, tag, value 0, value 1) for each. */
static void assert_rows(struct dp_delta *delta, size_t n, const int64_t (*expected)[4])
{
	const struct dp_delta_row *rows = NULL;
	size_t n_rows = 12345;

	assert_int_equal(dp_delta_end(delta, &rows, &n_rows), 0);
	assert_int_equal(n_rows, n);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(rows[i].stack, expected[i][0]);
		assert_int_equal(rows[i].tag, expected[i][1]);
		assert_int_equal(rows[i].values[0], expected[i][2]);
		assert_int_equal(rows[i].values[1], expected[i][3]);
	}
}

#define ASSERT_ROWS(delta, ...)                                                               \
	assert_rows(delta, sizeof((const int64_t[][4]){__VA_ARGS__}) / (4 * sizeof(int64_t)), \
		    (const int64_t[][4]){__VA_ARGS__})

static void the_first_pass_gives_everything(void **state)
{
	struct dp_delta *delta = new_delta(&heap_like);

	(void)state;
	dp_delta_begin(delta);
	add(delta, 7, 0, 5, 3);
	ASSERT_ROWS(delta, {7, 0, 5, 3});
	dp_delta_free(delta);
}

static void masked_values_come_out_as_differences_and_others_as_they_are(void **state)
{
	struct dp_delta *delta = new_delta(&heap_like);

	(void)state;
	dp_delta_begin(delta);
	add(delta, 7, 0, 5, 3);
	ASSERT_ROWS(delta, {7, 0, 5, 3});
	dp_delta_commit(delta);
	dp_delta_begin(delta);
	add(delta, 7, 0, 9, 2);
	ASSERT_ROWS(delta, {7, 0, 4, 2});
	dp_delta_free(delta);
}

static void rows_come_in_the_order_of_first_addition_in_this_pass(void **state)
{
	struct dp_delta *delta = new_delta(&heap_like);

	(void)state;
	dp_delta_begin(delta);
	add(delta, 1, 0, 1, 0);
	add(delta, 2, 0, 2, 0);
	add(delta, 3, 0, 3, 0);
	ASSERT_ROWS(delta, {1, 0, 1, 0}, {2, 0, 2, 0}, {3, 0, 3, 0});
	dp_delta_commit(delta);
	dp_delta_begin(delta);
	add(delta, 3, 0, 10, 0);
	add(delta, 1, 0, 10, 0);
	add(delta, 3, 0, 10, 0);
	add(delta, 2, 0, 10, 0);
	ASSERT_ROWS(delta, {3, 0, 17, 0}, {1, 0, 9, 0}, {2, 0, 8, 0});
	dp_delta_free(delta);
}

static void the_tag_tells_rows_of_one_stack_apart(void **state)
{
	struct dp_delta *delta = new_delta(&heap_like);

	(void)state;
	dp_delta_begin(delta);
	add(delta, 1, 16, 1, 1);
	add(delta, 1, 32, 2, 2);
	add(delta, 16, 1, 3, 3);
	ASSERT_ROWS(delta, {1, 16, 1, 1}, {1, 32, 2, 2}, {16, 1, 3, 3});
	dp_delta_free(delta);
}

static void a_key_that_is_not_added_gives_no_row_and_keeps_its_base(void **state)
{
	struct dp_delta *delta = new_delta(&heap_like);

	(void)state;
	dp_delta_begin(delta);
	add(delta, 1, 0, 5, 5);
	ASSERT_ROWS(delta, {1, 0, 5, 5});
	dp_delta_commit(delta);
	dp_delta_begin(delta);
	assert_rows(delta, 0, NULL);
	dp_delta_commit(delta);
	dp_delta_begin(delta);
	add(delta, 1, 0, 6, 5);
	ASSERT_ROWS(delta, {1, 0, 1, 5});
	dp_delta_free(delta);
}

static void a_row_is_left_out_only_if_all_of_it_is_zero(void **state)
{
	struct dp_delta *delta = new_delta(&heap_like);

	(void)state;
	dp_delta_begin(delta);
	add(delta, 1, 0, 5, 5);
	add(delta, 2, 0, 5, 0);
	add(delta, 3, 0, 0, 0);
	ASSERT_ROWS(delta, {1, 0, 5, 5}, {2, 0, 5, 0});
	dp_delta_commit(delta);
	dp_delta_begin(delta);
	add(delta, 1, 0, 5, 5);
	add(delta, 2, 0, 5, 0);
	add(delta, 3, 0, 0, 0);
	ASSERT_ROWS(delta, {1, 0, 0, 5});
	dp_delta_free(delta);
}

static void a_negative_difference_keeps_the_base_of_a_heap(void **state)
{
	struct dp_delta *delta = new_delta(&heap_like);

	(void)state;
	dp_delta_begin(delta);
	add(delta, 1, 0, 10, 4);
	ASSERT_ROWS(delta, {1, 0, 10, 4});
	dp_delta_commit(delta);
	dp_delta_begin(delta);
	add(delta, 1, 0, 8, 4);
	assert_rows(delta, 0, NULL);
	dp_delta_commit(delta);
	assert_int_equal(dp_delta_suppressed(delta), 1);
	dp_delta_begin(delta);
	add(delta, 1, 0, 11, 4);
	ASSERT_ROWS(delta, {1, 0, 1, 4});
	dp_delta_free(delta);
}

static void a_negative_difference_moves_the_base_of_a_mutex(void **state)
{
	struct dp_delta *delta = new_delta(&mutex_like);

	(void)state;
	dp_delta_begin(delta);
	add(delta, 1, 0, 10, 100);
	ASSERT_ROWS(delta, {1, 0, 10, 100});
	dp_delta_commit(delta);
	/* The positive half goes with the negative one. */
	dp_delta_begin(delta);
	add(delta, 1, 0, 12, 90);
	assert_rows(delta, 0, NULL);
	dp_delta_commit(delta);
	assert_int_equal(dp_delta_suppressed(delta), 1);
	dp_delta_begin(delta);
	add(delta, 1, 0, 13, 95);
	ASSERT_ROWS(delta, {1, 0, 1, 5});
	dp_delta_free(delta);
}

static void a_value_that_is_negative_now_suppresses_the_row(void **state)
{
	struct dp_delta *delta = new_delta(&heap_like);

	(void)state;
	dp_delta_begin(delta);
	add(delta, 1, 0, 5, -1);
	assert_rows(delta, 0, NULL);
	dp_delta_commit(delta);
	assert_int_equal(dp_delta_suppressed(delta), 1);
	dp_delta_begin(delta);
	add(delta, 1, 0, 6, 1);
	ASSERT_ROWS(delta, {1, 0, 6, 1});
	dp_delta_free(delta);
}

static void an_abort_keeps_the_difference(void **state)
{
	struct dp_delta *delta = new_delta(&mutex_like);

	(void)state;
	dp_delta_begin(delta);
	add(delta, 1, 0, 5, 50);
	ASSERT_ROWS(delta, {1, 0, 5, 50});
	dp_delta_abort(delta);
	dp_delta_begin(delta);
	add(delta, 1, 0, 7, 70);
	ASSERT_ROWS(delta, {1, 0, 7, 70});
	dp_delta_commit(delta);
	/* A negative difference that is aborted has not moved the base either. */
	dp_delta_begin(delta);
	add(delta, 1, 0, 6, 60);
	assert_rows(delta, 0, NULL);
	dp_delta_abort(delta);
	dp_delta_begin(delta);
	add(delta, 1, 0, 8, 80);
	ASSERT_ROWS(delta, {1, 0, 1, 10});
	dp_delta_free(delta);
}

static void a_pass_that_was_neither_committed_nor_aborted_is_aborted(void **state)
{
	struct dp_delta *delta = new_delta(&heap_like);

	(void)state;
	dp_delta_begin(delta);
	add(delta, 1, 0, 5, 5);
	ASSERT_ROWS(delta, {1, 0, 5, 5});
	dp_delta_begin(delta);
	add(delta, 1, 0, 3, 3);
	dp_delta_begin(delta);
	add(delta, 1, 0, 6, 6);
	ASSERT_ROWS(delta, {1, 0, 6, 6});
	dp_delta_free(delta);
}

static void keys_beyond_the_bound_are_refused_and_counted(void **state)
{
	struct dp_delta_spec spec = heap_like;
	struct dp_delta *delta;

	(void)state;
	spec.max_rows = 2;
	delta = new_delta(&spec);
	dp_delta_begin(delta);
	add(delta, 1, 0, 1, 1);
	add(delta, 2, 0, 2, 2);
	assert_int_equal(dp_delta_add(delta, 3, 0, (int64_t[]){3, 3}), -ENOSPC);
	add(delta, 1, 0, 1, 1);
	assert_int_equal(dp_delta_overflowed(delta), 1);
	ASSERT_ROWS(delta, {1, 0, 2, 2}, {2, 0, 2, 2});
	dp_delta_free(delta);
}

static void sums_and_differences_that_do_not_fit_stay_at_the_limit(void **state)
{
	struct dp_delta *delta = new_delta(&mutex_like);

	(void)state;
	dp_delta_begin(delta);
	add(delta, 1, 0, INT64_MAX, 1);
	add(delta, 1, 0, INT64_MAX, 1);
	ASSERT_ROWS(delta, {1, 0, INT64_MAX, 2});
	dp_delta_abort(delta);
	dp_delta_begin(delta);
	add(delta, 1, 0, INT64_MIN, 1);
	add(delta, 1, 0, -1, 1);
	assert_rows(delta, 0, NULL);
	dp_delta_commit(delta);
	dp_delta_begin(delta);
	add(delta, 1, 0, 5, 2);
	ASSERT_ROWS(delta, {1, 0, INT64_MAX, 0});
	dp_delta_free(delta);
}

static void many_keys_keep_their_bases_as_the_table_grows(void **state)
{
	struct dp_delta_spec spec = heap_like;
	const struct dp_delta_row *rows;
	struct dp_delta *delta;
	size_t n;

	(void)state;
	spec.max_rows = 10000;
	delta = new_delta(&spec);
	for (int64_t pass = 1; pass <= 3; pass++) {
		dp_delta_begin(delta);
		for (uint32_t i = 0; i < 10000; i++)
			add(delta, i / 4, i % 4, pass * i, 1);
		assert_int_equal(dp_delta_end(delta, &rows, &n), 0);
		assert_int_equal(n, 10000);
		for (uint32_t i = 0; i < 10000; i++) {
			assert_int_equal(rows[i].stack, i / 4);
			assert_int_equal(rows[i].tag, i % 4);
			assert_int_equal(rows[i].values[0], i);
		}
		dp_delta_commit(delta);
	}
	dp_delta_free(delta);
}

static void impossible_specs_are_refused(void **state)
{
	const struct dp_delta_spec bad[] = {
		{.n_values = 0, .max_rows = 1},
		{.n_values = DP_DELTA_MAX_VALUES + 1, .max_rows = 1},
		{.n_values = 2, .delta_mask = 4, .max_rows = 1},
		{.n_values = 2, .max_rows = 0},
		{.n_values = 2, .max_rows = UINT32_MAX},
	};
	struct dp_delta *delta = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(dp_delta_new(&delta, &bad[i]), -EINVAL);
	assert_null(delta);
	dp_delta_free(NULL);
}

static int run_two_passes(void)
{
	struct dp_delta *const untouched = (struct dp_delta *)&errno;
	struct dp_delta *delta = untouched;
	const struct dp_delta_row *rows = NULL;
	size_t n = 12345;
	int r = dp_delta_new(&delta, &heap_like);

	if (r < 0) {
		assert_ptr_equal(delta, untouched);
		return r;
	}
	for (int64_t pass = 1; r == 0 && pass <= 2; pass++) {
		dp_delta_begin(delta);
		for (uint32_t i = 0; r == 0 && i < 100; i++)
			r = dp_delta_add(delta, i, 0, (int64_t[]){pass, 0});
		if (r == 0)
			r = dp_delta_end(delta, &rows, &n);
		if (r == 0)
			dp_delta_commit(delta);
	}
	if (r == 0)
		assert_int_equal(n, 100);
	else if (!rows)
		assert_int_equal(n, 12345);
	dp_delta_free(delta);
	return r;
}

static void a_failed_allocation_is_reported_and_leaks_nothing(void **state)
{
	(void)state;
	ALLOC_FAIL_EACH(run_two_passes());
}

static void a_pass_goes_on_after_a_failed_allocation(void **state)
{
	bool happened = true;

	(void)state;
	for (unsigned long k = 1; happened; k++) {
		struct dp_delta *delta = new_delta(&heap_like);
		const struct dp_delta_row *rows;
		size_t n;
		int r;

		dp_delta_begin(delta);
		alloc_fail_at(k);
		for (uint32_t i = 0; i < 100; i++) {
			r = dp_delta_add(delta, i, 0, (int64_t[]){i + 1, 0});
			if (r == -ENOMEM)
				r = dp_delta_add(delta, i, 0, (int64_t[]){i + 1, 0});
			assert_int_equal(r, 0);
		}
		r = dp_delta_end(delta, &rows, &n);
		if (r == -ENOMEM)
			r = dp_delta_end(delta, &rows, &n);
		happened = alloc_fail_happened();
		alloc_fail_at(0);
		assert_int_equal(r, 0);
		assert_int_equal(n, 100);
		for (uint32_t i = 0; i < 100; i++)
			assert_int_equal(rows[i].values[0], i + 1);
		dp_delta_free(delta);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_pass_gives_everything),
		cmocka_unit_test(masked_values_come_out_as_differences_and_others_as_they_are),
		cmocka_unit_test(rows_come_in_the_order_of_first_addition_in_this_pass),
		cmocka_unit_test(the_tag_tells_rows_of_one_stack_apart),
		cmocka_unit_test(a_key_that_is_not_added_gives_no_row_and_keeps_its_base),
		cmocka_unit_test(a_row_is_left_out_only_if_all_of_it_is_zero),
		cmocka_unit_test(a_negative_difference_keeps_the_base_of_a_heap),
		cmocka_unit_test(a_negative_difference_moves_the_base_of_a_mutex),
		cmocka_unit_test(a_value_that_is_negative_now_suppresses_the_row),
		cmocka_unit_test(an_abort_keeps_the_difference),
		cmocka_unit_test(a_pass_that_was_neither_committed_nor_aborted_is_aborted),
		cmocka_unit_test(keys_beyond_the_bound_are_refused_and_counted),
		cmocka_unit_test(sums_and_differences_that_do_not_fit_stay_at_the_limit),
		cmocka_unit_test(many_keys_keep_their_bases_as_the_table_grows),
		cmocka_unit_test(impossible_specs_are_refused),
		cmocka_unit_test(a_failed_allocation_is_reported_and_leaks_nothing),
		cmocka_unit_test(a_pass_goes_on_after_a_failed_allocation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
