/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/base/random.h"
#include "tests/sampling_law.h"

/*
 * The judge of tests/test_sampling_statistics.c, judged: bounds against probabilities that are
 * known, and samplers that are right or wrong against its verdict.
 */

#define N_RUNS 200
#define RATE 524288.0
/* That a check of 100 at 1 % in all fails by chance. */
#define LOG_LEVEL log(0.01 / 100 / 2)

static void the_law_of_one_part_is_binomial(void **state)
{
	const struct law_part part = {.n = 10, .value = 3, .p = 0.25};
	double sum = 0, variance = 0;
	struct law law;

	(void)state;
	law_make(&law, &part, 1);
	assert_true(fabs(law.mean - 30) < 1e-9);
	/* n (value / p)^2 p (1 - p) */
	assert_true(fabs(law.sigma - sqrt(10 * 144 * 0.1875)) < 1e-9);
	for (size_t i = 0; i < law.n; i++) {
		sum += law.chances[i];
		variance += law.chances[i] * law.values[i] * law.values[i];
	}
	assert_true(fabs(sum - 1) < 1e-9);
	assert_true(fabs(variance - 1) < 1e-9);
	law_free(&law);
}

static void what_is_always_sampled_has_no_spread(void **state)
{
	const struct law_part parts[] = {{.n = 10, .value = 7, .p = 1},
					 {.n = 3, .value = 1, .p = 1}};
	struct law law;

	(void)state;
	law_make(&law, parts, 2);
	assert_true(law.mean == 73 && law.sigma == 0);
	law_free(&law);
}

/* Of a fair coin thrown 200 times: 130 heads or more have a chance of 1.326e-5, 140 of 7.535e-9. */
static void a_tail_is_bounded_from_above_and_not_by_far(void **state)
{
	const struct law_part part = {.n = 1, .value = 1, .p = 0.5};
	struct law law;
	double tail;

	(void)state;
	/* A head counts as 2: estimates are 1 off the mean, to either side. */
	law_make(&law, &part, 1);
	assert_true(law.sigma == 1);
	tail = law_tail(&law, 200, 2 * 130 - 200, false);
	assert_true(tail > log(1.326e-5) && tail < log(1.326e-5) + 2.5);
	assert_true(fabs(law_tail(&law, 200, -(2 * 130 - 200), false) - tail) < 1e-6);
	tail = law_tail(&law, 200, 2 * 140 - 200, false);
	assert_true(tail > log(7.535e-9) && tail < log(7.535e-9) + 3);
	law_free(&law);
}

/* What a sampler does with an event of @size bytes: whether it is sampled, and its weight. */
typedef bool sampler_fn(struct dp_random *random, double size, double *ret_weight);

static double uniform(struct dp_random *random)
{
	return (double)(dp_random_u64(random) >> 11) * 0x1p-53;
}

static bool right(struct dp_random *random, double size, double *ret_weight)
{
	double p = -expm1(-size / RATE);

	*ret_weight = 1 / p;
	return uniform(random) < p;
}

/* As if size / rate were the chance. */
static bool unscaled(struct dp_random *random, double size, double *ret_weight)
{
	*ret_weight = fmax(1, RATE / size);
	return uniform(random) < -expm1(-size / RATE);
}

/* A fifth of all is missed. */
static bool lossy(struct dp_random *random, double size, double *ret_weight)
{
	return right(random, size, ret_weight) && uniform(random) < 0.8;
}

/* Samples come in pairs: unbiased, but of twice the variance. */
static bool paired(struct dp_random *random, double size, double *ret_weight)
{
	double p = -expm1(-size / RATE) / 2;

	*ret_weight = 1 / p;
	return uniform(random) < p;
}

/* The verdicts on the mean and the spread of @n events of @size: whether chance can explain them.
 */
static void judge(sampler_fn *sampler, unsigned n, double size, bool *ret_mean, bool *ret_spread)
{
	const struct law_part part = {.n = n, .value = 1, .p = -expm1(-size / RATE)};
	double sum = 0, squares = 0;
	struct dp_random random;
	struct law law;

	dp_random_seed(&random, 7);
	law_make(&law, &part, 1);
	for (unsigned run = 0; run < N_RUNS; run++) {
		double estimate = 0, weight, off;

		for (unsigned i = 0; i < n; i++)
			estimate += sampler(&random, size, &weight) ? weight : 0;
		off = (round(estimate) - law.mean) / law.sigma;
		sum += off;
		squares += off * off;
	}
	*ret_mean = law_tail(&law, N_RUNS, sum, false) > LOG_LEVEL;
	*ret_spread = law_tail(&law, N_RUNS, squares, true) > LOG_LEVEL;
	law_free(&law);
}

static void a_right_sampler_is_accepted_and_wrong_ones_are_not(void **state)
{
	bool mean, spread;

	(void)state;
	judge(right, 4000, 8, &mean, &spread);
	assert_true(mean && spread);
	judge(right, 8, 524288, &mean, &spread);
	assert_true(mean && spread);
	judge(unscaled, 8, 524288, &mean, &spread);
	assert_false(mean);
	judge(lossy, 20, 262144, &mean, &spread);
	assert_false(mean);
	judge(paired, 40, 65536, &mean, &spread);
	assert_true(mean);
	assert_false(spread);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_law_of_one_part_is_binomial),
		cmocka_unit_test(what_is_always_sampled_has_no_spread),
		cmocka_unit_test(a_tail_is_bounded_from_above_and_not_by_far),
		cmocka_unit_test(a_right_sampler_is_accepted_and_wrong_ones_are_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
