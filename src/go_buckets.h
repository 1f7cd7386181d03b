/* SPDX-License-Identifier: MIT */
#ifndef DP_GO_BUCKETS_H
#define DP_GO_BUCKETS_H

#include <stddef.h>
#include <stdint.h>

#include "src/go_runtime.h"

/*
 * One of the lists in which a Go program's runtime keeps what it has sampled, read from its memory
 * while it runs. Nodes are never moved or freed, so each is remembered by its address, and only new
 * ones are walked. Nothing that is read is trusted.
 */

struct dp_go_buckets;

/* One bucket: a stack (for the heap, a stack and a size) and its counters as last read. */
struct dp_go_bucket {
	const uint64_t *pcs; /* as recorded, avma, leaf first: return addresses, without the
				sentinel that some versions begin with */
	size_t n_pcs;
	bool is_known;		/* read whole once; else there are no figures yet */
	uint64_t size;		/* heap: of each object; else 0 */
	uint64_t allocs, frees; /* heap */
	int64_t count, cycles;	/* block and mutex, as the runtime reports them */
};

struct dp_go_buckets_stats {
	uint64_t n_reads;	  /* of the whole list */
	uint64_t n_buckets;	  /* known now */
	uint64_t n_cycle_changes; /* reads that were begun again: a collection's figures came */
	uint64_t n_torn;	  /* buckets that could not be believed at once, read again */
	uint64_t n_kept;	  /* buckets that stayed so: the figures before are kept */
	uint64_t n_refused;	  /* nodes that made no sense: the list ends there */
	uint64_t n_without_room;  /* nodes beyond the bound */
	uint64_t n_unreadable;	  /* reads of memory that failed */
};

/* @runtime: borrowed, must outlive it. Returns 0, -ENOENT (the list was not found) or -ENOMEM. */
int dp_go_buckets_new(struct dp_go_buckets **ret, const struct dp_go_runtime *runtime,
		      enum dp_go_list list);

/* NULL is allowed. */
void dp_go_buckets_free(struct dp_go_buckets *buckets);

/*
 * Reads the list as it is now. What could not be believed is counted, and the figures before are
 * kept, which are 0 if there were none.
 *
 * The heap's figures are what the runtime would report at that moment: until the first collection
 * has published any, all that was counted; from then on, what was published. So they go down once,
 * at that time, and never again.
 *
 * Blocks on the target's pages; one thread at a time. Returns 0, -ENOMEM, -ESRCH (the process is
 * gone), or another negative errno (it may not be read any more); the figures before are kept in
 * all of these.
 */
int dp_go_buckets_read(struct dp_go_buckets *buckets);

/* Bucket @i (from 0, oldest first: numbers stay), as of the last reading. Borrowed. */
size_t dp_go_buckets_count(const struct dp_go_buckets *buckets);
void dp_go_buckets_get(const struct dp_go_buckets *buckets, size_t i, struct dp_go_bucket *ret);

const struct dp_go_buckets_stats *dp_go_buckets_get_stats(const struct dp_go_buckets *buckets);

#endif
