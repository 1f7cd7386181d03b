/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: of a stack that was unwound to its end it is known how much of it was needed; of
 * one that was cut, that it cannot need more than what lies between its stack pointer and the end
 * of its mapping, which for the main thread is where the kernel put the arguments.
 */
#include "src/stack_size.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/proc_stat.h"
#include "symbolize/maps.h"
#include "symbolize/proc.h"

#define LOOK_EVERY_NS 20000000
#define MAX_TASKS 256
#define DEEPER_BYTES 3072
#define N_STEPS (DP_STACK_SIZE_MAX / DP_STACK_SIZE_STEP + 1)

/* The process's memory, for finding out where a stack ends. */
struct bounds {
	char *maps;
	size_t n_bytes;
	uint64_t main_end; /* of the main thread's stack; 0 if not known */
	bool held;	   /* by a debugger, or by us who start it: it has not begun */
};

static void read_bounds(struct bounds *bounds, pid_t pid)
{
	struct dp_proc_stat stat;
	char path[64];
	pid_t tid;

	*bounds = (struct bounds){.maps = NULL};
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (dp_proc_stat_read(path, &stat) == 0) {
		bounds->main_end = stat.stack_start;
		bounds->held = stat.state == 't';
	}
	if (dp_proc_read_maps(pid, &bounds->maps, &bounds->n_bytes, &tid) < 0)
		bounds->maps = NULL;
}

/* Bytes from @sp to the end of its stack; 0 if it is in no memory of the process. */
static uint64_t depth_of(const struct bounds *bounds, uint64_t sp)
{
	const char *line = bounds->maps, *end = line + bounds->n_bytes;
	struct dp_maps_line parsed;

	while (line && line < end) {
		const char *next = memchr(line, '\n', (size_t)(end - line));

		next = next ? next + 1 : end;
		if (dp_maps_parse_line(line, (size_t)(next - line), &parsed) == 0 &&
		    sp >= parsed.start && sp < parsed.end) {
			if (bounds->main_end > sp && bounds->main_end < parsed.end)
				return bounds->main_end - sp;
			return parsed.end - sp;
		}
		line = next;
	}
	return 0;
}

static uint32_t clamp(uint64_t bytes)
{
	bytes = (bytes + DP_STACK_SIZE_STEP - 1) / DP_STACK_SIZE_STEP * DP_STACK_SIZE_STEP;
	if (bytes < DP_STACK_SIZE_MIN)
		return DP_STACK_SIZE_MIN;
	return bytes < DP_STACK_SIZE_MAX ? (uint32_t)bytes : DP_STACK_SIZE_MAX;
}

/* The stack pointer of a thread that is blocked; 0 if it runs. Source: proc_pid_syscall(5). */
static uint64_t blocked_sp(pid_t pid, const char *tid)
{
	char path[300], text[256];
	char *last;

	snprintf(path, sizeof(path), "/proc/%d/task/%s/syscall", pid, tid);
	if (dp_read_text(path, text, sizeof(text)) < 0)
		return 0;
	last = strrchr(text, ' ');
	if (last)
		*last = '\0';
	last = strrchr(text, ' ');
	return last ? strtoull(last, NULL, 16) : 0;
}

/* The deepest stack of the threads that are blocked. */
static uint64_t deepest(const struct bounds *bounds, pid_t pid, DIR *tasks)
{
	struct dirent *entry;
	uint64_t most = 0;

	for (int i = 0; i < MAX_TASKS && (entry = readdir(tasks)); i++) {
		uint64_t sp = entry->d_name[0] == '.' ? 0 : blocked_sp(pid, entry->d_name);
		uint64_t depth = sp ? depth_of(bounds, sp) : 0;

		if (depth > most && depth <= DP_STACK_SIZE_MAX)
			most = depth;
	}
	return most;
}

uint32_t dp_stack_size_guess(pid_t pid)
{
	struct bounds bounds;
	uint64_t most = 0;
	char path[64];
	DIR *tasks;

	read_bounds(&bounds, pid);
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	tasks = bounds.held ? NULL : opendir(path);
	if (tasks) {
		most = deepest(&bounds, pid, tasks);
		closedir(tasks);
	}
	free(bounds.maps);
	if (bounds.held)
		return DP_STACK_SIZE_FIRST_HELD;
	if (most == 0)
		return DP_STACK_SIZE_FIRST;
	/* What it does when it does not wait goes deeper; but what a thread has of its own at the
	 * end of its stack's mapping has been counted in. */
	most += DEEPER_BYTES;
	return clamp(most < DP_STACK_SIZE_FIRST_MAX ? most : DP_STACK_SIZE_FIRST_MAX);
}

void dp_stack_size_note(struct dp_stack_size *size, const struct dp_unwind_result *result,
			uint64_t sp)
{
	/* On another stack than the one that was copied, behind a signal: no copy would do. */
	if (result->end == DP_UNWIND_STACK_CUT && result->n_bytes > DP_STACK_SIZE_MAX)
		return;
	size->n_seen++;
	if (result->end == DP_UNWIND_STACK_CUT) {
		if (size->n_cut < DP_STACK_SIZE_N_CUT)
			size->cut_sp[size->n_cut] = sp;
		size->n_cut++;
	} else if (result->n_bytes <= DP_STACK_SIZE_MAX) {
		size->n_needing[result->n_bytes / DP_STACK_SIZE_STEP]++;
	}
}

/* Adds the cut ones to the others, each of those remembered standing for as many. */
static void add_cut(struct dp_stack_size *size, pid_t pid, uint32_t bytes)
{
	size_t n = size->n_cut < DP_STACK_SIZE_N_CUT ? size->n_cut : DP_STACK_SIZE_N_CUT;
	struct bounds bounds;

	read_bounds(&bounds, pid);
	for (size_t i = 0; i < n; i++) {
		uint64_t depth = depth_of(&bounds, size->cut_sp[i]);

		/* In no memory that is known: a thread that has ended, perhaps. */
		if (depth == 0)
			depth = 2 * (uint64_t)bytes;
		if (depth > DP_STACK_SIZE_MAX)
			depth = DP_STACK_SIZE_MAX;
		size->n_needing[depth / DP_STACK_SIZE_STEP] += (size->n_cut + n - 1) / n;
	}
	free(bounds.maps);
}

/* What but one stack of 1000 fit in. */
static uint32_t smallest(const struct dp_stack_size *size)
{
	uint64_t n_beyond = 0;
	size_t steps = N_STEPS;

	while (steps > 1 && (n_beyond + size->n_needing[steps - 1]) * 1000 <= size->n_seen)
		n_beyond += size->n_needing[--steps];
	return clamp(steps * DP_STACK_SIZE_STEP);
}

uint32_t dp_stack_size_choose(struct dp_stack_size *size, pid_t pid, uint32_t bytes,
			      uint64_t now_ns)
{
	uint32_t chosen;

	if (now_ns - size->looked_ns < LOOK_EVERY_NS)
		return bytes;
	size->looked_ns = now_ns;
	if (size->n_cut * 1000 <= size->n_seen || bytes == DP_STACK_SIZE_MAX)
		return bytes;
	add_cut(size, pid, bytes);
	chosen = smallest(size);
	*size = (struct dp_stack_size){.looked_ns = now_ns};
	return chosen > bytes ? chosen : bytes;
}
