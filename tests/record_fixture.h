/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_RECORD_FIXTURE_H
#define DP_TESTS_RECORD_FIXTURE_H

#include <stddef.h>
#include <stdint.h>

#include "perf/record.h"
#include "tests/sample_builder.h"

/*
 * What the tests of the record parser share. A failed expectation fails the cmocka test that runs.
 */

/* A record that tests may spoil. */
struct record {
	_Alignas(8) uint8_t bytes[SAMPLE_MAX_BYTES];
	size_t n_bytes;
};

/* A captured record's bytes and their number, as two arguments. */
#define CAPTURED(name) captured_##name, sizeof(captured_##name)

void record_copy(struct record *record, const uint8_t *bytes, size_t n_bytes);

/* Cuts or extends the record, and its header says so. */
void record_resize(struct record *record, size_t n_bytes);

void record_set_u32(struct record *record, size_t offset, uint32_t value);
void record_set_u64(struct record *record, size_t offset, uint64_t value);

/* Parses with sample_layout; the record must be well formed and of use. */
void expect_parsed(const void *bytes, size_t n_bytes, struct dp_event *ret);

/* The record must be refused, or parsed as one of no use, and the output be left alone. */
void expect_bad(const struct record *record);
void expect_unused(const struct record *record);

/* Each of the record's shorter beginnings must be refused, and nothing be read beyond its end. */
void expect_no_beginning_parsed(const uint8_t *bytes, size_t n_bytes);

/*
 * Builds the record again from its meaning and compares with the kernel's bytes, but for those of
 * @unknown, which the meaning does not keep: pairs of offset and length, ended by length 0.
 */
void expect_rebuilt(const uint8_t *captured, size_t n_bytes, const size_t (*unknown)[2]);

/* The quick time stamp must be the parsed one. */
void expect_same_time(const uint8_t *bytes, size_t n_bytes);

#endif
