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
 * What calls mean where returns are not probed: an entry is all that is seen of a call. Allocation
 * functions are at INSIDE; a call from there is made by one.
 */

/* Thread 1 is jumped into @name by the call that it made last, from stack @stack. */
static void jump(struct fixture *f, const char *name, uint32_t stack, uint64_t a0, uint64_t a1)
{
	assert_int_equal(try_enter(f, 1, name, SP, CODE + stack, a0, a1, 0), 0);
}

/* Thread 1 calls @name from inside an allocation function. */
static void enter_inside(struct fixture *f, const char *name, uint64_t sp, uint64_t size)
{
	assert_int_equal(try_enter(f, 1, name, sp, INSIDE + 0x10, size, 0, 0), 0);
}

static void a_call_counts_when_it_is_entered(void **state)
{
	struct fixture f;

	(void)state;
	set_up_without_returns(&f, 100);
	enter(&f, "malloc", SP, 3, 100, 0, 0);
	assert_stack(&f, 3, 1, 100, 0, 0);
	assert_int_equal(dp_pairing_pending(f.pairing), 0);
	enter(&f, "malloc", SP, 3, 50, 0, 0);
	enter(&f, "calloc", SP - 256, 4, 10, 7, 0);
	enter(&f, "posix_memalign", SP, 5, 0x7ffc0000, 64, 300);
	assert_stack(&f, 3, 2, 150, 0, 0);
	assert_stack(&f, 4, 1, 70, 0, 0);
	assert_stack(&f, 5, 1, 300, 0, 0);
	assert_int_equal(stats(&f)->n_calls, 4);
	assert_int_equal(dp_heap_get_stats(f.heap)->n_seen, 4);
	assert_int_equal(dp_heap_get_stats(f.heap)->n_live, 0);
	tear_down(&f);
}

static void an_allocation_inside_another_counts_with_it(void **state)
{
	struct fixture f;

	(void)state;
	set_up_without_returns(&f, 100);
	enter(&f, "malloc2", SP, 3, 100, 0, 0);
	enter_inside(&f, "malloc", SP - 64, 116);
	enter_inside(&f, "malloc", SP - 64, 16); /* it makes as many as it likes */
	assert_stack(&f, 3, 1, 100, 0, 0);
	assert_int_equal(stats(&f)->n_nested, 2);
	assert_int_equal(dp_heap_get_stats(f.heap)->n_seen, 1);
	tear_down(&f);
}

/* Its last instruction may be the call: the return address is then behind the function. */
static void the_call_lies_before_its_return_address(void **state)
{
	struct fixture f;

	(void)state;
	set_up_without_returns(&f, 100);
	assert_int_equal(try_enter(&f, 1, "malloc", SP, INSIDE + INSIDE_BYTES, 10, 0, 0), 0);
	assert_int_equal(stats(&f)->n_nested, 1);
	assert_int_equal(try_enter(&f, 1, "malloc", SP, INSIDE, 10, 0, 0), 0);
	assert_int_equal(stats(&f)->n_nested, 1);
	tear_down(&f);
}

static void a_chain_of_tail_jumps_is_one_call_each_time(void **state)
{
	struct fixture f;

	(void)state;
	set_up_without_returns(&f, 100);
	for (int i = 0; i < 5; i++) {
		enter(&f, "reallocarray", SP, 3, 0, 10, 7);
		jump(&f, "realloc", 3, 0, 70);
		jump(&f, "malloc", 3, 70, 0);
	}
	assert_stack(&f, 3, 5, 350, 0, 0);
	assert_int_equal(stats(&f)->n_nested, 10);
	assert_int_equal(f.n_interned, 5);
	tear_down(&f);
}

/* A BPF session of another profiler traps returns in every process that has a breakpoint there. */
static void a_chain_is_one_call_where_others_probe_returns(void **state)
{
	struct fixture f;

	(void)state;
	set_up_without_returns(&f, 100);
	for (int i = 0; i < 5; i++) {
		enter(&f, "reallocarray", SP, 3, 0, 10, 7);
		jump_into(&f, "realloc", SP, 0, 70);
		jump_into(&f, "malloc", SP, 70, 0);
	}
	assert_stack(&f, 3, 5, 350, 0, 0);
	/* A function that is not ours, returns probed, jumps to malloc each time. */
	jump_into(&f, "malloc", SP - 64, 10, 0);
	jump_into(&f, "malloc", SP - 64, 10, 0);
	assert_int_equal(stats(&f)->n_calls, 7);
	tear_down(&f);
}

static void a_library_may_jump_into_the_next(void **state)
{
	struct fixture f;

	(void)state;
	set_up_without_returns(&f, 100);
	enter(&f, "malloc2", SP, 3, 100, 0, 0);
	jump(&f, "malloc", 3, 104, 0); /* room for a mark at the end */
	enter(&f, "valloc", SP, 3, 100, 0, 0);
	jump(&f, "memalign", 3, 4096, 100);
	jump(&f, "aligned_alloc", 3, 4096, 100);
	enter(&f, "aligned_alloc", SP, 3, 16, 100, 0);
	jump(&f, "malloc", 3, 100, 0); /* aligned enough */
	assert_stack(&f, 3, 3, 300, 0, 0);
	tear_down(&f);
}

/* A wrapper that jumps to one function or another is itself called from one place. */
static void what_cannot_be_a_jump_is_another_call(void **state)
{
	struct fixture f;

	(void)state;
	set_up_without_returns(&f, 100);
	enter(&f, "malloc", SP, 3, 100, 0, 0);
	jump(&f, "calloc", 3, 100, 1); /* from malloc, of all things */
	jump(&f, "malloc", 3, 100, 0); /* calloc has to clear what malloc gives */
	jump(&f, "realloc", 3, 0x10000, 100);
	jump(&f, "malloc", 3, 100, 0); /* not from a realloc that has an object */
	jump(&f, "realloc", 3, 0, 100);
	jump(&f, "malloc", 3, 50, 0);	       /* asks for less */
	jump(&f, "posix_memalign", 3, 64, 50); /* has to store what it gets */
	jump(&f, "aligned_alloc", 3, 64, 50);  /* that has not */
	jump(&f, "malloc", 3, 50, 0);	       /* is not aligned to 64 */
	jump(&f, "aligned_alloc", 3, 16, 50);
	jump(&f, "calloc", 3, 50, 1); /* clears for nobody */
	assert_int_equal(stats(&f)->n_nested, 0);
	assert_int_equal(stats(&f)->n_calls, 12);
	tear_down(&f);
}

static void a_jump_keeps_stack_pointer_return_address_and_thread(void **state)
{
	struct fixture f;

	(void)state;
	set_up_without_returns(&f, 100);
	enter(&f, "realloc", SP, 3, 0, 70, 0);
	enter(&f, "malloc", SP, 4, 70, 0, 0);
	enter(&f, "realloc", SP, 3, 0, 70, 0);
	enter(&f, "malloc", SP - 16, 3, 70, 0, 0);
	enter(&f, "realloc", SP, 3, 0, 70, 0);
	assert_int_equal(try_enter(&f, 2, "malloc", SP, CODE + 3, 70, 0, 0), 0);
	assert_int_equal(stats(&f)->n_nested, 0);
	jump(&f, "malloc", 3, 70, 0);
	assert_int_equal(stats(&f)->n_nested, 1);
	tear_down(&f);
}

static void a_resize_is_an_allocation_and_no_more(void **state)
{
	struct fixture f;

	(void)state;
	set_up_without_returns(&f, 100);
	enter(&f, "realloc", SP, 3, 0, 100, 0);
	enter(&f, "realloc", SP, 3, 0x10000, 200, 0);
	assert_stack(&f, 3, 2, 300, 0, 0);
	enter(&f, "realloc", SP, 3, 0x10000, 0, 0); /* frees */
	assert_stack(&f, 3, 2, 300, 0, 0);
	assert_int_equal(stats(&f)->n_failed, 1);
	enter(&f, "realloc", SP, 4, 0, 0, 0); /* an object of no bytes */
	assert_stack(&f, 4, 1, 0, 0, 0);
	tear_down(&f);
}

static void a_size_that_overflows_fails_for_certain(void **state)
{
	struct fixture f;

	(void)state;
	set_up_without_returns(&f, 100);
	enter(&f, "calloc", SP, 3, UINT64_C(1) << 40, UINT64_C(1) << 40, 0);
	assert_int_equal(stats(&f)->n_failed, 1);
	assert_int_equal(dp_heap_get_stats(f.heap)->n_seen, 0);
	tear_down(&f);
}

static void threads_come_and_go(void **state)
{
	struct fixture f;

	(void)state;
	set_up_without_returns(&f, 4);
	for (uint32_t tid = 1; tid <= 20; tid++) {
		assert_int_equal(try_enter(&f, tid, "realloc", SP, CODE + 3, 0, 10, 0), 0);
		assert_int_equal(try_enter(&f, tid, "malloc", SP, CODE + 3, 10, 0, 0), 0);
		dp_pairing_thread_exit(f.pairing, tid);
		dp_pairing_thread_exit(f.pairing, tid);
	}
	assert_stack(&f, 3, 20, 200, 0, 0);
	assert_int_equal(stats(&f)->n_abandoned, 0);
	tear_down(&f);
}

/* More threads than there is room for: their chains are not known, their calls count. */
static void beyond_the_bound_of_threads_calls_still_count(void **state)
{
	struct fixture f;

	(void)state;
	set_up_without_returns(&f, 4);
	for (uint32_t tid = 1; tid <= 20; tid++)
		assert_int_equal(try_enter(&f, tid, "malloc", SP, CODE + 3, 10, 0, 0), 0);
	assert_stack(&f, 3, 20, 200, 0, 0);
	assert_int_equal(stats(&f)->n_no_room, 0);
	dp_pairing_gap(f.pairing);
	assert_int_equal(try_enter(&f, 1, "malloc", SP, CODE + 3, 10, 0, 0), 0);
	assert_stack(&f, 3, 21, 210, 0, 0);
	tear_down(&f);
}

static void a_failed_allocation_loses_no_more_than_its_call(void **state)
{
	bool happened = true;

	(void)state;
	for (unsigned long k = 1; happened; k++) {
		struct fixture f;
		int64_t n_lost = 0;

		set_up_without_returns(&f, 100);
		alloc_fail_at(k);
		for (uint32_t tid = 1; tid <= 40; tid++)
			n_lost += try_enter(&f, tid, "malloc", SP, CODE + 3, 10, 0, 0) == -ENOMEM;
		happened = alloc_fail_happened();
		alloc_fail_at(0);
		assert_true(n_lost <= 1);
		assert_stack(&f, 3, 40 - n_lost, 10 * (40 - n_lost), 0, 0);
		tear_down(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_call_counts_when_it_is_entered),
		cmocka_unit_test(an_allocation_inside_another_counts_with_it),
		cmocka_unit_test(the_call_lies_before_its_return_address),
		cmocka_unit_test(a_chain_of_tail_jumps_is_one_call_each_time),
		cmocka_unit_test(a_chain_is_one_call_where_others_probe_returns),
		cmocka_unit_test(a_library_may_jump_into_the_next),
		cmocka_unit_test(what_cannot_be_a_jump_is_another_call),
		cmocka_unit_test(a_jump_keeps_stack_pointer_return_address_and_thread),
		cmocka_unit_test(a_resize_is_an_allocation_and_no_more),
		cmocka_unit_test(a_size_that_overflows_fails_for_certain),
		cmocka_unit_test(threads_come_and_go),
		cmocka_unit_test(beyond_the_bound_of_threads_calls_still_count),
		cmocka_unit_test(a_failed_allocation_loses_no_more_than_its_call),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
