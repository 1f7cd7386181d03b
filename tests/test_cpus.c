/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "perf/cpus.h"
#include "tests/alloc_fail.h"

static void expect(const char *text, const int *cpus, size_t n)
{
	int *got = NULL;
	size_t n_got = 0;

	assert_int_equal(dp_cpus_parse(text, &got, &n_got), 0);
	assert_int_equal(n_got, n);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(got[i], cpus[i]);
	free(got);
}

static void cpus_reads_the_kernels_lists(void **state)
{
	(void)state;
	expect("0\n", (int[]){0}, 1);
	expect("0-1\n", (int[]){0, 1}, 2);
	expect("0-3,8,10-11\n", (int[]){0, 1, 2, 3, 8, 10, 11}, 7);
	expect("5", (int[]){5}, 1);
}

static void cpus_refuses_what_is_no_list(void **state)
{
	static const char *const bad[] = {"",	"\n",  "a",  "3-1",	  "0-",
					  "0,", "0;1", "-1", "0-99999999"};
	int *got = NULL;
	size_t n_got = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(dp_cpus_parse(bad[i], &got, &n_got), -EBADMSG);
		assert_null(got);
	}
}

static void cpus_that_are_online_are_as_many_as_the_c_library_says(void **state)
{
	int *got = NULL;
	size_t n_got = 0;

	(void)state;
	assert_int_equal(dp_cpus_online(&got, &n_got), 0);
	assert_int_equal(n_got, sysconf(_SC_NPROCESSORS_ONLN));
	free(got);
}

static int parse_and_free(void)
{
	int *got = NULL;
	size_t n_got = 0;
	int r = dp_cpus_parse("0-99", &got, &n_got);

	if (r < 0)
		assert_null(got);
	free(got);
	return r;
}

static void cpus_reports_a_failed_allocation(void **state)
{
	(void)state;
	ALLOC_FAIL_EACH(parse_and_free());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cpus_reads_the_kernels_lists),
		cmocka_unit_test(cpus_refuses_what_is_no_list),
		cmocka_unit_test(cpus_that_are_online_are_as_many_as_the_c_library_says),
		cmocka_unit_test(cpus_reports_a_failed_allocation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
