/* SPDX-License-Identifier: MIT */
/*
 * The unwinder against glibc's own: the registers and a copy of the stack are taken in the very
 * function that calls backtrace(), in several situations, and every frame must be the same.
 */
#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/alloc_fail.h"
#include "tests/own_stack.h"

#define MAX_FRAMES 200
#define MAX_STACK_BYTES 65536

/* What was taken, and what backtrace() said in the same place. */
static struct {
	struct dp_unwind_sample sample;
	uint8_t stack[MAX_STACK_BYTES];
	void *expected[MAX_FRAMES];
	int n_expected;
	uintptr_t stack_end; /* of the thread's stack */
} taken;

static int set_up(void **state)
{
	struct own_process *process = calloc(1, sizeof(*process));

	assert_non_null(process);
	own_process_open(process);
	*state = process;
	return 0;
}

static int tear_down(void **state)
{
	own_process_close(*state);
	free(*state);
	return 0;
}

/* Copies the stack as the kernel would: over what the sanitizers put between variables, too. */
__attribute__((noinline, no_sanitize_address)) static void copy_stack(uintptr_t from,
								      size_t n_bytes)
{
	const volatile uint64_t *words = (const volatile uint64_t *)from;

	for (size_t i = 0; i < n_bytes / sizeof(*words); i++) {
		uint64_t word = words[i];

		for (size_t k = 0; k < sizeof(word); k++)
			taken.stack[i * sizeof(word) + k] = (uint8_t)(word >> 8 * k);
	}
}

/* Takes the sample: the leaf is this function, behind its call of getcontext(). */
__attribute__((noinline)) static void take(void)
{
	ucontext_t context;
	uintptr_t sp;

	taken.n_expected = backtrace(taken.expected, MAX_FRAMES);
	getcontext(&context);
	own_registers(&context, taken.sample.regs);
	sp = (uintptr_t)taken.sample.regs[7];
	taken.sample.stack_bytes = MAX_STACK_BYTES;
	if (sp < taken.stack_end && taken.stack_end - sp < MAX_STACK_BYTES)
		taken.sample.stack_bytes = taken.stack_end - sp;
	copy_stack(sp, taken.sample.stack_bytes);
	taken.sample.stack = taken.stack;
	taken.sample.leaf_is_call = true;
}

/*
 * Unwinds what was taken and compares: the first frame lies in take(), all others are
 * backtrace()'s, of which neither what a signal interrupted nor the C library's return from the
 * handler before it is a return address. @i_interrupted: index of the former; -1: none.
 */
static void expect_same(struct own_process *fixture, int i_interrupted)
{
	uint64_t frames[MAX_FRAMES];
	struct dp_unwind_result result;
	ptrdiff_t n = dp_unwind(fixture->unwinder, fixture->space, &taken.sample, frames,
				MAX_FRAMES, &result);
	int n_extra;

	assert_int_equal(result.end, DP_UNWIND_OUTERMOST);
	assert_true(taken.n_expected > 3);
	/* A sanitizer's backtrace() has a frame of its own in front. */
	n_extra = taken.n_expected - (int)n;
	assert_true(n_extra == 0 || n_extra == 1);
	for (int i = 1; i < n; i++) {
		uint64_t lookup =
			(uint64_t)taken.expected[i + n_extra] -
			(i_interrupted < 0 || (i != i_interrupted && i != i_interrupted - 1));

		assert_int_equal(frames[i], dp_space_frame(fixture->space, lookup));
	}
}

__attribute__((noinline)) static int recurse(int depth)
{
	volatile char room[64];
	int r;

	room[0] = (char)depth;
	if (depth == 0) {
		take();
		return room[0];
	}
	r = recurse(depth - 1);
	return r + room[0];
}

static void a_deep_recursion_is_unwound_to_the_start(void **state)
{
	recurse(100);
	expect_same(*state, -1);
}

__attribute__((noinline)) static int with_alloca(size_t n_bytes)
{
	volatile char *room = __builtin_alloca(n_bytes);

	room[n_bytes - 1] = 1;
	take();
	return room[n_bytes - 1];
}

static void a_frame_of_variable_size_is_unwound(void **state)
{
	volatile size_t n_bytes = 5000;

	with_alloca(n_bytes);
	expect_same(*state, -1);
}

__attribute__((noinline)) static int with_alignment(int x)
{
	_Alignas(256) volatile char room[512];

	room[0] = (char)x;
	take();
	return room[0];
}

static void a_frame_that_aligns_the_stack_is_unwound(void **state)
{
	with_alignment(3);
	expect_same(*state, -1);
}

static int compare(const void *a, const void *b)
{
	if (!taken.n_expected)
		take();
	return *(const int *)a - *(const int *)b;
}

static void a_call_back_from_the_c_library_is_unwound(void **state)
{
	int numbers[] = {3, 1, 2};

	taken.n_expected = 0;
	qsort(numbers, 3, sizeof(*numbers), compare);
	expect_same(*state, -1);
}

static void *thread_main(void *argument)
{
	(void)argument;
	taken.stack_end = own_stack_end();
	recurse(3);
	return NULL;
}

static void a_thread_is_unwound_to_its_start(void **state)
{
	uintptr_t end = taken.stack_end;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, thread_main, NULL), 0);
	pthread_join(thread, NULL);
	taken.stack_end = end;
	expect_same(*state, -1);
}

static void handle(int number)
{
	(void)number;
	take();
	__asm__ volatile(""); /* no tail call: a frame is wanted */
}

/* Leaf first: take, handle, the C library's return from a handler, and what was interrupted. */
#define I_INTERRUPTED 3

static void a_signal_handler_is_unwound_into_what_it_interrupted(void **state)
{
	struct sigaction action = {.sa_handler = handle};
	struct sigaction old;

	assert_int_equal(sigaction(SIGUSR1, &action, &old), 0);
	raise(SIGUSR1);
	sigaction(SIGUSR1, &old, NULL);
	expect_same(*state, I_INTERRUPTED);
}

static void a_copy_that_is_too_short_gives_the_beginning_and_says_so(void **state)
{
	struct own_process *fixture = *state;
	uint64_t whole[MAX_FRAMES], frames[MAX_FRAMES];
	struct dp_unwind_sample sample;
	struct dp_unwind_result result;
	ptrdiff_t n_whole, last = 0;

	recurse(10);
	n_whole = dp_unwind(fixture->unwinder, fixture->space, &taken.sample, whole, MAX_FRAMES,
			    &result);
	assert_int_equal(result.end, DP_UNWIND_OUTERMOST);
	sample = taken.sample;
	for (size_t n_bytes = 0; n_bytes < taken.sample.stack_bytes; n_bytes += 8) {
		ptrdiff_t n;

		sample.stack_bytes = n_bytes;
		n = dp_unwind(fixture->unwinder, fixture->space, &sample, frames, MAX_FRAMES,
			      &result);
		assert_true(n >= last && n <= n_whole);
		assert_true(n == n_whole || result.end == DP_UNWIND_STACK_CUT);
		assert_memory_equal(frames, whole, (size_t)n * sizeof(*frames));
		last = n;
		if (n == n_whole && result.end == DP_UNWIND_OUTERMOST)
			break;
	}
	assert_int_equal(last, n_whole);
}

static void as_many_frames_as_there_is_room_for_are_given(void **state)
{
	struct own_process *fixture = *state;
	uint64_t frames[5];
	struct dp_unwind_result result;

	recurse(10);
	assert_int_equal(
		dp_unwind(fixture->unwinder, fixture->space, &taken.sample, frames, 5, &result), 5);
	assert_int_equal(result.end, DP_UNWIND_LIMIT);
}

/* Stands for what the owner of the return probe knows. */
struct hidden {
	uint64_t avma, address;
};

static uint64_t look_up(void *context, uint64_t avma)
{
	const struct hidden *hidden = context;

	return avma == hidden->avma ? hidden->address : 0;
}

/* Puts a trampoline in the place of return address @address. */
static void hide(struct hidden *hidden, uint64_t address)
{
	const uint64_t trampoline = UINT64_C(0x7fffffffe000);

	for (size_t at = 0; at + 8 <= taken.sample.stack_bytes; at += 8) {
		uint64_t word;

		memcpy(&word, taken.stack + at, sizeof(word));
		if (word != address)
			continue;
		memcpy(taken.stack + at, &trampoline, sizeof(trampoline));
		*hidden = (struct hidden){taken.sample.regs[7] + at, address};
		return;
	}
	fail_msg("the return address is not on the stack");
}

static void a_pending_return_probes_trampoline_is_seen_through(void **state)
{
	struct own_process *fixture = *state;
	struct dp_unwind_stats stats;
	struct dp_unwind_sample sample;
	uint64_t frames[MAX_FRAMES];
	struct hidden hidden;
	struct dp_unwind_result result;

	recurse(1);
	hide(&hidden, (uint64_t)taken.expected[2]);
	sample = taken.sample;
	dp_unwind(fixture->unwinder, fixture->space, &sample, frames, MAX_FRAMES, &result);
	assert_int_equal(result.end, DP_UNWIND_BROKEN);
	sample.pending = look_up;
	sample.context = &hidden;
	taken.sample = sample;
	expect_same(fixture, -1);
	dp_unwinder_get_stats(fixture->unwinder, &stats);
	assert_int_equal(stats.n_trampolines, 1);
	hidden.avma++;
	dp_unwind(fixture->unwinder, fixture->space, &sample, frames, MAX_FRAMES, &result);
	assert_int_equal(result.end, DP_UNWIND_BROKEN);
	taken.sample.pending = NULL;
}

static void garbage_on_the_stack_ends_it(void **state)
{
	struct own_process *fixture = *state;
	uint64_t frames[MAX_FRAMES];
	struct dp_unwind_result result;
	unsigned random = 1;

	recurse(10);
	for (int round = 0; round < 2000; round++) {
		for (size_t i = 0; i < taken.sample.stack_bytes; i++) {
			random = random * 1664525u + 1013904223u;
			if (random >> 28 == 0)
				taken.stack[i] = (uint8_t)(random >> 16);
		}
		assert_true(dp_unwind(fixture->unwinder, fixture->space, &taken.sample, frames,
				      MAX_FRAMES, &result) >= 1);
	}
}

static void code_without_a_mapping_ends_it(void **state)
{
	struct own_process *fixture = *state;
	struct dp_unwind_sample sample = {.regs = {[7] = 4096, [16] = 0x10}};
	uint64_t frames[2];
	struct dp_unwind_result result;

	assert_int_equal(dp_unwind(fixture->unwinder, fixture->space, &sample, frames, 2, &result),
			 1);
	assert_int_equal(frames[0], 0x10);
	assert_int_equal(result.end, DP_UNWIND_NO_CFI);
}

static struct own_process *failing;

static int unwind_anew(void)
{
	struct dp_unwinder *unwinder = NULL;
	uint64_t frames[MAX_FRAMES];
	struct dp_unwind_result result;
	ptrdiff_t n;
	int r = dp_unwinder_new(&unwinder, failing->modules);

	if (r < 0)
		return r;
	n = dp_unwind(unwinder, failing->space, &taken.sample, frames, MAX_FRAMES, &result);
	dp_unwinder_free(unwinder);
	return n < 0 ? (int)n : 0;
}

static void a_failed_allocation_ends_the_stack_or_is_reported(void **state)
{
	failing = *state;
	recurse(3);
	/* What is only not remembered for want of memory is no failure. */
	for (unsigned long k = 1; k < 200; k++) {
		int r;

		alloc_fail_at(k);
		r = unwind_anew();
		if (!alloc_fail_happened()) {
			alloc_fail_at(0);
			assert_int_equal(r, 0);
			return;
		}
		alloc_fail_at(0);
		assert_true(r == 0 || r == -ENOMEM);
	}
	fail_msg("the allocations have no end");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_deep_recursion_is_unwound_to_the_start),
		cmocka_unit_test(a_frame_of_variable_size_is_unwound),
		cmocka_unit_test(a_frame_that_aligns_the_stack_is_unwound),
		cmocka_unit_test(a_call_back_from_the_c_library_is_unwound),
		cmocka_unit_test(a_thread_is_unwound_to_its_start),
		cmocka_unit_test(a_signal_handler_is_unwound_into_what_it_interrupted),
		cmocka_unit_test(a_copy_that_is_too_short_gives_the_beginning_and_says_so),
		cmocka_unit_test(as_many_frames_as_there_is_room_for_are_given),
		cmocka_unit_test(a_pending_return_probes_trampoline_is_seen_through),
		cmocka_unit_test(garbage_on_the_stack_ends_it),
		cmocka_unit_test(code_without_a_mapping_ends_it),
		cmocka_unit_test(a_failed_allocation_ends_the_stack_or_is_reported),
	};

	taken.stack_end = own_stack_end();
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
