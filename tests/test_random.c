/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "src/base/random.h"

/* The published first outputs of xoshiro256** for the state 1, 2, 3, 4. */
static void the_generator_is_xoshiro256starstar(void **state)
{
	static const uint64_t expected[] = {
		11520,
		0,
		1509978240,
		1215971899390074240,
		1216172134540287360,
		607988272756665600,
		16172922978634559625u,
		8476171486693032832,
		10595114339597558777u,
		2904607092377533576,
	};
	struct dp_random random = {{1, 2, 3, 4}};

	(void)state;
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		assert_int_equal(dp_random_u64(&random), expected[i]);
}

/* The published first outputs of SplitMix64 for 0. */
static void a_seed_is_spread_by_splitmix64(void **state)
{
	struct dp_random random;

	(void)state;
	dp_random_seed(&random, 0);
	assert_int_equal(random.s[0], 0xe220a8397b1dcdafULL);
	assert_int_equal(random.s[1], 0x6e789e6aa1b965f4ULL);
	assert_int_equal(random.s[2], 0x06c45d188009454fULL);
	assert_int_equal(random.s[3], 0xf88bb8a8724c81ecULL);
}

/*
 * Mean 1 and variance 1 within six standard errors (the variance of a squared deviation is 8), and
 * the tails: P(x > t) = exp(-t).
 */
static void exponential_numbers_have_the_mean_variance_and_tails_of_their_law(void **state)
{
	const size_t n = 1000000;
	struct dp_random random;
	double sum = 0, sum_squares = 0;
	double above[4] = {0};

	(void)state;
	dp_random_seed(&random, 42);
	for (size_t i = 0; i < n; i++) {
		double x = dp_random_exponential(&random, 1024) / 1024;

		assert_true(x >= 0 && x < 37);
		sum += x;
		sum_squares += (x - 1) * (x - 1);
		for (size_t t = 0; t < 4; t++)
			above[t] += x > (double)(2 * t + 1);
	}
	assert_true(fabs(sum / (double)n - 1) < 6 * sqrt(1 / (double)n));
	assert_true(fabs(sum_squares / (double)n - 1) < 6 * sqrt(8 / (double)n));
	for (size_t t = 0; t < 4; t++) {
		double p = exp(-(double)(2 * t + 1));

		assert_true(fabs(above[t] / (double)n - p) < 6 * sqrt(p * (1 - p) / (double)n));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_generator_is_xoshiro256starstar),
		cmocka_unit_test(a_seed_is_spread_by_splitmix64),
		cmocka_unit_test(exponential_numbers_have_the_mean_variance_and_tails_of_their_law),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
