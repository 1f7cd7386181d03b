/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_TRACEFS_H
#define DP_PERF_TRACEFS_H

#include <stdbool.h>
#include <stdint.h>

#include "perf/record.h"
#include "src/base/error.h"

/*
 * Uprobe definitions in tracefs. A definition is idle until a perf event is opened on it, but it
 * outlives its owner: so every group's name says who owns it (pid and start time), and definitions
 * whose owner is gone are swept.
 *
 * Several probes are put on *one* trace event (kernel 5.5+), each told apart by the address in its
 * records: the number of perf events does not depend on the number of probed functions.
 */

struct dp_tracefs;

/*
 * Finds a mounted tracefs, or mounts it at /sys/kernel/tracing, and sweeps the definitions of dead
 * owners. Returns 0 or a negative errno with a sentence in @err.
 */
int dp_tracefs_open(struct dp_tracefs **ret, struct dp_error *err);

/* Removes every definition of this handle and frees it. Close the perf events first. NULL is
 * allowed. */
void dp_tracefs_close(struct dp_tracefs *tracefs);

/*
 * Adds a probe to trace event @event of this handle's group, making the event if it is the first.
 *
 * @event: letters, digits, '_'.
 * @is_return: a return probe. All probes of one event are of one sort and have the same @arguments.
 * @fd: the file that the code is in; needed during the call only.
 * @file_off: of the probed instruction.
 * @arguments: fetch arguments, space separated. Source: Documentation/trace/uprobetracer.rst.
 * Returns 0, or a negative errno with a sentence in @err (-EINVAL also where the kernel refuses the
 * instruction).
 */
int dp_tracefs_define(struct dp_tracefs *tracefs, const char *event, bool is_return, int fd,
		      uint64_t file_off, const char *arguments, struct dp_error *err);

/*
 * Reads id and field offsets of a trace event from its format file.
 *
 * @group: whose event it is, e.g. "syscalls"; NULL: this handle's own.
 * @fields: names of the fields wanted, at most 5, NULL entries allowed; @probe_field is the address
 * field's name, NULL for an event that is no probe. Returns 0, or a negative errno with a sentence
 * in @err.
 */
int dp_tracefs_layout(struct dp_tracefs *tracefs, const char *group, const char *event,
		      enum dp_event_type type, const char *probe_field, const char *const fields[5],
		      struct dp_raw_layout *ret, struct dp_error *err);

#endif
