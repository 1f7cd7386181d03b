/* SPDX-License-Identifier: MIT */
#ifndef DP_OPTIONS_H
#define DP_OPTIONS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "perf/sampler.h"
#include "src/base/error.h"

/*
 * The command line, read and checked. Nothing here prints or exits.
 */

enum dp_profile {
	DP_PROFILE_HEAP = 1 << 0,
	DP_PROFILE_MUTEX = 1 << 1,
	DP_PROFILE_BLOCK = 1 << 2,
	DP_PROFILE_CHEAP = 1 << 3, /* of Go programs only */
};

enum dp_stacks_mode {
	DP_STACKS_AUTO, /* in this version as DP_STACKS_FP */
	DP_STACKS_FP,
	DP_STACKS_DWARF,
};

#define DP_OPTIONS_MAX_PIDS 64
#define DP_MIN_INTERVAL_NS (UINT64_C(100) * 1000 * 1000)	      /* 100 ms */
#define DP_MAX_INTERVAL_NS (UINT64_C(24) * 3600 * 1000 * 1000 * 1000) /* a day */
#define DP_MAX_HEAP_RATE_BYTES (UINT64_C(1) << 40)		      /* 1024 GiB */
#define DP_MAX_BLOCK_RATE_NS (UINT64_C(3600) * 1000 * 1000 * 1000)    /* an hour */

struct dp_options {
	pid_t pids[DP_OPTIONS_MAX_PIDS]; /* each once, in the order given */
	size_t n_pids;
	uint64_t interval_ns;
	uint64_t duration_ns; /* 0: until stopped */
	unsigned profiles;    /* enum dp_profile, ORed; at least one */
	const char *output_dir;
	uint64_t heap_rate_bytes;					  /* at least 1 */
	uint64_t block_rate_ns;						  /* at least 1 */
	uint64_t go_heap_rate_bytes, go_block_rate_ns, go_mutex_fraction; /* 0: left alone */
	enum dp_stacks_mode stacks;
	enum dp_sampler_mode sampler;
	double max_overhead_percent; /* above 0; 100: no limit */
	int verbosity;		     /* -1: quiet, 0: normal, 1: verbose */
	char *const *command;	     /* NULL-terminated; NULL if none was given */
};

/*
 * Reads @argv, of @argc strings and a NULL behind them, as main() got it.
 *
 * @ret: filled on success only. output_dir and command point into @argv.
 * @err: a sentence, without control characters, when the result is -EINVAL.
 *
 * Uses getopt_long(3), so: one caller at a time. Does not allocate.
 * Returns 0; 1 when --help was asked for and 2 when --version was; -EINVAL for a command line that
 * is wrong, or that asks for what this version does not have.
 */
int dp_options_parse(int argc, char **argv, struct dp_options *ret, struct dp_error *err);

/* The text of --help, ending in a newline. Static. */
const char *dp_options_help(void);

#endif
