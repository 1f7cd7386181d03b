/* SPDX-License-Identifier: MIT */
#ifndef DP_SAFETY_H
#define DP_SAFETY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/*
 * What must not be used on a target: kernels with known defects, and programs that return probes
 * would break. A table says what is switched off where, and each row has the sentence that the user
 * gets.
 */

/* What is switched off, ORed. */
enum dp_off {
	/* A return probe puts an address of the kernel's in the place of a return address. */
	DP_OFF_RETURN_PROBES = 1 << 0,
	/* The kernel's walk along frame pointers (PERF_SAMPLE_CALLCHAIN) of a process that has
	 * uprobes. */
	DP_OFF_CALLCHAINS = 1 << 1,
};

/* More rows than ever apply at once. */
#define DP_SAFETY_MAX_REASONS 8

struct dp_safety_reason {
	unsigned off;	  /* enum dp_off, ORed */
	const char *text; /* one sentence without its full stop; static */
};

struct dp_safety {
	unsigned off; /* enum dp_off, ORed: of all reasons together */
	size_t n_reasons;
	struct dp_safety_reason reasons[DP_SAFETY_MAX_REASONS];
};

/* What the judgement depends on. */
struct dp_safety_facts {
	const char *release;	  /* as in uname(2), e.g. "6.12.3" or "6.1.0-28-amd64" */
	const char *version;	  /* as in uname(2), e.g. "#1 SMP Debian 6.1.119-1 (2024-11-22)":
				     Debian's says which stable release it is, its release does not.
				     NULL or "" if not known */
	bool filtered_by_seccomp; /* a thread of the target has a filter of system calls */
	bool is_go;		  /* the target is a Go program */
};

/*
 * Judges by given facts. Fills @ret. A release that cannot be read as two numbers is none of the
 * table's.
 */
void dp_safety_judge(const struct dp_safety_facts *facts, struct dp_safety *ret);

/*
 * Judges process @pid on the running kernel; what it does later (installs a filter, say) is not
 * known. Reads a few files of /proc, one more for each thread, and the beginning of the executable;
 * may block on them.
 *
 * Returns 0, or a negative errno: @pid's threads cannot be listed (-ENOENT: there is no such
 * process).
 */
int dp_safety_look(pid_t pid, struct dp_safety *ret);

/* The first reason that switches off any of @off (enum dp_off, ORed), or NULL. Static. */
const char *dp_safety_why(const struct dp_safety *safety, unsigned off);

/*
 * Whether any thread of @pid has a seccomp filter; for dp_safety_look() and tests. Returns 1, 0 or
 * a negative errno. Source: proc_pid_status(5), "Seccomp".
 */
int dp_safety_is_filtered(pid_t pid);

#endif
