/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "perf/twins.h"

#define US 1000u

static struct dp_event entry(uint32_t tid, uint64_t size, uint64_t time_ns)
{
	return (struct dp_event){.type = DP_EVENT_ALLOC_ENTRY,
				 .tid = tid,
				 .time_ns = time_ns,
				 .entry = {.probe_avma = 4096,
					   .args = {size, 2},
					   .sp = 0x7ffd00000000,
					   .stack0 = 8192}};
}

static struct dp_event waking(uint32_t tid, uint32_t wakee, uint64_t time_ns)
{
	return (struct dp_event){.type = DP_EVENT_WAKING,
				 .tid = tid,
				 .time_ns = time_ns,
				 .waking = {.wakee_tid = wakee}};
}

static struct dp_event other(enum dp_event_type type, uint32_t tid)
{
	return (struct dp_event){.type = type, .tid = tid};
}

static void of_both_records_of_a_hit_the_second_is_told(void **state)
{
	struct dp_twins twins = {{0}};

	(void)state;
	for (int new_first = 0; new_first < 2; new_first++) {
		struct dp_event event = entry(7, 24, 100 * US);

		assert_false(dp_twins_is_second(&twins, &event, new_first));
		event.time_ns += 3 * US;
		assert_true(dp_twins_is_second(&twins, &event, !new_first));
	}
	dp_twins_clear(&twins);
}

static void hits_that_only_one_set_recorded_are_all_kept(void **state)
{
	struct dp_twins twins = {{0}};

	(void)state;
	for (int i = 0; i < 5; i++) {
		struct dp_event event = entry(7, 24, (100 + 20 * (uint64_t)i) * US);

		assert_false(dp_twins_is_second(&twins, &event, i >= 3));
		event = other(DP_EVENT_ALLOC_RETURN, 7);
		dp_twins_separate(&twins, &event);
	}
	dp_twins_clear(&twins);
}

static void other_threads_and_other_calls_are_no_twins(void **state)
{
	struct dp_twins twins = {{0}};
	struct dp_event first = entry(7, 24, 100 * US), thread = entry(8, 24, 101 * US),
			call = entry(7, 25, 102 * US);

	(void)state;
	assert_false(dp_twins_is_second(&twins, &first, false));
	assert_false(dp_twins_is_second(&twins, &thread, true));
	assert_false(dp_twins_is_second(&twins, &call, true));
	dp_twins_clear(&twins);
}

static void what_lies_further_apart_than_a_standstill_is_no_twin(void **state)
{
	struct dp_twins twins = {{0}};
	struct dp_event first = waking(7, 9, 100 * US), soon = waking(7, 9, 5100 * US),
			again = waking(7, 9, 5200 * US), late = waking(7, 9, 40000 * US);

	(void)state;
	assert_false(dp_twins_is_second(&twins, &first, false));
	assert_true(dp_twins_is_second(&twins, &soon, true));
	assert_false(dp_twins_is_second(&twins, &again, false));
	assert_false(dp_twins_is_second(&twins, &late, true));
	dp_twins_clear(&twins);
}

static void an_event_of_another_type_lies_between_without_parting_them(void **state)
{
	struct dp_twins twins = {{0}};
	struct dp_event first = entry(7, 24, 100 * US), wake = waking(7, 9, 101 * US);

	(void)state;
	assert_false(dp_twins_is_second(&twins, &first, true));
	assert_false(dp_twins_is_second(&twins, &wake, true));
	assert_true(dp_twins_is_second(&twins, &first, false));
	assert_true(dp_twins_is_second(&twins, &wake, false));
	dp_twins_clear(&twins);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(of_both_records_of_a_hit_the_second_is_told),
		cmocka_unit_test(hits_that_only_one_set_recorded_are_all_kept),
		cmocka_unit_test(other_threads_and_other_calls_are_no_twins),
		cmocka_unit_test(what_lies_further_apart_than_a_standstill_is_no_twin),
		cmocka_unit_test(an_event_of_another_type_lies_between_without_parting_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
