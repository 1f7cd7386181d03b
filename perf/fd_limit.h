/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_FD_LIMIT_H
#define DP_PERF_FD_LIMIT_H

#include <stddef.h>

/*
 * Raises RLIMIT_NOFILE of this process, if it is lower, to room for @n_more descriptors beside what
 * it may have open; as far as it may where that is too much.
 */
void dp_raise_fd_limit(size_t n_more);

#endif
