/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_RINGS_H
#define DP_PERF_RINGS_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>

#include "perf/ring.h"
#include "src/base/error.h"

/*
 * A ring for each CPU, owned by a dummy event of that CPU. A part of perf/sampler. Zeroed memory is
 * none.
 */
struct dp_rings {
	int *cpus; /* CPU numbers */
	size_t n_cpus;
	size_t n; /* mapped so far, ≤ n_cpus */
	struct dp_ring *rings;
	int *fds;
	struct pollfd *pollfds;
};

/*
 * Opens a ring on every CPU that is online.
 *
 * @ring_bytes: of each, a power of two; 0: chosen from the number of CPUs. @with_stacks: many
 * records will be large. @sideband: the rings are told of mappings, names, beginnings and ends of
 * all the machine's threads. @ret: to be closed in every case.
 * Returns 0 or a negative errno with a sentence in @err.
 */
int dp_rings_open(struct dp_rings *ret, size_t ring_bytes, bool with_stacks, bool sideband,
		  struct dp_error *err);

/* Unmaps and closes them. */
void dp_rings_close(struct dp_rings *rings);

#endif
