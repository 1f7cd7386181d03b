/* SPDX-License-Identifier: MIT */
/* Records that are no samples, and what holds for all. Samples: test_record_sample.c, _user.c. */
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

#define SIDEBAND_ID 193566 /* of the event that brought the captured mappings, forks … */

/* What the numbers below are was read off the captured bytes by another program. */

static void a_captured_mapping_tells_device_and_inode(void **state)
{
	struct dp_event e;

	(void)state;
	expect_parsed(CAPTURED(mmap2_inode), &e);
	assert_int_equal(e.type, DP_EVENT_MMAP);
	assert_int_equal(e.pid, 2178);
	assert_int_equal(e.tid, 2178);
	assert_int_equal(e.time_ns, 0x3ba10d9265b);
	assert_int_equal(e.id, SIDEBAND_ID);
	assert_int_equal(e.mmap.start, 94243325337600);
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
	expect_parsed(CAPTURED(mmap2_build_id), &e);
	assert_int_equal(e.type, DP_EVENT_MMAP);
	assert_int_equal(e.pid, 2185);
	assert_int_equal(e.time_ns, 4098021184529);
	assert_int_equal(e.id, 193576);
	assert_int_equal(e.mmap.start, 94521040429056);
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
	expect_parsed(CAPTURED(mmap2_uprobes), &e);
	assert_int_equal(e.mmap.start, 0x7fffffffe000);
	assert_string_equal(e.mmap.path, "[uprobes]");
}

static void a_captured_rename_is_no_exec(void **state)
{
	struct dp_event e;

	(void)state;
	expect_parsed(CAPTURED(comm_rename), &e);
	assert_int_equal(e.type, DP_EVENT_COMM);
	assert_int_equal(e.pid, 2178);
	assert_int_equal(e.tid, 2178);
	assert_int_equal(e.time_ns, 4097570035467);
	assert_int_equal(e.id, SIDEBAND_ID);
	assert_false(e.comm.exec);
	assert_string_equal(e.comm.name, "worker");
}

static void a_captured_exec_is_told_from_a_rename(void **state)
{
	struct dp_event e;

	(void)state;
	expect_parsed(CAPTURED(comm_exec), &e);
	assert_int_equal(e.type, DP_EVENT_COMM);
	assert_int_equal(e.time_ns, 4097681407969);
	assert_true(e.comm.exec);
	assert_string_equal(e.comm.name, "sleep");
}

static void a_captured_fork_tells_child_and_parent(void **state)
{
	struct dp_event e;

	(void)state;
	expect_parsed(CAPTURED(fork), &e);
	assert_int_equal(e.type, DP_EVENT_FORK);
	assert_int_equal(e.pid, 2179);
	assert_int_equal(e.tid, 2179);
	assert_int_equal(e.task.parent_pid, 2178);
	assert_int_equal(e.task.parent_tid, 2178);
	assert_int_equal(e.time_ns, 4097568443006);
	assert_int_equal(e.id, SIDEBAND_ID);
}

static void a_captured_exit_tells_who_ended(void **state)
{
	struct dp_event e;

	(void)state;
	expect_parsed(CAPTURED(exit), &e);
	assert_int_equal(e.type, DP_EVENT_EXIT);
	assert_int_equal(e.pid, 2178);
	assert_int_equal(e.tid, 2178);
	assert_int_equal(e.task.parent_pid, 2177);
	assert_int_equal(e.time_ns, 4097698937311);
	assert_int_equal(e.id, SIDEBAND_ID);
}

static void a_captured_loss_tells_how_many_records_of_which_event(void **state)
{
	struct dp_event e;

	(void)state;
	expect_parsed(CAPTURED(lost), &e);
	assert_int_equal(e.type, DP_EVENT_LOST);
	assert_int_equal(e.pid, 0);
	assert_int_equal(e.tid, 0);
	assert_int_equal(e.lost.n_records, 265);
	assert_int_equal(e.time_ns, 4097567720960);
	assert_int_equal(e.id, 193567);
}

static void lost_samples_are_a_loss_too(void **state)
{
	struct record r;
	struct dp_event e;

	(void)state;
	record_copy(&r, CAPTURED(lost));
	memmove(r.bytes + 8, r.bytes + 16, r.n_bytes - 16); /* no event id */
	record_set_u32(&r, 0, PERF_RECORD_LOST_SAMPLES);
	record_resize(&r, r.n_bytes - 8);
	expect_parsed(r.bytes, r.n_bytes, &e);
	assert_int_equal(e.type, DP_EVENT_LOST);
	assert_int_equal(e.lost.n_records, 265);
}

static void the_builder_writes_what_the_kernel_writes(void **state)
{
	static const size_t nothing[][2] = {{0, 0}};
	static const size_t own_time[][2] = {{24, 8}, {0, 0}};
	static const size_t own_time_reporter[][2] = {{24, 8}, {32, 8}, {0, 0}};
	static const size_t reporter[][2] = {{24, 8}, {0, 0}};

	(void)state;
	expect_rebuilt(CAPTURED(mmap2_inode), nothing);
	expect_rebuilt(CAPTURED(mmap2_build_id), nothing);
	expect_rebuilt(CAPTURED(comm_rename), nothing);
	expect_rebuilt(CAPTURED(comm_exec), nothing);
	expect_rebuilt(CAPTURED(fork), own_time_reporter);
	expect_rebuilt(CAPTURED(exit), own_time);
	expect_rebuilt(CAPTURED(lost), reporter);
}

static void a_string_without_an_end_is_refused(void **state)
{
	struct record r;

	(void)state;
	record_copy(&r, CAPTURED(comm_rename));
	memset(r.bytes + 16, 'x', 8);
	expect_bad(&r);
	record_copy(&r, CAPTURED(mmap2_inode));
	memset(r.bytes + 72, 'x', 16);
	expect_bad(&r);
}

static void a_build_id_that_is_too_long_is_refused(void **state)
{
	struct record r;

	(void)state;
	record_copy(&r, CAPTURED(mmap2_build_id));
	r.bytes[40] = DP_BUILD_ID_MAX + 1;
	expect_bad(&r);
}

static void a_length_that_is_not_the_headers_is_refused(void **state)
{
	struct record r;

	(void)state;
	record_copy(&r, CAPTURED(fork));
	for (size_t n = 0; n <= r.n_bytes + 8; n++) {
		struct dp_event e;
		uint64_t time_ns;

		if (n == sizeof(captured_fork))
			continue;
		assert_int_equal(dp_record_parse(&sample_layout, r.bytes, n, &e), -EBADMSG);
		assert_int_equal(dp_record_time(r.bytes, n, &time_ns), -EBADMSG);
	}
}

static void a_record_cut_short_is_refused(void **state)
{
	(void)state;
	expect_no_beginning_parsed(CAPTURED(fork));
	expect_no_beginning_parsed(CAPTURED(exit));
	expect_no_beginning_parsed(CAPTURED(lost));
}

static void records_without_a_use_are_told_apart_from_broken_ones(void **state)
{
	struct record r;

	(void)state;
	record_copy(&r, CAPTURED(mmap2_inode));
	record_set_u32(&r, 64, 1); /* PROT_READ: data */
	expect_unused(&r);
	record_copy(&r, CAPTURED(fork));
	record_set_u32(&r, 0, PERF_RECORD_THROTTLE);
	expect_unused(&r);
	record_set_u32(&r, 0, PERF_RECORD_MMAP);
	expect_unused(&r);
	record_set_u32(&r, 0, UINT32_MAX);
	expect_unused(&r);
	record_resize(&r, 8 + 16); /* no room for a trailer */
	expect_bad(&r);
}

static void the_quick_time_stamp_is_the_parsed_one(void **state)
{
	(void)state;
	expect_same_time(CAPTURED(alloc_entry));
	expect_same_time(CAPTURED(alloc_return));
	expect_same_time(CAPTURED(free));
	expect_same_time(CAPTURED(futex_enter));
	expect_same_time(CAPTURED(futex_exit));
	expect_same_time(CAPTURED(waking));
	expect_same_time(CAPTURED(mmap2_inode));
	expect_same_time(CAPTURED(mmap2_build_id));
	expect_same_time(CAPTURED(comm_exec));
	expect_same_time(CAPTURED(fork));
	expect_same_time(CAPTURED(exit));
	expect_same_time(CAPTURED(lost));
}

static void a_record_too_short_for_a_time_stamp_has_none(void **state)
{
	struct record r;
	uint64_t time_ns = 42;

	(void)state;
	record_copy(&r, CAPTURED(fork));
	for (size_t n = 8; n < 8 + 24; n++) {
		record_resize(&r, n);
		assert_int_equal(dp_record_time(r.bytes, r.n_bytes, &time_ns), -EBADMSG);
	}
	record_copy(&r, CAPTURED(free));
	for (size_t n = 8; n < 8 + 24; n++) {
		record_resize(&r, n);
		assert_int_equal(dp_record_time(r.bytes, r.n_bytes, &time_ns), -EBADMSG);
	}
	assert_int_equal(time_ns, 42);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_captured_mapping_tells_device_and_inode),
		cmocka_unit_test(a_captured_mapping_tells_the_build_id_instead),
		cmocka_unit_test(a_captured_mapping_of_the_kernels_trampoline_is_a_mapping),
		cmocka_unit_test(a_captured_rename_is_no_exec),
		cmocka_unit_test(a_captured_exec_is_told_from_a_rename),
		cmocka_unit_test(a_captured_fork_tells_child_and_parent),
		cmocka_unit_test(a_captured_exit_tells_who_ended),
		cmocka_unit_test(a_captured_loss_tells_how_many_records_of_which_event),
		cmocka_unit_test(lost_samples_are_a_loss_too),
		cmocka_unit_test(the_builder_writes_what_the_kernel_writes),
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
