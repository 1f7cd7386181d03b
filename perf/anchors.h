/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_ANCHORS_H
#define DP_PERF_ANCHORS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "perf/record.h"

/*
 * Keeps the probes of trace events in a process whose main thread has ended. The kernel leaves a
 * breakpoint in as long as an event of it is bound to a thread that lives, and takes it out at the
 * next hit otherwise; inherited events do not count, as the kernel exchanges them between threads.
 * So counting events of their own are bound to a few threads, and to others when these end.
 */

struct dp_anchors;

/* @ids: of the trace events, @n of them. Binds nothing yet. Returns 0 or -ENOMEM. */
int dp_anchors_new(struct dp_anchors **ret, pid_t pid, const uint64_t *ids, size_t n);
void dp_anchors_free(struct dp_anchors *anchors); /* NULL is allowed */

/* Binds them to threads that live. Returns 0 or a negative errno: -ESRCH if none does. */
int dp_anchors_bind(struct dp_anchors *anchors);

/* Takes note of a thread's beginning or end. */
void dp_anchors_follow(struct dp_anchors *anchors, const struct dp_event *event);

/* How often the last thread had ended before another one was known: hits may be missing. */
uint64_t dp_anchors_n_gaps(const struct dp_anchors *anchors);

size_t dp_anchors_n_fds(const struct dp_anchors *anchors);

/* Opens a counting event of trace event @id on thread @tid. Returns a descriptor or a negative
 * errno. */
int dp_anchor_open(uint64_t id, pid_t tid);

#endif
