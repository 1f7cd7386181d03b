/* SPDX-License-Identifier: MIT */
#ifndef DP_GO_WATCH_H
#define DP_GO_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "perf/sampler.h"
#include "src/base/error.h"
#include "src/go_names.h"
#include "src/go_places.h"
#include "src/go_runtime.h"
#include "src/go_waits.h"
#include "src/stack.h"
#include "symbolize/go_table.h"
#include "symbolize/module.h"
#include "symbolize/space.h"

/*
 * What it takes to see a Go process's waits from probes, put together: for profiles that its
 * runtime does not keep. Zeroed memory is nothing. Not to be moved once it is open.
 */
struct dp_go_watch {
	struct dp_go_table *table;
	struct dp_go_table_names context;
	struct dp_go_names names;
	struct dp_go_places *places;
	struct dp_go_waits *waits; /* NULL: nothing is seen */
	struct dp_probe_site sites[DP_GO_WAITS_N_SITES];
	struct dp_go_park_options park; /* as the sampler wants it */
};

/*
 * Finds the functions and makes the source of waits: kept by duration at @rate_ns, drawn from
 * @seed.
 *
 * @modules, @space, @stacks: borrowed, must outlive it.
 * Returns 0; -ENOTSUP or -ENOEXEC: waits cannot be seen in this program; or another negative errno;
 * with a sentence in @err. Then it is to be closed all the same.
 */
int dp_go_watch_open(struct dp_go_watch *watch, const struct dp_go_runtime *runtime,
		     struct dp_modules *modules, const struct dp_space *space,
		     struct dp_stacks *stacks, uint64_t rate_ns, uint64_t seed,
		     struct dp_error *err);

void dp_go_watch_close(struct dp_go_watch *watch);

#endif
