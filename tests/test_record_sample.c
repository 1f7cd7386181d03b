/* SPDX-License-Identifier: MIT */
/* Samples of probes: entries, returns, frees. */
#include <errno.h>
#include <linux/perf_event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "perf/record.h"
#include "tests/captured_records.h"
#include "tests/record_fixture.h"

#define USER_MARKER 0xfffffffffffffe00 /* PERF_CONTEXT_USER */

/* Where the parts of captured_alloc_entry lie. */
enum {
	ENTRY_N_CALLCHAIN = 32,
	ENTRY_RAW_SIZE = 64,
	ENTRY_RAW = 68,
	ENTRY_RAW_BYTES = 60, /* its fields end at 56 */
};

/* What the numbers below are was read off the captured bytes by another program. */

static void a_captured_entry_of_malloc_tells_arguments_stack_and_callchain(void **state)
{
	struct dp_event e;

	(void)state;
	expect_parsed(CAPTURED(alloc_entry), &e);
	assert_int_equal(e.type, DP_EVENT_ALLOC_ENTRY);
	assert_int_equal(e.pid, 2178);
	assert_int_equal(e.tid, 2178);
	assert_int_equal(e.time_ns, 4097567720960);
	assert_int_equal(e.id, 193567);
	assert_int_equal(e.entry.probe_avma, 0x7faaa3d21930);
	assert_int_equal(e.entry.args[0], 77);
	assert_int_equal(e.entry.args[1], 0x7ffd83a5c4af);
	assert_int_equal(e.entry.args[2], 1);
	assert_int_equal(e.entry.sp, 0x7ffd83a5c378);
	assert_int_equal(e.entry.stack0, 0x5617d7f93d84);
	assert_int_equal(e.entry.user.n_callchain, 3);
	assert_int_equal(e.entry.user.callchain[0], USER_MARKER);
	assert_int_equal(e.entry.user.callchain[1], 0x7faaa3d21930);
	assert_int_equal(e.entry.user.callchain[2], 0x7faaa3cb024a);
}

static void a_captured_return_belongs_to_its_entry(void **state)
{
	struct dp_event e;

	(void)state;
	expect_parsed(CAPTURED(alloc_return), &e);
	assert_int_equal(e.type, DP_EVENT_ALLOC_RETURN);
	assert_int_equal(e.time_ns, 4097567735519);
	assert_int_equal(e.id, 193568);
	assert_int_equal(e.ret.probe_avma, 0x7faaa3d21930);
	assert_int_equal(e.ret.retval, 0x5617fa5ba740);
	assert_int_equal(e.ret.dx, 0);
	assert_int_equal(e.ret.sp, 0x7ffd83a5c378 + 8);
}

static void a_captured_free_tells_the_pointer_and_has_no_callchain(void **state)
{
	struct dp_event e;

	(void)state;
	expect_parsed(CAPTURED(free), &e);
	assert_int_equal(e.type, DP_EVENT_FREE);
	assert_int_equal(e.time_ns, 4097567741219);
	assert_int_equal(e.id, 193569);
	assert_int_equal(e.entry.probe_avma, 0x7faaa3d21ef3);
	assert_int_equal(e.entry.args[0], 0x5617fa5ba740);
	assert_int_equal(e.entry.args[1], 0);
	assert_int_equal(e.entry.args[2], 0);
	assert_int_equal(e.entry.sp, 0x7ffd83a5c378);
	assert_int_equal(e.entry.stack0, 0);
	assert_null(e.entry.user.callchain);
	assert_int_equal(e.entry.user.n_callchain, 0);
}

static void the_builder_writes_what_the_kernel_writes(void **state)
{
	/* common_flags and _preempt_count; __probe_ret_ip */
	static const size_t flags[][2] = {{70, 2}, {0, 0}};
	static const size_t flags_ret_ip[][2] = {{46, 2}, {60, 8}, {0, 0}};
	static const size_t flags_no_chain[][2] = {{46, 2}, {0, 0}};

	(void)state;
	expect_rebuilt(CAPTURED(alloc_entry), flags);
	expect_rebuilt(CAPTURED(alloc_return), flags_ret_ip);
	expect_rebuilt(CAPTURED(free), flags_no_chain);
}

static void a_built_entry_with_a_long_callchain_comes_back(void **state)
{
	static struct record r;
	uint64_t chain[127];
	struct dp_event in = {.type = DP_EVENT_ALLOC_ENTRY,
			      .pid = 7,
			      .tid = 9,
			      .time_ns = UINT64_MAX,
			      .id = 11,
			      .entry = {.probe_avma = 1,
					.args = {2, 3, UINT64_MAX},
					.sp = 5,
					.stack0 = 6,
					.user = {.callchain = chain, .n_callchain = 127}}};
	struct dp_event out;

	(void)state;
	for (size_t i = 0; i < 127; i++)
		chain[i] = i * 0x0101010101010101;
	r.n_bytes = sample_build(r.bytes, &sample_layout, &in);
	expect_parsed(r.bytes, r.n_bytes, &out);
	assert_int_equal(out.pid, 7);
	assert_int_equal(out.tid, 9);
	assert_int_equal(out.time_ns, UINT64_MAX);
	assert_int_equal(out.id, 11);
	assert_int_equal(out.entry.probe_avma, 1);
	assert_memory_equal(out.entry.args, in.entry.args, sizeof(in.entry.args));
	assert_int_equal(out.entry.sp, 5);
	assert_int_equal(out.entry.stack0, 6);
	assert_int_equal(out.entry.user.n_callchain, 127);
	assert_memory_equal(out.entry.user.callchain, chain, sizeof(chain));
	assert_true((const uint8_t *)out.entry.user.callchain >= r.bytes);
	assert_true((const uint8_t *)(out.entry.user.callchain + 127) <= r.bytes + r.n_bytes);
}

static void an_empty_callchain_is_no_error(void **state)
{
	static struct record r;
	struct dp_event in = {.type = DP_EVENT_ALLOC_ENTRY};
	struct dp_event out;

	(void)state;
	r.n_bytes = sample_build(r.bytes, &sample_layout, &in);
	expect_parsed(r.bytes, r.n_bytes, &out);
	assert_int_equal(out.entry.user.n_callchain, 0);
}

static void a_32_bit_field_is_widened(void **state)
{
	struct dp_record_layout layout = sample_layout;
	struct dp_event e;

	(void)state;
	layout.raw[0].fields[0].size_bytes = 4;
	layout.raw[0].fields[1].size_bytes = 4;
	assert_int_equal(dp_record_parse(&layout, CAPTURED(alloc_entry), &e), 0);
	assert_int_equal(e.entry.args[0], 77);
	assert_int_equal(e.entry.args[1], 0x83a5c4af);
}

static void a_field_outside_the_raw_part_is_refused(void **state)
{
	struct dp_event e;

	(void)state;
	for (uint32_t offset = 0; offset <= UINT16_MAX; offset++) {
		struct dp_record_layout layout = sample_layout;
		bool fits = offset + 8 <= ENTRY_RAW_BYTES;

		layout.raw[0].fields[2].offset_bytes = (uint16_t)offset;
		assert_int_equal(dp_record_parse(&layout, CAPTURED(alloc_entry), &e),
				 fits ? 0 : -EBADMSG);
	}
}

static void a_field_of_an_odd_size_is_refused(void **state)
{
	struct dp_event e;

	(void)state;
	for (uint16_t size = 0; size < 20; size++) {
		struct dp_record_layout layout = sample_layout;
		bool known = size == 0 || size == 1 || size == 4 || size == 8;

		layout.raw[0].probe.size_bytes = size;
		assert_int_equal(dp_record_parse(&layout, CAPTURED(alloc_entry), &e),
				 known ? 0 : -EBADMSG);
	}
}

static void an_unknown_tracepoint_is_refused(void **state)
{
	struct record r;

	(void)state;
	record_copy(&r, CAPTURED(alloc_entry));
	r.bytes[ENTRY_RAW] ^= 0x40;
	expect_bad(&r);
}

static void a_callchain_longer_than_the_record_is_refused(void **state)
{
	static const uint64_t counts[] = {4, 13, UINT64_C(1) << 61, UINT64_MAX};
	struct record r;

	(void)state;
	record_copy(&r, CAPTURED(alloc_entry));
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		record_set_u64(&r, ENTRY_N_CALLCHAIN, counts[i]);
		expect_bad(&r);
	}
	record_copy(&r, CAPTURED(free));
	record_set_u64(&r, ENTRY_N_CALLCHAIN, UINT64_C(1) << 61); /* in bytes it is 0 again */
	expect_bad(&r);
}

static void a_raw_part_is_filled_up_to_eight_bytes(void **state)
{
	struct record r;
	struct dp_event e;

	(void)state;
	record_copy(&r, CAPTURED(alloc_entry));
	for (uint32_t size = 56; size <= ENTRY_RAW_BYTES; size++) {
		record_set_u32(&r, ENTRY_RAW_SIZE, size);
		expect_parsed(r.bytes, r.n_bytes, &e);
		assert_int_equal(e.entry.stack0, 0x5617d7f93d84);
	}
	record_set_u32(&r, ENTRY_RAW_SIZE, 52);
	expect_bad(&r);
}

static void a_raw_part_longer_than_the_record_is_refused(void **state)
{
	static const uint32_t sizes[] = {ENTRY_RAW_BYTES + 1, 64, 0x7fffffff, UINT32_MAX};
	struct record r;

	(void)state;
	record_copy(&r, CAPTURED(alloc_entry));
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		record_set_u32(&r, ENTRY_RAW_SIZE, sizes[i]);
		expect_bad(&r);
	}
}

static void bytes_after_the_raw_part_that_are_no_user_state_are_refused(void **state)
{
	struct record r;

	(void)state;
	record_copy(&r, CAPTURED(alloc_entry));
	record_set_u64(&r, r.n_bytes, 0);
	record_resize(&r, r.n_bytes + 8);
	expect_bad(&r);
}

static void a_sample_cut_short_is_refused(void **state)
{
	(void)state;
	expect_no_beginning_parsed(CAPTURED(alloc_entry));
	expect_no_beginning_parsed(CAPTURED(alloc_return));
	expect_no_beginning_parsed(CAPTURED(free));
	expect_no_beginning_parsed(CAPTURED(futex_enter));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_captured_entry_of_malloc_tells_arguments_stack_and_callchain),
		cmocka_unit_test(a_captured_return_belongs_to_its_entry),
		cmocka_unit_test(a_captured_free_tells_the_pointer_and_has_no_callchain),
		cmocka_unit_test(the_builder_writes_what_the_kernel_writes),
		cmocka_unit_test(a_built_entry_with_a_long_callchain_comes_back),
		cmocka_unit_test(an_empty_callchain_is_no_error),
		cmocka_unit_test(a_32_bit_field_is_widened),
		cmocka_unit_test(a_field_outside_the_raw_part_is_refused),
		cmocka_unit_test(a_field_of_an_odd_size_is_refused),
		cmocka_unit_test(an_unknown_tracepoint_is_refused),
		cmocka_unit_test(a_callchain_longer_than_the_record_is_refused),
		cmocka_unit_test(a_raw_part_is_filled_up_to_eight_bytes),
		cmocka_unit_test(a_raw_part_longer_than_the_record_is_refused),
		cmocka_unit_test(bytes_after_the_raw_part_that_are_no_user_state_are_refused),
		cmocka_unit_test(a_sample_cut_short_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
