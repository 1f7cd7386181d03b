/* SPDX-License-Identifier: MIT */
#ifndef DP_SESSION_H
#define DP_SESSION_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "perf/sampler.h"
#include "src/base/error.h"
#include "src/contention.h"
#include "src/go_rates.h"
#include "src/go_source.h"
#include "src/go_waits.h"
#include "src/heap.h"
#include "src/pairing.h"
#include "src/probes.h"
#include "src/report.h"
#include "src/safety.h"
#include "src/target.h"
#include "symbolize/perf_map.h"
#include "symbolize/unwind.h"

/*
 * One attach to one process: the whole line from its rings to cumulative counters per stack. It
 * owns no thread and no clock: its owner polls, pumps, and says up to when events are taken in. One
 * caller at a time.
 */

struct dp_session;

struct dp_session_options {
	pid_t pid;
	bool heap;		  /* observe allocations */
	bool cheap;		  /* of a Go program, those of its C code too */
	bool contention;	  /* observe waits and wake-ups */
	uint64_t heap_rate_bytes; /* at least 1 */
	uint64_t block_rate_ns;	  /* at least 1 */
	uint64_t seed;		  /* of the sampling generators */
	bool heap_unwound; /* stacks of allocations from copies, not from the kernel's callchain */
	bool stacks_go_on; /* stacks beyond what can be copied go on with the callchain */
	struct dp_go_wishes go_wishes; /* of a Go program: what to switch on in it */
	enum dp_sampler_mode sampler;
	bool without_callchains; /* the kernel's are not used, needed or not */
	bool without_returns;	 /* returns are not probed, needed or not: nothing is in use */
	bool debuginfod;	 /* ask it for names, unless the process is our own */
	pid_t except_tid;	 /* a thread of the process that is left out; 0: none */
};

enum dp_session_state {
	DP_SESSION_RUNNING,
	DP_SESSION_ENDED,  /* the process ended */
	DP_SESSION_EXECED, /* it executed another program; what was attached to is gone */
};

/* The sorts of profile that a session can feed. */
enum dp_kind {
	DP_KIND_HEAP,
	DP_KIND_BLOCK,
	DP_KIND_MUTEX,
	DP_KIND_CHEAP, /* of a Go program: the heap of its C code */
};

/* Which of a Go runtime's lists is the source of @kind, which is none for DP_KIND_CHEAP. */
static inline enum dp_go_list dp_kind_go_list(enum dp_kind kind)
{
	switch (kind) {
	case DP_KIND_BLOCK:
		return DP_GO_BLOCK;
	case DP_KIND_MUTEX:
		return DP_GO_MUTEX;
	default:
		return DP_GO_HEAP;
	}
}

/* Everything since the attach. */
struct dp_session_stats {
	struct dp_sampler_stats sampler;
	struct dp_pairing_stats pairing;
	struct dp_heap_stats heap;
	struct dp_contention_stats contention;
	struct dp_go_source_stats go; /* zeros: it is no Go program */
	struct dp_go_waits_stats go_waits;
	struct dp_unwind_counts unwound_heap, unwound_waits;
	struct dp_unwind_stats unwind; /* both */
	uint32_t stack_bytes;	       /* copied of each stack now */
	bool callchain;		       /* beside each copy */
	bool heap_is_copied;
	uint64_t n_skipped;	/* allocation calls that the kernel did not deliver, as they are not
				 * sampled */
	const char *no_returns; /* why returns are not probed, static; NULL: they are */
	uint64_t n_pending;	/* allocation calls entered and not returned yet */
	uint64_t n_stacks;	/* distinct */
	uint64_t
		n_stacks_truncated; /* of these, as long as the kernel's limit: there may be more */
	uint64_t n_stacks_cut; /* of these, with outermost addresses cut off: in no mapped code */
	uint64_t n_stacks_overflowed;
	uint64_t n_stacks_missing; /* events whose record had no registers */
	uint64_t n_unknown_probes; /* hits at an address that no probe of ours is at */
};

/*
 * Attaches: finds the allocators, places the probes, opens the events, lets them flow; leaves out
 * what must not be used on the process (src/safety.h).
 * Returns 0 or a negative errno with a sentence in @err; -EOPNOTSUPP: callchains are asked for
 * where they must not be used.
 */
int dp_session_open(struct dp_session **ret, const struct dp_session_options *options,
		    struct dp_error *err);

/* Detaches and frees everything. NULL is allowed. */
void dp_session_close(struct dp_session *session);

/*
 * Descriptors to poll for reading, *@ret_n of them, borrowed: the rings, and last the process
 * itself. Poll with a time-out of at most dp_session_sleep_ms().
 */
const struct pollfd *dp_session_pollfds(const struct dp_session *session, size_t *ret_n);

/*
 * Reads the rings once and takes in every event that is due and older than @before_ns
 * (CLOCK_MONOTONIC; UINT64_MAX: no limit). Returns 0 or -ENOMEM.
 */
int dp_session_pump(struct dp_session *session, uint64_t before_ns);

/*
 * Takes in everything that happened before @cut_ns and nothing else. Returns 0 or -ENOMEM.
 */
int dp_session_cut(struct dp_session *session, uint64_t cut_ns);

/* How long the owner may sleep between two pumps, in milliseconds. */
int dp_session_sleep_ms(const struct dp_session *session);

/* Whether every event before @cut_ns has been taken in by the last pump. */
bool dp_session_reached(const struct dp_session *session, uint64_t cut_ns);

/*
 * Stops the flow of events and takes in all that is left; afterwards the kernel's counters and ours
 * can be compared exactly. Returns 0 or -ENOMEM.
 */
int dp_session_stop(struct dp_session *session);

enum dp_session_state dp_session_state(const struct dp_session *session);

/* Whether the session feeds profiles of @kind: it was asked to, and the process has such. */
bool dp_session_has(const struct dp_session *session, enum dp_kind kind);

/* What the counters of @kind are. */
struct dp_delta_spec dp_session_delta_spec(const struct dp_session *session, enum dp_kind kind,
					   size_t max_rows);

/*
 * Adds the cumulative counters of @kind to a pass of @delta; of what a Go program's runtime keeps,
 * as they are now. Returns 0, -ENOMEM or -ENOSPC.
 */
int dp_session_feed(struct dp_session *session, enum dp_kind kind, struct dp_delta *delta);

/*
 * The source of @kind if it is what a Go program's runtime keeps by itself, else NULL. Borrowed.
 */
const struct dp_go_source *dp_session_go_source(const struct dp_session *session,
						enum dp_kind kind);

/*
 * The path of a library with Go code that a process has loaded which is no Go program; NULL: there
 * is none. Borrowed.
 */
const char *dp_session_go_library(const struct dp_session *session);

/* Why a Go program's waits that its runtime keeps no profile of cannot be seen; NULL: they can. */
const char *dp_session_why_no_go_waits(const struct dp_session *session);

/* The Go program's runtime; NULL: it is none. Borrowed. */
const struct dp_go_runtime *dp_session_go_runtime(const struct dp_session *session);

/* Interned stacks, for the session's own thread. Borrowed. */
const struct dp_stacks *dp_session_stacks(const struct dp_session *session);

/* What names and mappings come from, for any thread. Borrowed, valid as long as @session. */
const struct dp_report_source *dp_session_source(const struct dp_session *session);

/* Fills @ret. */
void dp_session_get_stats(struct dp_session *session, struct dp_session_stats *ret);

/* What the process's perf map was like when it was last looked at. Fills @ret. */
void dp_session_get_perf_map_stats(const struct dp_session *session, struct dp_perf_map_stats *ret);

/* Fills @ret and returns true, or returns false when debuginfod is not asked. */
bool dp_session_get_debuginfod_stats(const struct dp_session *session,
				     struct dp_debuginfod_stats *ret);

/* Whether the kernel decides what is sampled; and if not, why not, see dp_sampler_why_direct(). */
bool dp_session_is_kernel(const struct dp_session *session);
const char *dp_session_why_direct(const struct dp_session *session);

/* What must not be used on the process. Borrowed, valid as long as @session. */
const struct dp_safety *dp_session_safety(const struct dp_session *session);

/* The options as given, but that what must not be used is off. */
const struct dp_session_options *dp_session_options(const struct dp_session *session);
const struct dp_target *dp_session_target(const struct dp_session *session);
const struct dp_probes *dp_session_probes(const struct dp_session *session); /* NULL without heap */
void dp_session_get_size(const struct dp_session *session, size_t *ret_threads, size_t *ret_fds);

#endif
