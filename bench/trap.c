// SPDX-License-Identifier: MIT
/*
 * The floor: what the traps alone cost. Opens counting events on tracefs probes that exist already
 * and counts their hits in every thread of a process. Nothing is sampled, so there is no ring, no
 * callchain and nobody who reads; no profiler that sees every call through the same traps can be
 * cheaper than this.
 *
 * usage: bench_trap -p PID GROUP/EVENT...
 *
 *     prints  attached
 *     waits for the end of stdin
 *     prints  GROUP/EVENT N    for each
 */
#include <dirent.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_EVENTS 16
#define MAX_FDS 65536

struct counters {
	int *fds; /* thread after thread, each n_events long */
	size_t n_fds;
	uint64_t ids[MAX_EVENTS];
	size_t n_events;
};

static int fail(const char *what)
{
	int r = -errno;

	fprintf(stderr, "bench_trap: %s: %s\n", what, strerror(errno));
	return r;
}

static int read_id(const char *event, uint64_t *ret)
{
	char path[512];
	unsigned long long id;
	FILE *file;
	int n;

	snprintf(path, sizeof(path), "/sys/kernel/tracing/events/%s/id", event);
	file = fopen(path, "re");
	if (!file)
		return fail(path);
	n = fscanf(file, "%llu", &id);
	fclose(file);
	if (n != 1) {
		errno = EINVAL;
		return fail(path);
	}
	*ret = id;
	return 0;
}

static int open_thread(struct counters *counters, pid_t tid)
{
	for (size_t i = 0; i < counters->n_events; i++) {
		struct perf_event_attr attr = {
			.type = PERF_TYPE_TRACEPOINT,
			.size = sizeof(attr),
			.config = counters->ids[i],
			.inherit = 1,
		};
		int fd =
			(int)syscall(SYS_perf_event_open, &attr, tid, -1, -1, PERF_FLAG_FD_CLOEXEC);

		if (fd < 0)
			return fail("perf_event_open");
		if (counters->n_fds == MAX_FDS) {
			close(fd);
			errno = EMFILE;
			return fail("too many threads");
		}
		counters->fds[counters->n_fds++] = fd;
	}
	return 0;
}

static int open_process(struct counters *counters, const char *pid)
{
	char path[64];
	struct dirent *entry;
	DIR *tasks;
	int r = 0;

	snprintf(path, sizeof(path), "/proc/%.20s/task", pid);
	tasks = opendir(path);
	if (!tasks)
		return fail(path);
	while (r == 0 && (entry = readdir(tasks))) {
		if (entry->d_name[0] != '.')
			r = open_thread(counters, (pid_t)strtol(entry->d_name, NULL, 10));
	}
	closedir(tasks);
	return r;
}

static int print_counts(const struct counters *counters, char *const *events)
{
	for (size_t i_event = 0; i_event < counters->n_events; i_event++) {
		uint64_t total = 0, count;

		for (size_t i = i_event; i < counters->n_fds; i += counters->n_events) {
			if (read(counters->fds[i], &count, sizeof(count)) != sizeof(count))
				return fail("read of a counter");
			total += count;
		}
		printf("%s %llu\n", events[i_event], (unsigned long long)total);
	}
	return 0;
}

static void raise_fd_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int main(int argc, char **argv)
{
	struct counters counters = {0};
	char rest[64];
	int r = 0;

	if (argc < 4 || argc > 3 + MAX_EVENTS || strcmp(argv[1], "-p") != 0) {
		fprintf(stderr, "usage: bench_trap -p PID GROUP/EVENT...\n");
		return 2;
	}
	counters.n_events = (size_t)argc - 3;
	counters.fds = calloc(MAX_FDS, sizeof(*counters.fds));
	if (!counters.fds)
		return 1;
	raise_fd_limit();
	for (size_t i = 0; i < counters.n_events && r == 0; i++)
		r = read_id(argv[3 + i], &counters.ids[i]);
	if (r == 0)
		r = open_process(&counters, argv[2]);
	if (r == 0) {
		printf("attached\n");
		fflush(stdout);
		while (read(STDIN_FILENO, rest, sizeof(rest)) > 0)
			;
		r = print_counts(&counters, argv + 3);
	}
	for (size_t i = 0; i < counters.n_fds; i++)
		close(counters.fds[i]);
	free(counters.fds);
	return r < 0;
}
