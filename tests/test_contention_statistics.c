/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <linux/futex.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/contention.h"
#include "tests/contention_fixture.h"

/*
 * The sampling by duration, as statistics. Threads wait for known times under 256 seeds. A wait of
 * d < rate up to its release is kept with p = d / rate and then counts w = 1/p contentions and t/p
 * nanoseconds, t being how long it took until the thread ran again, so the estimate of a total has
 *
 *	mean      the true total
 *	variance  sum of (1 - p)/p, for nanoseconds t² (1 - p)/p
 *	kurtosis  excess: sum of w⁴ p (1 - p) (1 - 6 p (1 - p)) over variance²
 *
 * Checked are the mean over the seeds (its variance is one 256th) and the mean square deviation
 *from the truth over its expectation, which is 1 with variance (2 + excess)/256. That is 10 rows x
 *2 values x 2 = 40 comparisons. Z = 6 is two-sided 2e-9 each and 8e-8 in all for a normal estimate;
 * the seeds are fixed, so a failure is a change of the code, not bad luck. And in every single run
 * both sides of a lock must agree to the nanosecond: one draw decides both.
 *
 * What it catches, each tried on the code: a draw of its own for each side; no scaling, of either
 * value; a short wait that counts its own length; p squared; the delay of a released wait taken at
 * its release, or drawn for at its return; a number that is drawn once and not for each wait.
 */
#define N_SEEDS 256
#define Z 6.0
#define RATE_NS 10000

struct mix {
	uint32_t tid;
	enum dp_wait_kind kind;
	uint32_t waker; /* 0: the wait runs into its time-out */
	uint64_t delay_ns;
	size_t n; /* waits in a run */
};

static const struct mix mixes[] = {
	{1, DP_WAIT_MUTEX, 11, 50, 2000},    {1, DP_WAIT_MUTEX, 11, 3000, 250},
	{2, DP_WAIT_MUTEX, 0, 700, 500},     {3, DP_WAIT_RWLOCK, 12, 9000, 150},
	{3, DP_WAIT_RWLOCK, 12, 25000, 25}, /* p is 1 */
	{4, DP_WAIT_CONDVAR, 11, 200, 1000}, {5, DP_WAIT_SEMAPHORE, 11, 5000, 200},
	{6, DP_WAIT_BARRIER, 12, 40, 2500},  {7, DP_WAIT_JOIN, 0, 15000, 20}, /* p is 1: exact */
	{8, DP_WAIT_FUTEX, 11, 100, 1000},
};
#define N_MIXES (sizeof(mixes) / sizeof(mixes[0]))

/* After its release a thread waits for a processor: how long. */
static uint64_t latency_ns(const struct mix *mix)
{
	return mix->waker ? 777 + mix->delay_ns / 3 : 0;
}

/* What is estimated: a waiting thread's row of block, or a waker's of mutex. */
struct row {
	uint32_t tid;
	bool is_mutex;
	enum dp_wait_kind kind;
};

static const struct row rows[] = {
	{1, false, DP_WAIT_MUTEX},   {2, false, DP_WAIT_MUTEX},	    {3, false, DP_WAIT_RWLOCK},
	{4, false, DP_WAIT_CONDVAR}, {5, false, DP_WAIT_SEMAPHORE}, {6, false, DP_WAIT_BARRIER},
	{7, false, DP_WAIT_JOIN},    {8, false, DP_WAIT_FUTEX},	    {11, true, DP_WAIT_MUTEX},
	{12, true, DP_WAIT_MUTEX},
};
#define N_ROWS (sizeof(rows) / sizeof(rows[0]))
#define N_VALUES 2

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

static bool is_in(const struct mix *mix, const struct row *row)
{
	bool is_lock = mix->kind == DP_WAIT_MUTEX || mix->kind == DP_WAIT_RWLOCK;

	return row->is_mutex ? is_lock && mix->waker == row->tid : mix->tid == row->tid;
}

static void make_laws(struct law (*laws)[N_VALUES])
{
	for (size_t r = 0; r < N_ROWS; r++) {
		for (size_t i = 0; i < N_MIXES; i++) {
			double d = (double)mixes[i].delay_ns;
			double p = d < RATE_NS ? d / RATE_NS : 1;

			if (!is_in(&mixes[i], &rows[r]))
				continue;
			add_to_law(&laws[r][0], (double)mixes[i].n, p, 1);
			add_to_law(&laws[r][1], (double)mixes[i].n, p,
				   d + (double)latency_ns(&mixes[i]));
		}
	}
}

static uint64_t run_wait(struct contention_fixture *fx, const struct mix *mix, uint64_t time_ns)
{
	uint64_t end_ns = time_ns + mix->delay_ns;

	fixture_enter(fx, mix->tid, FUTEX_WAIT, time_ns);
	if (mix->waker == 0) {
		fixture_leave(fx, mix->tid, -ETIMEDOUT, end_ns);
		return end_ns;
	}
	fixture_wake(fx, mix->waker, FUTEX_WAKE, mix->tid, end_ns);
	fixture_leave(fx, mix->tid, 0, end_ns + latency_ns(mix));
	return end_ns + latency_ns(mix);
}

/* One run: the mixes' waits interleaved. */
static void run_mixes(uint64_t seed, struct contention_values *ret)
{
	struct contention_fixture fx;
	size_t n_done[N_MIXES] = {0};
	uint64_t time_ns = 1000;
	bool again = true;

	fixture_start_with(&fx, RATE_NS, seed, 16);
	for (size_t i = 0; i < N_MIXES; i++)
		fx.kinds[mixes[i].tid] = mixes[i].kind;
	while (again) {
		again = false;
		for (size_t i = 0; i < N_MIXES; i++) {
			for (size_t k = 0; k <= mixes[i].n / 20 && n_done[i] < mixes[i].n; k++) {
				time_ns = run_wait(&fx, &mixes[i], time_ns + 100);
				n_done[i]++;
			}
			again |= n_done[i] < mixes[i].n;
		}
	}
	for (size_t r = 0; r < N_ROWS; r++)
		ret[r] = rows[r].is_mutex ? fixture_mutex(&fx, WAKER_STACK + rows[r].tid)
					  : fixture_block(&fx, rows[r].tid, rows[r].kind);
	/* Thread 2's waits for a mutex ended by themselves, and no others. */
	assert_int_equal(dp_contention_get_stats(fx.contention)->n_lock_ended_otherwise,
			 ret[1].contentions);
	fixture_stop(&fx);
}

static void check_law(const struct law *law, double mean, double mean_square, size_t row,
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
		fail_msg("row %zu value %zu: mean off by %.1f, spread by %.1f standard errors", row,
			 value, z_mean, z_spread);
}

static void estimates_are_unbiased_and_spread_as_predicted(void **state)
{
	struct law laws[N_ROWS][N_VALUES] = {0};
	double sums[N_ROWS][N_VALUES] = {0}, squares[N_ROWS][N_VALUES] = {0};
	struct contention_values got[N_ROWS];

	(void)state;
	make_laws(laws);
	for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
		run_mixes(seed, got);
		for (size_t r = 0; r < N_ROWS; r++) {
			const double off[N_VALUES] = {(double)got[r].contentions - laws[r][0].total,
						      (double)got[r].delay_ns - laws[r][1].total};

			for (size_t v = 0; v < N_VALUES; v++) {
				sums[r][v] += off[v];
				squares[r][v] += off[v] * off[v];
			}
		}
		/* Waker 11 ended thread 1's waits for a lock, waker 12 thread 3's. */
		assert_memory_equal(&got[0], &got[8], sizeof(got[0]));
		assert_memory_equal(&got[2], &got[9], sizeof(got[2]));
	}
	for (size_t r = 0; r < N_ROWS; r++) {
		for (size_t v = 0; v < N_VALUES; v++)
			check_law(&laws[r][v], sums[r][v] / N_SEEDS, squares[r][v] / N_SEEDS, r, v);
	}
}

static void the_same_seed_draws_the_same_samples(void **state)
{
	struct contention_values one[N_ROWS], two[N_ROWS];

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
		cmocka_unit_test(estimates_are_unbiased_and_spread_as_predicted),
		cmocka_unit_test(the_same_seed_draws_the_same_samples),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
