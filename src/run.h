/* SPDX-License-Identifier: MIT */
#ifndef DP_RUN_H
#define DP_RUN_H

#include "src/base/error.h"
#include "src/options.h"

/*
 * The command line's main job: attaches, writes files per interval, and stops on a signal, at the
 * end of the duration or with the processes. With a command it starts it, profiles it, and waits
 * for its end. Prints its progress on stderr as the options ask for.
 *
 * Blocks SIGINT, SIGTERM and SIGHUP in the calling thread. Call it from the main thread, before any
 * signal is blocked.
 * Returns 0, *@ret_status: the command's end as from waitpid(2), or 0 without one; or a negative
 * errno with a sentence in @err, *@ret_status: what to exit with (1; with a command
 * 125 to 127 as dp_launch_failure_code() says).
 */
int dp_run(const struct dp_options *options, int *ret_status, struct dp_error *err);

#endif
