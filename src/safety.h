/* SPDX-License-Identifier: MIT */
#ifndef DP_SAFETY_H
#define DP_SAFETY_H

#include <stdbool.h>
#include <sys/types.h>

#include "src/base/error.h"

/*
 * Kernels with known defects that would harm the target.
 */

/*
 * Whether a return probe may get a process killed whose system calls are filtered by seccomp: from
 * Linux 6.11 to 6.13 the return goes through a system call of its own, which filters older than it
 * forbid. The fix came in the course of 6.12 and 6.13; their distributors' numbers do not tell, so
 * all of them are taken to be affected.
 *
 * @release: as in uname(2), e.g. "6.12.3-amd64". Source: commits ff474a78cef5 (6.11) and
 * cf6cb56ef244.
 */
bool dp_safety_return_is_syscall(const char *release);

/*
 * Checks that return probes do process @pid no harm on the running kernel.
 * Returns 0, or -EPERM with a sentence in @err.
 */
int dp_safety_check(pid_t pid, struct dp_error *err);

#endif
