/* SPDX-License-Identifier: MIT */
#ifndef DP_GO_RUNTIME_H
#define DP_GO_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "src/base/error.h"
#include "src/go_layout.h"
#include "symbolize/module.h"
#include "symbolize/space.h"

/*
 * What a running Go program's runtime is like, and where in its memory it keeps what we read: found
 * once at the attach, from the program's file alone; read from the process as often as wanted.
 */

/* Variables of the runtime (avma); 0: not found. */
struct dp_go_variables {
	uint64_t buckets[3]; /* heads of mbuckets, bbuckets, xbuckets: enum dp_go_list */
	uint64_t heap_cycle; /* mProfCycle; mProf before Go 1.19 */
	uint64_t heap_rate, block_rate, mutex_fraction;
	uint64_t heap_disabled; /* runtime.disableMemoryProfiling */
	uint64_t ticks;
	uint64_t heap_lock, events_lock; /* held while the figures that we read change: of the
					    heap's published ones, of block's and mutex's */
};

enum dp_go_list { DP_GO_HEAP, DP_GO_BLOCK, DP_GO_MUTEX };

struct dp_go_runtime {
	pid_t pid;
	char version[32]; /* "go1.24.4" */
	struct dp_go_layout layout;
	struct dp_go_variables variables;
	uint64_t text_start, text_end; /* avma of the program's Go code */
	uint32_t module;	       /* of the program's file */
	uint64_t bias;		       /* avma - svma of it */
	uint64_t ticks_at_find;	       /* the processor's counter and the monotonic clock then, */
	uint64_t ns_at_find;	       /* from which a calibration of our own begins */
	bool is_stripped;	       /* the variables come from instructions, not from symbols */
	bool has_cgo; /* it has C code, which may allocate beside Go: runtime/cgo is
			 linked into it (the build setting CGO_ENABLED=1 says only
			 that it might have been) */
};

/*
 * Finds the Go program that the process of @space runs.
 *
 * @ret: filled on success. Reads the file and a little of the process's memory.
 * Returns 0; 1: it is no Go program; -ENOTSUP: an older Go than 1.16, or a newer one than is known
 * whose memory does not look as that of the newest known one (self-check); -ENOEXEC: something that
 * is needed was not found in it; -ENOMEM or another negative errno; with a sentence in @err.
 */
int dp_go_runtime_find(struct dp_go_runtime *ret, struct dp_modules *modules,
		       struct dp_space *space, pid_t pid, struct dp_error *err);

/* The target's own rates, as they are now. */
struct dp_go_rates {
	int64_t heap_bytes;	 /* runtime.MemProfileRate */
	uint64_t block_ticks;	 /* 0: off */
	uint64_t mutex_fraction; /* 0: off */
	bool heap_disabled;	 /* by the linker: nothing in the program reads the profile */
	double ticks_per_ns;	 /* of its own calibration, or made in its way; see go_runtime.c */
};

/*
 * Reads them. Where the target has not calibrated its counter yet, it is done as the runtime would:
 * since Go 1.22 from what it noted at its start, before that from the time of dp_go_runtime_find()
 * on, which waits until that was 100 ms ago (5 ms and the target's start since Go 1.22).
 *
 * Returns 0, or a negative errno (-ESRCH: the process is gone). Source: the runtime's runtime.go,
 * tickspersecond() up to Go 1.21, ticksPerSecond() since.
 */
int dp_go_read_rates(const struct dp_go_runtime *runtime, struct dp_go_rates *ret);

#endif
