/* SPDX-License-Identifier: MIT */
#include "src/go_watch.h"

#include <errno.h>
#include <string.h>

#include "src/interner.h"

#define MAX_PARKED ((size_t)1 << 20)

static int open_names(struct dp_go_watch *watch, const struct dp_go_runtime *runtime,
		      struct dp_modules *modules, const struct dp_space *space)
{
	int r = dp_go_table_open(&watch->table, dp_module_fd(modules, runtime->module));

	if (r == 0)
		r = dp_go_table_names(&watch->names, &watch->context, watch->table, space,
				      runtime->bias);
	if (r == 0)
		r = dp_go_places_new(&watch->places, &watch->names);
	return r;
}

int dp_go_watch_open(struct dp_go_watch *watch, const struct dp_go_runtime *runtime,
		     struct dp_modules *modules, const struct dp_space *space,
		     struct dp_stacks *stacks, uint64_t rate_ns, uint64_t seed,
		     struct dp_error *err)
{
	const struct dp_go_layout *layout = &runtime->layout;
	struct dp_go_waits_options options = {.pid = (uint64_t)runtime->pid,
					      .rate_ns = rate_ns,
					      .seed = seed,
					      .max_parked = MAX_PARKED,
					      .max_callchain = dp_interner_max_callchain(),
					      .reasons = layout->wait_reasons};
	int r = open_names(watch, runtime, modules, space);

	if (r < 0)
		return dp_error_set(err, r, "pid %d: its Go functions: %s", runtime->pid,
				    strerror(-r));
	r = dp_go_waits_find_sites(watch->sites, &options.gopark_has_frame, &watch->names, modules,
				   runtime->module, layout->minor, err);
	if (r < 0)
		return r;
	watch->park = (struct dp_go_park_options){
		.reasons = dp_go_waits_reason_mask(layout->wait_reasons),
		.semaphores = dp_go_waits_semaphore_mask(layout->wait_reasons),
		.g_pc_offset = layout->g_sched_pc,
		.g_bp_offset = layout->g_sched_bp};
	r = dp_go_waits_new(&watch->waits, &options, watch->places, space, stacks);
	return r == 0 ? 0 : dp_error_set(err, r, "pid %d: out of memory", runtime->pid);
}

void dp_go_watch_close(struct dp_go_watch *watch)
{
	dp_go_waits_free(watch->waits);
	dp_go_places_free(watch->places);
	dp_go_table_free(watch->table);
	*watch = (struct dp_go_watch){0};
}
