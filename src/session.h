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
#include "src/heap.h"
#include "src/pairing.h"
#include "src/probes.h"
#include "src/target.h"
#include "symbolize/module.h"

/*
 * One attach to one process: the whole line from its rings to profiles. It owns no thread and no
 * clock: its owner polls, pumps, and says when an interval ends.
 */

struct dp_session;

struct dp_session_options {
	pid_t pid;
	uint64_t heap_rate_bytes; /* at least 1 */
	uint64_t seed;		  /* of the sampling generator */
};

enum dp_session_state {
	DP_SESSION_RUNNING,
	DP_SESSION_ENDED,  /* the process ended */
	DP_SESSION_EXECED, /* it executed another program; what was attached to is gone */
};

/* Everything since the attach. */
struct dp_session_stats {
	struct dp_sampler_stats sampler;
	struct dp_pairing_stats pairing;
	struct dp_heap_stats heap;
	uint64_t n_pending; /* calls entered and not returned yet */
	uint64_t n_stacks;  /* distinct */
	uint64_t
		n_stacks_truncated; /* of these, as long as the kernel's limit: there may be more */
	uint64_t n_stacks_cut; /* of these, with outermost addresses cut off: in no mapped code */
	uint64_t n_stacks_overflowed;
	uint64_t n_unknown_probes; /* hits at an address that no probe of ours is at */
};

/*
 * Takes a finished profile (gzipped). Returns 0, or a negative errno with a sentence in @err: the
 * profile's content is then delivered again with the next one.
 */
typedef int dp_session_writer(void *context, const void *data, size_t n_bytes,
			      struct dp_error *err);

/*
 * Attaches: finds the allocators, places the probes, opens the events, lets them flow.
 * Returns 0 or a negative errno with a sentence in @err.
 */
int dp_session_open(struct dp_session **ret, const struct dp_session_options *options,
		    struct dp_error *err);

/* Detaches and frees everything. NULL is allowed. */
void dp_session_close(struct dp_session *session);

/*
 * Descriptors to poll for reading, *@ret_n of them, borrowed: the rings, and last the process
 * itself. Poll with a time-out of at most 100 ms.
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

/*
 * Stops the flow of events and takes in all that is left; afterwards the kernel's counters and ours
 * can be compared exactly. Returns 0 or -ENOMEM.
 */
int dp_session_stop(struct dp_session *session);

enum dp_session_state dp_session_state(const struct dp_session *session);

/*
 * Gives @write the heap profile of what changed since the last profile that was written, up to the
 * last cut.
 *
 * @start_unix_ns, @duration_ns: the time that the profile covers.
 * *@ret_bytes (may be NULL): its size.
 * Returns 0, -ENOMEM, or what @write returned; with a sentence in @err.
 */
int dp_session_write_heap(struct dp_session *session, int64_t start_unix_ns, uint64_t duration_ns,
			  dp_session_writer *write, void *context, size_t *ret_bytes,
			  struct dp_error *err);

/* Fills @ret. */
void dp_session_get_stats(struct dp_session *session, struct dp_session_stats *ret);

const struct dp_target *dp_session_target(const struct dp_session *session);
const struct dp_probes *dp_session_probes(const struct dp_session *session);
const struct dp_modules *dp_session_modules(const struct dp_session *session);
void dp_session_get_size(const struct dp_session *session, size_t *ret_threads, size_t *ret_fds);

#endif
