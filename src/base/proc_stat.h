/* SPDX-License-Identifier: MIT */
#ifndef DP_BASE_PROC_STAT_H
#define DP_BASE_PROC_STAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What is read of a line of /proc/PID/stat or /proc/PID/task/TID/stat. Source: proc_pid_stat(5). */
struct dp_proc_stat {
	char state;
	unsigned flags;
	long n_threads;
	unsigned long long start_ticks; /* since boot */
	uint64_t stack_start;		/* avma of the main thread's arguments; 0 without the right
					 * to know */
};

/* Reads the file @path. Returns 0, -EBADMSG, or another negative errno. */
int dp_proc_stat_read(const char *path, struct dp_proc_stat *ret);

/*
 * Whether thread @tid of process @pid lives. A main thread that has ended is there as long as its
 * process is, and counts as ended.
 */
bool dp_thread_is_alive(pid_t pid, pid_t tid);

/* Any thread of process @pid that lives in this sense; 0 if there is none. */
pid_t dp_find_live_thread(pid_t pid);

/* Reads a whole small file as text, NUL-terminated. Returns 0 or a negative errno. */
int dp_read_text(const char *path, char *ret, size_t n_bytes);

#endif
