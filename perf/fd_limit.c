/* SPDX-License-Identifier: MIT */
#include "perf/fd_limit.h"

#include <sys/resource.h>

/* What a process usually may have. */
#define USUAL 1024

void dp_raise_fd_limit(size_t n_more)
{
	rlim_t need = USUAL + n_more;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= need)
		return;
	if (limit.rlim_max < need) {
		struct rlimit higher = {.rlim_cur = need, .rlim_max = need};

		if (setrlimit(RLIMIT_NOFILE, &higher) == 0)
			return;
	}
	limit.rlim_cur = limit.rlim_max < need ? limit.rlim_max : need;
	setrlimit(RLIMIT_NOFILE, &limit);
}
