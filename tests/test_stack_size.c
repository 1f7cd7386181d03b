/* SPDX-License-Identifier: MIT */
/* The choice of how much of each stack is copied, on stacks of this very process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/stack_size.h"

#define SECOND UINT64_C(1000000000)
#define NOW (1000 * SECOND)

static void note(struct dp_stack_size *size, unsigned n, enum dp_unwind_end end, uint64_t n_bytes,
		 uint64_t sp)
{
	const struct dp_unwind_result result = {.end = end, .n_bytes = n_bytes};

	for (unsigned i = 0; i < n; i++)
		dp_stack_size_note(size, &result, sp);
}

static uint32_t choose(struct dp_stack_size *size, uint32_t bytes, uint64_t now_ns)
{
	return dp_stack_size_choose(size, getpid(), bytes, now_ns);
}

static void as_long_as_stacks_are_whole_the_size_stays(void **state)
{
	struct dp_stack_size size = {0};

	(void)state;
	note(&size, 5000, DP_UNWIND_OUTERMOST, 7000, 0);
	note(&size, 5, DP_UNWIND_STACK_CUT, 0, 0);
	assert_int_equal(choose(&size, 8192, NOW), 8192);
}

static void cut_stacks_get_what_lies_above_their_stack_pointer(void **state)
{
	struct dp_stack_size size = {0};
	uint8_t here = 0;
	uint32_t chosen;

	(void)state;
	note(&size, 1000, DP_UNWIND_OUTERMOST, 3000, 0);
	note(&size, 10, DP_UNWIND_STACK_CUT, 0, (uint64_t)(uintptr_t)&here);
	chosen = choose(&size, 1024, NOW);
	/* This test's own stack is a few KiB deep, however much lies in front of it. */
	assert_in_range(chosen, 3000, 16384);
	/* It begins to count again. */
	assert_int_equal(size.n_seen, 0);
}

static void cut_stacks_of_unknown_threads_get_twice_as_much(void **state)
{
	struct dp_stack_size size = {0};

	(void)state;
	note(&size, 100, DP_UNWIND_OUTERMOST, 3000, 0);
	note(&size, 10, DP_UNWIND_STACK_CUT, 0, 16);
	assert_in_range(choose(&size, 8192, NOW), 2 * 8192, 2 * 8192 + DP_STACK_SIZE_STEP);
}

static void no_more_is_asked_than_the_kernel_copies(void **state)
{
	struct dp_stack_size size = {0};

	(void)state;
	note(&size, 10, DP_UNWIND_STACK_CUT, 0, 16);
	assert_int_equal(choose(&size, 60416, NOW), DP_STACK_SIZE_MAX);
	note(&size, 10, DP_UNWIND_STACK_CUT, 0, 16);
	assert_int_equal(choose(&size, DP_STACK_SIZE_MAX, NOW + SECOND), DP_STACK_SIZE_MAX);
}

static void it_does_not_look_all_the_time(void **state)
{
	struct dp_stack_size size = {.looked_ns = NOW};

	(void)state;
	note(&size, 10, DP_UNWIND_STACK_CUT, 0, 16);
	assert_int_equal(choose(&size, 8192, NOW + SECOND / 1000), 8192);
	assert_true(choose(&size, 8192, NOW + SECOND) > 8192);
}

static void a_guess_is_within_its_bounds(void **state)
{
	(void)state;
	assert_in_range(dp_stack_size_guess(getpid()), DP_STACK_SIZE_MIN, DP_STACK_SIZE_FIRST_MAX);
	/* Of a process that is gone nothing is known. */
	assert_int_equal(dp_stack_size_guess(0), DP_STACK_SIZE_FIRST);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_long_as_stacks_are_whole_the_size_stays),
		cmocka_unit_test(cut_stacks_get_what_lies_above_their_stack_pointer),
		cmocka_unit_test(cut_stacks_of_unknown_threads_get_twice_as_much),
		cmocka_unit_test(no_more_is_asked_than_the_kernel_copies),
		cmocka_unit_test(it_does_not_look_all_the_time),
		cmocka_unit_test(a_guess_is_within_its_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
