/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
#ifndef DP_PERF_FUTEX_RULES_H
#define DP_PERF_FUTEX_RULES_H

#include <linux/errno.h>
#include <linux/futex.h>
#include <linux/types.h>
#include <stdbool.h>

/*
 * What a futex call does to threads and whether it slept: the same for the BPF programs and for
 * src/contention. Source: futex(2).
 */

enum dp_futex_role {
	DP_FUTEX_OTHER,
	DP_FUTEX_WAITS,
	DP_FUTEX_LOCKS_PI,
	DP_FUTEX_WAITS_REQUEUE_PI,
	DP_FUTEX_WAKES,
};

/* Of the operation @op, with its flags: the kernel takes an int, so a register's upper half may
 * hold anything. */
static inline enum dp_futex_role dp_futex_role(__u32 op)
{
	switch (op & (__u32)FUTEX_CMD_MASK) {
	case FUTEX_WAIT:
	case FUTEX_WAIT_BITSET:
		return DP_FUTEX_WAITS;
	case FUTEX_LOCK_PI:
	case FUTEX_LOCK_PI2:
		return DP_FUTEX_LOCKS_PI;
	case FUTEX_WAIT_REQUEUE_PI:
		return DP_FUTEX_WAITS_REQUEUE_PI;
	case FUTEX_WAKE:
	case FUTEX_WAKE_BITSET:
	case FUTEX_WAKE_OP:
	case FUTEX_REQUEUE:
	case FUTEX_CMP_REQUEUE:
	case FUTEX_CMP_REQUEUE_PI:
	case FUTEX_UNLOCK_PI:
		return DP_FUTEX_WAKES;
	default:
		return DP_FUTEX_OTHER;
	}
}

static inline bool dp_futex_is_wait(enum dp_futex_role role)
{
	return role != DP_FUTEX_WAKES && role != DP_FUTEX_OTHER;
}

/* Kernel-internal results that the tracepoint shows. Source: the kernel's include/linux/errno.h. */
#define DP_ERESTARTSYS 512
#define DP_ERESTARTNOINTR 513
#define DP_ERESTARTNOHAND 514
#define DP_ERESTART_RESTARTBLOCK 516

/*
 * Whether a wait that returned @result slept; @woken: it was woken, by whomever. Errors not listed
 * are found before anything is waited for: EAGAIN (the word had changed), EACCES, EDEADLK, EFAULT,
 * EINVAL, ENOMEM, ENOSYS, EPERM, ESRCH. A time-out that had passed already cannot be told from one
 * that passed meanwhile. Source: futex(2), "ERRORS"; the kernel's kernel/futex/waitwake.c, pi.c and
 * requeue.c.
 */
static inline bool dp_futex_has_slept(enum dp_futex_role role, bool woken, __s64 result)
{
	switch (result) {
	case 0:
		/* A lock that was free by the time the kernel looked is taken without sleep. */
		return role != DP_FUTEX_LOCKS_PI || woken;
	case -EAGAIN:
		/* Also the kernel's answer to a signal or a spurious waking in this operation. */
		return role == DP_FUTEX_WAITS_REQUEUE_PI && woken;
	case -ETIMEDOUT:
	case -EINTR:
	case -DP_ERESTARTSYS:
	case -DP_ERESTARTNOINTR:
	case -DP_ERESTARTNOHAND:
	case -DP_ERESTART_RESTARTBLOCK:
		return true;
	default:
		return false;
	}
}

#endif
