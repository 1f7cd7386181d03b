/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "symbolize/calls.h"

#define ENDS(...)                                                        \
	dp_calls_end_of_code((const uint8_t[]){0x90, 0x90, __VA_ARGS__}, \
			     sizeof((const uint8_t[]){0x90, 0x90, __VA_ARGS__}))

/* As the assembler has them. */
static void calls_of_every_form_are_recognised(void **state)
{
	(void)state;
	assert_true(ENDS(0xe8, 0x10, 0x20, 0x30, 0x40));	     /* call rel32 */
	assert_true(ENDS(0xff, 0xd0));				     /* call *%rax */
	assert_true(ENDS(0x41, 0xff, 0xd3));			     /* call *%r11 */
	assert_true(ENDS(0xff, 0x13));				     /* call *(%rbx) */
	assert_true(ENDS(0xff, 0x50, 0x18));			     /* call *24(%rax) */
	assert_true(ENDS(0xff, 0x90, 0x00, 0x01, 0x00, 0x00));	     /* call *256(%rax) */
	assert_true(ENDS(0xff, 0x15, 0x01, 0x02, 0x03, 0x04));	     /* call *x(%rip) */
	assert_true(ENDS(0x41, 0xff, 0x14, 0x24));		     /* call *(%r12) */
	assert_true(ENDS(0xff, 0x54, 0x24, 0x08));		     /* call *8(%rsp) */
	assert_true(ENDS(0xff, 0x94, 0xc8, 0x00, 0x01, 0x00, 0x00)); /* call *256(%rax,%rcx,8) */
	assert_true(ENDS(0xff, 0x14, 0xc5, 0x00, 0x10, 0x00, 0x00)); /* call *4096(,%rax,8) */
}

static void what_is_no_call_is_not(void **state)
{
	(void)state;
	assert_false(ENDS(0xc3));				/* ret */
	assert_false(ENDS(0xe9, 0x10, 0x20, 0x30, 0x40));	/* jmp rel32 */
	assert_false(ENDS(0xff, 0xe0));				/* jmp *%rax */
	assert_false(ENDS(0xff, 0x25, 0x01, 0x02, 0x03, 0x04)); /* jmp *x(%rip) */
	assert_false(ENDS(0xff, 0x50));				/* cut short */
	assert_false(ENDS(0x90, 0x90, 0x90, 0x90, 0x90));
	assert_false(dp_calls_end_of_code((const uint8_t[]){0xe8}, 0));
	assert_false(dp_calls_end_of_code((const uint8_t[]){0xd0}, 1));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(calls_of_every_form_are_recognised),
		cmocka_unit_test(what_is_no_call_is_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
