/* SPDX-License-Identifier: MIT */
#ifndef DP_GO_LAYOUT_H
#define DP_GO_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

/* What depends on the version of Go: tables, from the runtime's source of each. */

/*
 * Why a goroutine waits, for the waits that Go's block profile counts. A semaphore counts only if
 * its function says so, which the reason does not tell.
 */
enum dp_go_reason {
	DP_GO_CHAN_RECEIVE,
	DP_GO_CHAN_SEND,
	DP_GO_SELECT,
	DP_GO_SEMACQUIRE, /* mutexes before Go 1.20, wait groups before 1.24, and others */
	DP_GO_COND_WAIT,
	DP_GO_MUTEX_LOCK,
	DP_GO_RWMUTEX_RLOCK,
	DP_GO_RWMUTEX_LOCK,
	DP_GO_WAITGROUP_WAIT,
	DP_GO_SYNCTEST_RECEIVE,
	DP_GO_SYNCTEST_SEND,
	DP_GO_SYNCTEST_SELECT,
	DP_GO_SYNCTEST_WAITGROUP,
	DP_GO_N_REASONS
};

#define DP_GO_NO_REASON 0xff
#define DP_GO_MIN_MINOR 16
#define DP_GO_MAX_MINOR 27

struct dp_go_layout {
	unsigned minor;		     /* of 1.MINOR */
	unsigned cycle_bytes;	     /* of a memRecordCycle: 32, or 16 without bytes */
	bool count_is_double;	     /* a block record's count */
	bool mutex_is_scaled;	     /* the runtime multiplied by the fraction when it counted */
	bool trims_internal_runtime; /* runtime/pprof hides "internal/runtime/" leaves too */
	unsigned ticks_value, ticks_start, ticks_start_time; /* offsets in runtime.ticks; start
								ones 0: there are none */
	unsigned g_sched_sp, g_sched_pc, g_sched_bp, g_goid; /* offsets in a g */
	const uint8_t *wait_reasons; /* enum dp_go_reason → the runtime's number, or
					DP_GO_NO_REASON */
};

/*
 * The layout of Go 1.@minor; a newer one is taken to be as the newest that is known. Returns 0,
 * 1 (it is newer than that) or -ENOTSUP (older than 1.16).
 */
int dp_go_layout_get(unsigned minor, struct dp_go_layout *ret);

/*
 * Reads the minor version out of "go1.24.4", "go1.25rc1", "devel go1.28-abcdef …" and the like.
 * Returns 0; -ENOTSUP for anything else (Go 2, "devel +abcdef").
 */
int dp_go_layout_parse(const char *version, unsigned *ret_minor);

#endif
