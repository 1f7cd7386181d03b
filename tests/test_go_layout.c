/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "src/go_layout.h"

static unsigned minor_of(const char *version)
{
	unsigned minor;

	assert_int_equal(dp_go_layout_parse(version, &minor), 0);
	return minor;
}

static struct dp_go_layout layout_of(unsigned minor)
{
	struct dp_go_layout layout;

	assert_true(dp_go_layout_get(minor, &layout) >= 0);
	assert_int_equal(layout.minor, minor);
	return layout;
}

static void versions_of_every_kind_are_understood(void **state)
{
	(void)state;
	assert_int_equal(minor_of("go1.16"), 16);
	assert_int_equal(minor_of("go1.24.4"), 24);
	assert_int_equal(minor_of("go1.25rc1"), 25);
	assert_int_equal(minor_of("go1.26-fips X:boringcrypto"), 26);
	assert_int_equal(minor_of("devel go1.28-abcdef0 Mon Jan 2"), 28);
}

static void what_is_no_version_of_go_1_is_refused(void **state)
{
	static const char *const versions[] = {"",	   "go2.1",    "devel +abcdef Tue",
					       "go1.",	   "go1.x",    "1.24",
					       "devel go", "gccgo1.2", "unknown"};
	unsigned minor = 5;

	(void)state;
	for (size_t i = 0; i < sizeof(versions) / sizeof(*versions); i++)
		assert_int_equal(dp_go_layout_parse(versions[i], &minor), -ENOTSUP);
	assert_int_equal(minor, 5);
}

static void a_version_older_than_1_16_is_refused_and_a_newer_one_is_the_newest(void **state)
{
	struct dp_go_layout layout;

	(void)state;
	assert_int_equal(dp_go_layout_get(15, &layout), -ENOTSUP);
	assert_int_equal(dp_go_layout_get(27, &layout), 0);
	assert_int_equal(dp_go_layout_get(28, &layout), 1);
	assert_int_equal(layout.minor, 28);
	assert_int_equal(layout.cycle_bytes, 16);
}

static void cycles_lost_their_bytes_in_1_27(void **state)
{
	(void)state;
	for (unsigned minor = 16; minor <= 26; minor++)
		assert_int_equal(layout_of(minor).cycle_bytes, 32);
	assert_int_equal(layout_of(27).cycle_bytes, 16);
}

static void counts_became_real_in_1_17_and_mutexes_scaled_in_1_20(void **state)
{
	(void)state;
	assert_false(layout_of(16).count_is_double);
	assert_true(layout_of(17).count_is_double);
	assert_false(layout_of(19).mutex_is_scaled);
	assert_true(layout_of(20).mutex_is_scaled);
	assert_false(layout_of(23).trims_internal_runtime);
	assert_true(layout_of(24).trims_internal_runtime);
}

static void ticks_moved_in_1_20_and_1_22(void **state)
{
	(void)state;
	assert_int_equal(layout_of(19).ticks_value, 16);
	assert_int_equal(layout_of(21).ticks_value, 8);
	assert_int_equal(layout_of(21).ticks_start, 0);
	assert_int_equal(layout_of(22).ticks_value, 24);
	assert_int_equal(layout_of(22).ticks_start, 8);
	assert_int_equal(layout_of(22).ticks_start_time, 16);
}

static void a_goroutine_s_words_are_where_each_version_has_them(void **state)
{
	(void)state;
	assert_int_equal(layout_of(22).g_goid, 152);
	assert_int_equal(layout_of(23).g_goid, 160);
	assert_int_equal(layout_of(24).g_goid, 160);
	assert_int_equal(layout_of(25).g_goid, 152);
	assert_int_equal(layout_of(24).g_sched_bp, 104);
	assert_int_equal(layout_of(25).g_sched_bp, 96);
	assert_int_equal(layout_of(27).g_sched_pc, 64);
}

static void reasons_have_each_version_s_number(void **state)
{
	(void)state;
	assert_int_equal(layout_of(19).wait_reasons[DP_GO_MUTEX_LOCK], DP_GO_NO_REASON);
	assert_int_equal(layout_of(20).wait_reasons[DP_GO_MUTEX_LOCK], 21);
	assert_int_equal(layout_of(23).wait_reasons[DP_GO_WAITGROUP_WAIT], DP_GO_NO_REASON);
	assert_int_equal(layout_of(24).wait_reasons[DP_GO_WAITGROUP_WAIT], 24);
	assert_int_equal(layout_of(25).wait_reasons[DP_GO_SEMACQUIRE], 19);
	assert_int_equal(layout_of(25).wait_reasons[DP_GO_SELECT], 9);
	assert_int_equal(layout_of(26).wait_reasons[DP_GO_SELECT], 18);
	assert_int_equal(layout_of(26).wait_reasons[DP_GO_CHAN_RECEIVE], 19);
	assert_int_equal(layout_of(27).wait_reasons[DP_GO_SYNCTEST_WAITGROUP], 45);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(versions_of_every_kind_are_understood),
		cmocka_unit_test(what_is_no_version_of_go_1_is_refused),
		cmocka_unit_test(
			a_version_older_than_1_16_is_refused_and_a_newer_one_is_the_newest),
		cmocka_unit_test(cycles_lost_their_bytes_in_1_27),
		cmocka_unit_test(counts_became_real_in_1_17_and_mutexes_scaled_in_1_20),
		cmocka_unit_test(ticks_moved_in_1_20_and_1_22),
		cmocka_unit_test(a_goroutine_s_words_are_where_each_version_has_them),
		cmocka_unit_test(reasons_have_each_version_s_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
