/* SPDX-License-Identifier: MIT */
#ifndef DP_RUN_H
#define DP_RUN_H

#include "src/base/error.h"
#include "src/options.h"

/*
 * The command line's main job: attaches, writes a file per interval, and stops on a signal, at the
 * end of the duration or with the process. Prints its progress on stderr as the options ask for.
 *
 * Blocks SIGINT, SIGTERM and SIGHUP in the calling thread. Returns 0 or a negative errno with a
 * sentence in @err.
 */
int dp_run(const struct dp_options *options, struct dp_error *err);

#endif
