/* SPDX-License-Identifier: MIT */
/* Samples of futex calls and wake-ups, with the registers and the stack of the user. */
#include <errno.h>
#include <linux/futex.h>
#include <linux/perf_event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "perf/record.h"
#include "tests/captured_records.h"
#include "tests/record_fixture.h"

/* Where the user's state lies in captured_futex_exit; in captured_waking it lies 8 bytes later. */
enum {
	USER_ABI = 72,
	USER_REGS = 80,
	USER_STACK_SIZE = 216,
	USER_STACK = 224,
	USER_STACK_VALID = 288,
};
#define CAPTURED_STACK_BYTES 64

/* What the captured program put into its registers and called with. */
#define WORD 0x5617d7f9720c
#define AFTER_SYSCALL 0x5617d7f9392e
#define STACK_PAGE 0x7faaa3e74000

/* Register values by DWARF number: rax rdx rcx rbx rsi rdi rbp rsp r8 … r15 rip. */
static const uint64_t regs_at_exit[DP_USER_REGS] = {
	-(uint64_t)EAGAIN,
	1,
	AFTER_SYSCALL, /* rcx: SYSCALL keeps rip there, and rflags in r11 */
	0xb0b0b0b0b0b0b0b0,
	FUTEX_WAIT_PRIVATE,
	WORD,
	0xb9b9b9b9b9b9b9b9,
	STACK_PAGE + 1024,
	0x0808080808080808,
	0x0909090909090909,
	0,
	0x202,
	0x1212121212121212,
	0x1313131313131313,
	0x1414141414141414,
	0x1515151515151515,
	AFTER_SYSCALL,
};

/* Byte @i of the captured program's stack page. */
static uint8_t stack_byte(size_t i)
{
	return (uint8_t)(i * 7 + i / 256);
}

static void expect_stack(const struct dp_user_state *user, size_t first, size_t n_bytes)
{
	assert_non_null(user->stack);
	assert_int_equal(user->stack_bytes, n_bytes);
	for (size_t i = 0; i < n_bytes; i++)
		assert_int_equal(user->stack[i], stack_byte(first + i));
}

static void expect_no_user(const struct dp_user_state *user)
{
	assert_false(user->has_regs);
	assert_null(user->stack);
	assert_int_equal(user->stack_bytes, 0);
}

/* The user's state of a record that is spoiled in one place. */
static struct dp_user_state parse_user(const struct record *record)
{
	struct dp_event e;

	expect_parsed(record->bytes, record->n_bytes, &e);
	assert_int_equal(e.type, DP_EVENT_FUTEX_EXIT);
	return e.futex_exit.user;
}

static void a_captured_futex_call_tells_its_arguments(void **state)
{
	struct dp_event e;

	(void)state;
	expect_parsed(CAPTURED(futex_enter), &e);
	assert_int_equal(e.type, DP_EVENT_FUTEX_ENTER);
	assert_int_equal(e.pid, 2178);
	assert_int_equal(e.tid, 2178);
	assert_int_equal(e.time_ns, 0x3ba0a3888de);
	assert_int_equal(e.id, 193570);
	assert_int_equal(e.futex_enter.uaddr, WORD);
	assert_int_equal(e.futex_enter.op, FUTEX_WAIT_PRIVATE);
	assert_int_equal(e.futex_enter.val, 1);
}

static void a_captured_futex_return_tells_registers_by_dwarf_number(void **state)
{
	struct dp_event e;

	(void)state;
	expect_parsed(CAPTURED(futex_exit), &e);
	assert_int_equal(e.type, DP_EVENT_FUTEX_EXIT);
	assert_int_equal(e.tid, 2178);
	assert_int_equal(e.time_ns, 0x3ba0a38a8d7);
	assert_int_equal(e.id, 193571);
	assert_int_equal(e.futex_exit.result, -EAGAIN);
	assert_true(e.futex_exit.user.has_regs);
	for (size_t i = 0; i < DP_USER_REGS; i++)
		assert_int_equal(e.futex_exit.user.regs[i], regs_at_exit[i]);
}

static void a_captured_futex_return_brings_the_stack_from_the_stack_pointer_up(void **state)
{
	struct dp_event e;

	(void)state;
	expect_parsed(CAPTURED(futex_exit), &e);
	expect_stack(&e.futex_exit.user, 1024, CAPTURED_STACK_BYTES);
	assert_ptr_equal(e.futex_exit.user.stack, captured_futex_exit + USER_STACK);
}

static void a_stack_that_ends_before_the_copy_does_is_as_long_as_it_was(void **state)
{
	struct dp_event e;

	(void)state;
	expect_parsed(CAPTURED(futex_exit_cut), &e);
	assert_int_equal(e.futex_exit.user.regs[7], STACK_PAGE + 4096 - 24);
	expect_stack(&e.futex_exit.user, 4096 - 24, 24);
}

static void a_captured_return_without_a_users_state_has_none(void **state)
{
	struct dp_event e;

	(void)state;
	expect_parsed(CAPTURED(futex_woke), &e);
	assert_int_equal(e.type, DP_EVENT_FUTEX_EXIT);
	assert_int_equal(e.id, 193572);
	assert_int_equal(e.futex_exit.result, 1);
	expect_no_user(&e.futex_exit.user);
}

static void a_captured_wake_up_tells_whom_and_has_the_wakers_state(void **state)
{
	uint64_t regs[DP_USER_REGS];
	struct dp_event e;

	(void)state;
	memcpy(regs, regs_at_exit, sizeof(regs));
	regs[0] = -(uint64_t)ENOSYS; /* within the call */
	regs[4] = FUTEX_WAKE_PRIVATE;
	regs[11] = 0x206;
	expect_parsed(CAPTURED(waking), &e);
	assert_int_equal(e.type, DP_EVENT_WAKING);
	assert_int_equal(e.pid, 2178);
	assert_int_equal(e.tid, 2178);
	assert_int_equal(e.time_ns, 4097572945327);
	assert_int_equal(e.id, 193573);
	assert_int_equal(e.waking.wakee_tid, 2180);
	assert_true(e.waking.user.has_regs);
	for (size_t i = 0; i < DP_USER_REGS; i++)
		assert_int_equal(e.waking.user.regs[i], regs[i]);
	expect_stack(&e.waking.user, 1024, CAPTURED_STACK_BYTES);
}

static void a_captured_wake_up_by_the_idle_kernel_has_neither_registers_nor_stack(void **state)
{
	struct dp_event e;

	(void)state;
	expect_parsed(CAPTURED(waking_idle), &e);
	assert_int_equal(e.type, DP_EVENT_WAKING);
	assert_int_equal(e.pid, 0);
	assert_int_equal(e.tid, 0);
	assert_int_equal(e.waking.wakee_tid, 2180);
	expect_no_user(&e.waking.user);
}

static void the_builder_writes_what_the_kernel_writes(void **state)
{
	/* common_flags and _preempt_count, a gap, and what is not read of the tracepoint */
	static const size_t enter[][2] = {{46, 2}, {52, 8}, {84, 24}, {0, 0}};
	static const size_t returns[][2] = {{46, 2}, {52, 8}, {0, 0}};
	static const size_t waking[][2] = {{46, 2}, {52, 16}, {72, 8}, {0, 0}};

	(void)state;
	expect_rebuilt(CAPTURED(futex_enter), enter);
	expect_rebuilt(CAPTURED(futex_exit), returns);
	expect_rebuilt(CAPTURED(futex_woke), returns);
	expect_rebuilt(CAPTURED(waking), waking);
}

static void a_built_state_with_the_longest_stack_comes_back(void **state)
{
	static struct record r;
	static uint8_t stack[65000];
	struct dp_event in = {
		.type = DP_EVENT_WAKING,
		.waking = {
			.wakee_tid = UINT32_MAX,
			.user = {.has_regs = true, .stack = stack, .stack_bytes = sizeof(stack)}}};
	struct dp_event out;

	(void)state;
	for (size_t i = 0; i < sizeof(stack); i++)
		stack[i] = stack_byte(i);
	for (size_t i = 0; i < DP_USER_REGS; i++)
		in.waking.user.regs[i] = UINT64_MAX - i;
	r.n_bytes = sample_build(r.bytes, &sample_layout, &in);
	expect_parsed(r.bytes, r.n_bytes, &out);
	assert_int_equal(out.waking.wakee_tid, UINT32_MAX);
	assert_memory_equal(out.waking.user.regs, in.waking.user.regs, sizeof(in.waking.user.regs));
	expect_stack(&out.waking.user, 0, sizeof(stack));
}

static void registers_of_a_32_bit_program_are_not_given(void **state)
{
	struct dp_user_state user;
	struct record r;

	(void)state;
	record_copy(&r, CAPTURED(futex_exit));
	record_set_u64(&r, USER_ABI, PERF_SAMPLE_REGS_ABI_32);
	user = parse_user(&r);
	assert_false(user.has_regs);
	expect_stack(&user, 1024, CAPTURED_STACK_BYTES);
}

static void no_abi_means_that_no_registers_follow(void **state)
{
	struct dp_user_state user;
	struct record r;

	(void)state;
	record_copy(&r, CAPTURED(futex_exit));
	record_set_u64(&r, USER_ABI, PERF_SAMPLE_REGS_ABI_NONE);
	expect_bad(&r); /* the first register is taken for the stack's size */
	memmove(r.bytes + USER_REGS, r.bytes + USER_STACK_SIZE, r.n_bytes - USER_STACK_SIZE);
	record_resize(&r, r.n_bytes - (USER_STACK_SIZE - USER_REGS));
	user = parse_user(&r);
	assert_false(user.has_regs);
	expect_stack(&user, 1024, CAPTURED_STACK_BYTES);
}

static void a_record_can_be_had_again_without_its_stack(void **state)
{
	_Alignas(uint64_t) uint8_t slim[sizeof(captured_futex_exit)];
	struct dp_event whole, out;
	size_t n;

	(void)state;
	expect_parsed(CAPTURED(futex_exit), &whole);
	n = dp_record_leave_out_stack(captured_futex_exit, &whole, slim, sizeof(slim));
	assert_int_equal(n, USER_STACK);
	expect_parsed(slim, n, &out);
	assert_int_equal(out.tid, whole.tid);
	assert_int_equal(out.time_ns, whole.time_ns);
	assert_int_equal(out.futex_exit.result, whole.futex_exit.result);
	assert_memory_equal(out.futex_exit.user.regs, whole.futex_exit.user.regs,
			    sizeof(whole.futex_exit.user.regs));
	assert_true(out.futex_exit.user.left_out && !whole.futex_exit.user.left_out);
	assert_int_equal(out.futex_exit.user.asked_bytes, CAPTURED_STACK_BYTES);
	assert_null(out.futex_exit.user.stack);
	/* No room, and nothing left to leave out. */
	assert_int_equal(dp_record_leave_out_stack(captured_futex_exit, &whole, slim, n - 1), 0);
	assert_int_equal(dp_record_leave_out_stack(slim, &out, slim, sizeof(slim)), 0);
}

static void a_stack_of_size_0_has_no_word_for_what_is_valid(void **state)
{
	struct dp_user_state user;
	struct record r;

	(void)state;
	record_copy(&r, CAPTURED(futex_exit));
	record_set_u64(&r, USER_STACK_SIZE, 0);
	expect_bad(&r); /* bytes are left over */
	record_resize(&r, USER_STACK);
	user = parse_user(&r);
	assert_true(user.has_regs);
	assert_int_equal(user.regs[16], AFTER_SYSCALL);
	assert_null(user.stack);
	assert_int_equal(user.stack_bytes, 0);
}

static void a_stack_longer_than_the_record_is_refused(void **state)
{
	static const uint64_t sizes[] = {56, 72, 80, UINT64_C(1) << 63, UINT64_MAX - 7, UINT64_MAX};
	struct record r;

	(void)state;
	record_copy(&r, CAPTURED(futex_exit));
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		record_set_u64(&r, USER_STACK_SIZE, sizes[i]);
		expect_bad(&r);
	}
}

static void more_valid_bytes_than_were_copied_are_refused(void **state)
{
	struct dp_user_state user;
	struct record r;

	(void)state;
	record_copy(&r, CAPTURED(futex_exit));
	record_set_u64(&r, USER_STACK_VALID, CAPTURED_STACK_BYTES + 1);
	expect_bad(&r);
	record_set_u64(&r, USER_STACK_VALID, UINT64_MAX);
	expect_bad(&r);
	record_set_u64(&r, USER_STACK_VALID, 0);
	user = parse_user(&r);
	assert_int_equal(user.stack_bytes, 0);
}

/* Without its user's state a sample is whole too; every other beginning contradicts itself. */
static void expect_one_beginning_parsed(const uint8_t *bytes, size_t n_bytes, size_t without_user)
{
	for (size_t n = 8; n < n_bytes; n++) {
		struct dp_event e;
		uint16_t size = (uint16_t)n;
		uint8_t *exact = malloc(n); /* a sanitizer sees a read past it */

		assert_non_null(exact);
		memcpy(exact, bytes, n);
		memcpy(exact + 6, &size, sizeof(size));
		assert_int_equal(dp_record_parse(&sample_layout, exact, n, &e),
				 n == without_user ? 0 : -EBADMSG);
		free(exact);
	}
}

static void a_state_cut_short_is_refused(void **state)
{
	(void)state;
	expect_one_beginning_parsed(CAPTURED(futex_exit), USER_ABI);
	expect_one_beginning_parsed(CAPTURED(futex_exit_cut), USER_ABI);
	expect_one_beginning_parsed(CAPTURED(waking), USER_ABI + 8);
	expect_one_beginning_parsed(CAPTURED(waking_idle), USER_ABI + 8);
}

static void bytes_after_the_state_are_refused(void **state)
{
	struct record r;

	(void)state;
	record_copy(&r, CAPTURED(futex_exit));
	record_set_u64(&r, r.n_bytes, 0);
	record_resize(&r, r.n_bytes + 8);
	expect_bad(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_captured_futex_call_tells_its_arguments),
		cmocka_unit_test(a_captured_futex_return_tells_registers_by_dwarf_number),
		cmocka_unit_test(
			a_captured_futex_return_brings_the_stack_from_the_stack_pointer_up),
		cmocka_unit_test(a_stack_that_ends_before_the_copy_does_is_as_long_as_it_was),
		cmocka_unit_test(a_captured_return_without_a_users_state_has_none),
		cmocka_unit_test(a_captured_wake_up_tells_whom_and_has_the_wakers_state),
		cmocka_unit_test(
			a_captured_wake_up_by_the_idle_kernel_has_neither_registers_nor_stack),
		cmocka_unit_test(the_builder_writes_what_the_kernel_writes),
		cmocka_unit_test(a_built_state_with_the_longest_stack_comes_back),
		cmocka_unit_test(registers_of_a_32_bit_program_are_not_given),
		cmocka_unit_test(no_abi_means_that_no_registers_follow),
		cmocka_unit_test(a_record_can_be_had_again_without_its_stack),
		cmocka_unit_test(a_stack_of_size_0_has_no_word_for_what_is_valid),
		cmocka_unit_test(a_stack_longer_than_the_record_is_refused),
		cmocka_unit_test(more_valid_bytes_than_were_copied_are_refused),
		cmocka_unit_test(a_state_cut_short_is_refused),
		cmocka_unit_test(bytes_after_the_state_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
