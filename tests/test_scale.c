/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "src/scale.h"

static void assert_close(double a, double b)
{
	assert_true(fabs(a - b) <= 1e-15 * fabs(b));
}

/* Computed with 50 digits: 1 - exp(-size / rate). */
static void the_probability_is_one_minus_exp_of_size_over_rate(void **state)
{
	(void)state;
	assert_close(dp_scale_probability(16, 524288), 3.0517112468449607692624e-05);
	assert_close(dp_scale_probability(524288, 524288), 0.63212055882855767840);
	assert_close(dp_scale_probability(262144, 524288), 0.39346934028736657640);
	assert_close(dp_scale_probability(UINT64_C(64) << 20, 524288), 1.0);
}

static void a_tiny_size_beside_a_huge_rate_keeps_its_digits(void **state)
{
	(void)state;
	/* 1 - exp(-x) = x - x²/2 + …; the naive formula gives 0 here. */
	assert_close(dp_scale_probability(1, UINT64_C(1) << 60), 0x1p-60);
	assert_close(dp_scale_probability(3, UINT64_C(1) << 60), 3 * 0x1p-60);
}

static void an_empty_allocation_is_sampled_like_one_byte(void **state)
{
	(void)state;
	assert_true(dp_scale_probability(0, 4096) == dp_scale_probability(1, 4096));
	assert_true(dp_scale_probability(0, 4096) > 0);
}

static void rates_of_one_and_zero_sample_everything(void **state)
{
	(void)state;
	assert_true(dp_scale_probability(1, 1) == 1.0);
	assert_true(dp_scale_probability(0, 1) == 1.0);
	assert_true(dp_scale_probability(UINT64_MAX, 0) == 1.0);
}

static void assert_go_heap(int64_t objects, int64_t bytes, int64_t rate, int64_t expected_objects,
			   int64_t expected_bytes)
{
	int64_t got_objects = -1, got_bytes = -1;

	dp_scale_go_heap(objects, bytes, rate, &got_objects, &got_bytes);
	assert_int_equal(got_objects, expected_objects);
	assert_int_equal(got_bytes, expected_bytes);
}

static void go_heap_scaling_that_does_not_fit_stays_at_the_limits(void **state)
{
	(void)state;
	/* The mean size is so small that exp() gives 1: the factor is infinite. */
	assert_go_heap(INT64_MAX, 1, 524288, INT64_MAX, INT64_MAX);
	assert_go_heap(INT64_MIN, -1, 524288, INT64_MIN, INT64_MIN);
}

static void go_heap_scaling_keeps_the_sign(void **state)
{
	(void)state;
	assert_go_heap(-5, -5 * 327680, 524288, -10, -3525422);
}

static void delays_are_truncated_after_the_division(void **state)
{
	(void)state;
	assert_int_equal(dp_scale_go_delay(0, 1000000000), 0);
	assert_int_equal(dp_scale_go_delay(12345, 1000000000), 12345);
	assert_int_equal(dp_scale_go_delay(10038, 2400000000), 4182); /* 4182.5 */
	assert_int_equal(dp_scale_go_delay(10080, 2400000000), 4200);
	assert_int_equal(dp_scale_go_delay(-10038, 2400000000), -4182); /* toward zero */
}

static void a_clock_without_a_rate_gives_no_delay(void **state)
{
	(void)state;
	assert_int_equal(dp_scale_go_delay(12345, 0), 0);
	assert_int_equal(dp_scale_go_delay(12345, -1), 0);
	assert_int_equal(dp_scale_go_delay(INT64_MAX, 1), INT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_probability_is_one_minus_exp_of_size_over_rate),
		cmocka_unit_test(a_tiny_size_beside_a_huge_rate_keeps_its_digits),
		cmocka_unit_test(an_empty_allocation_is_sampled_like_one_byte),
		cmocka_unit_test(rates_of_one_and_zero_sample_everything),
		cmocka_unit_test(go_heap_scaling_that_does_not_fit_stays_at_the_limits),
		cmocka_unit_test(go_heap_scaling_keeps_the_sign),
		cmocka_unit_test(delays_are_truncated_after_the_division),
		cmocka_unit_test(a_clock_without_a_rate_gives_no_delay),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
