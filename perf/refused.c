/* SPDX-License-Identifier: MIT */
#include "perf/refused.h"

#include <string.h>

int dp_probe_refused(int code, pid_t pid, const char *what, struct dp_error *err)
{
	if (code == -DP_ENOTSUPP)
		return dp_error_set(err, code,
				    "pid %d: the kernel cannot probe one of the chosen "
				    "instructions: this program's allocator cannot be profiled "
				    "with uprobes on this kernel",
				    pid);
	return dp_error_set(err, code, "pid %d: %s: %s", pid, what, strerror(-code));
}
