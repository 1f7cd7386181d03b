/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_MERGE_H
#define DP_PERF_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * perf/merge puts the records of several rings (one per CPU) into one order of time.
 *
 * When may a record be released? The kernel stamps a record with the clock and then makes it
 * visible, so at any moment a ring may still get a record that is older than one already read from
 * another ring. The caller works in rounds: it takes the clock (the one the events use), then reads
 * every ring to its head. Whatever was stamped before the clock reading of one round is
 * visible at the latest when the *next* round reads that ring, so after reading all rings in a
 * round, a record older than the previous round's clock can no longer appear: that clock is the
 * watermark. A record that takes longer than a whole round to become visible is still released, but
 * late, and counted (n_released_late).
 *
 * One thread at a time. Nothing here blocks.
 */

struct dp_merge;

struct dp_merge_stats {
	uint64_t n_pushed;	  /* records taken */
	uint64_t n_released;	  /* records given out */
	uint64_t n_dropped;	  /* records not taken, for a queue's bound or for want of memory */
	uint64_t n_out_of_order;  /* records older than the one before them in their own ring */
	uint64_t n_released_late; /* records released after a younger one */
	uint64_t n_queued;	  /* records held now */
	uint64_t queued_bytes;	  /* what they take of the queues' bounds now */
	uint64_t max_queued_bytes; /* the most that queued_bytes has ever been */
};

/* What a queue's bound counts per record beside the record itself (rounded up to 8 bytes). */
#define DP_MERGE_RECORD_OVERHEAD_BYTES 16

/*
 * @n_rings: at least 1. @max_bytes: bound of each ring's queue, see
 * DP_MERGE_RECORD_OVERHEAD_BYTES. Queues take memory as they grow and give it back as they shrink,
 * but for 1 MiB per ring, 8 MiB at most, that is kept for the next round.
 * @ret: set on success; ends with dp_merge_free().
 * Returns 0, -EINVAL for zero @n_rings, -ENOMEM.
 */
int dp_merge_new(struct dp_merge **ret, unsigned n_rings, size_t max_bytes);

/*
 * Takes @n_bytes of memory for all queues together beforehand, touches it and keeps it: the page
 * faults of a queue that grows would make it grow faster than it is emptied, where records are
 * large and many. Returns 0 or -ENOMEM, with what there was.
 */
int dp_merge_reserve(struct dp_merge *merge, size_t n_bytes);
void dp_merge_free(struct dp_merge *merge);

/*
 * Copies a record to the end of the queue of ring @i_ring (less than dp_merge_new()'s n_rings).
 *
 * @record: any alignment, @n_bytes (at least 1) long. @time_ns: its time stamp, see
 * dp_record_time(). Ends the life of the record that dp_merge_pop() gave last. Allocates now and
 * then.
 *
 * Returns 0; -ENOBUFS when the queue's bound is reached and -ENOMEM, both counted as dropped.
 */
int dp_merge_push(struct dp_merge *merge, unsigned i_ring, const void *record, size_t n_bytes,
		  uint64_t time_ns);

/*
 * Gives out the oldest record of all queues if it is older than @watermark_ns. Of records with the
 * same time, that of the lower ring comes first. Records of one ring come in the order they were
 * pushed, even where their times go backwards.
 *
 * @ret_record: 8-byte aligned, valid until the next push, pop or free; set only on true.
 * Returns whether there was one. UINT64_MAX as watermark drains the queues (but for records
 * stamped UINT64_MAX).
 */
bool dp_merge_pop(struct dp_merge *merge, uint64_t watermark_ns, const void **ret_record,
		  size_t *ret_bytes);

/* Borrowed, valid until dp_merge_free(); changes with every push and pop. */
const struct dp_merge_stats *dp_merge_get_stats(const struct dp_merge *merge);

#endif
