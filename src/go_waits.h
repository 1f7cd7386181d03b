/* SPDX-License-Identifier: MIT */
#ifndef DP_GO_WAITS_H
#define DP_GO_WAITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "perf/record.h"
#include "perf/sampler.h"
#include "src/delta.h"
#include "src/go_places.h"
#include "src/stack.h"
#include "symbolize/module.h"
#include "symbolize/space.h"

/*
 * The source of a Go process's waits: goroutines that park and are readied go in, cumulative
 * counters per stack come out, as Go's block and mutex profiles count them: block on the stack that
 * waited, mutex on the stack that released the lock.
 *
 * What differs from the runtime's own: a wait begins where the goroutine parks, not where it began
 * to try (it may have waited for a channel's own lock before). A release is
 * charged with the wait of the goroutine that it ends, not (as Go 1.22 and newer do) with a share
 * of all that still wait. Locks of the runtime itself are not seen.
 */

struct dp_go_waits;

struct dp_go_waits_options {
	uint64_t pid;
	uint64_t rate_ns; /* waits at least this long are kept, shorter ones with probability d /
			     rate; 1: all */
	uint64_t seed;
	size_t max_parked;	/* bound of goroutines that wait at once */
	size_t max_callchain;	/* what the kernel limits callchains to */
	const uint8_t *reasons; /* enum dp_go_reason → the runtime's number, 0xff: none */
	bool gopark_has_frame;	/* struct dp_go_placement.has_frame of runtime.gopark */
};

/*
 * In words: every park of a reason that counts is once in n_waits, n_forgotten or n_no_room, or
 * still pending; and every wait in n_kept, n_internal or n_skipped. Where the kernel has decided
 * only n_kept, n_internal and what is scaled are counted here, the rest in struct dp_kernel_counts.
 */
struct dp_go_waits_stats {
	uint64_t n_parks;     /* for a reason that counts */
	uint64_t n_waits;     /* that ended */
	uint64_t n_going_on;  /* of these, parts of a longer one: a semaphore was not got */
	uint64_t n_kept;      /* in the profiles */
	uint64_t n_skipped;   /* drawn, and not kept */
	uint64_t n_internal;  /* kept by the draw, of the runtime's own semaphores: not counted */
	uint64_t n_forgotten; /* parks whose end was not seen: records were lost */
	uint64_t n_other_readies;   /* goroutines readied that were not known to wait */
	uint64_t n_no_room;	    /* parks beyond the bound of goroutines */
	uint64_t n_locks_otherwise; /* waits for a lock, scaled, whose release was not found: what
				       mutex lacks */
	uint64_t n_truncated;	    /* stacks as long as what is walked */
};

/*
 * @places, @space, @stacks: borrowed, must outlive it.
 * Returns 0, -ENOMEM, or -EINVAL for a rate or a bound of 0; *@ret only on success.
 */
int dp_go_waits_new(struct dp_go_waits **ret, const struct dp_go_waits_options *options,
		    struct dp_go_places *places, const struct dp_space *space,
		    struct dp_stacks *stacks);
void dp_go_waits_free(struct dp_go_waits *waits); /* NULL is allowed */

/*
 * Takes in a GO_PARK, GO_READY or GO_ACQUIRE event, in the order of time, or, where the kernel has
 * decided, a GO_WAIT event. Others, and those of other processes, are ignored. Returns 0, or
 * -ENOMEM: the event is as if it had not been given.
 */
int dp_go_waits_event(struct dp_go_waits *waits, const struct dp_event *event);

/* Records were lost: goroutines that wait are forgotten. */
void dp_go_waits_gap(struct dp_go_waits *waits);

/* Goroutines that parked and were not readied yet. */
size_t dp_go_waits_pending(const struct dp_go_waits *waits);

/* As dp_contention_feed_*(), by the same delta spec; tags are 0. */
int dp_go_waits_feed_block(const struct dp_go_waits *waits, struct dp_delta *delta);
int dp_go_waits_feed_mutex(const struct dp_go_waits *waits, struct dp_delta *delta);

const struct dp_go_waits_stats *dp_go_waits_get_stats(const struct dp_go_waits *waits);

/* ---- what the probes are put on ---- */

#define DP_GO_WAITS_N_SITES 3

/*
 * Finds where runtime.gopark, runtime.ready and runtime.semacquire1 are probed.
 *
 * @module: of the program's file in @modules. @minor: of its version of Go. @ret_sites: the first
 * is gopark's; their descriptor is the module's. @ret_gopark_has_frame: for
 * dp_go_waits_options.
 * Reads the file. Returns 0 or a negative errno with a sentence in @err: -ENOTSUP for a Go whose
 * functions take their arguments on the stack (1.16), -ENOEXEC where the functions are not found or
 * do not begin as they should.
 */
int dp_go_waits_find_sites(struct dp_probe_site ret_sites[DP_GO_WAITS_N_SITES],
			   bool *ret_gopark_has_frame, const struct dp_go_names *names,
			   struct dp_modules *modules, uint32_t module, unsigned minor,
			   struct dp_error *err);

/* The wait reasons that count, and those of semaphores, as dp_sampler_options.go wants them.
 * @reasons: as in dp_go_waits_options. */
uint64_t dp_go_waits_reason_mask(const uint8_t *reasons);
uint64_t dp_go_waits_semaphore_mask(const uint8_t *reasons);

#endif
