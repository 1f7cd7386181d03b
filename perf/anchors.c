/* SPDX-License-Identifier: MIT */
#include "perf/anchors.h"

#include <dirent.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/base/proc_stat.h"

/* Threads that may end at once before we hear of it. */
#define N_THREADS 8

struct dp_anchors {
	pid_t pid;
	uint64_t *ids;
	size_t n_ids;
	pid_t tids[N_THREADS];	      /* 0: none */
	int *fds[N_THREADS];	      /* n_ids of each; NULL: none */
	uint64_t bound_ns[N_THREADS]; /* when */
	uint64_t n_gaps;
};

int dp_anchor_open(uint64_t id, pid_t tid)
{
	struct perf_event_attr attr = {
		.size = sizeof(attr), .type = PERF_TYPE_TRACEPOINT, .config = id};
	long fd = syscall(SYS_perf_event_open, &attr, tid, -1, -1, PERF_FLAG_FD_CLOEXEC);

	return fd < 0 ? -errno : (int)fd;
}

int dp_anchors_new(struct dp_anchors **ret, pid_t pid, const uint64_t *ids, size_t n)
{
	struct dp_anchors *anchors = calloc(1, sizeof(*anchors));

	if (anchors)
		anchors->ids = malloc(n * sizeof(*ids));
	if (!anchors || !anchors->ids) {
		free(anchors);
		return -ENOMEM;
	}
	memcpy(anchors->ids, ids, n * sizeof(*ids));
	anchors->n_ids = n;
	anchors->pid = pid;
	*ret = anchors;
	return 0;
}

static void release(struct dp_anchors *anchors, size_t i)
{
	for (size_t j = 0; anchors->fds[i] && j < anchors->n_ids; j++) {
		if (anchors->fds[i][j] >= 0)
			close(anchors->fds[i][j]);
	}
	free(anchors->fds[i]);
	anchors->fds[i] = NULL;
	anchors->tids[i] = 0;
}

void dp_anchors_free(struct dp_anchors *anchors)
{
	if (!anchors)
		return;
	for (size_t i = 0; i < N_THREADS; i++)
		release(anchors, i);
	free(anchors->ids);
	free(anchors);
}

/* Binds all to @tid, in a free place if there is one. Returns 0 or a negative errno. */
static int bind_thread(struct dp_anchors *anchors, pid_t tid)
{
	size_t i = 0;
	int r = 0;

	while (i < N_THREADS && anchors->tids[i] != 0)
		i++;
	if (i == N_THREADS)
		return 0;
	release(anchors, i);
	anchors->fds[i] = malloc(anchors->n_ids * sizeof(*anchors->fds[i]));
	if (!anchors->fds[i])
		return -ENOMEM;
	memset(anchors->fds[i], 0xff, anchors->n_ids * sizeof(*anchors->fds[i]));
	for (size_t j = 0; r >= 0 && j < anchors->n_ids; j++) {
		r = dp_anchor_open(anchors->ids[j], tid);
		anchors->fds[i][j] = r;
	}
	if (r < 0) {
		release(anchors, i);
		return r;
	}
	anchors->tids[i] = tid;
	anchors->bound_ns[i] = dp_monotonic_ns();
	return 0;
}

static size_t count_bound(const struct dp_anchors *anchors)
{
	size_t n = 0;

	for (size_t i = 0; i < N_THREADS; i++)
		n += anchors->tids[i] != 0;
	return n;
}

static int find(const struct dp_anchors *anchors, pid_t tid)
{
	for (int i = 0; i < N_THREADS; i++) {
		if (anchors->tids[i] == tid)
			return i;
	}
	return -1;
}

int dp_anchors_bind(struct dp_anchors *anchors)
{
	struct dirent *entry;
	char path[64];
	DIR *dir;
	int r = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", anchors->pid);
	dir = opendir(path);
	if (!dir)
		return -ESRCH;
	while ((entry = readdir(dir)) && count_bound(anchors) < N_THREADS) {
		pid_t tid = atoi(entry->d_name);

		/* The kernel opens no events on a thread that has ended. */
		if (tid > 0 && find(anchors, tid) < 0 && dp_thread_is_alive(anchors->pid, tid))
			r = bind_thread(anchors, tid);
	}
	closedir(dir);
	if (count_bound(anchors) > 0)
		return 0;
	return r < 0 ? r : -ESRCH;
}

/* Whether any was bound at @time_ns and lives as far as is known. */
static bool was_bound(const struct dp_anchors *anchors, uint64_t time_ns)
{
	for (size_t i = 0; i < N_THREADS; i++) {
		if (anchors->tids[i] != 0 && anchors->bound_ns[i] <= time_ns)
			return true;
	}
	return false;
}

/* The thread at @i ended at @time_ns. Its events stay open until their place is needed. */
static void thread_ended(struct dp_anchors *anchors, int i, uint64_t time_ns)
{
	anchors->tids[i] = 0;
	anchors->n_gaps += !was_bound(anchors, time_ns);
}

void dp_anchors_follow(struct dp_anchors *anchors, const struct dp_event *event)
{
	int i = find(anchors, (pid_t)event->tid);

	if (event->pid != (uint32_t)anchors->pid)
		return;
	if (event->type == DP_EVENT_FORK && i < 0)
		bind_thread(anchors, (pid_t)event->tid);
	if (event->type == DP_EVENT_EXIT && i >= 0)
		thread_ended(anchors, i, event->time_ns);
	if (count_bound(anchors) == 0)
		dp_anchors_bind(anchors);
}

uint64_t dp_anchors_n_gaps(const struct dp_anchors *anchors)
{
	return anchors->n_gaps;
}

size_t dp_anchors_n_fds(const struct dp_anchors *anchors)
{
	size_t n = 0;

	for (size_t i = 0; i < N_THREADS; i++)
		n += anchors->fds[i] ? anchors->n_ids : 0;
	return n;
}
