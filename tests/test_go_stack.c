/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "src/base/frame.h"
#include "src/go_stack.h"
#include "symbolize/module_registry.h"
#include "tests/alloc_fail.h"
#include "tests/go_fixture.h"

/* Places in the fixture's file (tests/go_fixture.h), of which there is one module. */
#define INNER 0x1010   /* main.inner, inlined into main.f */
#define VIRTUAL 0x1040 /* main.f, where it calls main.inner */
#define G 0x1150
#define OF_RUNTIME 0x1210
#define NO_CODE 0x40

static int open_all(struct dp_modules **modules, struct dp_symbolizer **symbolizer)
{
	struct go_fixture f;
	uint32_t id;
	int r = dp_modules_new(modules);

	go_fixture_build(&f, GO_FIXTURE_1_20);
	if (r == 0)
		r = dp_modules_add_file(*modules, go_fixture_open(f.bytes, sizeof(f.bytes)), "go",
					2, &id);
	if (r == 0)
		r = dp_symbolizer_new(symbolizer, *modules);
	return r;
}

static int fold_offsets(enum dp_go_trim trim, const uint64_t *offsets, size_t n, uint64_t *frames,
			size_t *ret_n)
{
	struct dp_symbolizer *symbolizer = NULL;
	struct dp_modules *modules = NULL;
	int r = open_all(&modules, &symbolizer);

	for (size_t i = 0; i < n; i++)
		frames[i] = dp_frame_make(1, offsets[i]);
	if (r == 0)
		r = dp_go_fold(symbolizer, trim, frames, n, ret_n);
	dp_symbolizer_free(symbolizer);
	dp_modules_free(modules);
	return r;
}

#define CHECK_FOLD(trim, n_expected, expected, ...)                                    \
	do {                                                                           \
		const uint64_t from_[] = {__VA_ARGS__};                                \
		const uint64_t to_[] = expected;                                       \
		size_t n_from_ = sizeof(from_) / sizeof(*from_), n_ = 99;              \
		uint64_t frames_[8];                                                   \
		assert_int_equal(fold_offsets(trim, from_, n_from_, frames_, &n_), 0); \
		assert_int_equal(n_, n_expected);                                      \
		for (size_t i_ = 0; i_ < n_; i_++)                                     \
			assert_int_equal(frames_[i_], dp_frame_make(1, to_[i_]));      \
	} while (0)
#define LIST(...)           \
	{                   \
		__VA_ARGS__ \
	}

static void the_virtual_frame_of_a_caller_is_dropped(void **state)
{
	(void)state;
	CHECK_FOLD(DP_GO_TRIM_NOTHING, 2, LIST(INNER, G), INNER, VIRTUAL, G);
}

static void a_frame_that_stands_for_itself_stays(void **state)
{
	(void)state;
	CHECK_FOLD(DP_GO_TRIM_NOTHING, 2, LIST(INNER, G), INNER, G);
	CHECK_FOLD(DP_GO_TRIM_NOTHING, 2, LIST(VIRTUAL, G), VIRTUAL, G);
	CHECK_FOLD(DP_GO_TRIM_NOTHING, 3, LIST(G, VIRTUAL, INNER), G, VIRTUAL, INNER);
	/* Recursion: only the first follows from it. */
	CHECK_FOLD(DP_GO_TRIM_NOTHING, 2, LIST(INNER, VIRTUAL), INNER, VIRTUAL, VIRTUAL);
	CHECK_FOLD(DP_GO_TRIM_NOTHING, 2, LIST(INNER, NO_CODE), INNER, NO_CODE);
}

static void the_runtime_is_cut_off_a_heap_stack(void **state)
{
	(void)state;
	CHECK_FOLD(DP_GO_TRIM_RUNTIME, 2, LIST(INNER, OF_RUNTIME), OF_RUNTIME, OF_RUNTIME, INNER,
		   VIRTUAL, OF_RUNTIME);
	CHECK_FOLD(DP_GO_TRIM_RUNTIME, 2, LIST(OF_RUNTIME, OF_RUNTIME), OF_RUNTIME, OF_RUNTIME);
	CHECK_FOLD(DP_GO_TRIM_NOTHING, 2, LIST(OF_RUNTIME, G), OF_RUNTIME, G);
	CHECK_FOLD(DP_GO_TRIM_RUNTIME, 2, LIST(NO_CODE, G), OF_RUNTIME, NO_CODE, G);
}

static int fold_some(void)
{
	static const uint64_t offsets[] = {OF_RUNTIME, INNER, VIRTUAL, G};
	uint64_t frames[4];
	size_t n;

	return fold_offsets(DP_GO_TRIM_RUNTIME, offsets, 4, frames, &n);
}

static void a_failed_allocation_is_said(void **state)
{
	(void)state;
	ALLOC_FAIL_EACH(fold_some());
}

static void a_frame_of_go_is_named_by_the_table(void **state)
{
	struct dp_symbolizer *symbolizer;
	struct dp_modules *modules;
	struct dp_symbol symbol;

	(void)state;
	assert_int_equal(open_all(&modules, &symbolizer), 0);
	assert_int_equal(dp_symbolizer_resolve(symbolizer, dp_frame_make(1, INNER), &symbol), 0);
	assert_int_equal(symbol.source, DP_SYMBOL_GO);
	assert_int_equal(symbol.n_lines, 2);
	assert_string_equal(symbol.lines[0].function, "main.inner");
	assert_string_equal(symbol.lines[1].system_name, "main.f");
	assert_int_equal(symbol.lines[1].line, 20);
	assert_int_equal(symbol.lines[1].start_line, 7);
	assert_int_equal(dp_symbolizer_resolve(symbolizer, dp_frame_make(1, NO_CODE), &symbol), 0);
	assert_int_equal(symbol.source, DP_SYMBOL_NONE);
	dp_symbolizer_free(symbolizer);
	dp_modules_free(modules);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_virtual_frame_of_a_caller_is_dropped),
		cmocka_unit_test(a_frame_that_stands_for_itself_stays),
		cmocka_unit_test(the_runtime_is_cut_off_a_heap_stack),
		cmocka_unit_test(a_failed_allocation_is_said),
		cmocka_unit_test(a_frame_of_go_is_named_by_the_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
