/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_SAMPLING_TARGET_H
#define DP_TESTS_SAMPLING_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "perf/sampler.h"
#include "tests/targets/sampling.h"

/*
 * tests/targets/sampling.c as a test drives it, with an observer of its own: a direct sampler of
 * its futex calls, from which comes how long each of its waits took.
 */

struct sampling_wait_time {
	uint64_t drawn_ns; /* up to what sampling is decided by: the release, or the return */
	uint64_t took_ns;  /* up to the return */
};

struct sampling_waits {
	size_t n;
	struct sampling_wait_time list[SAMPLING_ALL_WAITS];
	uint64_t enter_ns, release_ns; /* of the wait under way; 0: not */
	uint32_t tid;		       /* who waits */
	bool waker_is_inside;	       /* a futex call */
};

struct sampling_target {
	pid_t pid;
	int in, out;
	struct dp_sampler *observer;
	struct sampling_waits waits;
};

/* All of them fail the test if they cannot. */
void sampling_target_start(struct sampling_target *target, const char *path);
void sampling_target_end(struct sampling_target *target);

/* @line with its newline; then one line of answer. */
void sampling_target_say(const struct sampling_target *target, const char *line);
void sampling_target_hear(const struct sampling_target *target);

/*
 * Observes from now on; after what is to be judged has attached: the newest event of a tracepoint
 * is served first, and then nothing but the observer's own short record lies between the time
 * stamps.
 */
void sampling_target_observe(struct sampling_target *target);

/* Ends that, and fills target->waits with the waits since it began. */
void sampling_target_read_waits(struct sampling_target *target);

#endif
