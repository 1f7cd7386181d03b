/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "src/allocator.h"

static const struct dp_alloc_function *find(const char *name)
{
	size_t n;
	const struct dp_alloc_function *functions = dp_alloc_functions(&n);

	for (size_t i = 0; i < n; i++) {
		if (strcmp(functions[i].name, name) == 0)
			return &functions[i];
	}
	fail_msg("%s is not in the table", name);
	return NULL;
}

static void assert_function(const char *name, enum dp_alloc_kind kind, uint64_t expected_size)
{
	static const uint64_t args[3] = {3, 5, 7};
	const struct dp_alloc_function *function = find(name);

	assert_int_equal(function->kind, kind);
	assert_int_equal(dp_alloc_size(function, args), expected_size);
}

static void every_function_has_its_kind_and_size(void **state)
{
	size_t n;

	(void)state;
	assert_function("malloc", DP_ALLOC_NEW, 3);
	assert_function("calloc", DP_ALLOC_NEW, 15);
	assert_function("realloc", DP_ALLOC_RESIZE, 5);
	assert_function("reallocarray", DP_ALLOC_RESIZE, 35);
	assert_function("free", DP_ALLOC_FREE, 0);
	assert_function("free_sized", DP_ALLOC_FREE, 0);
	assert_function("free_aligned_sized", DP_ALLOC_FREE, 0);
	assert_function("dallocx", DP_ALLOC_FREE, 0);
	assert_function("sdallocx", DP_ALLOC_FREE, 0);
	assert_function("memalign", DP_ALLOC_NEW, 5);
	assert_function("aligned_alloc", DP_ALLOC_NEW, 5);
	assert_function("posix_memalign", DP_ALLOC_OUT, 7);
	assert_function("valloc", DP_ALLOC_NEW, 3);
	assert_function("pvalloc", DP_ALLOC_NEW, 3);
	dp_alloc_functions(&n);
	assert_int_equal(n, 14);
}

static void pointers_and_alignments_are_where_the_prototypes_have_them(void **state)
{
	(void)state;
	assert_int_equal(find("free")->i_pointer, 0);
	assert_int_equal(find("realloc")->i_pointer, 0);
	assert_int_equal(find("reallocarray")->i_pointer, 0);
	assert_int_equal(find("posix_memalign")->i_pointer, 0);
	assert_int_equal(find("posix_memalign")->i_align, 1);
	assert_int_equal(find("memalign")->i_align, 0);
	assert_int_equal(find("aligned_alloc")->i_align, 0);
	assert_int_equal(find("malloc")->i_pointer, -1);
	assert_int_equal(find("malloc")->i_align, -1);
}

static void a_product_that_overflows_is_the_size_that_nothing_has(void **state)
{
	const uint64_t wraps_to_zero[3] = {UINT64_C(1) << 32, UINT64_C(1) << 32, 0};
	const uint64_t just_fits[3] = {UINT64_C(1) << 32, (UINT64_C(1) << 32) - 1, 0};

	(void)state;
	assert_int_equal(dp_alloc_size(find("calloc"), wraps_to_zero), UINT64_MAX);
	assert_int_equal(dp_alloc_size(find("calloc"), just_fits), UINT64_MAX - UINT32_MAX);
}

static void the_positions_fit_the_arguments_that_an_event_has(void **state)
{
	size_t n;
	const struct dp_alloc_function *functions = dp_alloc_functions(&n);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		assert_true(functions[i].i_size < 3 && functions[i].i_count < 3);
		assert_true(functions[i].i_pointer < 3 && functions[i].i_align < 3);
		if (functions[i].kind == DP_ALLOC_OUT)
			assert_true(functions[i].i_align >= 0);
		if (functions[i].kind == DP_ALLOC_RESIZE || functions[i].kind == DP_ALLOC_FREE)
			assert_true(functions[i].i_pointer >= 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_function_has_its_kind_and_size),
		cmocka_unit_test(pointers_and_alignments_are_where_the_prototypes_have_them),
		cmocka_unit_test(a_product_that_overflows_is_the_size_that_nothing_has),
		cmocka_unit_test(the_positions_fit_the_arguments_that_an_event_has),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
