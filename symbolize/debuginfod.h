/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_DEBUGINFOD_H
#define DP_SYMBOLIZE_DEBUGINFOD_H

#include <stddef.h>
#include <stdint.h>

#include "symbolize/debug_file.h"

/*
 * Debug files from the servers in DEBUGINFOD_URLS, fetched by a thread of its own, so that nobody
 * waits for a network. Each build-id is asked for once, one after the other; libdebuginfod keeps
 * what it fetched on the disk. The thread is started by the first question; it blocks all signals.
 *
 * Not for a process that profiles itself: the thread allocates memory and waits, in the very
 * process whose allocations and waits are being counted.
 */

struct dp_debuginfod;

enum dp_debuginfod_state {
	DP_DEBUGINFOD_PENDING, /* not known yet: ask again */
	DP_DEBUGINFOD_FOUND,
	DP_DEBUGINFOD_MISSING, /* for good */
};

struct dp_debuginfod_stats {
	uint64_t n_asked;      /* distinct build-ids */
	uint64_t n_found;      /* of these, with a debug file */
	uint64_t n_missing;    /* nobody has one */
	uint64_t n_failed;     /* no answer, or a file that is not the one that was asked for */
	uint64_t n_over_limit; /* not asked for: over 4096 build-ids, or no thread could be had */
};

/*
 * Returns 0, 1 when there is nobody to ask (DEBUGINFOD_URLS is not set, or built without
 * libdebuginfod; *@ret is untouched), or -ENOMEM.
 */
int dp_debuginfod_new(struct dp_debuginfod **ret);

/*
 * Gives up what is being fetched and frees everything, also the files. Waits for the thread up to
 * two seconds; where a name server keeps it longer than that, the thread is left to end by itself.
 * NULL is allowed.
 */
void dp_debuginfod_free(struct dp_debuginfod *debuginfod);

/*
 * Asks for the debug file of @build_id of @n_bytes (1 … DP_MODULE_BUILD_ID_MAX). Does not block.
 *
 * *@ret: set when FOUND, borrowed until dp_debuginfod_free().
 */
enum dp_debuginfod_state dp_debuginfod_ask(struct dp_debuginfod *debuginfod,
					   const uint8_t *build_id, size_t n_bytes,
					   const struct dp_separate_files **ret);

/* How many questions have been answered: while it does not change, no state does. */
uint64_t dp_debuginfod_n_answered(struct dp_debuginfod *debuginfod);

void dp_debuginfod_get_stats(struct dp_debuginfod *debuginfod, struct dp_debuginfod_stats *ret);

#endif
