/* SPDX-License-Identifier: MIT */
#include "tests/record_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SIZE_OFFSET 6 /* of the length in a record's header */

void record_copy(struct record *record, const uint8_t *bytes, size_t n_bytes)
{
	memcpy(record->bytes, bytes, n_bytes);
	record->n_bytes = n_bytes;
}

void record_resize(struct record *record, size_t n_bytes)
{
	uint16_t size = (uint16_t)n_bytes;

	memcpy(record->bytes + SIZE_OFFSET, &size, sizeof(size));
	record->n_bytes = n_bytes;
}

void record_set_u32(struct record *record, size_t offset, uint32_t value)
{
	memcpy(record->bytes + offset, &value, sizeof(value));
}

void record_set_u64(struct record *record, size_t offset, uint64_t value)
{
	memcpy(record->bytes + offset, &value, sizeof(value));
}

void expect_parsed(const void *bytes, size_t n_bytes, struct dp_event *ret)
{
	assert_int_equal(dp_record_parse(&sample_layout, bytes, n_bytes, ret), 0);
}

static void expect_outcome(const struct record *record, int outcome)
{
	struct dp_event event;
	struct dp_event before;

	memset(&event, 0x5a, sizeof(event));
	before = event;
	assert_int_equal(dp_record_parse(&sample_layout, record->bytes, record->n_bytes, &event),
			 outcome);
	assert_memory_equal(&event, &before, sizeof(event));
}

void expect_bad(const struct record *record)
{
	expect_outcome(record, -EBADMSG);
}

void expect_unused(const struct record *record)
{
	expect_outcome(record, 1);
}

void expect_no_beginning_parsed(const uint8_t *bytes, size_t n_bytes)
{
	for (size_t n = 8; n < n_bytes; n++) {
		struct record cut;
		struct dp_event e;
		uint16_t size = (uint16_t)n;
		uint8_t *exact = malloc(n); /* a sanitizer sees a read past it */

		assert_non_null(exact);
		record_copy(&cut, bytes, n);
		record_resize(&cut, n);
		expect_bad(&cut);
		memcpy(exact, bytes, n);
		memcpy(exact + SIZE_OFFSET, &size, sizeof(size));
		assert_int_equal(dp_record_parse(&sample_layout, exact, n, &e), -EBADMSG);
		free(exact);
	}
}

void expect_rebuilt(const uint8_t *captured, size_t n_bytes, const size_t (*unknown)[2])
{
	static struct record built;
	struct dp_event e;

	expect_parsed(captured, n_bytes, &e);
	built.n_bytes = sample_build(built.bytes, &sample_layout, &e);
	assert_int_equal(built.n_bytes, n_bytes);
	for (; (*unknown)[1] > 0; unknown++)
		memcpy(built.bytes + (*unknown)[0], captured + (*unknown)[0], (*unknown)[1]);
	assert_memory_equal(built.bytes, captured, n_bytes);
}

void expect_same_time(const uint8_t *bytes, size_t n_bytes)
{
	struct dp_event e;
	uint64_t time_ns;

	expect_parsed(bytes, n_bytes, &e);
	assert_int_equal(dp_record_time(bytes, n_bytes, &time_ns), 0);
	assert_int_equal(time_ns, e.time_ns);
}
