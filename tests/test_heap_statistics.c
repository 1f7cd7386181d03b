/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "src/heap.h"

/*
 * The estimator, as statistics. Each of five stacks makes a fixed mix of allocations, a known part
 *of which is freed again, under 256 seeds. An event of size S is kept with p = 1 - exp(-S / rate)
 *and counts w = 1/p objects and S/p bytes, so the estimate of a total has
 *
 *	mean      the true total
 *	variance  sum of (1 - p)/p, for bytes S² (1 - p)/p
 *	kurtosis  excess: sum of w⁴ p (1 - p) (1 - 6 p (1 - p)) over variance²
 *
 * Checked are the mean over the seeds (its variance is one 256th) and the mean square deviation
 *from the truth over its expectation, which is 1 with variance (2 + excess)/256. That is 5 stacks x
 *4 values x 2 = 40 comparisons. Z = 6 is two-sided 2e-9 each and 8e-8 in all for a normal estimate;
 * the seeds are fixed, so a failure is a change of the code, not bad luck.
 *
 * What it catches, each tried on the code: no division by p; p = size / rate; a total scaled after
 *it was summed, by its mean size (as Go does: every stack of several sizes is off); a distance that
 *is not random, or uniform; a distance that starts where the last point lay and not at the event's
 *end.
 */
#define N_SEEDS 256
#define Z 6.0
#define STAT_RATE 524288

struct mix {
	uint32_t stack;
	uint64_t size;
	size_t n; /* allocations in a run */
	size_t n_freed;
};

static const struct mix mixes[] = {
	{0, 8, 100000, 30000}, {1, 256, 20000, 5000}, {1, 4096, 2000, 1000}, {2, 65536, 300, 100},
	{2, 524288, 40, 10},   {3, 64, 20000, 15000}, /* a stack whose sizes are far apart */
	{3, 1048576, 40, 5},   {4, 67108864, 20, 7},  /* p is 1 to 55 digits: exact */
};
#define N_MIXES (sizeof(mixes) / sizeof(mixes[0]))
#define N_STACKS 5
#define N_VALUES 4

/* Sums over the events of one stack, by value: alloc objects, alloc bytes, in-use objects, bytes.
 */
struct law {
	double total;
	double variance;
	double fourth_cumulant;
};

static void add_to_law(struct law *law, double n, double p, double value)
{
	double w = value / p, q = p * (1 - p);

	law->total += n * value;
	law->variance += n * w * w * q;
	law->fourth_cumulant += n * w * w * w * w * q * (1 - 6 * q);
}

static void make_laws(struct law (*laws)[N_VALUES])
{
	for (size_t i = 0; i < N_MIXES; i++) {
		const struct mix *mix = &mixes[i];
		double p = -expm1(-(double)mix->size / STAT_RATE);
		double n_live = (double)(mix->n - mix->n_freed);

		add_to_law(&laws[mix->stack][0], (double)mix->n, p, 1);
		add_to_law(&laws[mix->stack][1], (double)mix->n, p, (double)mix->size);
		add_to_law(&laws[mix->stack][2], n_live, p, 1);
		add_to_law(&laws[mix->stack][3], n_live, p, (double)mix->size);
	}
}

static struct dp_heap *new_heap(uint64_t seed)
{
	const struct dp_heap_options options = {
		.rate_bytes = STAT_RATE, .seed = seed, .max_live = 100000};
	struct dp_heap *heap = NULL;

	assert_int_equal(dp_heap_new(&heap, &options), 0);
	return heap;
}

static struct dp_delta *new_delta(void)
{
	const struct dp_delta_spec spec = dp_heap_delta_spec(N_STACKS);
	struct dp_delta *delta = NULL;

	assert_int_equal(dp_delta_new(&delta, &spec), 0);
	return delta;
}

/* The estimates of every stack. */
static void read_stacks(const struct dp_heap *heap, int64_t (*ret)[DP_DELTA_MAX_VALUES])
{
	struct dp_delta *delta = new_delta();
	const struct dp_delta_row *rows;
	size_t n;

	memset(ret, 0, N_STACKS * sizeof(*ret));
	dp_delta_begin(delta);
	assert_int_equal(dp_heap_feed(heap, delta), 0);
	assert_int_equal(dp_delta_end(delta, &rows, &n), 0);
	for (size_t i = 0; i < n; i++)
		memcpy(ret[rows[i].stack], rows[i].values, sizeof(*ret));
	dp_delta_free(delta);
}

/* One run: the mixes' allocations interleaved, so that each event meets a distance left by others.
 */
static void run_mixes(uint64_t seed, int64_t (*ret)[DP_DELTA_MAX_VALUES])
{
	struct dp_heap *heap = new_heap(seed);
	size_t n_done[N_MIXES] = {0};
	bool again = true;

	while (again) {
		again = false;
		for (size_t i = 0; i < N_MIXES; i++) {
			/* Rounds of about a twentieth of each mix. */
			for (size_t k = 0; k <= mixes[i].n / 20 && n_done[i] < mixes[i].n; k++) {
				uint64_t addr = ((uint64_t)i << 32) + (n_done[i] + 1) * 16;

				if (dp_heap_draw(heap, mixes[i].size))
					dp_heap_alloc(heap, mixes[i].stack, mixes[i].size, addr);
				if (++n_done[i] <= mixes[i].n_freed)
					dp_heap_release(heap, addr);
			}
			again |= n_done[i] < mixes[i].n;
		}
	}
	read_stacks(heap, ret);
	dp_heap_free_all(heap);
}

static void check_law(const struct law *law, double mean, double mean_square, size_t stack,
		      size_t value)
{
	double excess, z_mean, z_spread;

	if (law->variance < 1e-3) {
		/* Nothing is left to chance. */
		assert_true(mean == 0 && mean_square == 0);
		return;
	}
	excess = law->fourth_cumulant / (law->variance * law->variance);
	z_mean = mean / sqrt(law->variance / N_SEEDS);
	z_spread = (mean_square / law->variance - 1) / sqrt((2 + excess) / N_SEEDS);
	if (!(fabs(z_mean) < Z && fabs(z_spread) < Z))
		fail_msg("stack %zu value %zu: mean off by %.1f, spread by %.1f standard errors",
			 stack, value, z_mean, z_spread);
}

static void estimates_are_unbiased_and_spread_as_poisson_sampling_predicts(void **state)
{
	struct law laws[N_STACKS][N_VALUES] = {0};
	double sums[N_STACKS][N_VALUES] = {0}, squares[N_STACKS][N_VALUES] = {0};
	int64_t got[N_STACKS][DP_DELTA_MAX_VALUES];

	(void)state;
	make_laws(laws);
	for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
		run_mixes(seed, got);
		for (size_t s = 0; s < N_STACKS; s++) {
			for (size_t v = 0; v < N_VALUES; v++) {
				double off = (double)got[s][v] - laws[s][v].total;

				sums[s][v] += off;
				squares[s][v] += off * off;
			}
		}
	}
	for (size_t s = 0; s < N_STACKS; s++) {
		for (size_t v = 0; v < N_VALUES; v++)
			check_law(&laws[s][v], sums[s][v] / N_SEEDS, squares[s][v] / N_SEEDS, s, v);
	}
}

static void the_same_seed_draws_the_same_samples(void **state)
{
	int64_t one[N_STACKS][DP_DELTA_MAX_VALUES], two[N_STACKS][DP_DELTA_MAX_VALUES];

	(void)state;
	run_mixes(99, one);
	run_mixes(99, two);
	assert_memory_equal(one, two, sizeof(one));
	run_mixes(100, two);
	assert_memory_not_equal(one, two, sizeof(one));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(estimates_are_unbiased_and_spread_as_poisson_sampling_predicts),
		cmocka_unit_test(the_same_seed_draws_the_same_samples),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
