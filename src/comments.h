/* SPDX-License-Identifier: MIT */
#ifndef DP_COMMENTS_H
#define DP_COMMENTS_H

#include "encode/pprof.h"
#include "src/report.h"
#include "src/session.h"

/*
 * The truth about a profile, as comments in it: what was seen, sampled, lost, cut short,
 * unresolved, and why. Each comment is one line "topic: name value, name value, …"; the names are
 * documented in the man page.
 */

/*
 * Adds the comments of a profile of @kind.
 *
 * @before, @now: the counters at the last profile that was delivered and at this one.
 * @counts: what the profile consists of.
 * Returns 0 or -ENOMEM.
 */
int dp_comments_add(struct dp_pprof *profile, enum dp_kind kind, const struct dp_session *session,
		    const struct dp_session_stats *before, const struct dp_session_stats *now,
		    const struct dp_report_counts *counts);

#endif
