/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: a trace event's programs run at every hit in a process that one of its perf events
 * is bound to, whichever thread hits. They are attached through the event that was opened first and
 * leave with it; so that one stays open, its thread ended or not, and later events only keep the
 * process bound.
 */
#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "perf/apart.h"
#include "perf/kernel_probes.h"
#include "perf/refused.h"
#include "perf/tracefs.h"
#include "src/base/proc_stat.h"

#define N_THREADS 2

/* One trace event: the entry, the return or the free of one function. */
struct probe {
	uint64_t id;
	int anchor_fd; /* its first perf event */
	int link_fd;
	int fds[N_THREADS]; /* of the threads that it is bound to; -1: none */
};

struct dp_kernel_events {
	pid_t pid;
	struct dp_tracefs *tracefs;
	struct probe *probes;
	size_t n_probes;
	pid_t tids[N_THREADS]; /* 0: none */
};

static int open_event(uint64_t id, pid_t tid)
{
	struct perf_event_attr attr = {.size = sizeof(attr),
				       .type = PERF_TYPE_TRACEPOINT,
				       .config = id,
				       .sample_period = 1,
				       .sample_type = PERF_SAMPLE_RAW};
	long fd = syscall(SYS_perf_event_open, &attr, tid, -1, -1, PERF_FLAG_FD_CLOEXEC);

	return fd < 0 ? -errno : (int)fd;
}

/* Binds every probe to thread @tid too, as the @i-th. */
static int bind_thread(struct dp_kernel_events *events, size_t i, pid_t tid)
{
	for (size_t j = 0; j < events->n_probes; j++) {
		struct probe *probe = &events->probes[j];
		int fd = open_event(probe->id, tid);

		if (fd < 0)
			return fd;
		if (probe->fds[i] >= 0)
			close(probe->fds[i]);
		probe->fds[i] = fd;
	}
	events->tids[i] = tid;
	return 0;
}

static bool is_bound(const struct dp_kernel_events *events, pid_t tid)
{
	for (size_t i = 0; i < N_THREADS; i++) {
		if (events->tids[i] == tid)
			return true;
	}
	return false;
}

/* Binds the @i-th to any thread that lives and is not bound yet, if there is one. */
static int bind_any(struct dp_kernel_events *events, size_t i)
{
	struct dirent *entry;
	char path[64];
	int r = -ESRCH;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", events->pid);
	dir = opendir(path);
	if (!dir)
		return -ESRCH;
	while (r == -ESRCH && (entry = readdir(dir))) {
		pid_t tid = atoi(entry->d_name);

		/* The kernel opens no events on a thread that has ended. */
		if (tid > 0 && !is_bound(events, tid) && dp_thread_is_alive(events->pid, tid))
			r = bind_thread(events, i, tid);
	}
	closedir(dir);
	return r;
}

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
static int attach(struct dp_kernel_events *events, int program_fd, uint64_t cookie,
		  struct dp_error *err)
{
	LIBBPF_OPTS(bpf_link_create_opts, options, .perf_event.bpf_cookie = cookie);
	struct probe *probe = &events->probes[events->n_probes - 1];
	int r;

	r = open_event(probe->id, events->tids[0]);
	if (r >= 0) {
		probe->anchor_fd = r;
		if (program_fd < 0)
			return 0;
		r = bpf_link_create(program_fd, probe->anchor_fd, BPF_PERF_EVENT, &options);
	}
	if (r < 0)
		return dp_probe_refused(r, events->pid, "attaching a BPF program to a probe", err);
	probe->link_fd = r;
	if (ioctl(probe->anchor_fd, PERF_EVENT_IOC_ENABLE, 0) < 0)
		return dp_error_set(err, -errno, "pid %d: enabling a probe: %s", events->pid,
				    strerror(errno));
	return 0;
}

static int add_probe(struct dp_kernel_events *events, const struct dp_kernel_programs *programs,
		     uint32_t slot, const struct dp_sampler_options *options, size_t i,
		     bool is_return, struct dp_error *err)
{
	const struct dp_probe_site *site = &options->sites[i];
	enum dp_kernel_program program = site->kind == DP_KERNEL_FREE ? DP_KERNEL_PROGRAM_FREED
					 : is_return		      ? DP_KERNEL_PROGRAM_RETURNED
								      : DP_KERNEL_PROGRAM_ENTERED;
	char name[32];
	int r;

	snprintf(name, sizeof(name), "%c%zu", is_return ? 'r' : 'e', i);
	events->probes[events->n_probes] =
		(struct probe){.anchor_fd = -1, .link_fd = -1, .fds = {-1, -1}};
	r = define(events, site, name, is_return, &events->probes[events->n_probes], err);
	if (r < 0)
		return r;
	events->n_probes++;
	return attach(events, programs ? dp_kernel_programs_fd(programs, program) : -1,
		      dp_kernel_cookie(slot, options->sites, i), err);
}

/* Frees first, then returns, then entries. */
static int add_probes(struct dp_kernel_events *events, const struct dp_kernel_programs *programs,
		      uint32_t slot, const struct dp_sampler_options *options, struct dp_error *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < options->n_sites; i++) {
		if (options->sites[i].kind == DP_KERNEL_FREE)
			r = add_probe(events, programs, slot, options, i, false, err);
	}
	for (int is_return = programs != NULL; is_return >= 0; is_return--) {
		for (size_t i = 0; r == 0 && i < options->n_sites; i++) {
			if (options->sites[i].kind != DP_KERNEL_FREE)
				r = add_probe(events, programs, slot, options, i, is_return, err);
		}
	}
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

	opening->r = add_probes(opening->events, opening->programs, opening->slot, opening->options,
				opening->err);
	if (opening->r == 0)
		bind_any(opening->events, 1);
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
	/* With no probes yet this finds the first thread. */
	if (opening.r == 0 && bind_any(events, 0) < 0)
		opening.r = dp_error_set(err, -ESRCH, "pid %d: the process is gone", options->pid);
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

	for (size_t i = events->n_probes; i-- > 0;) {
		close_fd(events->probes[i].link_fd);
		for (size_t j = 0; j < N_THREADS; j++)
			close_fd(events->probes[i].fds[j]);
		close_fd(events->probes[i].anchor_fd);
	}
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
	if (event->pid != (uint32_t)events->pid)
		return;
	for (size_t i = 0; i < N_THREADS; i++) {
		if (event->type == DP_EVENT_EXIT && events->tids[i] == (pid_t)event->tid)
			events->tids[i] = 0;
		if (events->tids[i] == 0 &&
		    (event->type == DP_EVENT_EXIT || event->type == DP_EVENT_FORK))
			bind_any(events, i);
	}
}

size_t dp_kernel_events_n_fds(const struct dp_kernel_events *events)
{
	size_t n = 0;

	for (size_t i = 0; i < events->n_probes; i++) {
		n += 2;
		for (size_t j = 0; j < N_THREADS; j++)
			n += events->probes[i].fds[j] >= 0;
	}
	return n;
}
