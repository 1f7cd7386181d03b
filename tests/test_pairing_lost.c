/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "tests/alloc_fail.h"
#include "tests/pairing_fixture.h"

/*
 * What pairing makes of events that never come: jumps out, lost records, ended threads, full tables
 * and failed allocations. Whatever happened, later calls count.
 */

static void a_jump_out_abandons_calls_that_a_higher_entry_proves_gone(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	enter(&f, "malloc", SP - 256, 3, 100, 0, 0);
	enter(&f, "malloc2", SP - 512, 3, 100, 0, 0);
	allocate(&f, 4, 10, 0x10000); /* at SP */
	assert_stack(&f, 3, 0, 0, 0, 0);
	assert_stack(&f, 4, 1, 10, 1, 10);
	assert_int_equal(stats(&f)->n_abandoned, 1);
	assert_int_equal(stats(&f)->n_nested, 1);
	tear_down(&f);
}

static void a_return_abandons_calls_below_it(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	/* The inner return is lost: the outer call is counted all the same. */
	enter(&f, "malloc2", SP, 3, 100, 0, 0);
	enter(&f, "malloc", SP - 64, 4, 116, 0, 0);
	leave(&f, "malloc2", SP, 0x10010);
	assert_stack(&f, 3, 1, 100, 1, 100);
	assert_int_equal(dp_pairing_pending(f.pairing), 0);
	/* A return of something unknown further up proves the outer call gone. */
	enter(&f, "malloc", SP, 3, 100, 0, 0);
	leave(&f, "malloc", SP + 64, 0x20000);
	assert_int_equal(stats(&f)->n_abandoned, 1);
	assert_int_equal(stats(&f)->n_unpaired_returns, 1);
	assert_stack(&f, 3, 1, 100, 1, 100);
	tear_down(&f);
}

static void a_lost_entry_leaves_a_return_unpaired(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	leave(&f, "malloc", SP, 0x10000);
	assert_int_equal(stats(&f)->n_unpaired_returns, 1);
	/* Inside another call it changes nothing, at the same sp neither. */
	enter(&f, "malloc2", SP, 3, 100, 0, 0);
	leave(&f, "malloc", SP - 64, 0x20000);
	leave(&f, "malloc", SP, 0x20000);
	leave(&f, "malloc2", SP, 0x20010);
	assert_int_equal(stats(&f)->n_unpaired_returns, 3);
	assert_stack(&f, 3, 1, 100, 1, 100);
	tear_down(&f);
}

static void the_same_function_at_the_same_sp_proves_a_lost_return(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	enter(&f, "malloc", SP, 3, 100, 0, 0);
	enter(&f, "malloc", SP, 3, 200, 0, 0);
	leave(&f, "malloc", SP, 0x10000);
	assert_stack(&f, 3, 1, 200, 1, 200);
	assert_int_equal(stats(&f)->n_abandoned, 1);
	tear_down(&f);
}

static void a_lost_return_inside_a_chain_discards_what_came_after_it(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	enter(&f, "reallocarray", SP, 3, 0, 10, 7);
	jump_into(&f, "realloc", SP, 0, 70);
	jump_into(&f, "malloc", SP, 70, 0);
	leave(&f, "realloc", SP, 0x10000);
	leave(&f, "malloc", SP, 0x10000);
	leave(&f, "realloc", SP, 0x10000);
	assert_int_equal(stats(&f)->n_unpaired_returns, 2);
	leave(&f, "reallocarray", SP, 0x10000);
	assert_stack(&f, 3, 1, 70, 1, 70);
	tear_down(&f);
}

/* Not a tail jump: a call instruction has pushed an address of its own. */
static void another_function_at_the_same_sp_proves_a_lost_return_by_its_caller(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	enter(&f, "realloc", SP, 3, 0, 100, 0);
	enter(&f, "malloc", SP, 4, 200, 0, 0);
	leave(&f, "malloc", SP, 0x10000);
	assert_stack(&f, 3, 0, 0, 0, 0);
	assert_stack(&f, 4, 1, 200, 1, 200);
	assert_int_equal(stats(&f)->n_abandoned, 1);
	tear_down(&f);
}

/* A lost return far up the stack, and nothing ever enters that high again. */
static void a_call_with_a_thousand_calls_inside_is_not_believed(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	enter(&f, "malloc", SP + 0x10000, 3, 100, 0, 0);
	for (uint64_t i = 1; i <= 1100; i++)
		allocate(&f, 4, 1, i << 16);
	assert_stack(&f, 4, 100, 100, 100, 100);
	assert_int_equal(stats(&f)->n_abandoned, 1);
	assert_int_equal(stats(&f)->n_nested, 1000);
	tear_down(&f);
}

static void an_abandoned_resize_has_freed_its_old_object(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	allocate(&f, 2, 50, 0x10000);
	enter(&f, "reallocarray", SP - 64, 3, 0x10000, 10, 7);
	jump_into(&f, "realloc", SP - 64, 0x10000, 70);
	allocate(&f, 4, 10, 0x20000); /* at SP: both are gone */
	assert_stack(&f, 2, 1, 50, 0, 0);
	assert_stack(&f, 3, 0, 0, 0, 0);
	assert_int_equal(dp_heap_get_stats(f.heap)->n_live, 1);
	tear_down(&f);
}

static void after_a_gap_a_pending_call_is_closed_by_its_return(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	allocate(&f, 2, 50, 0x10000);
	enter(&f, "realloc", SP, 3, 0x10000, 100, 0);
	dp_pairing_gap(f.pairing);
	assert_int_equal(dp_pairing_pending(f.pairing), 1);
	leave(&f, "realloc", SP, 0x20000);
	assert_stack(&f, 2, 1, 50, 0, 0);
	assert_stack(&f, 3, 1, 100, 1, 100);
	/* The doubt is gone with the call. */
	enter(&f, "posix_memalign", SP, 4, 0x1000, 16, 8);
	enter(&f, "malloc", SP - 64, 5, 8, 0, 0);
	assert_int_equal(stats(&f)->n_nested, 1);
	assert_int_equal(stats(&f)->n_forgotten, 0);
	tear_down(&f);
}

static void after_a_gap_the_next_entry_forgets_what_was_pending_in_its_thread(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	allocate(&f, 2, 50, 0x10000);
	enter(&f, "realloc", SP, 3, 0x10000, 100, 0);
	for (uint32_t tid = 2; tid < 10; tid++)
		assert_int_equal(try_enter(&f, tid, "malloc", SP, CODE + 4, 10, 0, 0), 0);
	dp_pairing_gap(f.pairing);
	assert_int_equal(dp_pairing_pending(f.pairing), 9);
	/* Deeper, as if it were inside the pending call: it counts by itself. */
	enter(&f, "malloc", SP - 64, 5, 7, 0, 0);
	assert_int_equal(stats(&f)->n_forgotten, 1);
	assert_stack(&f, 2, 1, 50, 0, 0);
	leave(&f, "malloc", SP - 64, 0x30000);
	assert_stack(&f, 5, 1, 7, 1, 7);
	leave(&f, "realloc", SP, 0x20000);
	assert_int_equal(stats(&f)->n_unpaired_returns, 1);
	assert_stack(&f, 3, 0, 0, 0, 0);
	assert_int_equal(dp_pairing_pending(f.pairing), 8);
	tear_down(&f);
}

static void a_call_that_was_jumped_to_from_a_lost_one_is_forgotten(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	/* The entry of reallocarray, which holds the caller, is lost. */
	jump_into(&f, "realloc", SP, 0, 70);
	assert_int_equal(stats(&f)->n_forgotten, 1);
	assert_int_equal(f.n_interned, 0);
	leave(&f, "realloc", SP, 0x10000);
	leave(&f, "reallocarray", SP, 0x10000);
	assert_int_equal(stats(&f)->n_unpaired_returns, 2);
	allocate(&f, 5, 7, 0x30000);
	assert_stack(&f, 5, 1, 7, 1, 7);
	tear_down(&f);
}

static void a_thread_that_ends_abandons_its_call(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	allocate(&f, 2, 50, 0x10000);
	enter(&f, "realloc", SP, 3, 0x10000, 100, 0);
	dp_pairing_thread_exit(f.pairing, 1);
	dp_pairing_thread_exit(f.pairing, 1);
	dp_pairing_thread_exit(f.pairing, 99);
	assert_int_equal(stats(&f)->n_abandoned, 1);
	assert_int_equal(dp_pairing_pending(f.pairing), 0);
	assert_stack(&f, 2, 1, 50, 0, 0);
	/* The id is given to another thread. */
	allocate(&f, 5, 7, 0x30000);
	assert_stack(&f, 5, 1, 7, 1, 7);
	tear_down(&f);
}

static void calls_nested_beyond_the_bound_are_counted_and_do_no_harm(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	for (uint64_t i = 0; i < 300; i++)
		enter(&f, i % 2 ? "malloc" : "malloc2", SP - 64 * i, 3, 100 + i, 0, 0);
	assert_int_equal(stats(&f)->n_nested, 127);
	assert_int_equal(stats(&f)->n_no_room, 172);
	for (uint64_t i = 300; i-- > 0;)
		leave(&f, i % 2 ? "malloc" : "malloc2", SP - 64 * i, 0x10000 + i);
	assert_int_equal(stats(&f)->n_unpaired_returns, 172);
	assert_stack(&f, 3, 1, 100, 1, 100);
	tear_down(&f);
}

static void threads_beyond_the_bound_are_counted_and_idle_ones_make_room(void **state)
{
	struct fixture f;

	(void)state;
	set_up_with(&f, 1, 4);
	/* 100 threads one after the other: none is in the way of the next. */
	for (uint32_t tid = 1; tid <= 100; tid++) {
		assert_int_equal(try_enter(&f, tid, "malloc", SP, CODE + 3, 10, 0, 0), 0);
		assert_int_equal(try_leave(&f, tid, "malloc", SP, tid << 16, 0), 0);
	}
	assert_stack(&f, 3, 100, 1000, 100, 1000);
	assert_int_equal(stats(&f)->n_no_room, 0);
	/* 6 at once: two have no room, and their returns find nothing. */
	for (uint32_t tid = 1; tid <= 6; tid++)
		assert_int_equal(try_enter(&f, tid, "malloc", SP, CODE + 4, 10, 0, 0), 0);
	assert_int_equal(stats(&f)->n_no_room, 2);
	for (uint32_t tid = 1; tid <= 6; tid++)
		assert_int_equal(try_leave(&f, tid, "malloc", SP, tid << 24, 0), 0);
	assert_int_equal(stats(&f)->n_unpaired_returns, 2);
	assert_stack(&f, 4, 4, 40, 4, 40);
	tear_down(&f);
}

static void any_thread_id_is_a_thread(void **state)
{
	const uint32_t tids[] = {0, 1, UINT32_MAX, 0x80000000u};
	struct fixture f;

	(void)state;
	set_up(&f);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(try_enter(&f, tids[i], "malloc", SP, CODE + 3, 10, 0, 0), 0);
	assert_int_equal(dp_pairing_pending(f.pairing), 4);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(try_leave(&f, tids[i], "malloc", SP, (i + 1) << 16, 0), 0);
	assert_stack(&f, 3, 4, 40, 4, 40);
	tear_down(&f);
}

static int try_new(void)
{
	struct dp_pairing *const untouched = (struct dp_pairing *)&errno;
	struct dp_pairing *pairing = untouched;
	int r = dp_pairing_new(&pairing, NULL, 10, fixture_intern, NULL);

	if (r < 0)
		assert_ptr_equal(pairing, untouched);
	else
		dp_pairing_free(pairing);
	return r;
}

/* The events of 40 threads with nested calls, one allocation failing anywhere. */
static void a_failed_allocation_loses_one_call_and_nothing_else(void **state)
{
	bool happened = true;

	(void)state;
	ALLOC_FAIL_EACH(try_new());
	for (unsigned long k = 1; happened; k++) {
		struct fixture f;
		int64_t n_lost = 0;

		set_up(&f);
		alloc_fail_at(k);
		for (uint32_t tid = 1; tid <= 40; tid++) {
			bool lost = false;

			for (uint64_t i = 0; i < 20; i++)
				lost |= try_enter(&f, tid, i % 2 ? "malloc" : "malloc2",
						  SP - 64 * i, CODE + 3, 10, 0, 0) == -ENOMEM;
			for (uint64_t i = 20; i-- > 0;)
				lost |= try_leave(&f, tid, i % 2 ? "malloc" : "malloc2",
						  SP - 64 * i, (tid << 16) + i, 0) == -ENOMEM;
			n_lost += lost;
		}
		happened = alloc_fail_happened();
		alloc_fail_at(0);
		/* Failed in the table of live objects it costs the address only. */
		assert_int_equal(n_lost + (int64_t)dp_heap_get_stats(f.heap)->n_live_overflow,
				 happened);
		assert_int_equal(dp_pairing_pending(f.pairing), 0);
		tear_down(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_jump_out_abandons_calls_that_a_higher_entry_proves_gone),
		cmocka_unit_test(a_return_abandons_calls_below_it),
		cmocka_unit_test(a_lost_entry_leaves_a_return_unpaired),
		cmocka_unit_test(the_same_function_at_the_same_sp_proves_a_lost_return),
		cmocka_unit_test(a_lost_return_inside_a_chain_discards_what_came_after_it),
		cmocka_unit_test(
			another_function_at_the_same_sp_proves_a_lost_return_by_its_caller),
		cmocka_unit_test(a_call_with_a_thousand_calls_inside_is_not_believed),
		cmocka_unit_test(an_abandoned_resize_has_freed_its_old_object),
		cmocka_unit_test(a_call_that_was_jumped_to_from_a_lost_one_is_forgotten),
		cmocka_unit_test(after_a_gap_a_pending_call_is_closed_by_its_return),
		cmocka_unit_test(after_a_gap_the_next_entry_forgets_what_was_pending_in_its_thread),
		cmocka_unit_test(a_thread_that_ends_abandons_its_call),
		cmocka_unit_test(calls_nested_beyond_the_bound_are_counted_and_do_no_harm),
		cmocka_unit_test(threads_beyond_the_bound_are_counted_and_idle_ones_make_room),
		cmocka_unit_test(any_thread_id_is_a_thread),
		cmocka_unit_test(a_failed_allocation_loses_one_call_and_nothing_else),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
