/* SPDX-License-Identifier: MIT */
#ifndef DP_GO_RATES_H
#define DP_GO_RATES_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/error.h"
#include "src/go_runtime.h"

/*
 * Switches a Go program's own profiles on, which is the one thing that is ever written into a
 * target's memory, and only where the user asked for it.
 */

/* The first Go, 1.MINOR, whose allocator looks whether the rate has changed. */
#define DP_GO_HEAP_RATE_MINOR 24

/* What is to be switched on; 0: left alone. */
struct dp_go_wishes {
	uint64_t heap_bytes; /* runtime.MemProfileRate */
	uint64_t block_ns;   /* as runtime.SetBlockProfileRate */
	uint64_t mutex_fraction;
};

/* What was written, so that it can be taken back. Zeroed memory is nothing. */
struct dp_go_changes {
	int memory_fd; /* 0: nothing was */
	struct {
		uint64_t avma, before, now;
	} words[3];
	unsigned n;
};

/*
 * Writes what @wishes say into the program of @runtime: only where the profile is off (its rate is
 * 0), as what was sampled at another rate could not be told apart.
 *
 * @ret: to be given to dp_go_rates_restore(), also on failure.
 * Returns 0; -EBUSY: one of them is on; -EOPNOTSUPP: this version takes no heap rate over while it
 * runs; -ENOENT: the variable was not found; or another negative errno; with a sentence in @err.
 * Source: Go's src/runtime/mprof.go, SetBlockProfileRate, SetMutexProfileFraction; malloc.go, which
 * looks for a changed MemProfileRate since Go 1.24.
 */
int dp_go_rates_change(const struct dp_go_runtime *runtime, const struct dp_go_wishes *wishes,
		       struct dp_go_changes *ret, struct dp_error *err);

/* Writes back what was there, where what we wrote still is. */
void dp_go_rates_restore(struct dp_go_changes *changes);

#endif
