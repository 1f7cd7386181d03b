/* SPDX-License-Identifier: MIT */
#include <errno.h>
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
#include "tests/sample_builder.h"

#define USER_MARKER 0xfffffffffffffe00 /* PERF_CONTEXT_USER */

static int parse(const void *bytes, size_t n_bytes, struct dp_event *ret)
{
	return dp_record_parse(&sample_layout, bytes, n_bytes, ret);
}

#define PARSE_CAPTURED(event, name) \
	assert_int_equal(parse(captured_##name, sizeof(captured_##name), (event)), 0)

/* A record that tests may spoil. */
struct record {
	_Alignas(8) uint8_t bytes[SAMPLE_MAX_BYTES];
	size_t n_bytes;
};

#define COPY_CAPTURED(record, name) copy_bytes((record), captured_##name, sizeof(captured_##name))

static void copy_bytes(struct record *record, const uint8_t *bytes, size_t n_bytes)
{
	memcpy(record->bytes, bytes, n_bytes);
	record->n_bytes = n_bytes;
}

static void set_size(struct record *record, size_t n_bytes)
{
	uint16_t size = (uint16_t)n_bytes;

	memcpy(record->bytes + 6, &size, sizeof(size));
	record->n_bytes = n_bytes;
}

static void set_u64(struct record *record, size_t offset, uint64_t value)
{
	memcpy(record->bytes + offset, &value, sizeof(value));
}

static void set_u32(struct record *record, size_t offset, uint32_t value)
{
	memcpy(record->bytes + offset, &value, sizeof(value));
}

static void expect_bad(const struct record *record)
{
	struct dp_event event;
	struct dp_event before;

	memset(&event, 0x5a, sizeof(event));
	before = event;
	assert_int_equal(parse(record->bytes, record->n_bytes, &event), -EBADMSG);
	assert_memory_equal(&event, &before, sizeof(event));
}

static void expect_unused(const struct record *record)
{
	struct dp_event event;
	struct dp_event before;

	memset(&event, 0x5a, sizeof(event));
	before = event;
	assert_int_equal(parse(record->bytes, record->n_bytes, &event), 1);
	assert_memory_equal(&event, &before, sizeof(event));
}

/* What the numbers below are was read off the captured bytes by another program. */

static void a_captured_entry_of_malloc_tells_arguments_stack_and_callchain(void **state)
{
	struct dp_event e;

	(void)state;
	PARSE_CAPTURED(&e, alloc_entry);
	assert_int_equal(e.type, DP_EVENT_ALLOC_ENTRY);
	assert_int_equal(e.pid, 26111);
	assert_int_equal(e.tid, 26111);
	assert_int_equal(e.time_ns, 0x16c7c0e3d92);
	assert_int_equal(e.entry.probe_avma, 0x7f9a61c40930);
	assert_int_equal(e.entry.args[0], 77);
	assert_int_equal(e.entry.args[1], 0x7ffd19c25e1f);
	assert_int_equal(e.entry.args[2], 1);
	assert_int_equal(e.entry.sp, 0x7ffd19c25df8);
	assert_int_equal(e.entry.stack0, 0x56303a5fa8b0);
	assert_int_equal(e.entry.n_callchain, 3);
	assert_int_equal(e.entry.callchain[0], USER_MARKER);
	assert_int_equal(e.entry.callchain[1], 0x7f9a61c40930);
	assert_int_equal(e.entry.callchain[2], 0x6570000a7325203a);
}

static void a_captured_return_belongs_to_its_entry(void **state)
{
	struct dp_event e;

	(void)state;
	PARSE_CAPTURED(&e, alloc_return);
	assert_int_equal(e.type, DP_EVENT_ALLOC_RETURN);
	assert_int_equal(e.time_ns, 0x16c7c0e5b51);
	assert_int_equal(e.ret.probe_avma, 0x7f9a61c40930);
	assert_int_equal(e.ret.retval, 0x563061b83740);
	assert_int_equal(e.ret.dx, 0);
	assert_int_equal(e.ret.sp, 0x7ffd19c25df8 + 8);
}

static void a_captured_free_tells_the_pointer_and_has_no_callchain(void **state)
{
	struct dp_event e;

	(void)state;
	PARSE_CAPTURED(&e, free);
	assert_int_equal(e.type, DP_EVENT_FREE);
	assert_int_equal(e.time_ns, 0x16c7c0e7594);
	assert_int_equal(e.entry.probe_avma, 0x7f9a61c40ef3);
	assert_int_equal(e.entry.args[0], 0x563061b83740);
	assert_int_equal(e.entry.args[1], 0);
	assert_int_equal(e.entry.args[2], 0);
	assert_int_equal(e.entry.sp, 0x7ffd19c25df8);
	assert_int_equal(e.entry.stack0, 0);
	assert_null(e.entry.callchain);
	assert_int_equal(e.entry.n_callchain, 0);
}

static void a_captured_mapping_tells_device_and_inode(void **state)
{
	struct dp_event e;

	(void)state;
	PARSE_CAPTURED(&e, mmap2_inode);
	assert_int_equal(e.type, DP_EVENT_MMAP);
	assert_int_equal(e.pid, 26111);
	assert_int_equal(e.time_ns, 0x16c7c2912d2);
	assert_int_equal(e.mmap.start, 93867423875072);
	assert_int_equal(e.mmap.length_bytes, 0x5000);
	assert_int_equal(e.mmap.file_off, 0x2000);
	assert_int_equal(e.mmap.major, 254);
	assert_int_equal(e.mmap.minor, 0);
	assert_int_equal(e.mmap.inode, 248056);
	assert_int_equal(e.mmap.build_id_bytes, 0);
	assert_string_equal(e.mmap.path, "/usr/bin/sleep");
}

static void a_captured_mapping_tells_the_build_id_instead(void **state)
{
	static const uint8_t build_id[] = {0xe3, 0x10, 0x3c, 0x60, 0x3f, 0x62, 0x41,
					   0x19, 0xa9, 0xe5, 0xc0, 0x25, 0xe4, 0xe5,
					   0xdc, 0x43, 0x0f, 0x85, 0x19, 0xb0};
	struct dp_event e;

	(void)state;
	PARSE_CAPTURED(&e, mmap2_build_id);
	assert_int_equal(e.type, DP_EVENT_MMAP);
	assert_int_equal(e.mmap.start, 94408316764160);
	assert_int_equal(e.mmap.build_id_bytes, sizeof(build_id));
	assert_memory_equal(e.mmap.build_id, build_id, sizeof(build_id));
	assert_int_equal(e.mmap.major, 0);
	assert_int_equal(e.mmap.minor, 0);
	assert_int_equal(e.mmap.inode, 0);
	assert_string_equal(e.mmap.path, "/usr/bin/sleep");
}

static void a_captured_mapping_of_the_kernels_trampoline_is_a_mapping(void **state)
{
	struct dp_event e;

	(void)state;
	PARSE_CAPTURED(&e, mmap2_uprobes);
	assert_int_equal(e.mmap.start, 0x7fffffffe000);
	assert_string_equal(e.mmap.path, "[uprobes]");
}

static void a_captured_rename_is_no_exec(void **state)
{
	struct dp_event e;

	(void)state;
	PARSE_CAPTURED(&e, comm_rename);
	assert_int_equal(e.type, DP_EVENT_COMM);
	assert_int_equal(e.pid, 26111);
	assert_int_equal(e.tid, 26111);
	assert_int_equal(e.time_ns, 0x16c7c22b764);
	assert_false(e.comm.exec);
	assert_string_equal(e.comm.name, "worker");
}

static void a_captured_exec_is_told_from_a_rename(void **state)
{
	struct dp_event e;

	(void)state;
	PARSE_CAPTURED(&e, comm_exec);
	assert_int_equal(e.type, DP_EVENT_COMM);
	assert_true(e.comm.exec);
	assert_string_equal(e.comm.name, "sleep");
}

static void a_captured_fork_tells_child_and_parent(void **state)
{
	struct dp_event e;

	(void)state;
	PARSE_CAPTURED(&e, fork);
	assert_int_equal(e.type, DP_EVENT_FORK);
	assert_int_equal(e.pid, 26112);
	assert_int_equal(e.tid, 26112);
	assert_int_equal(e.task.parent_pid, 26111);
	assert_int_equal(e.task.parent_tid, 26111);
	assert_int_equal(e.time_ns, 0x16c7c1683e7);
}

static void a_captured_exit_tells_who_ended(void **state)
{
	struct dp_event e;

	(void)state;
	PARSE_CAPTURED(&e, exit);
	assert_int_equal(e.type, DP_EVENT_EXIT);
	assert_int_equal(e.pid, 26111);
	assert_int_equal(e.tid, 26111);
	assert_int_equal(e.task.parent_pid, 26110);
	assert_int_equal(e.time_ns, 0x16c7d1cd97c);
}

static void a_captured_loss_tells_how_many_records(void **state)
{
	struct dp_event e;

	(void)state;
	PARSE_CAPTURED(&e, lost);
	assert_int_equal(e.type, DP_EVENT_LOST);
	assert_int_equal(e.pid, 0);
	assert_int_equal(e.tid, 0);
	assert_int_equal(e.lost.n_records, 859);
	assert_int_equal(e.time_ns, 1311610026908);
}

static void lost_samples_are_a_loss_too(void **state)
{
	struct record r;
	struct dp_event e;

	(void)state;
	COPY_CAPTURED(&r, lost);
	memmove(r.bytes + 8, r.bytes + 16, r.n_bytes - 16); /* no event id */
	set_u32(&r, 0, PERF_RECORD_LOST_SAMPLES);
	set_size(&r, r.n_bytes - 8);
	assert_int_equal(parse(r.bytes, r.n_bytes, &e), 0);
	assert_int_equal(e.type, DP_EVENT_LOST);
	assert_int_equal(e.lost.n_records, 859);
}

/*
 * Builds the record again from its meaning and compares with the kernel's bytes, but for those of
 * @unknown, which the meaning does not keep: pairs of offset and length, ended by length 0.
 */
static void expect_rebuilt(const uint8_t *captured, size_t n_bytes, const size_t (*unknown)[2])
{
	static struct record built;
	struct dp_event e;

	assert_int_equal(parse(captured, n_bytes, &e), 0);
	built.n_bytes = sample_build(built.bytes, &sample_layout, &e);
	assert_int_equal(built.n_bytes, n_bytes);
	for (; (*unknown)[1] > 0; unknown++)
		memcpy(built.bytes + (*unknown)[0], captured + (*unknown)[0], (*unknown)[1]);
	assert_memory_equal(built.bytes, captured, n_bytes);
}

#define EXPECT_REBUILT(name, unknown) \
	expect_rebuilt(captured_##name, sizeof(captured_##name), (unknown))

static void the_builder_writes_what_the_kernel_writes(void **state)
{
	static const size_t nothing[][2] = {{0, 0}};
	static const size_t flags[][2] = {{62, 2}, {0, 0}}; /* common_flags, _preempt_count */
	static const size_t flags_ret_ip[][2] = {{38, 2}, {52, 8}, {0, 0}};
	static const size_t flags_no_chain[][2] = {{38, 2}, {0, 0}};
	static const size_t own_time[][2] = {{24, 8}, {0, 0}};
	static const size_t own_time_reporter[][2] = {{24, 8}, {32, 8}, {0, 0}};
	static const size_t event_id_reporter[][2] = {{8, 8}, {24, 8}, {0, 0}};

	(void)state;
	EXPECT_REBUILT(alloc_entry, flags);
	EXPECT_REBUILT(alloc_return, flags_ret_ip);
	EXPECT_REBUILT(free, flags_no_chain);
	EXPECT_REBUILT(mmap2_inode, nothing);
	EXPECT_REBUILT(mmap2_build_id, nothing);
	EXPECT_REBUILT(comm_rename, nothing);
	EXPECT_REBUILT(comm_exec, nothing);
	EXPECT_REBUILT(fork, own_time_reporter);
	EXPECT_REBUILT(exit, own_time);
	EXPECT_REBUILT(lost, event_id_reporter);
}

static void a_built_entry_with_a_long_callchain_comes_back(void **state)
{
	static struct record r;
	uint64_t chain[127];
	struct dp_event in = {.type = DP_EVENT_ALLOC_ENTRY,
			      .pid = 7,
			      .tid = 9,
			      .time_ns = UINT64_MAX,
			      .entry = {.probe_avma = 1,
					.args = {2, 3, UINT64_MAX},
					.sp = 5,
					.stack0 = 6,
					.callchain = chain,
					.n_callchain = 127}};
	struct dp_event out;

	(void)state;
	for (size_t i = 0; i < 127; i++)
		chain[i] = i * 0x0101010101010101;
	r.n_bytes = sample_build(r.bytes, &sample_layout, &in);
	assert_int_equal(parse(r.bytes, r.n_bytes, &out), 0);
	assert_int_equal(out.pid, 7);
	assert_int_equal(out.tid, 9);
	assert_int_equal(out.time_ns, UINT64_MAX);
	assert_int_equal(out.entry.probe_avma, 1);
	assert_memory_equal(out.entry.args, in.entry.args, sizeof(in.entry.args));
	assert_int_equal(out.entry.sp, 5);
	assert_int_equal(out.entry.stack0, 6);
	assert_int_equal(out.entry.n_callchain, 127);
	assert_memory_equal(out.entry.callchain, chain, sizeof(chain));
	assert_true((const uint8_t *)out.entry.callchain >= r.bytes);
	assert_true((const uint8_t *)(out.entry.callchain + 127) <= r.bytes + r.n_bytes);
}

static void an_empty_callchain_is_no_error(void **state)
{
	static struct record r;
	struct dp_event in = {.type = DP_EVENT_ALLOC_ENTRY};
	struct dp_event out;

	(void)state;
	r.n_bytes = sample_build(r.bytes, &sample_layout, &in);
	assert_int_equal(parse(r.bytes, r.n_bytes, &out), 0);
	assert_int_equal(out.entry.n_callchain, 0);
}

static void a_32_bit_field_is_widened(void **state)
{
	struct dp_record_layout layout = sample_layout;
	struct dp_event e;

	(void)state;
	layout.raw[0].fields[0].size_bytes = 4;
	layout.raw[0].fields[1].size_bytes = 4;
	assert_int_equal(
		dp_record_parse(&layout, captured_alloc_entry, sizeof(captured_alloc_entry), &e),
		0);
	assert_int_equal(e.entry.args[0], 77);
	assert_int_equal(e.entry.args[1], 0x19c25e1f);
}

static void a_field_outside_the_raw_part_is_refused(void **state)
{
	struct dp_event e;

	(void)state;
	for (uint32_t offset = 0; offset <= UINT16_MAX; offset++) {
		struct dp_record_layout layout = sample_layout;
		bool fits = offset + 8 <= 60;

		layout.raw[0].fields[2].offset_bytes = (uint16_t)offset;
		assert_int_equal(dp_record_parse(&layout, captured_alloc_entry,
						 sizeof(captured_alloc_entry), &e),
				 fits ? 0 : -EBADMSG);
	}
}

static void a_field_of_an_odd_size_is_refused(void **state)
{
	struct dp_event e;

	(void)state;
	for (uint16_t size = 0; size < 20; size++) {
		struct dp_record_layout layout = sample_layout;
		bool known = size == 0 || size == 4 || size == 8;

		layout.raw[0].probe.size_bytes = size;
		assert_int_equal(dp_record_parse(&layout, captured_alloc_entry,
						 sizeof(captured_alloc_entry), &e),
				 known ? 0 : -EBADMSG);
	}
}

static void an_unknown_tracepoint_is_refused(void **state)
{
	struct record r;

	(void)state;
	COPY_CAPTURED(&r, alloc_entry);
	r.bytes[60] ^= 0x40;
	expect_bad(&r);
}

static void a_callchain_longer_than_the_record_is_refused(void **state)
{
	static const uint64_t counts[] = {4, 13, UINT64_C(1) << 61, UINT64_MAX};
	struct record r;

	(void)state;
	COPY_CAPTURED(&r, alloc_entry);
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		set_u64(&r, 24, counts[i]);
		expect_bad(&r);
	}
	COPY_CAPTURED(&r, free);
	set_u64(&r, 24, UINT64_C(1) << 61); /* in bytes it is 0 again */
	expect_bad(&r);
}

static void a_raw_part_is_filled_up_to_eight_bytes(void **state)
{
	struct record r;
	struct dp_event e;

	(void)state;
	COPY_CAPTURED(&r, alloc_entry);
	for (uint32_t size = 56; size <= 60; size++) { /* its fields end at 56 */
		set_u32(&r, 56, size);
		assert_int_equal(parse(r.bytes, r.n_bytes, &e), 0);
		assert_int_equal(e.entry.stack0, 0x56303a5fa8b0);
	}
	set_u32(&r, 56, 52);
	expect_bad(&r);
}

static void a_raw_part_longer_than_the_record_is_refused(void **state)
{
	static const uint32_t sizes[] = {61, 64, 0x7fffffff, UINT32_MAX};
	struct record r;

	(void)state;
	COPY_CAPTURED(&r, alloc_entry);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		set_u32(&r, 56, sizes[i]);
		expect_bad(&r);
	}
}

static void bytes_after_the_raw_part_are_refused(void **state)
{
	struct record r;

	(void)state;
	COPY_CAPTURED(&r, alloc_entry);
	set_u64(&r, r.n_bytes, 0);
	set_size(&r, r.n_bytes + 8);
	expect_bad(&r);
}

static void a_string_without_an_end_is_refused(void **state)
{
	struct record r;

	(void)state;
	COPY_CAPTURED(&r, comm_rename);
	memset(r.bytes + 16, 'x', 8);
	expect_bad(&r);
	COPY_CAPTURED(&r, mmap2_inode);
	memset(r.bytes + 72, 'x', 16);
	expect_bad(&r);
}

static void a_build_id_that_is_too_long_is_refused(void **state)
{
	struct record r;

	(void)state;
	COPY_CAPTURED(&r, mmap2_build_id);
	r.bytes[40] = DP_BUILD_ID_MAX + 1;
	expect_bad(&r);
}

static void a_length_that_is_not_the_headers_is_refused(void **state)
{
	struct record r;

	(void)state;
	COPY_CAPTURED(&r, fork);
	for (size_t n = 0; n <= r.n_bytes + 8; n++) {
		struct dp_event e;
		uint64_t time_ns;

		if (n == sizeof(captured_fork))
			continue;
		assert_int_equal(parse(r.bytes, n, &e), -EBADMSG);
		assert_int_equal(dp_record_time(r.bytes, n, &time_ns), -EBADMSG);
	}
}

/* Records whose every byte has its place: nothing shorter makes sense. */
static void a_record_cut_short_is_refused(void **state)
{
#define CAPTURED(name)                                   \
	{                                                \
		captured_##name, sizeof(captured_##name) \
	}
	static const struct {
		const uint8_t *bytes;
		size_t n_bytes;
	} records[] = {CAPTURED(alloc_entry), CAPTURED(alloc_return), CAPTURED(free),
		       CAPTURED(fork),	      CAPTURED(exit),	      CAPTURED(lost)};

	(void)state;
	for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++) {
		for (size_t n = 8; n < records[i].n_bytes; n++) {
			struct record cut;
			struct dp_event e;
			uint16_t size = (uint16_t)n;
			uint8_t *exact = malloc(n); /* a sanitizer sees a read past it */

			assert_non_null(exact);
			copy_bytes(&cut, records[i].bytes, n);
			set_size(&cut, n);
			expect_bad(&cut);
			memcpy(exact, records[i].bytes, n);
			memcpy(exact + 6, &size, sizeof(size));
			assert_int_equal(parse(exact, n, &e), -EBADMSG);
			free(exact);
		}
	}
}

static void records_without_a_use_are_told_apart_from_broken_ones(void **state)
{
	struct record r;

	(void)state;
	COPY_CAPTURED(&r, mmap2_inode);
	set_u32(&r, 64, 1); /* PROT_READ: data */
	expect_unused(&r);
	COPY_CAPTURED(&r, fork);
	set_u32(&r, 0, PERF_RECORD_THROTTLE);
	expect_unused(&r);
	set_u32(&r, 0, PERF_RECORD_MMAP);
	expect_unused(&r);
	set_u32(&r, 0, UINT32_MAX);
	expect_unused(&r);
	set_size(&r, 16); /* no room for a trailer */
	expect_bad(&r);
}

static void the_quick_time_stamp_is_the_parsed_one(void **state)
{
	struct dp_event e;
	uint64_t time_ns;

	(void)state;
#define EXPECT_SAME_TIME(name)                                                                  \
	do {                                                                                    \
		PARSE_CAPTURED(&e, name);                                                       \
		assert_int_equal(                                                               \
			dp_record_time(captured_##name, sizeof(captured_##name), &time_ns), 0); \
		assert_int_equal(time_ns, e.time_ns);                                           \
	} while (0)
	EXPECT_SAME_TIME(alloc_entry);
	EXPECT_SAME_TIME(alloc_return);
	EXPECT_SAME_TIME(free);
	EXPECT_SAME_TIME(mmap2_inode);
	EXPECT_SAME_TIME(mmap2_build_id);
	EXPECT_SAME_TIME(comm_exec);
	EXPECT_SAME_TIME(fork);
	EXPECT_SAME_TIME(exit);
	EXPECT_SAME_TIME(lost);
}

static void a_record_too_short_for_a_time_stamp_has_none(void **state)
{
	struct record r;
	uint64_t time_ns = 42;

	(void)state;
	COPY_CAPTURED(&r, fork);
	for (size_t n = 8; n < 8 + 16; n++) {
		set_size(&r, n);
		assert_int_equal(dp_record_time(r.bytes, r.n_bytes, &time_ns), -EBADMSG);
	}
	COPY_CAPTURED(&r, free);
	for (size_t n = 8; n < 8 + 16; n++) {
		set_size(&r, n);
		assert_int_equal(dp_record_time(r.bytes, r.n_bytes, &time_ns), -EBADMSG);
	}
	assert_int_equal(time_ns, 42);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_captured_entry_of_malloc_tells_arguments_stack_and_callchain),
		cmocka_unit_test(a_captured_return_belongs_to_its_entry),
		cmocka_unit_test(a_captured_free_tells_the_pointer_and_has_no_callchain),
		cmocka_unit_test(a_captured_mapping_tells_device_and_inode),
		cmocka_unit_test(a_captured_mapping_tells_the_build_id_instead),
		cmocka_unit_test(a_captured_mapping_of_the_kernels_trampoline_is_a_mapping),
		cmocka_unit_test(a_captured_rename_is_no_exec),
		cmocka_unit_test(a_captured_exec_is_told_from_a_rename),
		cmocka_unit_test(a_captured_fork_tells_child_and_parent),
		cmocka_unit_test(a_captured_exit_tells_who_ended),
		cmocka_unit_test(a_captured_loss_tells_how_many_records),
		cmocka_unit_test(lost_samples_are_a_loss_too),
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
		cmocka_unit_test(bytes_after_the_raw_part_are_refused),
		cmocka_unit_test(a_string_without_an_end_is_refused),
		cmocka_unit_test(a_build_id_that_is_too_long_is_refused),
		cmocka_unit_test(a_length_that_is_not_the_headers_is_refused),
		cmocka_unit_test(a_record_cut_short_is_refused),
		cmocka_unit_test(records_without_a_use_are_told_apart_from_broken_ones),
		cmocka_unit_test(the_quick_time_stamp_is_the_parsed_one),
		cmocka_unit_test(a_record_too_short_for_a_time_stamp_has_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
