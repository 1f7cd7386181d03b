/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: a definition must never outlive its owner by more than one start of the profiler,
 * and must never be taken from an owner that lives. The group's name carries pid *and* start time,
 * so a pid that was reused is not mistaken for the owner; and the kernel refuses (EBUSY) to remove
 * a definition that a perf event still uses.
 */
#include "perf/tracefs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <linux/magic.h>

#include "src/base/proc_stat.h"

#define GROUP_PREFIX "deltaprof_"
#define MAX_EVENTS 256
#define NAME_MAX_BYTES 64

struct dp_tracefs {
	char root[64];
	char group[NAME_MAX_BYTES];
	char events[MAX_EVENTS][NAME_MAX_BYTES];
	size_t n_events;
};

static const char *const mount_points[] = {"/sys/kernel/tracing", "/sys/kernel/debug/tracing"};

static bool is_tracefs(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && (unsigned long)fs.f_type == TRACEFS_MAGIC;
}

static int find_root(struct dp_tracefs *tracefs, struct dp_error *err)
{
	for (size_t i = 0; i < sizeof(mount_points) / sizeof(*mount_points); i++) {
		if (is_tracefs(mount_points[i])) {
			snprintf(tracefs->root, sizeof(tracefs->root), "%s", mount_points[i]);
			return 0;
		}
	}
	if (mount("tracefs", mount_points[0], "tracefs", 0, NULL) == 0) {
		snprintf(tracefs->root, sizeof(tracefs->root), "%s", mount_points[0]);
		return 0;
	}
	if (errno == ENODEV)
		return dp_error_set(
			err, -ENODEV,
			"tracefs: this kernel has none (CONFIG_UPROBE_EVENTS is needed)");
	return dp_error_set(
		err, -errno,
		"tracefs: not mounted, and mounting it on %s failed: %s; run as root: mount "
		"-t tracefs tracefs %s",
		mount_points[0], strerror(errno), mount_points[0]);
}

/*
 * Start time of @pid in clock ticks since boot; 0 if there is no such
 * process, or only its zombie: that owns nothing any more. A main thread that ended before the
 * others is a zombie too, but then there are several threads.
 */
static unsigned long long start_time(long pid)
{
	struct dp_proc_stat stat;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
	if (dp_proc_stat_read(path, &stat) < 0)
		return 0;
	return stat.state == 'Z' && stat.n_threads <= 1 ? 0 : stat.start_ticks;
}

/* Writes one command to uprobe_events. The file must be opened for appending: O_TRUNC would remove
 * everyone's. */
static int command(const struct dp_tracefs *tracefs, const char *text)
{
	char path[128];
	ssize_t n;
	int fd;
	int r = 0;

	snprintf(path, sizeof(path), "%s/uprobe_events", tracefs->root);
	fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = write(fd, text, strlen(text));
	if (n < 0)
		r = -errno;
	close(fd);
	return r;
}

/* Whether the group named "deltaprof_PID_START_…" belongs to a process that is gone. */
static bool owner_is_dead(const char *group)
{
	unsigned long long started;
	long pid;

	if (sscanf(group, GROUP_PREFIX "%ld_%llu_", &pid, &started) != 2)
		return false;
	return start_time(pid) != started;
}

/* Removes what dead owners left, as far as one reading of the list goes; returns how many. */
static size_t sweep_once(const struct dp_tracefs *tracefs)
{
	char path[128];
	char *line = NULL;
	size_t capacity = 0, n_removed = 0;
	FILE *file;

	snprintf(path, sizeof(path), "%s/uprobe_events", tracefs->root);
	file = fopen(path, "re");
	if (!file)
		return 0;
	while (getline(&line, &capacity, file) > 0) {
		char group[NAME_MAX_BYTES];
		char event[NAME_MAX_BYTES];
		char text[2 * NAME_MAX_BYTES + 8];

		if (sscanf(line, "%*[^:]:%63[^/]/%63s", group, event) != 2 || !owner_is_dead(group))
			continue;
		snprintf(text, sizeof(text), "-:%s/%s\n", group, event);
		n_removed += command(tracefs, text) == 0;
	}
	free(line);
	fclose(file);
	return n_removed;
}

/*
 * Best effort: what cannot be removed is idle. The kernel counts lines as it hands the list out, so
 * one that moves up because another was removed is passed over: hence again, until nothing is left.
 */
static void sweep(const struct dp_tracefs *tracefs)
{
	while (sweep_once(tracefs) > 0) {
	}
}

int dp_tracefs_open(struct dp_tracefs **ret, struct dp_error *err)
{
	struct dp_tracefs *tracefs = calloc(1, sizeof(*tracefs));
	char path[128];
	struct timespec now;
	int r;

	if (!tracefs)
		return dp_error_set(err, -ENOMEM, "tracefs: out of memory");
	r = find_root(tracefs, err);
	if (r < 0)
		goto out;
	snprintf(path, sizeof(path), "%s/uprobe_events", tracefs->root);
	if (access(path, W_OK) < 0) {
		r = dp_error_set(
			err, -errno,
			"%s: %s; run as root, or give write access to tracefs and CAP_PERFMON",
			path, strerror(errno));
		goto out;
	}
	sweep(tracefs);
	clock_gettime(CLOCK_MONOTONIC, &now);
	snprintf(tracefs->group, sizeof(tracefs->group), GROUP_PREFIX "%d_%llu_%lx%08lx", getpid(),
		 start_time(getpid()), now.tv_sec, now.tv_nsec);
	*ret = tracefs;
	return 0;
out:
	free(tracefs);
	return r;
}

void dp_tracefs_close(struct dp_tracefs *tracefs)
{
	if (!tracefs)
		return;
	for (size_t i = 0; i < tracefs->n_events; i++) {
		char text[2 * NAME_MAX_BYTES + 8];

		snprintf(text, sizeof(text), "-:%s/%s\n", tracefs->group, tracefs->events[i]);
		command(tracefs, text);
	}
	free(tracefs);
}

/* Remembers @event for dp_tracefs_close(). Returns 0 or -ENOSPC. */
static int note_event(struct dp_tracefs *tracefs, const char *event)
{
	for (size_t i = 0; i < tracefs->n_events; i++) {
		if (strcmp(tracefs->events[i], event) == 0)
			return 0;
	}
	if (tracefs->n_events == MAX_EVENTS || strlen(event) >= NAME_MAX_BYTES)
		return -ENOSPC;
	snprintf(tracefs->events[tracefs->n_events++], NAME_MAX_BYTES, "%s", event);
	return 0;
}

int dp_tracefs_define(struct dp_tracefs *tracefs, const char *event, bool is_return, int fd,
		      uint64_t file_off, const char *arguments, struct dp_error *err)
{
	char text[512];
	int n, r;

	/*
	 * The kernel resolves the path while it handles the write: through the open file, so that a
	 * deleted file, one of another mount namespace and one with a space in its name are all
	 * found. (/proc/self is empty once the main thread has ended.)
	 */
	n = snprintf(text, sizeof(text), "%c:%s/%s /proc/thread-self/fd/%d:0x%llx %s\n",
		     is_return ? 'r' : 'p', tracefs->group, event, fd, (unsigned long long)file_off,
		     arguments);
	if (n < 0 || (size_t)n >= sizeof(text))
		return dp_error_set(err, -E2BIG, "tracefs: definition of %s too long", event);
	r = note_event(tracefs, event);
	if (r == 0)
		r = command(tracefs, text);
	if (r < 0)
		return dp_error_set(err, r,
				    "tracefs: defining a probe at file offset 0x%llx failed: %s",
				    (unsigned long long)file_off, strerror(-r));
	return 0;
}

/* Parses "\tfield:TYPE NAME;\toffset:N;\tsize:N;…"; returns whether @line is the field @name. */
static bool parse_field(const char *line, const char *name, struct dp_raw_field *ret)
{
	const char *end = strchr(line, ';');
	size_t n = strlen(name);
	unsigned offset, size;

	if (strncmp(line, "\tfield:", 7) != 0 || !end || (size_t)(end - line) <= n)
		return false;
	if (strncmp(end - n, name, n) != 0 || end[-(ptrdiff_t)n - 1] != ' ')
		return false;
	if (sscanf(end, ";\toffset:%u;\tsize:%u;", &offset, &size) != 2 || offset > UINT16_MAX ||
	    size > sizeof(uint64_t))
		return false;
	*ret = (struct dp_raw_field){.offset_bytes = (uint16_t)offset,
				     .size_bytes = (uint16_t)size};
	return true;
}

int dp_tracefs_layout(struct dp_tracefs *tracefs, const char *group, const char *event,
		      enum dp_event_type type, const char *probe_field, const char *const fields[5],
		      struct dp_raw_layout *ret, struct dp_error *err)
{
	struct dp_raw_layout layout = {.type = type};
	size_t n_wanted = probe_field != NULL, n_found = 0;
	char path[256];
	char *line = NULL;
	size_t capacity = 0;
	unsigned id = 0;
	FILE *file;

	for (size_t i = 0; i < 5; i++)
		n_wanted += fields[i] != NULL;
	snprintf(path, sizeof(path), "%s/events/%s/%s/format", tracefs->root,
		 group ? group : tracefs->group, event);
	file = fopen(path, "re");
	if (!file)
		return dp_error_set(err, -errno, "%s: %s", path, strerror(errno));
	while (getline(&line, &capacity, file) > 0) {
		if (sscanf(line, "ID: %u", &id) == 1)
			continue;
		n_found += probe_field && parse_field(line, probe_field, &layout.probe);
		for (size_t i = 0; i < 5; i++)
			n_found += fields[i] && parse_field(line, fields[i], &layout.fields[i]);
	}
	free(line);
	fclose(file);
	if (id == 0 || id > UINT16_MAX || n_found != n_wanted)
		return dp_error_set(
			err, -EBADMSG,
			"%s: not the format that was asked for (kernel too new or too old?)", path);
	layout.id = (uint16_t)id;
	*ret = layout;
	return 0;
}
