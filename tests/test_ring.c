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

#include "perf/ring.h"
#include "tests/alloc_fail.h"

#define RING_BYTES 4096

/* A ring in plain memory, written as the kernel does it. */
struct fixture {
	struct perf_event_mmap_page page;
	_Alignas(8) uint8_t data[RING_BYTES];
	struct dp_ring ring;
};

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	assert_int_equal(dp_ring_init(&fixture->ring, &fixture->page, fixture->data, RING_BYTES),
			 0);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	dp_ring_unmap(&fixture->ring);
	free(fixture);
	return 0;
}

/* Writes a record of @n_bytes whose every byte after the header is @fill, if there is room. */
static int kernel_writes(struct fixture *fixture, size_t n_bytes, uint8_t fill)
{
	uint8_t record[RING_BYTES];
	struct perf_event_header header = {.type = PERF_RECORD_SAMPLE, .size = (uint16_t)n_bytes};
	uint64_t head = fixture->page.data_head;

	if (head - fixture->page.data_tail + n_bytes > RING_BYTES)
		return -1;
	memset(record, fill, n_bytes);
	memcpy(record, &header, sizeof(header));
	for (size_t i = 0; i < n_bytes; i++)
		fixture->data[(head + i) % RING_BYTES] = record[i];
	fixture->page.data_head = head + n_bytes;
	return 0;
}

static void expect_record(struct fixture *fixture, size_t n_bytes, uint8_t fill)
{
	const uint8_t *record = NULL;
	size_t n_got = 0;

	assert_int_equal(dp_ring_next(&fixture->ring, (const void **)&record, &n_got), 1);
	assert_int_equal(n_got, n_bytes);
	assert_int_equal((uintptr_t)record % 8, 0);
	for (size_t i = sizeof(struct perf_event_header); i < n_bytes; i++)
		assert_int_equal(record[i], fill);
}

static void expect_end(struct fixture *fixture)
{
	const void *record;
	size_t n;

	assert_int_equal(dp_ring_next(&fixture->ring, &record, &n), 0);
}

static void ring_gives_nothing_that_was_not_refreshed(void **state)
{
	struct fixture *fixture = *state;

	expect_end(fixture);
	kernel_writes(fixture, 64, 1);
	expect_end(fixture);
	dp_ring_refresh(&fixture->ring);
	expect_record(fixture, 64, 1);
	expect_end(fixture);
}

static void ring_copies_a_record_that_straddles_the_end(void **state)
{
	struct fixture *fixture = *state;

	kernel_writes(fixture, RING_BYTES - 16, 1);
	dp_ring_refresh(&fixture->ring);
	expect_record(fixture, RING_BYTES - 16, 1);
	dp_ring_release(&fixture->ring);
	assert_int_equal(kernel_writes(fixture, 160, 2), 0);
	dp_ring_refresh(&fixture->ring);
	expect_record(fixture, 160, 2);
	expect_end(fixture);
}

static void ring_keeps_space_until_it_is_released(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(kernel_writes(fixture, RING_BYTES, 1), 0);
	dp_ring_refresh(&fixture->ring);
	expect_record(fixture, RING_BYTES, 1);
	assert_int_equal(kernel_writes(fixture, 8, 2), -1);
	dp_ring_release(&fixture->ring);
	assert_int_equal(kernel_writes(fixture, 8, 2), 0);
}

static void ring_survives_many_laps_of_all_sizes(void **state)
{
	struct fixture *fixture = *state;
	size_t n_bytes = 8;

	for (unsigned lap = 0; lap < 20000; lap++) {
		assert_int_equal(kernel_writes(fixture, n_bytes, (uint8_t)lap), 0);
		dp_ring_refresh(&fixture->ring);
		expect_record(fixture, n_bytes, (uint8_t)lap);
		dp_ring_release(&fixture->ring);
		n_bytes = n_bytes % 2000 + 8;
	}
	assert_true(fixture->page.data_tail > 100 * RING_BYTES);
}

static void ring_skips_what_contradicts_itself_and_goes_on(void **state)
{
	static const uint16_t bad_sizes[] = {0, 4, 9, 72};
	struct fixture *fixture = *state;
	const void *record;
	size_t n;

	for (size_t i = 0; i < sizeof(bad_sizes) / sizeof(*bad_sizes); i++) {
		struct perf_event_header *header =
			(void *)(fixture->data + fixture->page.data_head % RING_BYTES);

		kernel_writes(fixture, 64, 1);
		header->size = bad_sizes[i];
		dp_ring_refresh(&fixture->ring);
		assert_int_equal(dp_ring_next(&fixture->ring, &record, &n), -EBADMSG);
		expect_end(fixture);
		kernel_writes(fixture, 64, 3);
		dp_ring_refresh(&fixture->ring);
		expect_record(fixture, 64, 3);
		dp_ring_release(&fixture->ring);
	}
}

static void ring_skips_a_head_beyond_its_size(void **state)
{
	struct fixture *fixture = *state;
	const void *record;
	size_t n;

	fixture->page.data_head = RING_BYTES + 8;
	dp_ring_refresh(&fixture->ring);
	assert_int_equal(dp_ring_next(&fixture->ring, &record, &n), -EBADMSG);
	expect_end(fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(ring_gives_nothing_that_was_not_refreshed, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(ring_copies_a_record_that_straddles_the_end, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(ring_keeps_space_until_it_is_released, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(ring_survives_many_laps_of_all_sizes, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(ring_skips_what_contradicts_itself_and_goes_on,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(ring_skips_a_head_beyond_its_size, set_up,
						tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
