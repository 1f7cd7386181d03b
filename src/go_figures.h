/* SPDX-License-Identifier: MIT */
#ifndef DP_GO_FIGURES_H
#define DP_GO_FIGURES_H

#include <stdbool.h>
#include <stdint.h>

#include "src/go_layout.h"

/*
 * What two readings of a bucket's record say, if they can be believed. Used by go_buckets.c.
 */

#define DP_GO_N_CYCLES 3
#define DP_GO_MAX_RECORD_BYTES 128
#define DP_GO_EVENT_BYTES 16

struct dp_go_reading {
	const struct dp_go_layout *layout;
	const uint8_t *first, *second; /* the record, read twice; any alignment */
	uint64_t size;		       /* of an object; heap */
	uint32_t cycle;		       /* the same before and after */
	bool is_quiet;		       /* the lock was free at a moment between the two readings */
};

struct dp_go_figures {
	uint64_t allocs, frees;
};

/* Bytes of a heap record. */
unsigned dp_go_heap_record_bytes(const struct dp_go_layout *layout);

/* Each returns whether the figures can be believed; @ret is set only then. */

/* The published figures, those of a cycle that is about to be published included. */
bool dp_go_figures_published(const struct dp_go_reading *reading, struct dp_go_figures *ret);

/* With those of all cycles: what the runtime reports before the first collection. */
bool dp_go_figures_all(const struct dp_go_reading *reading, struct dp_go_figures *ret);

/* A block or mutex record; @ret_count as it is, without the runtime's 0 → 1. */
bool dp_go_figures_event(const struct dp_go_reading *reading, int64_t *ret_count,
			 int64_t *ret_cycles);

#endif
