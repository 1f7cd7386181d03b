/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_TWINS_H
#define DP_PERF_TWINS_H

#include <stdbool.h>
#include <stdint.h>

#include "perf/record.h"
#include "src/base/map.h"

/*
 * While one set of events takes over from another, a hit may be recorded by both, one right behind
 * the other. Zeroed memory has seen none.
 */
struct dp_twins {
	struct dp_map last; /* thread and type of event → the last one that had no twin yet */
};

/*
 * Whether the sample @event, of the new set if @is_new, is the second record of a hit whose first
 * one was of the other set. To be asked for each in the order of time. Where there is no memory, a
 * twin is not recognised.
 */
bool dp_twins_is_second(struct dp_twins *twins, const struct dp_event *event, bool is_new);

/* Tells of a sample that both sets share: what lies before and behind it is of different hits. */
void dp_twins_separate(struct dp_twins *twins, const struct dp_event *event);

void dp_twins_clear(struct dp_twins *twins);

#endif
