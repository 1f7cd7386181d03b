/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_LIBRARY_FIXTURE_H
#define DP_TESTS_LIBRARY_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "src/deltaprof.h"

/* How much the target does for each byte, as in tests/targets/turns.c. Allocations are made by
 * keep_block(), waits by wait_mutex(), and ended by release_mutex(). */
#define TURNS_THREADS 4
#define TURNS_BLOCKS 500
#define TURNS_BLOCK_BYTES 64
#define TURNS_WAITS 10

/* A process that does a known number of things in turns (tests/targets/turns.c), and a writer that
 * adds up what profiles say. */

struct turns {
	pid_t pid;
	int in, out;
};

/* Both fail the test if they cannot. turns_do(): @n times @what, done when it returns. */
void turns_start(struct turns *turns);
void turns_do(struct turns *turns, char what, unsigned n);

/* Ends it, and waits for it. One that has ended is allowed. */
void turns_end(struct turns *turns);

struct tally {
	const char *function; /* samples with it on their stacks count */
	const char *unwanted; /* prefix of functions that are counted in n_unwanted, or NULL */
	unsigned fail_every;  /* each so manieth call of the writer fails; 0: none */
	unsigned n_calls, n_delivered, n_nonempty;
	int64_t sums[4], last[4]; /* by sample type: over all profiles; of the last one */
	uint64_t n_unwanted;
};

/* A deltaprof_writer; @context is a struct tally. Takes no lock: calls are not to overlap. */
int tally_write(void *context, const void *data, size_t n_bytes, char error[DELTAPROF_ERROR_BYTES]);

#endif
