/* SPDX-License-Identifier: MIT */
#include "src/target.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "src/base/proc_stat.h"

/* Source: the kernel's include/linux/sched.h; shown in /proc/PID/stat, field 9. */
#define PF_KTHREAD 0x00200000u

static int check_sort(pid_t pid, struct dp_error *err)
{
	struct dp_proc_stat line;
	char path[64];
	char text[4096];
	const char *at;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	r = dp_proc_stat_read(path, &line);
	if (r < 0)
		return dp_error_set(err, r == -ENOENT ? -ESRCH : r,
				    "pid %d: no such process; check the number with ps", pid);
	if (line.flags & PF_KTHREAD)
		return dp_error_set(
			err, -EINVAL,
			"pid %d: is a kernel thread; only user processes can be profiled", pid);
	if (dp_find_live_thread(pid) == 0)
		return dp_error_set(
			err, -EINVAL,
			"pid %d: has ended already (a zombie that its parent has not waited "
			"for); there is nothing left to profile",
			pid);
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	r = dp_read_text(path, text, sizeof(text));
	at = r == 0 ? strstr(text, "\nTgid:") : NULL;
	if (at && atoi(at + 6) != pid)
		return dp_error_set(err, -EINVAL,
				    "pid %d: is a thread of process %d; give the process's pid",
				    pid, atoi(at + 6));
	return 0;
}

/* The memory map is what everything starts from, and reading it needs the right to ptrace. */
static int check_access(pid_t pid, struct dp_error *err)
{
	char path[64];
	char byte[2];
	int r;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	r = dp_read_text(path, byte, sizeof(byte));
	if (r == -EACCES || r == -EPERM)
		return dp_error_set(err, r,
				    "pid %d: %s: %s; run as root, or with CAP_SYS_PTRACE and "
				    "CAP_PERFMON",
				    pid, path, strerror(-r));
	if (r < 0)
		return dp_error_set(err, r, "pid %d: %s: %s", pid, path, strerror(-r));
	return 0;
}

int dp_target_open(struct dp_target *ret, pid_t pid, struct dp_error *err)
{
	struct dp_target target = {.pid = pid};
	char path[64];
	int r;

	target.pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	/* EINVAL and ENOENT: a thread's id; check_sort() says so. */
	if (target.pidfd < 0 && errno != EINVAL && errno != ENOENT)
		return dp_error_set(err, -errno, "pid %d: %s; check the number with ps", pid,
				    errno == ESRCH ? "no such process" : strerror(errno));
	r = check_sort(pid, err);
	if (r == 0)
		r = check_access(pid, err);
	if (r == 0 && target.pidfd < 0)
		r = dp_error_set(err, -EINVAL, "pid %d: is no process", pid);
	if (r < 0) {
		dp_target_close(&target);
		return r;
	}
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	if (dp_read_text(path, target.comm, sizeof(target.comm)) == 0)
		target.comm[strcspn(target.comm, "\n")] = '\0';
	*ret = target;
	return 0;
}

void dp_target_close(struct dp_target *target)
{
	if (target->pidfd >= 0)
		close(target->pidfd);
	target->pidfd = -1;
}

bool dp_target_has_ended(const struct dp_target *target)
{
	struct pollfd pollfd = {.fd = target->pidfd, .events = POLLIN};

	return poll(&pollfd, 1, 0) == 1;
}
