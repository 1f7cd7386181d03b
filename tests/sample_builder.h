/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_SAMPLE_BUILDER_H
#define DP_TESTS_SAMPLE_BUILDER_H

#include <stddef.h>
#include <stdint.h>

#include "perf/record.h"

/*
 * Writes records as the kernel does, from the same table of parts that the parser reads
 * (DP_SAMPLE_PARTS), for tests and for the fuzzer's first inputs.
 */

/* No record is longer: its length is 16 bits. */
#define SAMPLE_MAX_BYTES 65536

/*
 * Tracepoints as the kernel lays them out on x86-64, one for each sort of sample. Their ids are
 * those of tests/captured_records.h.
 */
#define SAMPLE_ID_ENTRY 2326
#define SAMPLE_ID_RETURN 2327
#define SAMPLE_ID_FREE 2328
#define SAMPLE_ID_FUTEX_ENTER 522
#define SAMPLE_ID_FUTEX_EXIT 521
#define SAMPLE_ID_WAKING 375
extern const struct dp_record_layout sample_layout;

/*
 * Writes the record of which @event is the meaning; the inverse of dp_record_parse(). An event of
 * DP_EVENT_MMAP becomes one with a build-id if it has one; one of DP_EVENT_FUTEX_EXIT or
 * DP_EVENT_WAKING has registers and stack of the user if it has either, the stack filled up with
 * zeros to a multiple of 8 bytes, which are not valid.
 *
 * @bytes: SAMPLE_MAX_BYTES of room, 8-byte aligned.
 * Returns the record's length; ends the program if it does not fit or @layout has no tracepoint of
 * the event's type.
 */
size_t sample_build(void *bytes, const struct dp_record_layout *layout,
		    const struct dp_event *event);

#endif
