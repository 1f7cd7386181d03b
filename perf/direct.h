/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_DIRECT_H
#define DP_PERF_DIRECT_H

#include <stdbool.h>
#include <stdint.h>

#include "perf/record.h"
#include "perf/rings.h"
#include "perf/sampler.h"
#include "perf/sorts.h"

/*
 * The direct sampler, a part of perf/sampler: perf itself delivers every hit. Its functions are
 * those of perf/sampler.h, as far as they differ from the kernel sampler's.
 */

struct dp_direct;

/*
 * Opens the events into @rings, disabled, and tells @layout of their records.
 *
 * @options: its stack_bytes is set; sites are needed during the call only. @between: called with
 * @context now and then while it takes long, to read the rings; all must outlive it.
 */
int dp_direct_open(struct dp_direct **ret, const struct dp_sampler_options *options,
		   const struct dp_rings *rings, struct dp_record_layout *layout,
		   void (*between)(void *context), void *context, struct dp_error *err);
void dp_direct_close(struct dp_direct *direct); /* NULL is allowed */

void dp_direct_enable(struct dp_direct *direct);
void dp_direct_disable(struct dp_direct *direct);
int dp_direct_resize(struct dp_direct *direct, uint32_t stack_bytes, bool callchain,
		     uint64_t given_ns, struct dp_error *err);
bool dp_direct_is_changing(const struct dp_direct *direct);
uint32_t dp_direct_stack_bytes(const struct dp_direct *direct);

/* What a record with a copy of the stack has at least. */
size_t dp_direct_smallest_copy(const struct dp_direct *direct);

/* Before and after the rings are read. @given_ns: everything older has been given. */
void dp_direct_before_round(struct dp_direct *direct, uint64_t now_ns);
void dp_direct_after_round(struct dp_direct *direct, uint64_t given_ns);

/* Whether a sample is another one's double, see perf/attach.h and perf/twins.h. */
bool dp_direct_is_duplicate(struct dp_direct *direct, const struct dp_event *event);

uint64_t dp_direct_n_gaps(const struct dp_direct *direct); /* as dp_anchors_n_gaps() */

/* Takes note of what the sideband tells of threads. */
void dp_direct_follow(struct dp_direct *direct, const struct dp_event *event);

/* What the kernel counted for @sort since the opening. */
void dp_direct_count(const struct dp_direct *direct, enum dp_sort sort, uint64_t *ret_hits,
		     uint64_t *ret_lost);

void dp_direct_get_size(const struct dp_direct *direct, size_t *ret_threads, size_t *ret_fds);

#endif
