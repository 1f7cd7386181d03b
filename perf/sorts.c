/* SPDX-License-Identifier: MIT */
/*
 * What every sort of event is stands once, in the table.
 */
#include "perf/sorts.h"

#include <errno.h>
#include <stdio.h>

#include "perf/arch.h"

static const struct trace_event {
	const char *group; /* NULL: a probe of our own */
	const char *name;
	const struct dp_arch_fetch *fetch;   /* of a probe */
	const char *probe_field;	     /* holds the address of the probed instruction */
	const char *fields[DP_N_RAW_FIELDS]; /* of a tracepoint */
	const char *filter;
	enum dp_event_type type;
	bool is_return;
	bool stack; /* libc has no frame pointers, so a wait's stack is always copied */
	bool in_kernel;
	bool callchain;
} trace_events[DP_N_SORTS] = {
	[DP_SORT_FREE] = {.name = "free",
			  .type = DP_EVENT_FREE,
			  .fetch = &dp_arch.free_entry,
			  .probe_field = "__probe_ip"},
	[DP_SORT_RETURN] = {.name = "ret",
			    .type = DP_EVENT_ALLOC_RETURN,
			    .is_return = true,
			    .fetch = &dp_arch.alloc_return,
			    .probe_field = "__probe_func"},
	[DP_SORT_ENTRY] = {.name = "entry",
			   .type = DP_EVENT_ALLOC_ENTRY,
			   .fetch = &dp_arch.alloc_entry,
			   .probe_field = "__probe_ip"},
	[DP_SORT_WAKING] = {.group = "sched",
			    .name = "sched_waking",
			    .type = DP_EVENT_WAKING,
			    .fields = {"pid"},
			    .stack = true,
			    .in_kernel = true},
	[DP_SORT_FUTEX_WOKE] = {.group = "syscalls",
				.name = "sys_exit_futex",
				.type = DP_EVENT_FUTEX_EXIT,
				.fields = {"ret"},
				.filter = "ret > 0 || ret == -11"},
	[DP_SORT_FUTEX_EXIT] = {.group = "syscalls",
				.name = "sys_exit_futex",
				.type = DP_EVENT_FUTEX_EXIT,
				.fields = {"ret"},
				.filter = "ret <= 0 && ret != -11",
				.stack = true},
	[DP_SORT_FUTEX_ENTER] = {.group = "syscalls",
				 .name = "sys_enter_futex",
				 .type = DP_EVENT_FUTEX_ENTER,
				 .fields = {"uaddr", "op", "val"}},
	[DP_SORT_GO_READY] = {.name = "ready",
			      .type = DP_EVENT_GO_READY,
			      .fetch = &dp_arch.go_ready,
			      .probe_field = "__probe_ip",
			      .callchain = true},
	[DP_SORT_GO_ACQUIRE] = {.name = "acquire",
				.type = DP_EVENT_GO_ACQUIRE,
				.fetch = &dp_arch.go_acquire,
				.probe_field = "__probe_ip"},
	[DP_SORT_GO_PARK] = {.name = "park",
			     .type = DP_EVENT_GO_PARK,
			     .fetch = &dp_arch.go_park,
			     .probe_field = "__probe_ip",
			     .callchain = true},
};

/* Whether @site is probed for @sort, which is one of probes. */
static bool is_probed_for(const struct dp_probe_site *site, enum dp_sort sort)
{
	switch (site->kind) {
	case DP_KERNEL_FREE:
		return sort == DP_SORT_FREE;
	case DP_KERNEL_GO_PARK:
		return sort == DP_SORT_GO_PARK;
	case DP_KERNEL_GO_READY:
		return sort == DP_SORT_GO_READY;
	case DP_KERNEL_GO_ACQUIRE:
		return sort == DP_SORT_GO_ACQUIRE;
	default:
		return sort == DP_SORT_ENTRY || sort == DP_SORT_RETURN;
	}
}

static bool has_site(enum dp_sort sort, const struct dp_sampler_options *options)
{
	for (size_t i = 0; i < options->n_sites; i++) {
		if (is_probed_for(&options->sites[i], sort))
			return true;
	}
	return false;
}

bool dp_sort_is_wanted(enum dp_sort sort, const struct dp_sampler_options *options)
{
	if (sort == DP_SORT_SIDEBAND)
		return true;
	if (options->without_returns && (sort == DP_SORT_RETURN || sort == DP_SORT_FREE))
		return false;
	return trace_events[sort].fetch ? has_site(sort, options) : options->contention;
}

bool dp_sort_has_stack(enum dp_sort sort, const struct dp_sampler_options *options)
{
	return trace_events[sort].stack || (sort == DP_SORT_ENTRY && options->heap_stacks);
}

/* Puts the sort's probe on every site that is of its sort. */
static int define_probes(enum dp_sort sort, struct dp_tracefs *tracefs,
			 const struct dp_sampler_options *options, struct dp_error *err)
{
	const struct trace_event *event = &trace_events[sort];
	int r = 0;

	for (size_t i = 0; r == 0 && i < options->n_sites; i++) {
		if (!is_probed_for(&options->sites[i], sort))
			continue;
		r = dp_tracefs_define(tracefs, event->name, event->is_return, options->sites[i].fd,
				      options->sites[i].file_off, event->fetch->definition, err);
	}
	return r;
}

/* Keeps the reasons that count; none: nothing is filtered. */
static const char *write_filter(uint64_t reasons, char *filter)
{
	size_t n = 0;

	for (unsigned i = 0; i < 64; i++) {
		if (reasons >> i & 1)
			n += (size_t)snprintf(filter + n, DP_SORT_FILTER_BYTES - n,
					      n > 0 ? "||reason==%u" : "reason==%u", i);
	}
	return n > 0 ? filter : NULL;
}

int dp_sort_define(enum dp_sort sort, struct dp_tracefs *tracefs,
		   const struct dp_sampler_options *options, char *filter,
		   struct dp_event_spec *ret, struct dp_raw_layout *ret_layout,
		   struct dp_error *err)
{
	const struct trace_event *event = &trace_events[sort];
	const bool has_stack = dp_sort_has_stack(sort, options);
	struct dp_event_spec spec = {.sideband = sort == DP_SORT_SIDEBAND,
				     .callchain = event->callchain ||
						  (sort == DP_SORT_ENTRY && !has_stack),
				     .stack_bytes = has_stack ? options->stack_bytes : 0,
				     .in_kernel = event->in_kernel,
				     .filter = event->filter};
	int r = 0;

	if (!spec.sideband && event->fetch)
		r = define_probes(sort, tracefs, options, err);
	if (!spec.sideband && r == 0)
		r = dp_tracefs_layout(
			tracefs, event->group, event->name, event->type, event->probe_field,
			event->fetch ? event->fetch->fields : event->fields, ret_layout, err);
	if (r < 0)
		return r;
	if (!spec.sideband)
		spec.tracepoint_id = ret_layout->id;
	if (sort == DP_SORT_GO_PARK)
		spec.filter = write_filter(options->go.reasons, filter);
	*ret = spec;
	return 0;
}
