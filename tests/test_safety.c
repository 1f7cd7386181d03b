/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/safety.h"

static void only_the_kernels_with_the_defect_are_refused(void **state)
{
	(void)state;
	assert_true(dp_safety_return_is_syscall("6.11.0"));
	assert_true(dp_safety_return_is_syscall("6.12.3-amd64"));
	assert_true(dp_safety_return_is_syscall("6.13"));
	assert_false(dp_safety_return_is_syscall("6.10.14"));
	assert_false(dp_safety_return_is_syscall("6.14.0-rc1"));
	assert_false(dp_safety_return_is_syscall("6.1.0-28-amd64"));
	assert_false(dp_safety_return_is_syscall("5.13.0"));
	assert_false(dp_safety_return_is_syscall("7.12.1"));
	assert_false(dp_safety_return_is_syscall("unknown"));
}

static void a_process_without_a_filter_is_never_refused(void **state)
{
	struct dp_error err;

	(void)state;
	assert_int_equal(dp_safety_check(getpid(), &err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_the_kernels_with_the_defect_are_refused),
		cmocka_unit_test(a_process_without_a_filter_is_never_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
