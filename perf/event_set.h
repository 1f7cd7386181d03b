/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_EVENT_SET_H
#define DP_PERF_EVENT_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "perf/attach.h"
#include "perf/record.h"
#include "perf/sorts.h"
#include "src/base/map.h"

/*
 * Some sorts of events on every thread of the process, opened together. A part of perf/sampler.
 * Zeroed memory is a set of none.
 */
struct dp_event_set {
	struct dp_attach *attach;		/* NULL: not opened */
	struct dp_event_spec specs[DP_N_SORTS]; /* of those that it has */
	int8_t i_spec[DP_N_SORTS];		/* a sort's number there + 1; 0: not in this set */
	size_t n_specs;
	struct dp_map owners; /* thread found late, and its descendants → whose events count */
	uint64_t attached_ns; /* when the threads were listed for the last time, or later */
};

/* Adds a sort, before the set is opened. */
void dp_event_set_add(struct dp_event_set *set, enum dp_sort sort,
		      const struct dp_event_spec *spec);

/*
 * Opens the events, disabled. @options: its specs are those of the set. Returns 0 or a negative
 * errno with a sentence in @err.
 */
int dp_event_set_open(struct dp_event_set *set, const struct dp_attach_options *options,
		      struct dp_error *err);

/* Closes the events. */
void dp_event_set_close(struct dp_event_set *set);

/* Lets the events of one sort flow or stop; nothing where the set does not have it. */
void dp_event_set_enable(struct dp_event_set *set, enum dp_sort sort);
void dp_event_set_disable(struct dp_event_set *set, enum dp_sort sort);

/* Adds what the kernel counted for @sort to *@hits and *@lost, see dp_attach_counts(). */
void dp_event_set_count(const struct dp_event_set *set, enum dp_sort sort, uint64_t *hits,
			uint64_t *lost);

/* Whether a sample of the set does not count for its thread, which has two, see perf/attach.h. */
bool dp_event_set_is_duplicate(const struct dp_event_set *set, const struct dp_event *event);

/* Takes note of a thread's creation or end. */
void dp_event_set_follow(struct dp_event_set *set, const struct dp_event *event);

#endif
