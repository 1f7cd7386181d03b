/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/pairing_fixture.h"

/*
 * What calls mean when every event arrives. Each test ends in what the heap counted: alloc objects
 * and bytes, in-use objects and bytes, per stack.
 */

static void a_call_counts_when_it_returns(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	enter(&f, "malloc", SP, 3, 100, 0, 0);
	assert_int_equal(dp_pairing_pending(f.pairing), 1);
	assert_stack(&f, 3, 0, 0, 0, 0);
	leave(&f, "malloc", SP, 0x10000);
	assert_int_equal(dp_pairing_pending(f.pairing), 0);
	assert_stack(&f, 3, 1, 100, 1, 100);
	free_at(&f, 0x10000);
	assert_stack(&f, 3, 1, 100, 0, 0);
	assert_int_equal(stats(&f)->n_calls, 1);
	assert_int_equal(stats(&f)->n_returns, 1);
	tear_down(&f);
}

static void a_call_that_fails_counts_nothing(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	enter(&f, "malloc", SP, 3, 100, 0, 0);
	leave(&f, "malloc", SP, 0);
	assert_stack(&f, 3, 0, 0, 0, 0);
	assert_int_equal(stats(&f)->n_failed, 1);
	assert_int_equal(stats(&f)->n_calls, 0);
	tear_down(&f);
}

static void a_size_that_overflows_is_never_drawn(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	enter(&f, "calloc", SP, 3, UINT64_C(1) << 40, UINT64_C(1) << 40, 0);
	leave(&f, "calloc", SP, 0);
	assert_int_equal(dp_heap_get_stats(f.heap)->n_seen, 0);
	assert_int_equal(f.n_interned, 0);
	assert_int_equal(stats(&f)->n_failed, 1);
	tear_down(&f);
}

static void a_stack_is_interned_for_sampled_calls_only(void **state)
{
	struct fixture f;

	(void)state;
	set_up_with(&f, UINT64_C(1) << 40, 100);
	for (uint64_t i = 1; i <= 100; i++)
		allocate(&f, 3, 16, i << 16);
	assert_int_equal(f.n_interned, 0);
	assert_int_equal(dp_heap_get_stats(f.heap)->n_seen, 100);
	assert_int_equal(stats(&f)->n_calls, 100);
	allocate(&f, 3, UINT64_C(1) << 50, 0x10000); /* p is 1 to 400 digits */
	assert_int_equal(f.n_interned, 1);
	tear_down(&f);
}

static void an_unsampled_allocation_ends_what_was_live_at_its_address(void **state)
{
	struct fixture f;

	(void)state;
	set_up_with(&f, UINT64_C(1) << 40, 100);
	allocate(&f, 3, UINT64_C(1) << 50, 0x10000);
	allocate(&f, 4, 16, 0x10000);
	assert_int_equal(dp_heap_get_stats(f.heap)->n_replaced, 1);
	assert_int_equal(dp_heap_get_stats(f.heap)->n_live, 0);
	tear_down(&f);
}

static void an_allocation_inside_another_counts_with_it(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	/* A wrapper that puts a header of 16 bytes before each object, on top of another library.
	 */
	enter(&f, "malloc2", SP, 3, 100, 0, 0);
	enter(&f, "malloc", SP - 64, 4, 116, 0, 0);
	leave(&f, "malloc", SP - 64, 0x10000);
	leave(&f, "malloc2", SP, 0x10010);
	assert_stack(&f, 3, 1, 100, 1, 100);
	assert_stack(&f, 4, 0, 0, 0, 0);
	assert_int_equal(dp_heap_get_stats(f.heap)->n_seen, 1);
	assert_int_equal(stats(&f)->n_nested, 1);
	/* Its free frees the inner object too. */
	free_at(&f, 0x10010);
	free_at(&f, 0x10000);
	assert_stack(&f, 3, 1, 100, 0, 0);
	assert_int_equal(dp_heap_get_stats(f.heap)->n_frees_unknown, 1);
	tear_down(&f);
}

static void a_chain_of_tail_jumps_is_one_call(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	enter(&f, "reallocarray", SP, 3, 0, 10, 7);
	jump_into(&f, "realloc", SP, 0, 70);
	jump_into(&f, "malloc", SP, 70, 0);
	leave(&f, "malloc", SP, 0x10000);
	leave(&f, "realloc", SP, 0x10000);
	assert_stack(&f, 3, 0, 0, 0, 0);
	leave(&f, "reallocarray", SP, 0x10000);
	assert_stack(&f, 3, 1, 70, 1, 70);
	assert_int_equal(stats(&f)->n_nested, 2);
	tear_down(&f);
}

static void a_pending_calls_return_address_is_known_by_its_place(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	enter(&f, "reallocarray", SP, 3, 0, 10, 7);
	jump_into(&f, "realloc", SP, 0, 70);
	enter(&f, "malloc2", SP - 64, 5, 70, 0, 0);
	assert_int_equal(dp_pairing_return_address(f.pairing, 1, SP), CODE + 3);
	assert_int_equal(dp_pairing_return_address(f.pairing, 1, SP - 64), CODE + 5);
	assert_int_equal(dp_pairing_return_address(f.pairing, 1, SP - 8), 0);
	assert_int_equal(dp_pairing_return_address(f.pairing, 2, SP), 0);
	leave(&f, "malloc2", SP - 64, 0x10000);
	assert_int_equal(dp_pairing_return_address(f.pairing, 1, SP - 64), 0);
	leave(&f, "realloc", SP, 0x10000);
	leave(&f, "reallocarray", SP, 0x10000);
	assert_int_equal(dp_pairing_return_address(f.pairing, 1, SP), 0);
	tear_down(&f);
}

/* Where no return is trapped the second function of a chain sees the same return address. */
static void a_chain_is_known_by_its_return_address_too(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	enter(&f, "reallocarray", SP, 3, 0, 10, 7);
	enter(&f, "realloc", SP, 3, 0, 70, 0);
	leave(&f, "realloc", SP, 0x10000);
	leave(&f, "reallocarray", SP, 0x10000);
	assert_stack(&f, 3, 1, 70, 1, 70);
	assert_int_equal(stats(&f)->n_abandoned, 0);
	tear_down(&f);
}

static void a_chain_takes_the_old_object_once(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	allocate(&f, 2, 50, 0x10000);
	enter(&f, "reallocarray", SP, 3, 0x10000, 10, 7);
	jump_into(&f, "realloc", SP, 0x10000, 70);
	assert_stack(&f, 2, 1, 50, 1, 50);
	leave(&f, "realloc", SP, 0x20000);
	leave(&f, "reallocarray", SP, 0x20000);
	assert_stack(&f, 2, 1, 50, 0, 0);
	assert_stack(&f, 3, 1, 70, 1, 70);
	assert_int_equal(dp_heap_get_stats(f.heap)->n_frees, 1);
	tear_down(&f);
}

static void a_chain_that_fails_puts_the_old_object_back(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	allocate(&f, 2, 50, 0x10000);
	enter(&f, "reallocarray", SP, 3, 0x10000, 10, 7);
	jump_into(&f, "realloc", SP, 0x10000, 70);
	leave(&f, "realloc", SP, 0);
	leave(&f, "reallocarray", SP, 0);
	assert_stack(&f, 2, 1, 50, 1, 50);
	free_at(&f, 0x10000);
	assert_stack(&f, 2, 1, 50, 0, 0);
	tear_down(&f);
}

static void check_resize(uint64_t size, uint64_t retval, int64_t old_inuse, int64_t new_objects)
{
	struct fixture f;

	set_up(&f);
	allocate(&f, 2, 50, 0x10000);
	enter(&f, "realloc", SP, 3, 0x10000, size, 0);
	leave(&f, "realloc", SP, retval);
	assert_stack(&f, 2, 1, 50, old_inuse, 50 * old_inuse);
	assert_stack(&f, 3, new_objects, new_objects * (int64_t)size, new_objects,
		     new_objects * (int64_t)size);
	assert_int_equal(dp_heap_get_stats(f.heap)->n_replaced, 0);
	tear_down(&f);
}

static void a_resize_is_a_free_and_an_allocation(void **state)
{
	(void)state;
	check_resize(100, 0x20000, 0, 1); /* moved */
	check_resize(100, 0x10000, 0, 1); /* grown where it is */
	check_resize(20, 0x10000, 0, 1);  /* shrunk */
	check_resize(100, 0, 1, 0);	  /* failed */
	check_resize(0, 0, 0, 0);	  /* freed, as glibc does */
	check_resize(0, 0x20000, 0, 1);	  /* a new object of no bytes, as others do */
	check_resize(UINT64_MAX, 0, 1, 0);
}

static void a_resize_of_nothing_is_an_allocation(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	enter(&f, "realloc", SP, 3, 0, 100, 0);
	leave(&f, "realloc", SP, 0x10000);
	assert_stack(&f, 3, 1, 100, 1, 100);
	enter(&f, "realloc", SP, 4, 0x99990000, 100, 0); /* older than the attach */
	leave(&f, "realloc", SP, 0x20000);
	assert_stack(&f, 4, 1, 100, 1, 100);
	tear_down(&f);
}

/* The old object is freed somewhere inside realloc, before realloc returns. */
static void another_thread_may_get_the_old_address_before_a_resize_returns(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	allocate(&f, 2, 50, 0x10000);
	enter(&f, "realloc", SP, 3, 0x10000, 100, 0);
	assert_int_equal(try_enter(&f, 7, "malloc", SP + 0x100000, CODE + 4, 60, 0, 0), 0);
	assert_int_equal(try_leave(&f, 7, "malloc", SP + 0x100000, 0x10000, 0), 0);
	leave(&f, "realloc", SP, 0x20000);
	assert_stack(&f, 2, 1, 50, 0, 0);
	assert_stack(&f, 3, 1, 100, 1, 100);
	assert_stack(&f, 4, 1, 60, 1, 60);
	assert_int_equal(dp_heap_get_stats(f.heap)->n_replaced, 0);
	tear_down(&f);
}

/* A realloc made of malloc, copy and free. */
static void a_resize_may_free_the_old_object_by_itself(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	allocate(&f, 2, 50, 0x10000);
	enter(&f, "realloc", SP, 3, 0x10000, 100, 0);
	enter(&f, "malloc", SP - 64, 4, 100, 0, 0);
	leave(&f, "malloc", SP - 64, 0x20000);
	free_at(&f, 0x10000);
	leave(&f, "realloc", SP, 0x20000);
	assert_stack(&f, 2, 1, 50, 0, 0);
	assert_stack(&f, 3, 1, 100, 1, 100);
	tear_down(&f);
}

static void another_threads_object_can_be_freed(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	assert_int_equal(try_enter(&f, 7, "malloc", SP + 0x100000, CODE + 4, 60, 0, 0), 0);
	enter(&f, "malloc", SP, 3, 100, 0, 0);
	assert_int_equal(dp_pairing_pending(f.pairing), 2);
	assert_int_equal(try_leave(&f, 7, "malloc", SP + 0x100000, 0x10000, 0), 0);
	leave(&f, "malloc", SP, 0x20000);
	free_at(&f, 0x10000);
	assert_stack(&f, 3, 1, 100, 1, 100);
	assert_stack(&f, 4, 1, 60, 0, 0);
	tear_down(&f);
}

static void freeing_nothing_is_ignored(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	free_at(&f, 0);
	assert_int_equal(dp_heap_get_stats(f.heap)->n_frees_unknown, 0);
	tear_down(&f);
}

static void check_out(uint64_t align, uint64_t inner, uint64_t retval, uint64_t dx, bool counted,
		      uint64_t addr)
{
	struct fixture f;

	set_up(&f);
	enter(&f, "posix_memalign", SP, 3, 0x7ffc12345678, align, 100);
	if (inner) {
		enter(&f, "memalign", SP - 64, 4, align, 100, 0);
		leave(&f, "memalign", SP - 64, inner);
	}
	assert_int_equal(try_leave(&f, 1, "posix_memalign", SP, retval, dx), 0);
	assert_stack(&f, 3, counted, counted * 100, counted && addr, counted && addr ? 100 : 0);
	assert_int_equal(stats(&f)->n_failed, !counted);
	assert_int_equal(dp_heap_get_stats(f.heap)->n_untracked, counted && !addr);
	if (addr) {
		free_at(&f, addr);
		assert_stack(&f, 3, 1, 100, 0, 0);
	}
	tear_down(&f);
}

static void an_object_that_is_stored_is_the_one_that_an_inner_call_returned(void **state)
{
	(void)state;
	check_out(64, 0x10040, 0, 0, true, 0x10040);
	check_out(64, 0x10040, 0, 0x20000, true, 0x10040); /* before what lies in dx */
	check_out(64, 0x10010, 0, 0, true, 0);		   /* not aligned: not the one */
	check_out(64, 0x10010, 0, 0x20000, true, 0x20000);
}

static void an_object_that_is_stored_may_lie_in_the_third_argument_register(void **state)
{
	(void)state;
	check_out(64, 0, 0, 0x20040, true, 0x20040);
	check_out(64, 0, 0, 0x20010, true, 0); /* not aligned */
	check_out(16, 0, 0, 0x40, true, 0);    /* too small for an address */
	check_out(16, 0, 0, 0, true, 0);       /* of a library that leaves nothing there */
}

static void a_stored_object_fails_by_an_int_that_is_not_zero(void **state)
{
	(void)state;
	check_out(64, 0, 12, 0x20040, false, 0);
	check_out(3, 0, 22, 0x20040, false, 0);
	/* Only the lower half of the register is the int. */
	check_out(64, 0, UINT64_C(0xabcdef0100000000), 0x20040, true, 0x20040);
}

static void a_stored_object_comes_through_any_number_of_wrappers(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	enter(&f, "posix_memalign2", SP, 3, 0x7ffc12345678, 64, 100);
	enter(&f, "posix_memalign", SP - 64, 4, 0x7ffc12345678, 64, 100);
	enter(&f, "malloc", SP - 128, 5, 164, 0, 0);
	leave(&f, "malloc", SP - 128, 0x10000);
	enter(&f, "malloc", SP - 128, 5, 100, 0, 0);
	leave(&f, "malloc", SP - 128, 0); /* fails: the newest that did not is meant */
	leave(&f, "posix_memalign", SP - 64, 0);
	leave(&f, "posix_memalign2", SP, 0);
	assert_stack(&f, 3, 1, 100, 1, 100);
	free_at(&f, 0x10000);
	assert_stack(&f, 3, 1, 100, 0, 0);
	tear_down(&f);
}

static void nothing_can_be_freed(void **state)
{
	(void)state;
	dp_pairing_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_call_counts_when_it_returns),
		cmocka_unit_test(a_call_that_fails_counts_nothing),
		cmocka_unit_test(a_size_that_overflows_is_never_drawn),
		cmocka_unit_test(a_stack_is_interned_for_sampled_calls_only),
		cmocka_unit_test(an_unsampled_allocation_ends_what_was_live_at_its_address),
		cmocka_unit_test(an_allocation_inside_another_counts_with_it),
		cmocka_unit_test(a_chain_of_tail_jumps_is_one_call),
		cmocka_unit_test(a_pending_calls_return_address_is_known_by_its_place),
		cmocka_unit_test(a_chain_is_known_by_its_return_address_too),
		cmocka_unit_test(a_chain_takes_the_old_object_once),
		cmocka_unit_test(a_chain_that_fails_puts_the_old_object_back),
		cmocka_unit_test(a_resize_is_a_free_and_an_allocation),
		cmocka_unit_test(a_resize_of_nothing_is_an_allocation),
		cmocka_unit_test(another_thread_may_get_the_old_address_before_a_resize_returns),
		cmocka_unit_test(a_resize_may_free_the_old_object_by_itself),
		cmocka_unit_test(another_threads_object_can_be_freed),
		cmocka_unit_test(freeing_nothing_is_ignored),
		cmocka_unit_test(an_object_that_is_stored_is_the_one_that_an_inner_call_returned),
		cmocka_unit_test(an_object_that_is_stored_may_lie_in_the_third_argument_register),
		cmocka_unit_test(a_stored_object_fails_by_an_int_that_is_not_zero),
		cmocka_unit_test(a_stored_object_comes_through_any_number_of_wrappers),
		cmocka_unit_test(nothing_can_be_freed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
