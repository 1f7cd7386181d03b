/* SPDX-License-Identifier: MIT */
#ifndef DP_PROFILER_H
#define DP_PROFILER_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"
#include "src/session.h"

/*
 * One consumer of one sort of profile: remembers what was delivered to it, and builds the
 * difference.
 */

struct dp_profiler;

/*
 * @start_ns: CLOCK_MONOTONIC, where the first profile begins. @session: borrowed, must outlive it.
 * Returns 0 or -ENOMEM.
 */
int dp_profiler_new(struct dp_profiler **ret, struct dp_session *session, enum dp_kind kind,
		    uint64_t start_ns);

/* Frees it. NULL is allowed. */
void dp_profiler_free(struct dp_profiler *profiler);

/*
 * Takes over from the session what changed since the last profile that was committed up to @cut_ns,
 * which the session has just been cut at. Returns 0 or -ENOMEM.
 */
int dp_profiler_collect(struct dp_profiler *profiler, uint64_t cut_ns);

/*
 * Builds the profile of what was collected, which is where names are resolved and files may be
 * read: by any thread, while the session goes on. Gzipped pprof of *@ret_bytes bytes at *@ret, to
 * be freed with free(). Then say what became of it. Returns 0 or -ENOMEM.
 */
int dp_profiler_build(struct dp_profiler *profiler, uint8_t **ret, size_t *ret_bytes);

/* The built profile was delivered: the next one begins where it ended. */
void dp_profiler_commit(struct dp_profiler *profiler);

/* It was not: the next one begins where it began. */
void dp_profiler_abort(struct dp_profiler *profiler);

/* Where the next profile begins, in nanoseconds since the Unix epoch. */
int64_t dp_profiler_start_unix_ns(const struct dp_profiler *profiler);

#endif
