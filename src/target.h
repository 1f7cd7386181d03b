/* SPDX-License-Identifier: MIT */
#ifndef DP_TARGET_H
#define DP_TARGET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "src/base/error.h"

/*
 * The process that is profiled, as /proc shows it.
 */

#define DP_COMM_BYTES 64

struct dp_target {
	pid_t pid;
	int pidfd; /* becomes readable when the whole process has ended */
	char comm[DP_COMM_BYTES];
};

/*
 * Opens process @pid and checks that it can be profiled at all: it exists, is a process and not a
 * thread, no kernel thread, no zombie, and its memory map may be read.
 *
 * Returns 0 or a negative errno with a sentence in @err: -ESRCH, -EINVAL (thread, kernel thread,
 * zombie), -EACCES/-EPERM.
 */
int dp_target_open(struct dp_target *ret, pid_t pid, struct dp_error *err);

/* Closes it. */
void dp_target_close(struct dp_target *target);

/* Whether the process has ended. Does not block. */
bool dp_target_has_ended(const struct dp_target *target);

#endif
