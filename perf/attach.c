/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: opening races with thread creation. Threads are listed again until a listing has
 * nothing new; by then every thread either has events of its own or was created by one that had
 * them all. (A listing may pass over a thread when the one before it ends meanwhile, so it takes
 * two such listings in a row.) A thread found late may have both; its own set is the one that
 * counts, and the ids of late sets are kept so that the reader can tell.
 */
#include "perf/attach.h"

#include <dirent.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "perf/apart.h"
#include "perf/arch.h"
#include "perf/fd_limit.h"
#include "perf/record.h"
#include "perf/refused.h"
#include "src/base/array.h"
#include "src/base/map.h"
#include "src/base/proc_stat.h"

/* Listings of the threads before we give up on a process that creates them faster than we can
 * follow. */
#define MAX_PASSES 64

struct opened {
	int fd;
	uint32_t i_spec;
};

struct dp_attach {
	struct opened *opened;
	size_t n_opened, opened_capacity;
	pid_t *late;
	size_t n_late, late_capacity;
	struct dp_map threads; /* tid → 1: events were opened, or it ended before they could be */
	struct dp_map late_ids; /* event id → tid */
	size_t n_threads;
	bool counts_lost; /* the kernel knows PERF_FORMAT_LOST */
};

static struct perf_event_attr event_attr(const struct dp_event_spec *spec)
{
	struct perf_event_attr attr = {
		.size = sizeof(attr),
		.type = spec->sideband ? PERF_TYPE_SOFTWARE : PERF_TYPE_TRACEPOINT,
		.config = spec->sideband ? PERF_COUNT_SW_DUMMY : spec->tracepoint_id,
		.sample_period = 1,
		.sample_type = DP_SAMPLE_TYPE_BITS,
		.disabled = 1,
		.inherit = 1,
		.inherit_thread = 1,
		.remove_on_exec = !spec->sideband, /* the sideband tells of the exec */
		/* Decides by the registers at the event itself: a probe's and a system call's are
		 * the user's. */
		.exclude_kernel = !spec->in_kernel,
		.exclude_hv = 1,
		.exclude_callchain_kernel = 1,
		.exclude_callchain_user = !spec->callchain,
		.sample_id_all = 1,
		.use_clockid = 1,
		.clockid = CLOCK_MONOTONIC,
		.read_format = PERF_FORMAT_LOST,
	};

	if (spec->stack_bytes) {
		attr.sample_type |= PERF_SAMPLE_REGS_USER | PERF_SAMPLE_STACK_USER;
		attr.sample_regs_user = dp_arch.user_regs_mask;
		attr.sample_stack_user = spec->stack_bytes;
	}
	if (spec->sideband) {
		attr.sample_period = 0;
		attr.mmap = 1;
		attr.mmap2 = 1;
		attr.build_id = 1;
		attr.comm = 1;
		attr.comm_exec = 1;
		attr.task = 1;
		attr.disabled = 0;
	}
	return attr;
}

static int open_event(struct dp_attach *attach, const struct dp_event_spec *spec, pid_t tid,
		      int cpu)
{
	struct perf_event_attr attr = event_attr(spec);
	long fd;

	if (!attach->counts_lost)
		attr.read_format = 0;
	fd = syscall(SYS_perf_event_open, &attr, tid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd < 0 && errno == EINVAL && attach->counts_lost) {
		attach->counts_lost = false;
		return open_event(attach, spec, tid, cpu);
	}
	return fd < 0 ? -errno : (int)fd;
}

static int open_one(struct dp_attach *attach, const struct dp_attach_options *options, pid_t tid,
		    size_t i_spec, size_t i_cpu, bool late)
{
	uint64_t id;
	int fd, r;

	r = dp_array_reserve((void **)&attach->opened, &attach->opened_capacity,
			     attach->n_opened + 1, sizeof(*attach->opened));
	if (r < 0)
		return r;
	fd = open_event(attach, &options->specs[i_spec], tid, options->cpus[i_cpu]);
	if (fd < 0)
		return fd;
	attach->opened[attach->n_opened++] = (struct opened){.fd = fd, .i_spec = (uint32_t)i_spec};
	if (ioctl(fd, PERF_EVENT_IOC_SET_OUTPUT, options->ring_fds[i_cpu]) < 0)
		return -errno;
	if (options->specs[i_spec].filter &&
	    ioctl(fd, PERF_EVENT_IOC_SET_FILTER, options->specs[i_spec].filter) < 0)
		return -errno;
	if (!late)
		return 0;
	if (ioctl(fd, PERF_EVENT_IOC_ID, &id) < 0)
		return -errno;
	return dp_map_set(&attach->late_ids, id, (uint64_t)tid);
}

/* Opens every event of one thread. A thread that ended meanwhile is no error. */
static int open_thread(struct dp_attach *attach, const struct dp_attach_options *options, pid_t tid,
		       bool late)
{
	int r = 0;

	for (size_t i_spec = 0; r == 0 && i_spec < options->n_specs; i_spec++) {
		for (size_t i_cpu = 0; r == 0 && i_cpu < options->n_cpus; i_cpu++)
			r = open_one(attach, options, tid, i_spec, i_cpu, late);
	}
	if (r == -ESRCH)
		return 0;
	if (r < 0)
		return r;
	attach->n_threads++;
	if (!late)
		return 0;
	r = dp_array_reserve((void **)&attach->late, &attach->late_capacity, attach->n_late + 1,
			     sizeof(*attach->late));
	if (r == 0)
		attach->late[attach->n_late++] = tid;
	return r;
}

/* Appends the threads that are not known yet to *@tids, and knows them from now on. */
static int list_new_threads(struct dp_attach *attach, const struct dp_attach_options *options,
			    pid_t **tids, size_t *capacity, size_t *n)
{
	char path[64];
	struct dirent *entry;
	int r = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", options->pid);
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? -ESRCH : -errno;
	while (r == 0 && (entry = readdir(dir))) {
		pid_t tid = atoi(entry->d_name);

		if (tid <= 0 || tid == options->except_tid ||
		    dp_map_get(&attach->threads, (uint64_t)tid, NULL))
			continue;
		r = dp_array_reserve((void **)tids, capacity, *n + 1, sizeof(**tids));
		if (r == 0)
			r = dp_map_set(&attach->threads, (uint64_t)tid, 1);
		if (r == 0)
			(*tids)[(*n)++] = tid;
	}
	closedir(dir);
	return r;
}

/*
 * One pass: lists the threads to the end before it opens anything, so that no thread of the first
 * listing can have inherited events. Returns the number of threads that were new, or a negative
 * errno.
 */
static int open_new_threads(struct dp_attach *attach, const struct dp_attach_options *options,
			    bool late)
{
	pid_t *tids = NULL;
	size_t capacity = 0, n = 0;
	int r = list_new_threads(attach, options, &tids, &capacity, &n);

	for (size_t i = 0; r == 0 && i < n; i++) {
		r = open_thread(attach, options, tids[i], late);
		if (options->between)
			options->between(options->context);
	}
	free(tids);
	return r < 0 ? r : (int)n;
}

static size_t count_threads(pid_t pid)
{
	struct dp_proc_stat stat;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	return dp_proc_stat_read(path, &stat) == 0 ? (size_t)stat.n_threads : 0;
}

static int explain(int code, const struct dp_attach_options *options, size_t n_threads,
		   struct dp_error *err)
{
	switch (code) {
	case -ESRCH:
		return dp_error_set(err, code, "pid %d: the process is gone", options->pid);
	case -EMFILE:
	case -ENFILE:
		return dp_error_set(
			err, code,
			"pid %d: %zu threads on %zu CPUs need about %zu file descriptors and "
			"the limit is lower; raise it (ulimit -n, fs.nr_open) or run as root",
			options->pid, n_threads, options->n_cpus,
			n_threads * options->n_cpus * options->n_specs);
	case -EPERM:
	case -EACCES:
		return dp_error_set(
			err, code,
			"pid %d: perf_event_open: %s; run as root, or with CAP_PERFMON and "
			"CAP_SYS_PTRACE (sysctl kernel.perf_event_paranoid may forbid it too)",
			options->pid, strerror(-code));
	case -EINVAL:
		return dp_error_set(err, code,
				    "pid %d: perf_event_open: %s; the kernel must be 5.13 or newer",
				    options->pid, strerror(-code));
	default:
		return dp_probe_refused(code, options->pid, "perf_event_open", err);
	}
}

/* The arguments of dp_attach_open(), and its result. */
struct opening {
	struct dp_attach *attach;
	const struct dp_attach_options *options;
	int r;
};

static void open_all(void *context)
{
	struct opening *opening = context;
	int r = open_new_threads(opening->attach, opening->options, false);

	for (int i = 1, n_quiet = 0; r >= 0 && n_quiet < 2 && i < MAX_PASSES; i++) {
		r = open_new_threads(opening->attach, opening->options, true);
		n_quiet = r == 0 ? n_quiet + 1 : 0;
	}
	opening->r = r;
}

int dp_attach_open(struct dp_attach **ret, const struct dp_attach_options *options,
		   struct dp_error *err)
{
	struct opening opening = {calloc(1, sizeof(*opening.attach)), options, -ECANCELED};
	size_t n_threads = count_threads(options->pid); /* now: without descriptors nobody can */

	if (!opening.attach)
		return explain(-ENOMEM, options, n_threads, err);
	opening.attach->counts_lost = true;
	/* Half as many again for threads that appear meanwhile. */
	dp_raise_fd_limit(n_threads * options->n_cpus * options->n_specs * 3 / 2);
	dp_run_apart(open_all, &opening);
	if (opening.r >= 0 && opening.attach->n_threads == 0)
		opening.r = -ESRCH;
	if (opening.r < 0) {
		dp_attach_close(opening.attach);
		return explain(opening.r, options, n_threads, err);
	}
	*ret = opening.attach;
	return 0;
}

bool dp_attach_close_some(struct dp_attach *attach, size_t n_max)
{
	for (; n_max > 0 && attach->n_opened > 0; n_max--)
		close(attach->opened[--attach->n_opened].fd);
	return attach->n_opened > 0;
}

static void close_all(void *context)
{
	dp_attach_close_some(context, SIZE_MAX);
}

void dp_attach_close(struct dp_attach *attach)
{
	if (!attach)
		return;
	if (attach->n_opened > 0)
		dp_run_apart(close_all, attach);
	free(attach->opened);
	free(attach->late);
	dp_map_clear(&attach->threads);
	dp_map_clear(&attach->late_ids);
	free(attach);
}

static void control(struct dp_attach *attach, size_t i_spec, unsigned long request)
{
	for (size_t i = 0; i < attach->n_opened; i++) {
		if (attach->opened[i].i_spec == i_spec)
			ioctl(attach->opened[i].fd, request, 0);
	}
}

void dp_attach_enable(struct dp_attach *attach, size_t i_spec)
{
	control(attach, i_spec, PERF_EVENT_IOC_ENABLE);
}

void dp_attach_disable(struct dp_attach *attach, size_t i_spec)
{
	control(attach, i_spec, PERF_EVENT_IOC_DISABLE);
}

void dp_attach_counts(const struct dp_attach *attach, size_t i_spec, uint64_t *ret_hits,
		      uint64_t *ret_lost)
{
	uint64_t hits = 0, lost = 0;

	for (size_t i = 0; i < attach->n_opened; i++) {
		uint64_t values[2] = {0}; /* count, and lost if it was asked for */

		if (attach->opened[i].i_spec != i_spec)
			continue;
		if (read(attach->opened[i].fd, values, sizeof(values)) <= 0)
			continue;
		hits += values[0];
		lost += values[1];
	}
	*ret_hits = hits;
	*ret_lost = lost;
}

pid_t dp_attach_late_owner(const struct dp_attach *attach, uint64_t id)
{
	uint64_t tid = 0;

	dp_map_get(&attach->late_ids, id, &tid);
	return (pid_t)tid;
}

const pid_t *dp_attach_late_threads(const struct dp_attach *attach, size_t *ret_n)
{
	*ret_n = attach->n_late;
	return attach->late;
}

size_t dp_attach_n_fds(const struct dp_attach *attach)
{
	return attach->n_opened;
}

size_t dp_attach_n_threads(const struct dp_attach *attach)
{
	return attach->n_threads;
}
