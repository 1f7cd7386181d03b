/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/clock.h"
#include "src/base/frame.h"
#include "src/session.h"
#include "symbolize/symbolizer.h"
#include "tests/perf_fixture.h"
#include "tests/sampling_law.h"
#include "tests/sampling_target.h"
#include "tests/targets/sampling.h"

/*
 * Estimates of a live target, as statistics: the target does the same in each of 200 runs, each run
 * is an attach with a seed of its own, and what is estimated is compared with what was done.
 *
 * Heap: the whole law of each estimate is known (tests/sampling_law.h), so that the mean and the
 * mean square deviation over the runs are judged by bounds that hold exactly.
 *
 * Waits: how long each takes is the machine's affair (sleeps below 15 us are rare in a virtual one,
 * hence the rate), so a second sampler, which loses and draws nothing, tells it for each one; its
 * time stamps are within STAMP_NS of the session's. A wait that a busy machine drew out after its
 * release weighs much, hence a bound for the mean that allows for the largest weight; the law of a
 * sum of squares is taken as in tests/test_contention_statistics.c, where it holds.
 *
 * All comparisons of a sampler together are made at a level of 1 %: each at 1 % over their number,
 * two-sided. Bounds are not reached, so by chance it fails less often than that.
 */
#define N_RUNS 200
#define LEVEL 0.01
#define HEAP_RATE 524288
#define BLOCK_RATE_NS 200000
#define STAMP_NS 2000.0
#define MAX_EXCESS 3 /* kurtosis of a run beyond which 200 of them say little about a variance */
#define N_HEAP_VALUES 4
#define N_WAIT_VALUES 2
#define N_WAIT_ROWS (SAMPLING_N_WAITS + 1) /* the last one is mutex's */
#define N_COMPARISONS (2 * (SAMPLING_N_STACKS * N_HEAP_VALUES + N_WAIT_ROWS * N_WAIT_VALUES))
#define MAX_LOST_RUNS 20
#define MAX_ROWS 1000

/* What was estimated in one run. */
struct estimates {
	double heap[SAMPLING_N_STACKS][N_HEAP_VALUES];
	double waits[N_WAIT_ROWS][N_WAIT_VALUES];
};

/* Sums over the runs. */
struct wait_sums {
	double off[N_WAIT_VALUES];	/* of estimate - truth */
	double square[N_WAIT_VALUES];	/* of its square */
	double variance[N_WAIT_VALUES]; /* as predicted */
	double fourth[N_WAIT_VALUES];	/* cumulant, as predicted */
	double largest[N_WAIT_VALUES];	/* weight of all */
	double truth[N_WAIT_VALUES];
};

struct sums {
	struct law laws[SAMPLING_N_STACKS][N_HEAP_VALUES];
	double heap[SAMPLING_N_STACKS][N_HEAP_VALUES], squares[SAMPLING_N_STACKS][N_HEAP_VALUES];
	struct wait_sums waits[N_WAIT_ROWS];
	unsigned n_lost_runs, n_wrong;
};

/* ---- one run ---- */

/* How a target is profiled. */
struct way {
	enum dp_sampler_mode sampler;
	bool without_returns; /* and without waits: of what is in use nothing is known */
};

static struct dp_session *open_session(const struct sampling_target *target, const struct way *way,
				       uint64_t seed)
{
	const struct dp_session_options options = {.pid = target->pid,
						   .heap = true,
						   .contention = !way->without_returns,
						   .without_returns = way->without_returns,
						   .heap_rate_bytes = HEAP_RATE,
						   .block_rate_ns = BLOCK_RATE_NS,
						   .seed = seed,
						   .sampler = way->sampler};
	struct dp_session *session = NULL;
	struct dp_error err = {0};

	if (dp_session_open(&session, &options, &err) < 0)
		fail_msg("%s", err.text);
	return session;
}

/* Lets the target do its work, and takes in the events meanwhile. */
static void work(const struct sampling_target *target, struct dp_session *session)
{
	struct pollfd fds[64] = {{.fd = target->out, .events = POLLIN}};
	const struct pollfd *own;
	size_t n;

	own = dp_session_pollfds(session, &n);
	assert_true(n < 64);
	memcpy(fds + 1, own, n * sizeof(*own));
	sampling_target_say(target, "go\n");
	do {
		poll(fds, n + 1, dp_session_sleep_ms(session));
		assert_int_equal(dp_session_pump(session, UINT64_MAX), 0);
	} while (!(fds[0].revents & POLLIN));
	sampling_target_hear(target);
	assert_int_equal(dp_session_stop(session), 0);
}

/* The number of the target's function PREFIX_NUMBER that is on the stack, or -1. */
static int find_number(const struct dp_session *session, uint32_t stack, const char *prefix)
{
	const struct dp_report_source *source = dp_session_source(session);
	size_t n;
	const uint64_t *frames = dp_stacks_get(dp_session_stacks(session), stack, &n);

	for (size_t i = 0; i < n; i++) {
		struct dp_module_info info;
		struct dp_symbol symbol;
		int number;

		if (!dp_module_get(source->modules, dp_frame_module(frames[i]), &info) ||
		    strcmp(info.path, DP_SAMPLING) != 0)
			continue;
		assert_int_equal(dp_symbolizer_resolve(source->symbolizer, frames[i], &symbol), 0);
		if (symbol.n_lines > 0 &&
		    strncmp(symbol.lines[0].function, prefix, strlen(prefix)) == 0 &&
		    sscanf(symbol.lines[0].function + strlen(prefix), "%d", &number) == 1)
			return number;
	}
	return -1;
}

/* Adds the rows of one sort of profile, which are all of the target's own functions, to @add. */
static void read_rows(struct dp_session *session, enum dp_kind kind, const char *prefix,
		      void (*add)(struct estimates *ret, int number, const int64_t *values),
		      struct estimates *ret)
{
	const struct dp_delta_spec spec = kind == DP_KIND_HEAP ? dp_heap_delta_spec(MAX_ROWS)
							       : dp_contention_delta_spec(MAX_ROWS);
	const struct dp_delta_row *rows;
	struct dp_delta *delta = NULL;
	size_t n;

	assert_int_equal(dp_delta_new(&delta, &spec), 0);
	dp_delta_begin(delta);
	assert_int_equal(dp_session_feed(session, kind, delta), 0);
	assert_int_equal(dp_delta_end(delta, &rows, &n), 0);
	for (size_t i = 0; i < n; i++) {
		int number = find_number(session, rows[i].stack, prefix);

		if (number < 0)
			fail_msg("a stack without %s", prefix);
		add(ret, number, rows[i].values);
	}
	dp_delta_free(delta);
}

static void add_heap(struct estimates *ret, int number, const int64_t *values)
{
	assert_true(number < SAMPLING_N_STACKS);
	for (size_t v = 0; v < N_HEAP_VALUES; v++)
		ret->heap[number][v] += (double)values[v];
}

static void add_block(struct estimates *ret, int number, const int64_t *values)
{
	assert_true(number < (int)SAMPLING_N_WAITS);
	for (size_t v = 0; v < N_WAIT_VALUES; v++)
		ret->waits[number][v] += (double)values[v];
}

static void add_mutex(struct estimates *ret, int number, const int64_t *values)
{
	assert_int_equal(number, SAMPLING_RELEASED);
	for (size_t v = 0; v < N_WAIT_VALUES; v++)
		ret->waits[SAMPLING_N_WAITS][v] += (double)values[v];
}

static uint64_t count_made(void)
{
	uint64_t n = 0;

	for (size_t i = 0; i < SAMPLING_N_MIXES; i++)
		n += sampling_mixes[i].n;
	return n;
}

/* Every entry is one call, part of one, or not delivered. */
static void check_entries(const struct dp_session_stats *stats)
{
	assert_int_equal(stats->sampler.n_return_hits + stats->sampler.n_free_hits, 0);
	assert_true(stats->pairing.n_nested > 0);
	assert_int_equal(stats->sampler.n_entry_hits,
			 stats->heap.n_seen + stats->pairing.n_nested + stats->pairing.n_failed);
	assert_int_equal(stats->heap.n_live, 0);
}

/* Returns whether nothing was lost; then everything that the target did was seen. */
static bool is_complete(struct dp_session *session, const struct way *way)
{
	struct dp_session_stats stats;

	dp_session_get_stats(session, &stats);
	if (stats.sampler.n_lost > 0 || stats.sampler.n_dropped > 0)
		return false;
	assert_int_equal(stats.heap.n_seen, count_made());
	assert_true(stats.heap.n_sampled < stats.heap.n_seen);
	if (way->without_returns) {
		check_entries(&stats);
		return true;
	}
	if (stats.contention.n_waits != SAMPLING_ALL_WAITS)
		fail_msg("%llu waits of %d, %llu futex calls seen",
			 (unsigned long long)stats.contention.n_waits, SAMPLING_ALL_WAITS,
			 (unsigned long long)stats.contention.n_calls);
	assert_true(stats.contention.n_kept < stats.contention.n_waits);
	return true;
}

/* Returns whether nothing was lost. */
static bool run(struct sampling_target *target, const struct way *way, uint64_t seed,
		struct estimates *ret)
{
	struct dp_session *session = open_session(target, way, seed);
	bool ok;

	*ret = (struct estimates){0};
	if (!way->without_returns)
		sampling_target_observe(target);
	work(target, session);
	if (!way->without_returns)
		sampling_target_read_waits(target);
	ok = is_complete(session, way);
	if (ok)
		read_rows(session, DP_KIND_HEAP, "leaf_", add_heap, ret);
	if (ok && !way->without_returns) {
		read_rows(session, DP_KIND_BLOCK, "wait_", add_block, ret);
		read_rows(session, DP_KIND_MUTEX, "release_", add_mutex, ret);
	}
	dp_session_close(session);
	sampling_target_say(target, "drop\n");
	sampling_target_hear(target);
	return ok;
}

/* ---- what is expected ---- */

static void make_law(struct law *ret, const struct way *way, unsigned stack, size_t value)
{
	struct law_part parts[SAMPLING_N_MIXES];
	size_t n = 0;

	for (size_t i = 0; i < SAMPLING_N_MIXES; i++) {
		const struct sampling_mix *mix = &sampling_mixes[i];

		if (mix->stack != stack)
			continue;
		parts[n++] = (struct law_part){
			.n = value < 2		    ? mix->n
			     : way->without_returns ? 0
						    : mix->n - mix->n_freed,
			.value = value % 2 ? mix->size : 1,
			.p = -expm1(-(double)mix->size / HEAP_RATE),
		};
	}
	law_make(ret, parts, n);
}

static void take_heap(struct sums *sums, const struct estimates *got)
{
	for (size_t s = 0; s < SAMPLING_N_STACKS; s++) {
		for (size_t v = 0; v < N_HEAP_VALUES; v++) {
			const struct law *law = &sums->laws[s][v];
			double off = got->heap[s][v] - law->mean;

			off /= law->sigma > 0 ? law->sigma : 1;
			sums->heap[s][v] += off;
			sums->squares[s][v] += off * off;
		}
	}
}

static void take_wait_kind(struct wait_sums *sums, const double *got, size_t kind,
			   const struct sampling_wait_time *waits)
{
	double truth[N_WAIT_VALUES] = {sampling_waits[kind].n, 0};

	for (unsigned i = 0; i < sampling_waits[kind].n; i++) {
		double p = fmin(1, (double)waits[i].drawn_ns / BLOCK_RATE_NS), q = p * (1 - p);
		const double w[N_WAIT_VALUES] = {1 / p, (double)waits[i].took_ns / p};

		truth[1] += (double)waits[i].took_ns;
		for (size_t v = 0; v < N_WAIT_VALUES; v++) {
			sums->variance[v] += w[v] * w[v] * q;
			sums->largest[v] = fmax(sums->largest[v], p < 1 ? w[v] : 0);
			sums->fourth[v] += w[v] * w[v] * w[v] * w[v] * q * (1 - 6 * q);
		}
	}
	for (size_t v = 0; v < N_WAIT_VALUES; v++) {
		sums->truth[v] += truth[v];
		sums->off[v] += got[v] - truth[v];
		sums->square[v] += (got[v] - truth[v]) * (got[v] - truth[v]);
	}
}

static void take_waits(struct sums *sums, const struct estimates *got,
		       const struct sampling_waits *waits)
{
	size_t first = 0;

	assert_int_equal(waits->n, SAMPLING_ALL_WAITS);
	for (size_t kind = 0; kind < SAMPLING_N_WAITS; kind++) {
		take_wait_kind(&sums->waits[kind], got->waits[kind], kind, waits->list + first);
		if (kind == SAMPLING_RELEASED)
			take_wait_kind(&sums->waits[SAMPLING_N_WAITS], got->waits[SAMPLING_N_WAITS],
				       kind, waits->list + first);
		first += sampling_waits[kind].n;
	}
	/* One draw decides both sides, and nobody else has ended these waits. */
	assert_memory_equal(got->waits[SAMPLING_RELEASED], got->waits[SAMPLING_N_WAITS],
			    sizeof(got->waits[0]));
}

/* ---- the verdict ---- */

__attribute__((format(printf, 2, 3))) static void wrong(struct sums *sums, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	sums->n_wrong++;
}

static void judge_heap(struct sums *sums, unsigned stack, size_t value)
{
	const struct law *law = &sums->laws[stack][value];
	double sum = sums->heap[stack][value], square = sums->squares[stack][value];
	double least = log(LEVEL / N_COMPARISONS / 2), mean, spread;

	if (law->sigma == 0) {
		if (square != 0)
			wrong(sums, "leaf_%u value %zu: not exact\n", stack, value);
		return;
	}
	mean = law_tail(law, N_RUNS, sum, false);
	spread = law_tail(law, N_RUNS, square, true);
	print_message("leaf_%-2u value %zu: truth %.0f, mean %.1f (%+.2f standard errors), "
		      "variance %.2f of the predicted\n",
		      stack, value, law->mean, law->mean + sum / N_RUNS * law->sigma,
		      sum / sqrt(N_RUNS), square / N_RUNS);
	if (mean < least || spread < least)
		wrong(sums,
		      "leaf_%u value %zu: chances below exp(%.1f) and exp(%.1f), %.1f wanted\n",
		      stack, value, mean, spread, least);
}

static void judge_waits(struct sums *sums, size_t row, size_t value)
{
	const struct wait_sums *wait = &sums->waits[row];
	size_t kind = row == SAMPLING_N_WAITS ? SAMPLING_RELEASED : row;
	double least = log(LEVEL / N_COMPARISONS / 2), z = law_normal_limit(LEVEL / N_COMPARISONS);
	double slack = value ? N_RUNS * STAMP_NS * (double)sampling_waits[kind].n : 0;
	double variance = wait->variance[value], off = wait->off[value];
	double tail = law_bennett(fabs(off) - slack, variance, wait->largest[value]);
	double excess = N_RUNS * wait->fourth[value] / variance / variance;
	double ratio = wait->square[value] / variance;
	double spread = (ratio - 1) / sqrt(fmax(2 + excess, 1) / N_RUNS);

	print_message("wait_%zu%s value %zu: truth %.0f, mean %.1f (%+.2f standard errors), "
		      "variance %.2f of the predicted (%+.2f), excess %.1f\n",
		      row, row == SAMPLING_N_WAITS ? " (mutex)" : "", value,
		      wait->truth[value] / N_RUNS, (wait->truth[value] + off) / N_RUNS,
		      off / sqrt(variance), ratio, spread, excess);
	if (tail < least || (excess < MAX_EXCESS && fabs(spread) > z))
		wrong(sums, "wait_%zu value %zu: chance below exp(%.1f), %.1f wanted\n", row, value,
		      tail, least);
}

static void judge(struct sums *sums, const struct way *way)
{
	for (unsigned s = 0; s < SAMPLING_N_STACKS; s++)
		for (size_t v = 0; v < N_HEAP_VALUES; v++)
			judge_heap(sums, s, v);
	for (size_t row = 0; !way->without_returns && row < N_WAIT_ROWS; row++)
		for (size_t v = 0; v < N_WAIT_VALUES; v++)
			judge_waits(sums, row, v);
}

static void check_way(const struct way *way)
{
	static struct sums sums;
	struct estimates got;
	struct sampling_target target;

	memset(&sums, 0, sizeof(sums));
	for (unsigned s = 0; s < SAMPLING_N_STACKS; s++)
		for (size_t v = 0; v < N_HEAP_VALUES; v++)
			make_law(&sums.laws[s][v], way, s, v);
	sampling_target_start(&target, DP_SAMPLING);
	for (uint64_t seed = 1; seed <= N_RUNS; seed++) {
		/* What was lost says nothing about chance. */
		while (!run(&target, way, seed, &got))
			assert_true(++sums.n_lost_runs <= MAX_LOST_RUNS);
		take_heap(&sums, &got);
		if (!way->without_returns)
			take_waits(&sums, &got, &target.waits);
	}
	sampling_target_end(&target);
	judge(&sums, way);
	for (unsigned s = 0; s < SAMPLING_N_STACKS; s++)
		for (size_t v = 0; v < N_HEAP_VALUES; v++)
			law_free(&sums.laws[s][v]);
	assert_int_equal(sums.n_wrong, 0);
}

static void check_sampler(enum dp_sampler_mode sampler)
{
	check_way(&(struct way){.sampler = sampler});
}

/* Whether this build has the sampler of that name: DP_SAMPLERS, as in tests/live/harness.py. */
static bool has_sampler(const char *name)
{
	const char *samplers = getenv("DP_SAMPLERS");

	return strstr(samplers ? samplers : "direct", name);
}

static void estimates_of_the_direct_sampler_are_unbiased_and_spread_as_predicted(void **state)
{
	(void)state;
	if (!has_sampler("direct"))
		skip();
	check_sampler(DP_SAMPLER_DIRECT);
}

static void estimates_of_the_kernel_sampler_are_unbiased_and_spread_as_predicted(void **state)
{
	(void)state;
	if (!has_sampler("kernel"))
		skip();
	check_sampler(DP_SAMPLER_KERNEL);
}

static void the_same_where_the_kernel_has_no_sessions(void **state)
{
	(void)state;
	if (!has_sampler("kernel"))
		skip();
	check_sampler(DP_SAMPLER_KERNEL_EVENTS);
}

/* Of calls that jump into others too: what is one call is drawn once. */
static void without_returns_allocations_are_unbiased(void **state)
{
	(void)state;
	if (!has_sampler("kernel"))
		skip();
	check_way(&(struct way){.sampler = DP_SAMPLER_KERNEL, .without_returns = true});
}

/* With an argument the cases without returns, which take their time too, and else the others. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			estimates_of_the_direct_sampler_are_unbiased_and_spread_as_predicted),
		cmocka_unit_test(
			estimates_of_the_kernel_sampler_are_unbiased_and_spread_as_predicted),
		cmocka_unit_test(the_same_where_the_kernel_has_no_sessions),
		cmocka_unit_test(without_returns_allocations_are_unbiased),
	};
	int r = perf_must_skip();

	(void)argv;
	if (argc > 1)
		cmocka_set_test_filter("without_*");
	else
		cmocka_set_skip_filter("without_*");

	return r ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
