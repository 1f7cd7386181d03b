/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_SORTS_H
#define DP_PERF_SORTS_H

#include <stdbool.h>

#include "perf/attach.h"
#include "perf/sampler.h"
#include "perf/tracefs.h"

/*
 * The sorts of events that a sampler opens. A part of perf/sampler. In the order in which they are
 * enabled: no object is seen whose free would be missed, no wait whose end would.
 */
enum dp_sort {
	DP_SORT_SIDEBAND,
	DP_SORT_FREE,
	DP_SORT_RETURN,
	DP_SORT_ENTRY,
	DP_SORT_WAKING,
	DP_SORT_FUTEX_WOKE, /* a futex call returned that had woken someone, or did not wait
			     * (EAGAIN): no stack is wanted */
	DP_SORT_FUTEX_EXIT,
	DP_SORT_FUTEX_ENTER,
	DP_SORT_GO_READY,
	DP_SORT_GO_ACQUIRE,
	DP_SORT_GO_PARK,
	DP_N_SORTS
};

/* Whether @options ask for it. */
bool dp_sort_is_wanted(enum dp_sort sort, const struct dp_sampler_options *options);

/* What DP_SORT_GO_PARK is filtered by; room for all 64 reasons. */
#define DP_SORT_FILTER_BYTES 1024

/* Whether its samples bring a copy of the stack. */
bool dp_sort_has_stack(enum dp_sort sort, const struct dp_sampler_options *options);

/*
 * Defines the sort's probe, if it is one, on every site, and says how its events are opened and
 * read.
 *
 * @filter: DP_SORT_FILTER_BYTES of room for a filter that @ret may point at. @ret_layout: not set
 * for the sideband. Returns 0 or a negative errno with a sentence in @err.
 */
int dp_sort_define(enum dp_sort sort, struct dp_tracefs *tracefs,
		   const struct dp_sampler_options *options, char *filter,
		   struct dp_event_spec *ret, struct dp_raw_layout *ret_layout,
		   struct dp_error *err);

#endif
