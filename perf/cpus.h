/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_CPUS_H
#define DP_PERF_CPUS_H

#include <stddef.h>

/*
 * Parses a list of CPU numbers such as "0-3,8,10-11\n" (Source:
 * Documentation/admin-guide/cputopology.rst).
 * *@ret: the numbers, ascending as given, to be freed with free(). Returns 0, -ENOMEM, or -EBADMSG
 * (empty, reversed, or above 65535).
 */
int dp_cpus_parse(const char *text, int **ret, size_t *ret_n);

/* The CPUs that are online now, as dp_cpus_parse() gives them. Returns 0 or a negative errno. */
int dp_cpus_online(int **ret, size_t *ret_n);

#endif
