/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_SAMPLER_FIXTURE_H
#define DP_TESTS_SAMPLER_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "perf/sampler.h"
#include "tests/perf_fixture.h"

/*
 * A sampler on a target that calls the probed functions, and a check of every event that it gives.
 */

/* The sampler that is tested: the direct one, or the kernel one if DP_TEST_SAMPLER is "kernel". */
enum dp_sampler_mode sampler_mode(void);

/* The functions of this program, open as @fd, that its targets call: to allocate and to free. */
void sampler_sites(struct dp_probe_site sites[2], int fd);

/* Opens it on @target with the probed functions as its sites. Fails the test if that fails. */
struct dp_sampler *sampler_open(const struct target *target);

/* The same with options: pid, sites and n_sites are set by us, sites only if @heap. */
struct dp_sampler *sampler_open_with(const struct target *target, struct dp_sampler_options options,
				     bool heap);

/* Gives @take every event that the sampler has of what happened up to now. */
void sampler_drain(struct dp_sampler *sampler,
		   void (*take)(void *context, const struct dp_event *event), void *context);

struct tally {
	const struct shared *shared;
	bool with_gaps;			 /* hits were lost: no call need be there */
	uint64_t n[DP_EVENT_WAKING + 1]; /* by type */
	uint64_t n_samples;		 /* what dp_sampler_stats calls delivered */
	uint64_t n_lost;		 /* as the LOST records say */
	uint64_t n_younger_first;	 /* events older than the youngest one before them */
	uint64_t youngest_ns;
	uint32_t asked_bytes; /* of the stack, at the last entry */
	struct {
		uint64_t n_entries, n_returns, n_frees;
		uint64_t sp;	       /* at the last entry */
	} threads[TARGET_MAX_THREADS]; /* by the thread's number */
};

/* An empty one; ends with free(). */
struct tally *tally_new(const struct shared *shared);

/*
 * Drains the sampler and checks every event: the right thread, and without gaps the right call of
 * it.
 */
void tally_drain(struct tally *tally, struct dp_sampler *sampler);

/* Lets the sampler end: disables it and takes the rest. */
void tally_finish(struct tally *tally, struct dp_sampler *sampler);

/*
 * Every call of the target was seen once, as the kernel counted and as the target did; @stats: what
 * the sampler says, filled.
 */
void expect_every_call_once(const struct tally *tally, struct dp_sampler *sampler,
			    struct dp_sampler_stats *stats);

#endif
