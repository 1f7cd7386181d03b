/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: a wrong row costs either the target or a part of the profile, so every row says
 * where its range comes from and on which side it errs. Distributors' release numbers often hide
 * what was put back into them ("6.11.0-19-generic"); such a number means its whole series where the
 * series was never repaired, and else what it says.
 */
#include "src/safety.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "symbolize/go_binary.h"

/* Source: proc_pid_status(5), "Seccomp". */
#define SECCOMP_FILTER 2

/* A release as one number that can be compared; a patch level is below 65536. */
#define RELEASE(major, minor, patch) \
	((uint64_t)(major) << 32 | (uint64_t)(minor) << 16 | (uint64_t)(patch))
#define END_OF_SERIES 0xffff

enum condition {
	ALWAYS,
	IF_FILTERED, /* by seccomp */
};

#define SECCOMP_TEXT                                                                             \
	"its system calls are filtered by seccomp, and on this kernel the return from a probed " \
	"function is a system call that the filter may kill it for: returns are not probed "     \
	"(repaired in Linux 6.12.14, 6.13.3 and 6.14)"
#define CALLCHAIN_TEXT                                                                           \
	"on this kernel, following a probed process's frame pointers can panic the machine: it " \
	"is left out (repaired in Linux 6.1.131, 6.6.83, 6.12.19 and 6.13); do not run another " \
	"profiler that does it at the same time"

static const struct row {
	uint64_t first, last; /* releases, both included */
	unsigned off;
	enum condition condition;
	const char *text;
} rows[] = {
	/*
	 * The return trampoline of x86-64 is a system call since ff474a78cef5 (6.11), which filters
	 * do not know; seccomp lets it through since cf6cb56ef244 (6.14), in 6.13.3 and 6.12.14. A
	 * killed process: systemd issue 34615, opensnitch issue 1205. 6.11 ended unrepaired. Errs
	 * on the safe side for distributors that put the repair into a kernel called 6.12.0-N.
	 * Source: "seccomp: passthrough uretprobe systemcall without filtering" in the lists of
	 * commits of 6.12.14-rc1 and 6.13.3-rc2.
	 */
	{RELEASE(6, 11, 0), RELEASE(6, 12, 13), DP_OFF_RETURN_PROBES, IF_FILTERED, SECCOMP_TEXT},
	{RELEASE(6, 13, 0), RELEASE(6, 13, 2), DP_OFF_RETURN_PROBES, IF_FILTERED, SECCOMP_TEXT},
	/*
	 * The walk of perf_callchain_user() reads the thread's utask since cfa7f3d2c526 (6.12-rc1,
	 * in 6.1.113 and 6.6.55), while uprobe_free_utask() may have freed it: fixed by
	 * b583ef82b671 (6.13-rc7, in 6.1.131, 6.6.83 and 6.12.19). Panics: talos issue 9671
	 * (6.6.58), pyroscope issue 3673, coroot-node-agent issue 275 (Ubuntu's 6.11.0-19). The
	 * walk that panics is one made in an interrupt, ours of wake-ups or another profiler's;
	 * those at a probe are safe by what is known, and left out with them. 6.10 and 6.11 ended
	 * unrepaired; where in them it began was not looked up: 6.10.14 is of the same round of
	 * stable releases as 6.6.55, 6.11 is taken whole, because Ubuntu's number does not
	 * tell. 6.7 to 6.9 had ended before; what distributors put into theirs (Ubuntu's 6.8.0-N)
	 * is not known, and not switched off.
	 */
	{RELEASE(6, 1, 113), RELEASE(6, 1, 130), DP_OFF_CALLCHAINS, ALWAYS, CALLCHAIN_TEXT},
	{RELEASE(6, 6, 55), RELEASE(6, 6, 82), DP_OFF_CALLCHAINS, ALWAYS, CALLCHAIN_TEXT},
	{RELEASE(6, 10, 14), RELEASE(6, 12, 18), DP_OFF_CALLCHAINS, ALWAYS, CALLCHAIN_TEXT},
};

/* Go copies a goroutine's stack to another place, return addresses and all. */
static const struct dp_safety_reason go_reason = {
	DP_OFF_RETURN_PROBES,
	"it is a Go program, whose runtime moves stacks: returns are not probed"};

/* Debian's own number of the kernel does not say the stable release that it is of; its version
 * does. Source: uname -a of Debian 12, "6.1.0-28-amd64 #1 SMP … Debian 6.1.119-1". */
static bool read_release(const struct dp_safety_facts *facts, uint64_t *ret)
{
	const char *debian = facts->version ? strstr(facts->version, " Debian ") : NULL;
	unsigned major, minor, patch = 0;

	if (debian && sscanf(debian, " Debian %u.%u.%u", &major, &minor, &patch) == 3) {
		*ret = RELEASE(major, minor, patch & END_OF_SERIES);
		return true;
	}
	patch = 0;
	if (!facts->release || sscanf(facts->release, "%u.%u.%u", &major, &minor, &patch) < 2)
		return false;
	if (minor > END_OF_SERIES || patch > END_OF_SERIES)
		return false;
	*ret = RELEASE(major, minor, patch);
	return true;
}

static bool holds(enum condition condition, const struct dp_safety_facts *facts)
{
	switch (condition) {
	case ALWAYS:
		return true;
	case IF_FILTERED:
		return facts->filtered_by_seccomp;
	}
	return true;
}

static void add(struct dp_safety *safety, unsigned off, const char *text)
{
	safety->off |= off;
	if (safety->n_reasons < DP_SAFETY_MAX_REASONS)
		safety->reasons[safety->n_reasons++] = (struct dp_safety_reason){off, text};
}

void dp_safety_judge(const struct dp_safety_facts *facts, struct dp_safety *ret)
{
	struct dp_safety safety = {0};
	uint64_t release;
	bool known = read_release(facts, &release);

	if (facts->is_go)
		add(&safety, go_reason.off, go_reason.text);
	for (size_t i = 0; known && i < sizeof(rows) / sizeof(*rows); i++) {
		if (release >= rows[i].first && release <= rows[i].last &&
		    holds(rows[i].condition, facts))
			add(&safety, rows[i].off, rows[i].text);
	}
	*ret = safety;
}

const char *dp_safety_why(const struct dp_safety *safety, unsigned off)
{
	for (size_t i = 0; i < safety->n_reasons; i++) {
		if (safety->reasons[i].off & off)
			return safety->reasons[i].text;
	}
	return NULL;
}

static int seccomp_mode(int tasks_fd, const char *tid)
{
	char path[64];
	char line[256];
	int mode = 0;
	FILE *file;
	int fd;

	snprintf(path, sizeof(path), "%.32s/status", tid);
	fd = openat(tasks_fd, path, O_RDONLY | O_CLOEXEC);
	file = fd < 0 ? NULL : fdopen(fd, "r");
	if (!file) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "Seccomp: %d", &mode) == 1)
			break;
	}
	fclose(file);
	return mode;
}

int dp_safety_is_filtered(pid_t pid)
{
	const struct dirent *entry;
	char path[64];
	DIR *tasks;
	int r = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	tasks = opendir(path);
	if (!tasks)
		return -errno;
	/* A thread that ends meanwhile needs no protection. */
	while (r == 0 && (entry = readdir(tasks)))
		r = entry->d_name[0] != '.' &&
		    seccomp_mode(dirfd(tasks), entry->d_name) == SECCOMP_FILTER;
	closedir(tasks);
	return r;
}

static bool is_go(pid_t pid)
{
	char path[64];
	bool go;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	go = dp_file_is_go(fd);
	close(fd);
	return go;
}

int dp_safety_look(pid_t pid, struct dp_safety *ret)
{
	struct dp_safety_facts facts = {0};
	struct utsname kernel;
	int r = dp_safety_is_filtered(pid);

	if (r < 0)
		return r;
	if (uname(&kernel) < 0)
		return -errno;
	facts.release = kernel.release;
	facts.version = kernel.version;
	facts.filtered_by_seccomp = r > 0;
	facts.is_go = is_go(pid);
	dp_safety_judge(&facts, ret);
	return 0;
}
