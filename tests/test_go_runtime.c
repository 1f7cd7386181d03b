/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "perf/arch.h"
#include "perf/operands.h"
#include "src/base/clock.h"
#include "src/go_build_info.h"
#include "src/go_check.h"
#include "src/go_memory.h"
#include "tests/go_memory_fixture.h"

static const uint64_t stack[] = {0x401001, 0x402002, 0x403003};

struct build_info {
	char magic[14];
	uint8_t pointer_bytes, flags;
	uint64_t version, module;
	char text[300];
};

static struct build_info build_info_of(uint8_t flags)
{
	struct build_info info = {.pointer_bytes = 8, .flags = flags};

	memcpy(info.magic, "\xff Go buildinf:", sizeof(info.magic));
	return info;
}

static int read_version(const struct build_info *info, char *ret, size_t n_bytes)
{
	return dp_go_build_info_version(getpid(), (uintptr_t)info, ret, n_bytes);
}

static void a_version_is_read_from_both_forms_of_build_information(void **state)
{
	struct build_info info = build_info_of(2);
	struct {
		uint64_t bytes, n_bytes;
	} string = {(uintptr_t) "go1.17.13", 9};
	char version[32];

	(void)state;
	memcpy(info.text, "\x08go1.24.4\x03mod", 13);
	assert_int_equal(read_version(&info, version, sizeof(version)), 0);
	assert_string_equal(version, "go1.24.4");
	info = build_info_of(0);
	info.version = (uintptr_t)&string;
	assert_int_equal(read_version(&info, version, sizeof(version)), 0);
	assert_string_equal(version, "go1.17.13");
}

static void a_long_version_is_cut_and_its_length_may_have_two_bytes(void **state)
{
	struct build_info info = build_info_of(2);
	char version[32];

	(void)state;
	memset(info.text, 'x', sizeof(info.text));
	memcpy(info.text, "\x96\x01go1.25-", 9); /* 150 */
	assert_int_equal(read_version(&info, version, sizeof(version)), 0);
	assert_int_equal(strlen(version), 31);
	assert_memory_equal(version, "go1.25-xxx", 10);
}

static void build_information_that_lies_is_refused(void **state)
{
	struct build_info info = build_info_of(0);
	char version[32] = "as before";

	(void)state;
	info.version = 8; /* unmapped */
	assert_int_equal(read_version(&info, version, sizeof(version)), -EFAULT);
	info = build_info_of(2);
	memcpy(info.text, "\x00", 1); /* empty */
	assert_int_equal(read_version(&info, version, sizeof(version)), -EBADMSG);
	memcpy(info.text, "\xff\xff", 2); /* an absurd length */
	assert_int_equal(read_version(&info, version, sizeof(version)), -EBADMSG);
	memcpy(info.text, "\xff\x7f", 2);
	assert_int_equal(read_version(&info, version, sizeof(version)), -EBADMSG);
	info.magic[3] = 'x';
	assert_int_equal(read_version(&info, version, sizeof(version)), -EBADMSG);
	assert_string_equal(version, "as before");
}

static void reads_stop_at_the_first_piece_that_is_not_mapped(void **state)
{
	enum { N = 3000 }; /* more than one call takes */
	static uint64_t from[N], to[N];
	struct iovec local[N], remote[N];
	size_t n;

	(void)state;
	for (size_t i = 0; i < N; i++) {
		from[i] = i * i;
		local[i] = (struct iovec){&to[i], sizeof(to[i])};
		remote[i] = (struct iovec){&from[i], sizeof(from[i])};
	}
	assert_int_equal(dp_go_memory_read_all(getpid(), local, remote, N, &n), 0);
	assert_int_equal(n, N);
	assert_memory_equal(to, from, sizeof(from));
	remote[2047].iov_base = (void *)8;
	assert_int_equal(dp_go_memory_read_all(getpid(), local, remote, N, &n), -EFAULT);
	assert_int_equal(n, 2047);
	assert_int_equal(dp_go_memory_read(0x7ffffff0, (uintptr_t)from, to, 8), -ESRCH);
}

static void operands_relative_to_the_instruction_are_listed(void **state)
{
	static const uint8_t code[] = {
		0x48, 0x8b, 0x05, 0x10, 0,    0,    0,		      /* 0: mov 0x10(%rip),%rax */
		0x8b, 0x0d, 0x20, 0,	0,    0,		      /* 7: mov 0x20(%rip),%ecx */
		0x48, 0x8d, 0x15, 0xf0, 0xff, 0xff, 0xff,	      /* 13: lea -0x10(%rip),%rdx */
		0x80, 0x3d, 0x01, 0,	0,    0,    0,		      /* 20: cmpb $0,1(%rip) */
		0x48, 0xc7, 0x05, 0x02, 0,    0,    0,	  0, 0, 0, 0, /* 27: movq $0,2(%rip) */
		0x48, 0x8b, 0x43, 0x10,				      /* mov 0x10(%rbx),%rax */
		0xe8, 0,    0,	  0,	0,			      /* call */
	};
	static const struct dp_operand expected[] = {
		{0x1000 + 7 + 0x10, 0, 64, DP_OPERAND_LOAD},
		{0x1000 + 13 + 0x20, 7, 32, DP_OPERAND_LOAD},
		{0x1000 + 20 - 0x10, 13, 64, DP_OPERAND_ADDRESS},
		{0x1000 + 27 + 1, 20, 8, DP_OPERAND_LOAD},
		{0x1000 + 38 + 2, 27, 64, DP_OPERAND_STORE},
	};
	struct dp_operand found[8];

	(void)state;
	assert_int_equal(dp_arch_operands(code, sizeof(code), 0x1000, found, 8), 5);
	for (size_t i = 0; i < 5; i++) {
		assert_int_equal(found[i].address, expected[i].address);
		assert_int_equal(found[i].offset_bytes, expected[i].offset_bytes);
		assert_int_equal(found[i].bits, expected[i].bits);
		assert_int_equal(found[i].kind, expected[i].kind);
	}
	assert_int_equal(dp_arch_operands(code, sizeof(code), 0x1000, found, 2), 2);
	assert_int_equal(dp_arch_operands(code, 3, 0x1000, found, 8), 0);
}

static void rates_are_the_target_s_own(void **state)
{
	struct go_fake *fake = go_fake_new(24);
	struct dp_go_rates rates;

	(void)state;
	fake->heap_rate = 524288;
	fake->block_rate = 21000;
	fake->mutex_fraction = 5;
	fake->heap_disabled = 1;
	fake->ticks[3] = 2100000000;
	assert_int_equal(dp_go_read_rates(&fake->runtime, &rates), 0);
	assert_int_equal(rates.heap_bytes, 524288);
	assert_int_equal(rates.block_ticks, 21000);
	assert_int_equal(rates.mutex_fraction, 5);
	assert_true(rates.heap_disabled);
	assert_true(fabs(rates.ticks_per_ns - 2.1) < 1e-12);
	go_fake_free(fake);
}

static void ticks_are_calibrated_as_each_version_does(void **state)
{
	struct go_fake *fake = go_fake_new(24), *old = go_fake_new(19);
	struct dp_go_rates rates, old_rates;

	(void)state;
	/* As if noted at its start; the second one has only the time of its finding. */
	fake->ticks[1] = old->runtime.ticks_at_find = dp_arch_ticks();
	fake->ticks[2] = old->runtime.ns_at_find = dp_monotonic_ns();
	assert_int_equal(dp_go_read_rates(&old->runtime, &old_rates), 0);
	assert_true(dp_monotonic_ns() - old->runtime.ns_at_find >= 100000000);
	assert_int_equal(dp_go_read_rates(&fake->runtime, &rates), 0);
	assert_true(rates.ticks_per_ns > 0);
	assert_true(fabs(rates.ticks_per_ns / old_rates.ticks_per_ns - 1) < 0.01);
	go_fake_free(fake);
	go_fake_free(old);
}

static void a_head_of_another_list_or_with_foreign_code_is_not_believed(void **state)
{
	static const uint64_t foreign[] = {0x10, 0x20, 0x30, 0x40};
	struct go_fake *fake = go_fake_new(24);
	uint64_t *heads = fake->runtime.variables.buckets, block = heads[1], mutex = heads[2];

	(void)state;
	assert_true(dp_go_check_heads(&fake->runtime)); /* all empty */
	for (unsigned i = 0; i < 3; i++)
		go_fake_add(fake, (enum dp_go_list)i, i == 0 ? 8 : 0, stack, 3);
	assert_true(dp_go_check_heads(&fake->runtime));
	heads[1] = mutex;
	heads[2] = block;
	assert_true(dp_go_check_heads(&fake->runtime));
	assert_int_equal(heads[1], block);
	assert_int_equal(heads[2], mutex);
	go_fake_add(fake, DP_GO_MUTEX, 0, foreign, 4);
	assert_true(dp_go_check_heads(&fake->runtime));
	assert_int_equal(heads[2], 0);
	heads[0] = heads[1];
	assert_false(dp_go_check_heads(&fake->runtime));
	go_fake_free(fake);
}

/* Whether records of Go 1.@minor pass for those of Go 1.@as. */
static bool pass(unsigned minor, unsigned as, bool are_used)
{
	struct go_fake *fake = go_fake_new(minor);
	bool r;

	for (uint64_t i = 0; i < 50; i++) {
		uint64_t *record = go_fake_add(fake, DP_GO_HEAP, 48, stack, 3);

		if (are_used && i % 2 == 0)
			go_fake_set(fake, record, -1, 48, 10 + i, i % 10);
		if (are_used)
			go_fake_set(fake, record, 1, 48, 3 + i, 0);
	}
	assert_true(dp_go_layout_get(as, &fake->runtime.layout) >= 0);
	r = dp_go_check_records(&fake->runtime);
	go_fake_free(fake);
	return r;
}

static void records_tell_whether_cycles_have_bytes(void **state)
{
	(void)state;
	assert_true(pass(27, 28, true));
	assert_true(pass(24, 24, true));
	assert_false(pass(24, 28, true));
	assert_false(pass(27, 24, true));
	assert_false(pass(27, 28, false)); /* nothing that could tell */
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_version_is_read_from_both_forms_of_build_information),
		cmocka_unit_test(a_long_version_is_cut_and_its_length_may_have_two_bytes),
		cmocka_unit_test(build_information_that_lies_is_refused),
		cmocka_unit_test(reads_stop_at_the_first_piece_that_is_not_mapped),
		cmocka_unit_test(operands_relative_to_the_instruction_are_listed),
		cmocka_unit_test(rates_are_the_target_s_own),
		cmocka_unit_test(ticks_are_calibrated_as_each_version_does),
		cmocka_unit_test(a_head_of_another_list_or_with_foreign_code_is_not_believed),
		cmocka_unit_test(records_tell_whether_cycles_have_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
