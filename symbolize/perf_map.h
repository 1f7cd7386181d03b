/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_PERF_MAP_H
#define DP_SYMBOLIZE_PERF_MAP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "symbolize/jit_names.h"

/*
 * The perf map of a process: /tmp/perf-PID.map, in which a just-in-time compiler says what code it
 * has put where. /tmp is the process's own, and so is PID: as it sees them in its namespaces.
 *
 * The file is believed only if it is a regular file, no symbolic link, and owned by the process's
 * effective user or root, as perf does. At most 64 MiB of it are read.
 */

struct dp_perf_map;

struct dp_perf_map_stats {
	struct dp_jit_stats text;    /* of the file as it is now */
	uint64_t n_files;	     /* that were opened */
	uint64_t n_rereads;	     /* from the beginning: the file was written anew */
	uint64_t n_refused;	     /* looks that found a file not to be believed */
	uint64_t n_bytes_over_limit; /* of the file as it is now, not read */
};

/*
 * Begins with process @pid. There need be no map yet; a map that comes later is found also when
 * the process has ended by then.
 *
 * @pidfd: of the process, borrowed for the life of the map; tells when @pid is not its any more.
 * Returns 0 or -ENOMEM.
 */
int dp_perf_map_new(struct dp_perf_map **ret, pid_t pid, int pidfd);

/* NULL is allowed. */
void dp_perf_map_free(struct dp_perf_map *map);

/*
 * Looks whether there is a map, or another one, or more of it, and reads what is new. Reads files
 * and may block on them. Returns 0, also without a map, or -ENOMEM: then nothing is known until the
 * next call.
 */
int dp_perf_map_refresh(struct dp_perf_map *map);

/* The name of the code at @avma, valid until the next call of another function; or NULL. */
const char *dp_perf_map_find(const struct dp_perf_map *map, uint64_t avma);

/* Fills @ret; cumulative where it does not say otherwise. */
void dp_perf_map_get_stats(const struct dp_perf_map *map, struct dp_perf_map_stats *ret);

#endif
