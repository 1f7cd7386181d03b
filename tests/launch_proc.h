/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_LAUNCH_PROC_H
#define DP_TESTS_LAUNCH_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * What the kernel and ldd say of a process.
 */

/* The program counter of a stopped tracee. */
uint64_t proc_stopped_at(pid_t pid);

/* A value of the auxiliary vector; 0 if there is none of that type. */
uint64_t proc_auxiliary(pid_t pid, uint64_t type);

/* A line of /proc/PID/status, "Key:", as a number. */
long proc_status_number(pid_t pid, const char *key);

/* Whether the file @path, free of links, is mapped. */
bool proc_is_mapped(pid_t pid, const char *path);

/* Whether it has a heap, which a C library's malloc() makes at its first call. */
bool proc_has_heap(pid_t pid);

/* Checks that all that ldd says that @path needs is mapped; returns how many files that is. */
unsigned proc_check_mapped(pid_t pid, const char *path);

/* Checks that all code is as in its files; returns the number of mappings. */
unsigned proc_check_text(pid_t pid);

#endif
