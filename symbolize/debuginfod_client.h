/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_DEBUGINFOD_CLIENT_H
#define DP_SYMBOLIZE_DEBUGINFOD_CLIENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * libdebuginfod, as far as it is needed. It is loaded when the first file is asked for, not linked:
 * it comes with a whole HTTP client. Where this was built without its header there is none.
 */

struct dp_debuginfod_client;

/* Whether there is somebody to ask: DEBUGINFOD_URLS is set and not empty, and this was built so. */
bool dp_debuginfod_client_is_wanted(void);

/*
 * Loads the library.
 *
 * @stop: borrowed; when it becomes true a query that runs is given up within a second or so.
 * Returns 0, -ENOMEM, or -ENOPKG (the library is not installed or not the one that we know).
 */
int dp_debuginfod_client_open(struct dp_debuginfod_client **ret, const atomic_bool *stop);

/* NULL is allowed. */
void dp_debuginfod_client_close(struct dp_debuginfod_client *client);

/*
 * Asks for the debug file of build-id @build_id. Blocks, for minutes if need be (DEBUGINFOD_TIMEOUT
 * and the like). One call at a time.
 *
 * Returns a descriptor, -ENOENT (nobody has it), or another negative errno. Source:
 * debuginfod_find_debuginfo(3).
 */
int dp_debuginfod_client_find(struct dp_debuginfod_client *client, const uint8_t *build_id,
			      size_t n_bytes);

#endif
