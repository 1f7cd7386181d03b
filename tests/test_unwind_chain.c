/* SPDX-License-Identifier: MIT */
/*
 * Stacks that are longer than their copy, in code with frame pointers: the kernel's callchain,
 * which is made here as the kernel makes it, goes on where the copy ends.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/framed.h"
#include "tests/own_stack.h"

#define DEPTH 60
#define MAX_FRAMES 200
#define MAX_STACK_BYTES 65536
#define CONTEXT_USER ((uint64_t)-512)

static struct {
	struct dp_unwind_sample sample;
	uint8_t stack[MAX_STACK_BYTES];
	uint64_t callchain[MAX_FRAMES];
} taken;

static uint64_t word_at(uint64_t offset)
{
	uint64_t word;

	memcpy(&word, taken.stack + offset, sizeof(word));
	return word;
}

/* Follows the frame pointers, as the kernel does. */
static void make_callchain(void)
{
	uint64_t sp = taken.sample.regs[DP_UNWIND_REG_SP], bp = taken.sample.regs[DP_UNWIND_REG_BP];
	size_t n = 0;

	taken.callchain[n++] = CONTEXT_USER;
	taken.callchain[n++] = taken.sample.regs[DP_UNWIND_REG_PC];
	while (n < MAX_FRAMES && bp >= sp && bp - sp + 16 <= taken.sample.stack_bytes) {
		uint64_t outer = word_at(bp - sp);

		taken.callchain[n++] = word_at(bp - sp + 8);
		if (outer <= bp)
			break;
		bp = outer;
	}
	taken.sample.callchain = taken.callchain;
	taken.sample.n_callchain = n;
}

__attribute__((no_sanitize_address)) static void take(const ucontext_t *context)
{
	const volatile uint8_t *from;
	uintptr_t sp;

	own_registers(context, taken.sample.regs);
	sp = (uintptr_t)taken.sample.regs[DP_UNWIND_REG_SP];
	from = (const volatile uint8_t *)sp; // NOLINT(performance-no-int-to-ptr)
	taken.sample.stack_bytes = own_stack_end() - sp;
	if (taken.sample.stack_bytes > MAX_STACK_BYTES)
		abort();
	for (size_t i = 0; i < taken.sample.stack_bytes; i++)
		taken.stack[i] = from[i];
	taken.sample.stack = taken.stack;
	taken.sample.leaf_is_call = true;
	make_callchain();
}

struct fixture {
	struct own_process process;
	uint64_t whole[MAX_FRAMES];
	ptrdiff_t n_whole;
};

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	struct dp_unwind_result result;
	struct framed framed = {DEPTH, take};
	pthread_t thread;

	assert_non_null(fixture);
	own_process_open(&fixture->process);
	assert_int_equal(pthread_create(&thread, NULL, framed_thread, &framed), 0);
	pthread_join(thread, NULL);
	/* From the whole copy: the last frames, which have no frame pointers, are known since. */
	fixture->n_whole = dp_unwind(fixture->process.unwinder, fixture->process.space,
				     &taken.sample, fixture->whole, MAX_FRAMES, &result);
	assert_int_equal(result.end, DP_UNWIND_OUTERMOST);
	assert_int_equal(result.n_chain_steps, 0);
	assert_true(fixture->n_whole > DEPTH + 3);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	own_process_close(&fixture->process);
	free(fixture);
	return 0;
}

/* Unwinds a copy of @n_bytes. Returns the number of frames, which are the first of the whole. */
static ptrdiff_t unwind_short(struct fixture *fixture, size_t n_bytes, const uint64_t *callchain,
			      size_t n_callchain, struct dp_unwind_result *ret)
{
	struct dp_unwind_sample sample = taken.sample;
	uint64_t frames[MAX_FRAMES];
	ptrdiff_t n;

	sample.stack_bytes = n_bytes;
	sample.callchain = callchain;
	sample.n_callchain = n_callchain;
	n = dp_unwind(fixture->process.unwinder, fixture->process.space, &sample, frames,
		      MAX_FRAMES, ret);
	assert_in_range(n, 1, fixture->n_whole);
	assert_memory_equal(frames, fixture->whole, (size_t)n * sizeof(*frames));
	return n;
}

static void however_short_the_copy_the_callchain_makes_it_whole(void **state)
{
	struct fixture *fixture = *state;

	for (size_t n_bytes = 0; n_bytes < taken.sample.stack_bytes; n_bytes += 8) {
		struct dp_unwind_result result;
		ptrdiff_t n = unwind_short(fixture, n_bytes, taken.callchain,
					   taken.sample.n_callchain, &result);

		/* The outermost part is in the C library: there it has to be in the copy. */
		if (result.end == DP_UNWIND_STACK_CUT)
			assert_true(n >= fixture->n_whole - 3);
		else
			assert_int_equal(n, fixture->n_whole);
		if (n_bytes < 1024)
			assert_true(result.n_chain_steps > 50 && result.end == DP_UNWIND_OUTERMOST);
	}
}

static void without_a_callchain_the_stack_is_cut(void **state)
{
	struct dp_unwind_result result;

	assert_true(unwind_short(*state, 1024, NULL, 0, &result) < DEPTH / 2);
	assert_int_equal(result.end, DP_UNWIND_STACK_CUT);
	assert_int_equal(result.n_chain_steps, 0);
}

static void a_callchain_that_ends_early_leaves_the_stack_cut(void **state)
{
	struct dp_unwind_result result;
	ptrdiff_t n = unwind_short(*state, 1024, taken.callchain, 40, &result);

	/* A marker and the innermost address stand in front. */
	assert_int_equal(n, 39);
	assert_int_equal(result.end, DP_UNWIND_STACK_CUT);
}

static void a_callchain_that_contradicts_the_copy_is_not_believed(void **state)
{
	uint64_t other[MAX_FRAMES];
	struct dp_unwind_result result;

	/* The innermost return address, which is in the copy. */
	memcpy(other, taken.callchain, sizeof(other));
	other[2] += 16;
	assert_true(unwind_short(*state,
				 taken.sample.regs[DP_UNWIND_REG_BP] -
					 taken.sample.regs[DP_UNWIND_REG_SP] + 64,
				 other, taken.sample.n_callchain, &result) < DEPTH / 2);
	assert_int_equal(result.end, DP_UNWIND_STACK_CUT);
	assert_int_equal(result.n_chain_steps, 0);
}

static void a_callchain_through_no_code_is_not_followed(void **state)
{
	uint64_t other[MAX_FRAMES];
	struct dp_unwind_result result;

	memcpy(other, taken.callchain, sizeof(other));
	other[50] = 4096;
	assert_int_equal(unwind_short(*state, 1024, other, taken.sample.n_callchain, &result), 49);
	assert_int_equal(result.end, DP_UNWIND_STACK_CUT);
}

static void files_that_keep_frame_pointers_are_told_from_those_that_do_not(void **state)
{
	struct fixture *fixture = *state;
	struct dp_module_info info;
	int n_libc = 0;

	for (uint32_t id = 1; id <= dp_modules_count(fixture->process.modules); id++) {
		assert_true(dp_module_get(fixture->process.modules, id, &info));
		if (!strstr(info.path, "/libc.so"))
			continue;
		assert_int_equal(dp_unwinder_keeps_frame_pointers(fixture->process.unwinder, id),
				 0);
		n_libc++;
	}
	assert_int_equal(n_libc, 1);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(however_short_the_copy_the_callchain_makes_it_whole),
		cmocka_unit_test(without_a_callchain_the_stack_is_cut),
		cmocka_unit_test(a_callchain_that_ends_early_leaves_the_stack_cut),
		cmocka_unit_test(a_callchain_that_contradicts_the_copy_is_not_believed),
		cmocka_unit_test(a_callchain_through_no_code_is_not_followed),
		cmocka_unit_test(files_that_keep_frame_pointers_are_told_from_those_that_do_not),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
