/* SPDX-License-Identifier: MIT */
/* Samples of goroutines: the two of the direct sampler, the one that the kernel has decided. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "perf/record.h"
#include "tests/record_fixture.h"
#include "tests/sample_builder.h"

#define ID_PARK 2330
#define ID_READY 2331
#define ID_WAIT 0xff05

/* Probes: common fields, __probe_ip, then what is fetched. The programs': as perf/kernel_abi.h. */
static const struct dp_record_layout layout = {
	.n_raw = 3,
	.raw = {{.id = ID_PARK,
		 .type = DP_EVENT_GO_PARK,
		 .probe = {8, 8},
		 .fields = {{16, 8}, {24, 1}, {25, 8}}},
		{.id = ID_READY, .type = DP_EVENT_GO_READY, .probe = {8, 8}, .fields = {{16, 8}}},
		{.id = ID_WAIT,
		 .type = DP_EVENT_GO_WAIT,
		 .fields = {{8, 8}, {4, 4}, {24, 4}, {16, 8}, {28, 4}},
		 .frames = {32, 8}}},
};

static const uint64_t callchain[] = {(uint64_t)-512, 0x401000, 0x402000};
static const uint64_t frames[] = {0x501000, 0x502000, 0x503000};

static struct dp_event wait_event(void)
{
	return (struct dp_event){.type = DP_EVENT_GO_WAIT,
				 .pid = 7,
				 .tid = 9,
				 .time_ns = 1234,
				 .id = 5,
				 .go = {.g = 0xc000002000,
					.reason = 14,
					.delay_ns = 777,
					.goes_on = true,
					.frames = (const uint8_t *)frames,
					.n_frames = 3,
					.user = {.callchain = callchain, .n_callchain = 3}}};
}

static size_t build(struct record *record, const struct dp_event *event)
{
	record->n_bytes = sample_build(record->bytes, &layout, event);
	return record->n_bytes;
}

static void a_park_tells_goroutine_reason_and_stack(void **state)
{
	struct dp_event event = {.type = DP_EVENT_GO_PARK,
				 .pid = 7,
				 .tid = 9,
				 .go = {.g = 0xc000001000,
					.reason = 19,
					.stack0 = 0x402000,
					.user = {.callchain = callchain, .n_callchain = 3}}};
	struct record record;
	struct dp_event got;

	(void)state;
	assert_int_equal(dp_record_parse(&layout, record.bytes, build(&record, &event), &got), 0);
	assert_int_equal(got.type, DP_EVENT_GO_PARK);
	assert_int_equal(got.go.g, 0xc000001000);
	assert_int_equal(got.go.reason, 19);
	assert_int_equal(got.go.stack0, 0x402000);
	assert_int_equal(got.go.user.n_callchain, 3);
	assert_null(got.go.frames);
}

static void a_ready_tells_whom_and_the_wakers_stack(void **state)
{
	struct dp_event event = {
		.type = DP_EVENT_GO_READY,
		.go = {.g = 0xc000001000, .user = {.callchain = callchain, .n_callchain = 3}}};
	struct record record;
	struct dp_event got;

	(void)state;
	assert_int_equal(dp_record_parse(&layout, record.bytes, build(&record, &event), &got), 0);
	assert_int_equal(got.type, DP_EVENT_GO_READY);
	assert_int_equal(got.go.g, 0xc000001000);
	assert_memory_equal(got.go.user.callchain, callchain, sizeof(callchain));
}

static void a_decided_wait_tells_both_stacks(void **state)
{
	struct dp_event event = wait_event(), got;
	struct record record;

	(void)state;
	assert_int_equal(dp_record_parse(&layout, record.bytes, build(&record, &event), &got), 0);
	assert_int_equal(got.go.g, event.go.g);
	assert_int_equal(got.go.reason, 14);
	assert_int_equal(got.go.delay_ns, 777);
	assert_true(got.go.goes_on);
	assert_int_equal(got.go.n_frames, 3);
	assert_memory_equal(got.go.frames, frames, sizeof(frames));
	assert_int_equal(got.go.user.n_callchain, 3);
}

/* Where the raw part of wait_event()'s record begins. */
static size_t raw_offset(void)
{
	return 8 /* header */ + 8 + 8 + 8 + 8 + sizeof(callchain) + 4;
}

static void more_frames_than_the_record_holds_are_refused(void **state)
{
	struct dp_event event = wait_event(), got;
	struct record record;

	(void)state;
	build(&record, &event);
	/* The kernel's filling is no frame. */
	record_set_u32(&record, raw_offset() + 24, 4);
	assert_int_equal(dp_record_parse(&layout, record.bytes, record.n_bytes, &got), -EBADMSG);
	record_set_u32(&record, raw_offset() + 24, UINT32_MAX);
	assert_int_equal(dp_record_parse(&layout, record.bytes, record.n_bytes, &got), -EBADMSG);
	record_set_u32(&record, raw_offset() + 24, 2);
	assert_int_equal(dp_record_parse(&layout, record.bytes, record.n_bytes, &got), 0);
	assert_int_equal(got.go.n_frames, 2);
}

static void each_shorter_beginning_is_refused(void **state)
{
	struct dp_event event = wait_event(), got;
	struct record record, cut;
	size_t n = build(&record, &event);

	(void)state;
	for (size_t i = 8; i < n; i++) {
		cut = record;
		record_resize(&cut, i);
		assert_int_equal(dp_record_parse(&layout, cut.bytes, cut.n_bytes, &got), -EBADMSG);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_park_tells_goroutine_reason_and_stack),
		cmocka_unit_test(a_ready_tells_whom_and_the_wakers_stack),
		cmocka_unit_test(a_decided_wait_tells_both_stacks),
		cmocka_unit_test(more_frames_than_the_record_holds_are_refused),
		cmocka_unit_test(each_shorter_beginning_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
