/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_REFUSED_H
#define DP_PERF_REFUSED_H

#include <sys/types.h>

#include "src/base/error.h"

/*
 * What uprobes answer for an instruction that they cannot step. Source: the kernel's own
 * include/linux/errno.h; it is in no header for programs.
 */
#define DP_ENOTSUPP 524

/*
 * The sentence for a probe on process @pid that the kernel refused with @code, a negative errno.
 * @what: what was tried, e.g. "perf_event_open". Returns @code.
 */
int dp_probe_refused(int code, pid_t pid, const char *what, struct dp_error *err);

#endif
