/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: a trace event's programs run at every hit in a process that one of its perf events
 * is bound to, whichever thread hits. They are attached through the event that was opened first and
 * leave with it; so that one stays open, its thread ended or not, and later events only keep the
 * process bound.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "perf/anchors.h"
#include "perf/apart.h"
#include "perf/kernel_probes.h"
#include "perf/refused.h"
#include "perf/tracefs.h"
#include "src/base/proc_stat.h"

/* One trace event: the entry, the return or the free of one function. */
struct probe {
	uint64_t id;
	int first_fd; /* its first perf event */
	int link_fd;
};

struct dp_kernel_events {
	pid_t pid;
	struct dp_tracefs *tracefs;
	struct probe *probes;
	size_t n_probes;
	struct dp_anchors *anchors;
};

static int define(struct dp_kernel_events *events, const struct dp_probe_site *site,
		  const char *name, bool is_return, struct probe *probe, struct dp_error *err)
{
	const char *const fields[DP_N_RAW_FIELDS] = {NULL};
	struct dp_raw_layout layout;
	int r = dp_tracefs_define(events->tracefs, name, is_return, site->fd, site->file_off, "",
				  err);

	if (r == 0)
		r = dp_tracefs_layout(events->tracefs, NULL, name, DP_EVENT_FREE, NULL, fields,
				      &layout, err);
	if (r == 0)
		probe->id = layout.id;
	return r;
}

/* Opens the first event of the newest probe and attaches the program, -1: none. */
static int attach(struct dp_kernel_events *events, pid_t tid, int program_fd, uint64_t cookie,
		  struct dp_error *err)
{
	LIBBPF_OPTS(bpf_link_create_opts, options, .perf_event.bpf_cookie = cookie);
	struct probe *probe = &events->probes[events->n_probes - 1];
	int r;

	r = dp_anchor_open(probe->id, tid);
	if (r >= 0) {
		probe->first_fd = r;
		if (program_fd < 0)
			return 0;
		r = bpf_link_create(program_fd, probe->first_fd, BPF_PERF_EVENT, &options);
	}
	if (r < 0)
		return dp_probe_refused(r, events->pid, "attaching a BPF program to a probe", err);
	probe->link_fd = r;
	return 0;
}

static int add_probe(struct dp_kernel_events *events, const struct dp_kernel_programs *programs,
		     uint32_t slot, const struct dp_sampler_options *options, size_t i,
		     bool is_return, pid_t tid, struct dp_error *err)
{
	const struct dp_probe_site *site = &options->sites[i];
	enum dp_kernel_program program = dp_kernel_kind_is_go(site->kind) ? DP_KERNEL_PROGRAM_GO
					 : site->kind == DP_KERNEL_FREE	  ? DP_KERNEL_PROGRAM_FREED
					 : is_return		    ? DP_KERNEL_PROGRAM_RETURNED
					 : options->without_returns ? DP_KERNEL_PROGRAM_ALONE
								    : DP_KERNEL_PROGRAM_ENTERED;
	char name[32];
	int r;

	snprintf(name, sizeof(name), "%c%zu", is_return ? 'r' : 'e', i);
	events->probes[events->n_probes] = (struct probe){.first_fd = -1, .link_fd = -1};
	r = define(events, site, name, is_return, &events->probes[events->n_probes], err);
	if (r < 0)
		return r;
	events->n_probes++;
	return attach(events, tid, programs ? dp_kernel_programs_fd(programs, program) : -1,
		      dp_kernel_cookie(slot, options->sites, i), err);
}

/* Frees first, then returns, then entries. @tid: a thread that lives. */
static int add_probes(struct dp_kernel_events *events, const struct dp_kernel_programs *programs,
		      uint32_t slot, const struct dp_sampler_options *options, pid_t tid,
		      struct dp_error *err)
{
	bool returns = programs && !options->without_returns;
	int r = 0;

	for (size_t i = 0; r == 0 && !options->without_returns && i < options->n_sites; i++) {
		if (options->sites[i].kind == DP_KERNEL_FREE)
			r = add_probe(events, programs, slot, options, i, false, tid, err);
	}
	for (int is_return = returns; is_return >= 0; is_return--) {
		for (size_t i = 0; r == 0 && i < options->n_sites; i++) {
			if (options->sites[i].kind != DP_KERNEL_FREE &&
			    !(is_return && dp_kernel_kind_is_go(options->sites[i].kind)))
				r = add_probe(events, programs, slot, options, i, is_return, tid,
					      err);
		}
	}
	return r;
}

static int bind_all(struct dp_kernel_events *events)
{
	uint64_t *ids = malloc(events->n_probes * sizeof(*ids));
	int r = ids ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < events->n_probes; i++)
		ids[i] = events->probes[i].id;
	if (r == 0)
		r = dp_anchors_new(&events->anchors, events->pid, ids, events->n_probes);
	if (r == 0)
		r = dp_anchors_bind(events->anchors);
	free(ids);
	return r;
}

/* The arguments of dp_kernel_events_open(), and its result. */
struct opening {
	struct dp_kernel_events *events;
	const struct dp_kernel_programs *programs;
	uint32_t slot;
	const struct dp_sampler_options *options;
	struct dp_error *err;
	int r;
};

static void open_all(void *context)
{
	struct opening *opening = context;
	struct dp_kernel_events *events = opening->events;
	pid_t tid = dp_find_live_thread(events->pid);

	opening->r = tid == 0 ? dp_error_set(opening->err, -ESRCH, "pid %d: the process is gone",
					     events->pid)
			      : add_probes(events, opening->programs, opening->slot,
					   opening->options, tid, opening->err);
	if (opening->r < 0)
		return;
	opening->r = bind_all(events);
	if (opening->r < 0)
		dp_probe_refused(opening->r, events->pid, "binding probes", opening->err);
}

int dp_kernel_events_open(struct dp_kernel_events **ret, const struct dp_kernel_programs *programs,
			  uint32_t slot, const struct dp_sampler_options *options,
			  struct dp_error *err)
{
	struct dp_kernel_events *events = calloc(1, sizeof(*events));
	struct opening opening = {events, programs, slot, options, err, 0};

	if (!events)
		return dp_error_set(err, -ENOMEM, "pid %d: out of memory", options->pid);
	events->pid = options->pid;
	events->probes = calloc(2 * options->n_sites, sizeof(*events->probes));
	if (!events->probes)
		opening.r = dp_error_set(err, -ENOMEM, "pid %d: out of memory", options->pid);
	if (opening.r == 0)
		opening.r = dp_tracefs_open(&events->tracefs, err);
	if (opening.r == 0)
		dp_run_apart(open_all, &opening);
	if (opening.r < 0) {
		dp_kernel_events_close(events);
		return opening.r;
	}
	*ret = events;
	return 0;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

static void close_all(void *context)
{
	struct dp_kernel_events *events = context;

	for (size_t i = events->n_probes; i-- > 0;)
		close_fd(events->probes[i].link_fd);
	dp_anchors_free(events->anchors);
	for (size_t i = events->n_probes; i-- > 0;)
		close_fd(events->probes[i].first_fd);
}

void dp_kernel_events_close(struct dp_kernel_events *events)
{
	if (!events)
		return;
	if (events->n_probes > 0)
		dp_run_apart(close_all, events);
	dp_tracefs_close(events->tracefs);
	free(events->probes);
	free(events);
}

void dp_kernel_events_follow(struct dp_kernel_events *events, const struct dp_event *event)
{
	dp_anchors_follow(events->anchors, event);
}

uint64_t dp_kernel_events_n_gaps(const struct dp_kernel_events *events)
{
	return dp_anchors_n_gaps(events->anchors);
}

size_t dp_kernel_events_n_fds(const struct dp_kernel_events *events)
{
	size_t n = dp_anchors_n_fds(events->anchors);

	for (size_t i = 0; i < events->n_probes; i++)
		n += 1u + (events->probes[i].link_fd >= 0);
	return n;
}
