/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_RING_H
#define DP_PERF_RING_H

#include <stddef.h>
#include <stdint.h>

struct perf_event_mmap_page;

/*
 * Reads records out of one perf ring. One reader per ring.
 */
struct dp_ring {
	struct perf_event_mmap_page *page; /* head and tail live here */
	const uint8_t *data;
	size_t data_bytes;   /* a power of two */
	size_t mapped_bytes; /* 0 when the memory is not ours (tests) */
	uint64_t head;	     /* as far as the kernel had written when last looked */
	uint64_t tail;	     /* as far as we have read */
	uint8_t *scratch;    /* 64 KiB, for a record that straddles the end */
};

/*
 * Maps the ring of perf event @fd with @data_bytes (a power of two of at least one page) of data.
 *
 * @ret: initialised on success; does not own @fd.
 * Returns 0 or a negative errno (-EPERM: more than perf_event_mlock_kb without CAP_IPC_LOCK).
 */
int dp_ring_map(struct dp_ring *ret, int fd, size_t data_bytes);

/* Unmaps it. A zeroed struct is allowed. */
void dp_ring_unmap(struct dp_ring *ring);

/*
 * Sets up a reader on memory that the caller owns: @page and @data_bytes of data after it. Returns
 * 0 or -ENOMEM.
 */
int dp_ring_init(struct dp_ring *ret, struct perf_event_mmap_page *page, const void *data,
		 size_t data_bytes);

/* Looks how far the kernel has written. dp_ring_next() gives records up to there. */
void dp_ring_refresh(struct dp_ring *ring);

/*
 * The next record. *@ret, 8-byte aligned, is valid until the next call on @ring.
 * Returns 1; 0 when all that dp_ring_refresh() saw is read; -EBADMSG when the ring contradicts
 * itself: what had been written is then skipped.
 */
int dp_ring_next(struct dp_ring *ring, const void **ret, size_t *ret_bytes);

/* Gives the space of all records read so far back to the kernel. */
void dp_ring_release(struct dp_ring *ring);

#endif
