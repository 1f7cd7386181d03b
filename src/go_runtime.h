/* SPDX-License-Identifier: MIT */
#ifndef DP_GO_RUNTIME_H
#define DP_GO_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "src/base/error.h"
#include "symbolize/module.h"
#include "symbolize/space.h"

/*
 * What a running Go program's runtime is like, and where in its memory it keeps what we read: found
 * once at the attach, from the program's file alone; read from the process as often as wanted.
 */

/* What depends on the version. Source: the runtime's source of each; reference in ARCHITECTURE.md.
 */
struct dp_go_layout {
	unsigned minor;		     /* of 1.MINOR */
	unsigned cycle_bytes;	     /* of a memRecordCycle: 32, or 16 without bytes */
	bool count_is_double;	     /* a block record's count */
	bool mutex_is_scaled;	     /* the runtime multiplied by the fraction when it counted */
	bool trims_internal_runtime; /* runtime/pprof hides "internal/runtime/" leaves too */
	unsigned ticks_value, ticks_start, ticks_start_time; /* offsets in runtime.ticks; start
								ones 0: there are none */
	unsigned g_sched_sp, g_sched_pc, g_sched_bp, g_goid; /* offsets in a g */
	const uint8_t *wait_reasons; /* enum dp_go_reason → the runtime's number, 0xff: none */
};

/* Variables of the runtime (avma); 0: not found. */
struct dp_go_variables {
	uint64_t buckets[3]; /* heads of mbuckets, bbuckets, xbuckets: enum dp_go_list */
	uint64_t heap_cycle;
	uint64_t heap_rate, block_rate, mutex_fraction;
	uint64_t heap_disabled; /* runtime.disableMemoryProfiling */
	uint64_t ticks;
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
	bool is_stripped;	       /* the variables come from instructions, not from symbols */
	bool has_cgo;		       /* from the build information, or a dynamic loader */
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

/* Returns 0, or a negative errno (-ESRCH: the process is gone). */
int dp_go_read_rates(const struct dp_go_runtime *runtime, struct dp_go_rates *ret);

#endif
