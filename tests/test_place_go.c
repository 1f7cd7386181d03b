/* SPDX-License-Identifier: MIT */
/* Where a Go runtime's functions are probed. Their beginnings are those of real programs. */
#include "perf/arch.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* cmp 0x10(%r14),%rsp; jbe … */
#define CHECK 0x49, 0x3b, 0x66, 0x10, 0x0f, 0x86, 0xe9, 0x00, 0x00, 0x00

static const uint8_t gopark_1_19[] = {
	CHECK,				     /* 0 */
	0x48,  0x83, 0xec, 0x18,	     /* 10: sub $0x18,%rsp */
	0x48,  0x89, 0x6c, 0x24, 0x10,	     /* 14: mov %rbp,0x10(%rsp) */
	0x48,  0x8d, 0x6c, 0x24, 0x10,	     /* 19: lea 0x10(%rsp),%rbp */
	0x49,  0x8b, 0x56, 0x30,	     /* 24: mov 0x30(%r14),%rdx */
	0x90,				     /* 28: nop */
	0xff,  0x82, 0x08, 0x01, 0x00, 0x00, /* 29: incl 0x108(%rdx) */
};

static const uint8_t ready_1_19[] = {
	CHECK,				     /* 0 */
	0x48,  0x83, 0xec, 0x50,	     /* 10 */
	0x48,  0x89, 0x6c, 0x24, 0x48,	     /* 14 */
	0x48,  0x8d, 0x6c, 0x24, 0x48,	     /* 19 */
	0x88,  0x4c, 0x24, 0x1f,	     /* 24: mov %cl,0x1f(%rsp) */
	0x48,  0x89, 0x44, 0x24, 0x58,	     /* 28: mov %rax,0x58(%rsp) */
	0x80,  0x3d, 0xe8, 0x95, 0x17, 0, 0, /* 33: cmpb $0x0,0x1795e8(%rip) */
	0x74,  0x0f,			     /* 40: je */
};

static const uint8_t gopark_1_25[] = {
	CHECK,			      /* 0 */
	0x55,			      /* 10: push %rbp */
	0x48,  0x89, 0xe5,	      /* mov %rsp,%rbp */
	0x48,  0x83, 0xec, 0x10,      /* sub $0x10,%rsp */
	0x49,  0x8b, 0x56, 0x30, 0x90 /* mov 0x30(%r14),%rdx; nop */
};

static void expect_place(const uint8_t *code, size_t n_bytes, uint32_t offset_bytes, bool has_frame)
{
	struct dp_go_placement place;

	assert_int_equal(dp_arch_place_go(code, n_bytes, &place), 0);
	assert_int_equal(place.place.offset_bytes, offset_bytes);
	assert_true(place.place.emulated);
	assert_int_equal(place.has_frame, has_frame);
}

static void the_push_behind_the_stack_check_is_chosen(void **state)
{
	(void)state;
	expect_place(gopark_1_25, sizeof(gopark_1_25), 10, false);
}

static void before_go_1_21_it_is_what_is_emulated_behind_the_frame(void **state)
{
	(void)state;
	expect_place(gopark_1_19, sizeof(gopark_1_19), 28, true);
	expect_place(ready_1_19, sizeof(ready_1_19), 40, true);
}

static void a_function_without_a_stack_check_is_probed_at_its_push(void **state)
{
	(void)state;
	expect_place(gopark_1_25 + 10, sizeof(gopark_1_25) - 10, 0, false);
}

static void nothing_is_chosen_that_the_goroutines_registers_do_not_reach(void **state)
{
	static const uint8_t code[] = {
		CHECK, 0x48, 0x83, 0xec, 0x18, 0x48, 0x89, 0x6c, 0x24,
		0x10,  0x48, 0x8d, 0x6c, 0x24, 0x10, 0x31, 0xc9, /* 24: xor %ecx,%ecx */
		0x90};
	struct dp_go_placement place;

	(void)state;
	assert_int_equal(dp_arch_place_go(code, sizeof(code), &place), 0);
	assert_int_equal(place.place.offset_bytes, 24);
	assert_false(place.place.emulated);
}

static void a_place_that_is_jumped_back_to_is_refused(void **state)
{
	static const uint8_t code[] = {CHECK, 0x55, 0x48, 0x89, 0xe5, 0xeb, 0xfa};
	struct dp_go_placement place = {.has_frame = true};

	(void)state;
	assert_int_equal(dp_arch_place_go(code, sizeof(code), &place), -ENOEXEC);
	assert_true(place.has_frame);
}

static void other_beginnings_are_refused(void **state)
{
	/* Of Go 1.16: mov %fs:-8,%rcx; cmp 0x10(%rcx),%rsp */
	static const uint8_t go_1_16[] = {0x64, 0x48, 0x8b, 0x0c, 0x25, 0xf8, 0xff,
					  0xff, 0xff, 0x48, 0x3b, 0x61, 0x10};
	struct dp_go_placement place;

	(void)state;
	assert_int_equal(dp_arch_place_go(go_1_16, sizeof(go_1_16), &place), -ENOEXEC);
	assert_int_equal(dp_arch_place_go(go_1_16, 0, &place), -EINVAL);
	for (size_t n = 1; n < 11; n++)
		assert_int_equal(dp_arch_place_go(gopark_1_25, n, &place), -ENOEXEC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_push_behind_the_stack_check_is_chosen),
		cmocka_unit_test(before_go_1_21_it_is_what_is_emulated_behind_the_frame),
		cmocka_unit_test(a_function_without_a_stack_check_is_probed_at_its_push),
		cmocka_unit_test(nothing_is_chosen_that_the_goroutines_registers_do_not_reach),
		cmocka_unit_test(a_place_that_is_jumped_back_to_is_refused),
		cmocka_unit_test(other_beginnings_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
