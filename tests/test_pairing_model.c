/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "tests/pairing_program.h"

/* The interval's values by site, 0 where there is no row; the last is what the allocator did. */
static void read_interval(const struct program *p, struct dp_delta *delta,
			  int64_t ret[N_SITES + 1][DP_DELTA_MAX_VALUES])
{
	const struct dp_delta_row *rows;
	size_t n;

	memset(ret, 0, (N_SITES + 1) * sizeof(ret[0]));
	dp_delta_begin(delta);
	assert_int_equal(dp_heap_feed(p->heap, delta), 0);
	assert_int_equal(dp_delta_end(delta, &rows, &n), 0);
	for (size_t i = 0; i < n; i++)
		memcpy(ret[rows[i].stack], rows[i].values, sizeof(ret[0]));
	dp_delta_commit(delta);
}

/* One interval of @delta must be what sites from @first_site on did since the last; all else is 0.
 */
static void check_interval(struct program *p, struct dp_delta *delta, struct truth *last,
			   uint32_t first_site)
{
	int64_t got[N_SITES + 1][DP_DELTA_MAX_VALUES];

	read_interval(p, delta, got);
	for (uint32_t site = first_site; site < N_SITES; site++) {
		const int64_t *now = p->truth.values[site];
		const int64_t *then = last->values[site];

		assert_int_equal(got[site][0], now[0] - then[0]);
		assert_int_equal(got[site][1], now[1] - then[1]);
		assert_int_equal(got[site][2], now[2]);
		assert_int_equal(got[site][3], now[3]);
	}
	if (first_site == 0) /* from inside the allocator */
		assert_int_equal(got[N_SITES][0], 0);
	*last = p->truth;
}

static void check_stats(const struct program *p)
{
	const struct dp_pairing_stats *s = dp_pairing_get_stats(p->pairing);

	assert_int_equal(s->n_entries, s->n_calls + s->n_failed + s->n_nested + s->n_abandoned +
					       s->n_forgotten + s->n_no_room +
					       dp_pairing_pending(p->pairing));
}

static struct dp_delta *new_delta(void)
{
	const struct dp_delta_spec spec = dp_heap_delta_spec(N_SITES + 1);
	struct dp_delta *delta = NULL;

	assert_int_equal(dp_delta_new(&delta, &spec), 0);
	return delta;
}

static void every_interval_is_what_the_program_did(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 150; seed++) {
		struct dp_delta *delta = new_delta();
		struct truth last = {0};
		struct program p;

		program_open(&p, seed);
		for (int interval = 0; interval < 5; interval++) {
			program_run(&p, 300);
			program_return_to_the_top(&p);
			check_interval(&p, delta, &last, 0);
		}
		check_stats(&p);
		assert_int_equal(dp_pairing_get_stats(p.pairing)->n_calls, p.truth.n_calls);
		assert_int_equal(dp_pairing_get_stats(p.pairing)->n_unpaired_returns, 0);
		assert_int_equal(dp_heap_get_stats(p.heap)->n_replaced, 0);
		assert_int_equal(dp_pairing_pending(p.pairing), 0);
		dp_delta_free(delta);
		program_close(&p);
	}
}

/*
 * While events are lost, anything may be counted wrong, but nothing breaks; what is called
 * afterwards, from other places, is counted right again. The profiler is told of the loss, or it
 * has only the evidence that the threads were back in their top frames.
 */
static void check_after_loss(uint64_t seed, unsigned drop_percent, bool told)
{
	struct dp_delta *delta = new_delta();
	struct truth last = {0};
	struct program p;

	program_open(&p, seed);
	p.drop_percent = drop_percent;
	program_run(&p, 1000);
	p.drop_percent = 0;
	if (told)
		dp_pairing_gap(p.pairing);
	else
		program_return_to_the_top(&p);
	p.first_site = N_SITES / 2;
	for (int interval = 0; interval < 3; interval++) {
		program_run(&p, 300);
		program_return_to_the_top(&p);
		check_interval(&p, delta, &last, N_SITES / 2);
	}
	check_stats(&p);
	dp_delta_free(delta);
	program_close(&p);
}

static void lost_events_that_were_reported_do_not_poison_what_follows(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 100; seed++)
		check_after_loss(seed, 1 + (unsigned)(seed % 40), true);
}

static void lost_events_that_nobody_reported_do_not_poison_what_follows(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 100; seed++)
		check_after_loss(seed, 1 + (unsigned)(seed % 40), false);
}

/* One interval without returns: what each site called that may succeed, and nothing in use. */
static void check_entries(struct program *p, struct dp_delta *delta, struct truth *last,
			  uint32_t first_site)
{
	int64_t got[N_SITES + 1][DP_DELTA_MAX_VALUES];

	read_interval(p, delta, got);
	for (uint32_t site = first_site; site < N_SITES; site++) {
		for (int i = 0; i < 2; i++)
			assert_int_equal(got[site][i],
					 p->truth.entered[site][i] - last->entered[site][i]);
		assert_int_equal(got[site][2], 0);
		assert_int_equal(got[site][3], 0);
	}
	if (first_site == 0)
		assert_int_equal(got[N_SITES][0], 0);
	*last = p->truth;
}

static void entries_alone_tell_every_call_that_the_program_made(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 150; seed++) {
		struct dp_delta *delta = new_delta();
		struct truth last = {0};
		struct program p;

		program_open(&p, seed);
		program_deliver_entries_only(&p);
		for (int interval = 0; interval < 5; interval++) {
			program_run(&p, 300);
			check_entries(&p, delta, &last, 0);
		}
		check_stats(&p);
		assert_int_equal(dp_pairing_pending(p.pairing), 0);
		assert_true(dp_pairing_get_stats(p.pairing)->n_nested > 100);
		assert_int_equal(dp_heap_get_stats(p.heap)->n_live, 0);
		dp_delta_free(delta);
		program_close(&p);
	}
}

static void lost_entries_do_not_poison_what_follows(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 100; seed++) {
		struct dp_delta *delta = new_delta();
		struct truth last = {0};
		struct program p;

		program_open(&p, seed);
		program_deliver_entries_only(&p);
		p.drop_percent = 1 + (unsigned)(seed % 40);
		program_run(&p, 1000);
		p.drop_percent = 0;
		p.first_site = N_SITES / 2;
		dp_pairing_gap(p.pairing);
		check_entries(&p, delta, &last, N_SITES / 2);
		program_run(&p, 300);
		check_entries(&p, delta, &last, N_SITES / 2);
		check_stats(&p);
		dp_delta_free(delta);
		program_close(&p);
	}
}

/* The model is worth something only if it does all of it. */
static void the_program_does_everything(void **state)
{
	const struct dp_pairing_stats *s;
	struct program p;

	(void)state;
	program_open(&p, 1);
	program_run(&p, 20000);
	s = dp_pairing_get_stats(p.pairing);
	assert_true(s->n_calls > 5000 && s->n_nested > 2000 && s->n_failed > 500);
	assert_true(s->n_abandoned > 100);
	assert_true(dp_heap_get_stats(p.heap)->n_untracked > 100);
	assert_true(dp_heap_get_stats(p.heap)->n_frees > 3000);
	assert_true(p.next_tid > 50);
	for (uint32_t site = 0; site < N_KINDS * 3; site++)
		assert_true(p.truth.values[site][0] > 50);
	program_close(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_program_does_everything),
		cmocka_unit_test(every_interval_is_what_the_program_did),
		cmocka_unit_test(lost_events_that_were_reported_do_not_poison_what_follows),
		cmocka_unit_test(lost_events_that_nobody_reported_do_not_poison_what_follows),
		cmocka_unit_test(entries_alone_tell_every_call_that_the_program_made),
		cmocka_unit_test(lost_entries_do_not_poison_what_follows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
