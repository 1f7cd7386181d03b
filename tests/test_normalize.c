/* SPDX-License-Identifier: MIT */
#include <limits.h>
#include <linux/perf_event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/frame.h"
#include "symbolize/normalize.h"

/* A process that does not exist: its ranges are what the test adds. */
#define NO_PID INT_MAX

#define PROGRAM UINT64_C(0x400000)	 /* 0x10000 bytes, file offset 0x1000 */
#define LIBRARY UINT64_C(0x7f0000000000) /* 0x20000 bytes, file offset 0 */
#define JIT UINT64_C(0x7e0000000000)	 /* 0x1000 bytes, anonymous */
#define TRAMPOLINE UINT64_C(0x7fffffffe000)
#define USER ((uint64_t)PERF_CONTEXT_USER)
#define KERNEL ((uint64_t)PERF_CONTEXT_KERNEL)

struct fixture {
	struct dp_modules *modules;
	struct dp_space *space;
	struct dp_normalize_stats stats;
	uint64_t frames[DP_STACK_MAX_FRAMES + 2];
	size_t n;
};

static struct fixture f;

static int set_up(void **state)
{
	(void)state;
	memset(&f, 0, sizeof(f));
	assert_int_equal(dp_modules_new(&f.modules), 0);
	assert_int_equal(dp_space_new(&f.space, f.modules, NO_PID), 0);
	assert_int_equal(
		dp_space_add(f.space, PROGRAM, PROGRAM + 0x10000, 0x1000, "/program", NULL), 0);
	assert_int_equal(dp_space_add(f.space, LIBRARY, LIBRARY + 0x20000, 0, "/library", NULL), 0);
	assert_int_equal(dp_space_add(f.space, JIT, JIT + 0x1000, 0, "//anon", NULL), 0);
	f.frames[DP_STACK_MAX_FRAMES + 1] = 0x5a5a;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	assert_int_equal(f.frames[DP_STACK_MAX_FRAMES + 1], 0x5a5a);
	dp_space_free(f.space);
	dp_modules_free(f.modules);
	return 0;
}

static void normalize(const uint64_t *chain, size_t n, uint64_t stack0, size_t max)
{
	f.n = dp_normalize_entry(f.space, chain, n, stack0, max, f.frames, &f.stats);
	assert_true(f.n <= DP_STACK_MAX_FRAMES + 1);
}

#define NORMALIZE(stack0, ...)                     \
	normalize((const uint64_t[]){__VA_ARGS__}, \
		  sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t), (stack0), 127)

static void assert_frames(const uint64_t *wanted, size_t n)
{
	assert_int_equal(f.n, n);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(f.frames[i], wanted[i]);
}

#define FRAMES(...)                                    \
	assert_frames((const uint64_t[]){__VA_ARGS__}, \
		      sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

/* Modules are numbered in the order of set_up(). */
#define IN_PROGRAM(offset) (UINT64_C(1) << 48 | (0x1000 + (offset)))
#define IN_LIBRARY(offset) (UINT64_C(2) << 48 | (offset))

static void normalize_looks_return_addresses_up_at_the_call(void **state)
{
	(void)state;
	NORMALIZE(0, USER, LIBRARY + 0x100, LIBRARY + 0x200, PROGRAM + 0x300);
	FRAMES(IN_LIBRARY(0x100), IN_LIBRARY(0x1ff), IN_PROGRAM(0x2ff));
	assert_int_equal(f.stats.n_frames, 3);
}

static void normalize_looks_up_at_the_call_across_the_end_of_a_range(void **state)
{
	(void)state;
	/* The call was the last instruction: its return address is behind the range. */
	NORMALIZE(0, USER, LIBRARY, PROGRAM + 0x10000, LIBRARY + 0x20000);
	FRAMES(IN_LIBRARY(0), IN_PROGRAM(0xffff), IN_LIBRARY(0x1ffff));
	/* A return address at the very start is no call of this range. */
	NORMALIZE(0, USER, LIBRARY, LIBRARY, PROGRAM + 5);
	FRAMES(IN_LIBRARY(0), LIBRARY - 1, IN_PROGRAM(4));
	assert_int_equal(f.stats.n_frames_unmapped, 1);
}

static void normalize_puts_the_immediate_caller_in(void **state)
{
	(void)state;
	NORMALIZE(PROGRAM + 0x50, USER, LIBRARY + 0x100, PROGRAM + 0x300);
	FRAMES(IN_LIBRARY(0x100), IN_PROGRAM(0x4f), IN_PROGRAM(0x2ff));
	assert_int_equal(f.stats.n_frames, 3);
}

static void normalize_does_not_double_the_immediate_caller(void **state)
{
	(void)state;
	NORMALIZE(PROGRAM + 0x50, USER, LIBRARY + 0x100, PROGRAM + 0x50, PROGRAM + 0x300);
	FRAMES(IN_LIBRARY(0x100), IN_PROGRAM(0x4f), IN_PROGRAM(0x2ff));
	/* Further out the same address is another call (recursion). */
	NORMALIZE(PROGRAM + 0x50, USER, LIBRARY + 0x100, PROGRAM + 0x300, PROGRAM + 0x50);
	FRAMES(IN_LIBRARY(0x100), IN_PROGRAM(0x4f), IN_PROGRAM(0x2ff), IN_PROGRAM(0x4f));
}

static void normalize_puts_the_caller_in_where_the_chain_has_one_frame(void **state)
{
	(void)state;
	NORMALIZE(PROGRAM + 0x50, USER, LIBRARY + 0x100);
	FRAMES(IN_LIBRARY(0x100), IN_PROGRAM(0x4f));
	NORMALIZE(0, USER, LIBRARY + 0x100);
	FRAMES(IN_LIBRARY(0x100));
}

static void normalize_gives_nothing_only_without_chain_and_caller(void **state)
{
	(void)state;
	normalize(NULL, 0, 0, 127);
	assert_int_equal(f.n, 0);
	NORMALIZE(0, KERNEL, UINT64_C(0xffffffff81000000));
	assert_int_equal(f.n, 0);
	NORMALIZE(0, USER);
	assert_int_equal(f.n, 0);
	NORMALIZE(TRAMPOLINE, USER);
	assert_int_equal(f.n, 0);
	normalize(NULL, 0, PROGRAM + 0x50, 127);
	FRAMES(IN_PROGRAM(0x4f));
	NORMALIZE(PROGRAM + 0x50, KERNEL, UINT64_C(0xffffffff81000000));
	FRAMES(IN_PROGRAM(0x4f));
}

static void normalize_takes_the_user_part_only(void **state)
{
	(void)state;
	NORMALIZE(0, KERNEL, UINT64_C(0xffffffff81000000), UINT64_C(0xffffffff81000010), USER,
		  LIBRARY + 0x100, PROGRAM + 0x300, KERNEL, UINT64_C(0xffffffff81000020));
	FRAMES(IN_LIBRARY(0x100), IN_PROGRAM(0x2ff));
	/* Every other marker ends the user part, also one that is not known yet. */
	NORMALIZE(0, USER, LIBRARY + 0x100, (uint64_t)-4095, PROGRAM + 0x300);
	FRAMES(IN_LIBRARY(0x100));
	NORMALIZE(0, USER, LIBRARY + 0x100, (uint64_t)PERF_CONTEXT_GUEST_USER, PROGRAM + 0x300);
	FRAMES(IN_LIBRARY(0x100));
	/* The lowest word that is no marker is an address. */
	NORMALIZE(0, USER, LIBRARY + 0x100, (uint64_t)-4096, PROGRAM + 0x300);
	assert_int_equal(f.n, 3);
}

static void normalize_takes_a_chain_without_markers_as_user(void **state)
{
	(void)state;
	NORMALIZE(0, LIBRARY + 0x100, PROGRAM + 0x300);
	FRAMES(IN_LIBRARY(0x100), IN_PROGRAM(0x2ff));
	/* But what precedes the first marker is not known to be. */
	NORMALIZE(0, PROGRAM + 0x20, USER, LIBRARY + 0x100);
	FRAMES(IN_LIBRARY(0x100));
}

static void normalize_drops_pending_return_probes(void **state)
{
	(void)state;
	NORMALIZE(TRAMPOLINE, USER, LIBRARY + 0x100, TRAMPOLINE, PROGRAM + 0x300);
	FRAMES(IN_LIBRARY(0x100), IN_PROGRAM(0x2ff));
	assert_int_equal(f.stats.n_trampolines, 1);
	NORMALIZE(TRAMPOLINE, USER, LIBRARY + 0x100, PROGRAM + 0x300);
	FRAMES(IN_LIBRARY(0x100), IN_PROGRAM(0x2ff));
	assert_int_equal(f.stats.n_trampolines, 2);
	NORMALIZE(PROGRAM + 0x50, USER, LIBRARY + 0x100, PROGRAM + 0x300, TRAMPOLINE + 0xfff,
		  PROGRAM + 0x400);
	FRAMES(IN_LIBRARY(0x100), IN_PROGRAM(0x4f), IN_PROGRAM(0x2ff), IN_PROGRAM(0x3ff));
	assert_int_equal(f.stats.n_trampolines, 3);
	assert_int_equal(f.stats.n_frames_unmapped, 0);
}

static void normalize_ends_at_a_zero(void **state)
{
	(void)state;
	NORMALIZE(0, USER, LIBRARY + 0x100, PROGRAM + 0x300, 0, PROGRAM + 0x400);
	FRAMES(IN_LIBRARY(0x100), IN_PROGRAM(0x2ff));
	NORMALIZE(PROGRAM + 0x50, USER, 0, PROGRAM + 0x400);
	FRAMES(IN_PROGRAM(0x4f));
}

static void normalize_keeps_code_without_a_file(void **state)
{
	(void)state;
	NORMALIZE(0, USER, LIBRARY + 0x100, JIT + 0x10, JIT + 0x20);
	FRAMES(IN_LIBRARY(0x100), JIT + 0xf, JIT + 0x1f);
	assert_int_equal(f.stats.n_frames_unmapped, 0);
	assert_int_equal(f.stats.n_frames_invented, 0);
}

static void normalize_keeps_unmapped_frames_between_mapped_ones(void **state)
{
	(void)state;
	NORMALIZE(0, USER, LIBRARY + 0x100, 0x1234, 0x5678, PROGRAM + 0x300);
	FRAMES(IN_LIBRARY(0x100), 0x1233, 0x5677, IN_PROGRAM(0x2ff));
	assert_int_equal(f.stats.n_frames_unmapped, 2);
	assert_int_equal(f.stats.n_frames_invented, 0);
	assert_int_equal(f.stats.n_frames, 4);
}

static void normalize_cuts_what_the_frame_pointer_walk_invented(void **state)
{
	(void)state;
	NORMALIZE(PROGRAM + 0x50, USER, LIBRARY + 0x100, 0x1234, PROGRAM + 0x300, 0x41414141,
		  UINT64_C(0x4141414141414141));
	FRAMES(IN_LIBRARY(0x100), IN_PROGRAM(0x4f), 0x1233, IN_PROGRAM(0x2ff));
	assert_int_equal(f.stats.n_frames_unmapped, 1);
	assert_int_equal(f.stats.n_frames_invented, 2);
	assert_int_equal(f.stats.n_frames, 4);
}

static void normalize_never_cuts_the_instruction_nor_its_caller(void **state)
{
	(void)state;
	NORMALIZE(0x9000, USER, 0x8000, 0xa000);
	FRAMES(0x8000, 0x8fff);
	assert_int_equal(f.stats.n_frames_unmapped, 2);
	assert_int_equal(f.stats.n_frames_invented, 1);
	NORMALIZE(0x9000, USER, 0x8000, 0x9000, 0xa000);
	FRAMES(0x8000, 0x8fff);
}

static void normalize_counts_stacks_that_reached_the_limit(void **state)
{
	const uint64_t chain[] = {USER, LIBRARY + 1, PROGRAM + 1, PROGRAM + 2};

	(void)state;
	normalize(chain, 4, 0, 4);
	assert_int_equal(f.stats.n_stacks_truncated, 0);
	normalize(chain, 4, 0, 3);
	assert_int_equal(f.stats.n_stacks_truncated, 1);
	assert_int_equal(f.n, 3);
}

static void normalize_writes_no_more_frames_than_there_is_room_for(void **state)
{
	uint64_t chain[2000];

	(void)state;
	for (size_t i = 0; i < 2000; i++)
		chain[i] = PROGRAM + 1 + i;
	normalize(chain, DP_STACK_MAX_FRAMES, LIBRARY + 0x100, 4000);
	assert_int_equal(f.n, DP_STACK_MAX_FRAMES + 1);
	assert_int_equal(f.frames[1], IN_LIBRARY(0xff));
	assert_int_equal(f.frames[DP_STACK_MAX_FRAMES], IN_PROGRAM(DP_STACK_MAX_FRAMES - 1));
	assert_int_equal(f.stats.n_stacks_truncated, 0);
	normalize(chain, 2000, LIBRARY + 0x100, 4000);
	assert_int_equal(f.n, DP_STACK_MAX_FRAMES + 1);
	assert_int_equal(f.stats.n_stacks_truncated, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(normalize_looks_return_addresses_up_at_the_call),
		TEST(normalize_looks_up_at_the_call_across_the_end_of_a_range),
		TEST(normalize_puts_the_immediate_caller_in),
		TEST(normalize_does_not_double_the_immediate_caller),
		TEST(normalize_puts_the_caller_in_where_the_chain_has_one_frame),
		TEST(normalize_gives_nothing_only_without_chain_and_caller),
		TEST(normalize_takes_the_user_part_only),
		TEST(normalize_takes_a_chain_without_markers_as_user),
		TEST(normalize_drops_pending_return_probes),
		TEST(normalize_ends_at_a_zero),
		TEST(normalize_keeps_code_without_a_file),
		TEST(normalize_keeps_unmapped_frames_between_mapped_ones),
		TEST(normalize_cuts_what_the_frame_pointer_walk_invented),
		TEST(normalize_never_cuts_the_instruction_nor_its_caller),
		TEST(normalize_counts_stacks_that_reached_the_limit),
		TEST(normalize_writes_no_more_frames_than_there_is_room_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
