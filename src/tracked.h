/* SPDX-License-Identifier: MIT */
#ifndef DP_TRACKED_H
#define DP_TRACKED_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "src/base/error.h"
#include "src/deltaprof.h"
#include "src/options.h"

/*
 * One process that the command line profiles: its attach, its profilers, its files, and what is
 * said of it on stderr.
 */
struct dp_tracked {
	const struct dp_options *options; /* borrowed */
	struct deltaprof *process;	  /* NULL once it is done with */
	struct deltaprof_heap_profiler *heap, *cheap;
	struct deltaprof_block_profiler *block, *mutex;
	struct deltaprof_stats shown; /* as of the last interval */
	uint64_t shown_ns;
};

/* Attaches to @pid with what @options ask for, and says what its profiles cannot have. Returns 0 or
 * a negative errno with a sentence in @err. */
int dp_tracked_open(struct dp_tracked *tracked, const struct dp_options *options, pid_t pid,
		    struct dp_error *err);

/* Detaches. A zeroed or half-opened one is allowed. */
void dp_tracked_close(struct dp_tracked *tracked);

/*
 * Writes all of its profiles up to now; one that fails is made good by the next. @status_line: say
 * afterwards what the interval had. Returns 0, or the last failure with its sentence in @err; those
 * before it are said.
 */
int dp_tracked_write(struct dp_tracked *tracked, bool status_line, struct dp_error *err);

/* Says what is observed and where, and that it is attached. */
void dp_tracked_describe(struct dp_tracked *tracked);

/* Says "PID (COMM): @text". */
void dp_tracked_say(const struct dp_tracked *tracked, const char *text);

/* Says "deltaprof-perf: @text" on stderr, in one write, so that lines of several processes do not
 * mix. */
void dp_say(const char *text);

#endif
