/* SPDX-License-Identifier: MIT */
#include "src/safety.h"

#include <errno.h>
#include <stdio.h>
#include <sys/utsname.h>

/* Source: proc_pid_status(5), "Seccomp". */
#define SECCOMP_FILTER 2

bool dp_safety_return_is_syscall(const char *release)
{
	unsigned major, minor;

	if (sscanf(release, "%u.%u", &major, &minor) != 2)
		return false;
	return major == 6 && minor >= 11 && minor <= 13;
}

static int seccomp_mode(pid_t pid)
{
	char path[64];
	char line[256];
	int mode = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	file = fopen(path, "re");
	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "Seccomp: %d", &mode) == 1)
			break;
	}
	fclose(file);
	return mode;
}

int dp_safety_check(pid_t pid, struct dp_error *err)
{
	struct utsname kernel;

	if (uname(&kernel) < 0 || !dp_safety_return_is_syscall(kernel.release) ||
	    seccomp_mode(pid) != SECCOMP_FILTER)
		return 0;
	return dp_error_set(
		err, -EPERM,
		"pid %d: its system calls are filtered by seccomp, and on Linux %s such a "
		"process may be killed by a return probe, which a heap profile needs; use "
		"Linux 6.14 or newer, or older than 6.11",
		pid, kernel.release);
}
