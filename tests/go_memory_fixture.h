/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_GO_MEMORY_FIXTURE_H
#define DP_TESTS_GO_MEMORY_FIXTURE_H

#include <stddef.h>
#include <stdint.h>

#include "src/go_runtime.h"

/*
 * A Go runtime's bucket lists made up in the test's own memory, which the reader reads as if it
 * were another process's.
 */

#define GO_FAKE_BYTES (16u << 20)

struct go_fake {
	uint64_t heads[3]; /* as mbuckets, bbuckets, xbuckets */
	uint32_t cycle;	   /* as mProfCycle */
	uint64_t heap_lock, events_lock;
	uint64_t ticks[4];
	int64_t heap_rate;
	uint64_t block_rate, mutex_fraction;
	uint8_t heap_disabled;
	struct dp_go_runtime runtime; /* that says where all this is */
	uint8_t *arena;
	size_t n_bytes;
};

/* Empty lists of Go 1.@minor. To be freed by go_fake_free(). */
struct go_fake *go_fake_new(unsigned minor);
void go_fake_free(struct go_fake *fake);

/* Adds a bucket as the newest of its list and returns its record, all zero. */
uint64_t *go_fake_add(struct go_fake *fake, enum dp_go_list list, uint64_t size,
		      const uint64_t *pcs, size_t n_pcs);

/* Sets the figures of cycle @i of a heap record, -1: the published ones. */
void go_fake_set(struct go_fake *fake, uint64_t *record, int i, uint64_t size, uint64_t allocs,
		 uint64_t frees);

/* The header of the newest bucket: next, allnext, type, hash, size, stack's length. */
uint64_t *go_fake_newest(struct go_fake *fake, enum dp_go_list list);

#endif
