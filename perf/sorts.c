/* SPDX-License-Identifier: MIT */
/*
 * What every sort of event is stands once, in the table.
 */
#include "perf/sorts.h"

#include <errno.h>

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
};

bool dp_sort_is_wanted(enum dp_sort sort, const struct dp_sampler_options *options)
{
	if (sort == DP_SORT_SIDEBAND)
		return true;
	if (options->without_returns && (sort == DP_SORT_RETURN || sort == DP_SORT_FREE))
		return false;
	return trace_events[sort].fetch ? options->n_sites > 0 : options->contention;
}

bool dp_sort_has_stack(enum dp_sort sort, const struct dp_sampler_options *options)
{
	return trace_events[sort].stack || (sort == DP_SORT_ENTRY && options->heap_stacks);
}

/* Puts the sort's probe on every site that is of its sort. */
static int define_probes(struct dp_tracefs *tracefs, const struct dp_sampler_options *options,
			 const struct trace_event *event, struct dp_error *err)
{
	bool frees = event->type == DP_EVENT_FREE;
	int r = 0;

	for (size_t i = 0; r == 0 && i < options->n_sites; i++) {
		if ((options->sites[i].kind == DP_KERNEL_FREE) != frees)
			continue;
		r = dp_tracefs_define(tracefs, event->name, event->is_return, options->sites[i].fd,
				      options->sites[i].file_off, event->fetch->definition, err);
	}
	return r;
}

int dp_sort_define(enum dp_sort sort, struct dp_tracefs *tracefs,
		   const struct dp_sampler_options *options, struct dp_event_spec *ret,
		   struct dp_raw_layout *ret_layout, struct dp_error *err)
{
	const struct trace_event *event = &trace_events[sort];
	const bool has_stack = dp_sort_has_stack(sort, options);
	struct dp_event_spec spec = {.sideband = sort == DP_SORT_SIDEBAND,
				     .callchain = sort == DP_SORT_ENTRY && !has_stack,
				     .stack_bytes = has_stack ? options->stack_bytes : 0,
				     .in_kernel = event->in_kernel,
				     .filter = event->filter};
	int r = 0;

	if (!spec.sideband && event->fetch)
		r = define_probes(tracefs, options, event, err);
	if (!spec.sideband && r == 0)
		r = dp_tracefs_layout(
			tracefs, event->group, event->name, event->type, event->probe_field,
			event->fetch ? event->fetch->fields : event->fields, ret_layout, err);
	if (r < 0)
		return r;
	if (!spec.sideband)
		spec.tracepoint_id = ret_layout->id;
	*ret = spec;
	return 0;
}
