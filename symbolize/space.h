/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_SPACE_H
#define DP_SYMBOLIZE_SPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "src/base/error.h"
#include "symbolize/module.h"

/*
 * The executable mappings of one process: what normalises an address of the process (avma) into a
 * frame (module and file offset) while the process lives.
 */

struct dp_space;

struct dp_space_range {
	uint64_t start, end; /* avma, end exclusive */
	uint64_t file_off;
	uint32_t module; /* 0: anonymous code (JIT) */
};

/*
 * One thread at a time, where nothing else is said.
 *
 * Creates an empty address space of process @pid, whose modules are kept in @modules (borrowed;
 * must outlive it). Returns 0 or -ENOMEM.
 */
int dp_space_new(struct dp_space **ret, struct dp_modules *modules, pid_t pid);

/* Frees it; the modules stay. NULL is allowed. */
void dp_space_free(struct dp_space *space);

/*
 * Replaces all ranges by the executable mappings in /proc/PID/maps, opening files not yet known
 * through /proc/PID/map_files (so deleted and replaced files, and files of another mount namespace,
 * are the right ones), then /proc/PID/root. A process whose main thread has exited is read through
 * a thread that lives. Ranges that became the same keep their module id.
 *
 * Blocks on file reads. Returns 0, -ESRCH (the process is gone), -EACCES/-EPERM, -ENOMEM, with a
 * sentence in @err.
 */
int dp_space_load(struct dp_space *space, struct dp_error *err);

/* Which file a mapping is of, as the kernel wrote it into its record. */
struct dp_file_identity {
	const uint8_t *build_id;
	size_t build_id_bytes; /* 0: the file has none, then what follows is known */
	uint32_t major, minor;
	uint64_t inode;
};

/*
 * Adds one executable mapping that appeared (a perf MMAP2 record), replacing what it overlaps. Its
 * module is the one of the same path and build-id, else the file is opened at once through
 * /proc/PID/map_files, else by its path in /proc/PID/root; in both cases only if it has the
 * build-id. When it cannot be had any more the module is opaque.
 *
 * @path: as the kernel wrote it. @identity: borrowed for the call; NULL: not known, then nothing is
 * opened but what is mapped at @start under that path.
 * Returns 0 or -ENOMEM.
 */
int dp_space_add(struct dp_space *space, uint64_t start, uint64_t end, uint64_t file_off,
		 const char *path, const struct dp_file_identity *identity);

/*
 * Grows whenever a range is added, removed or replaced: a cache keyed by raw addresses is valid for
 * one generation.
 */
uint64_t dp_space_generation(const struct dp_space *space);

/*
 * Normalises @avma. Where no executable range holds it, module is 0 and the offset is the avma.
 * Never fails, does not allocate: one binary search.
 */
uint64_t dp_space_frame(const struct dp_space *space, uint64_t avma);

/* Whether an executable range holds @avma. */
bool dp_space_holds(const struct dp_space *space, uint64_t avma);

/* The ranges in ascending order, valid until the next call that changes @space. */
const struct dp_space_range *dp_space_ranges(const struct dp_space *space, size_t *ret_n);

/*
 * A mapping that a frame's module and offset lay in, the latest one if there were several; mappings
 * that have since been closed are remembered. Any thread, beside the one that uses the rest.
 * Returns 0 or -ENOENT.
 */
int dp_space_mapping_of(struct dp_space *space, uint64_t frame, struct dp_space_range *ret);

/* The program's own mapping: it lies below its libraries, position independent or not. Any thread.
 * Returns 0 or -ENOENT. */
int dp_space_main_mapping(struct dp_space *space, struct dp_space_range *ret);

/* What was left out; cumulative. */
struct dp_space_stats {
	uint64_t n_ranges_over_limit; /* executable mappings beyond 131 072 at once */
	uint64_t n_lines_bad;	      /* lines of the maps that were not understood */
	uint64_t n_history_lost;      /* closed mappings forgotten for newer ones */
};

void dp_space_get_stats(const struct dp_space *space, struct dp_space_stats *ret);

#endif
