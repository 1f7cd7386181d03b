/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: head and tail count bytes for ever and are only reduced modulo the size where
 * memory is touched, so full and empty never look alike.
 */
#include "perf/ring.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A record's size is 16 bits wide. Source: perf_event_open(2), struct perf_event_header. */
#define MAX_RECORD_BYTES 65536

int dp_ring_init(struct dp_ring *ret, struct perf_event_mmap_page *page, const void *data,
		 size_t data_bytes)
{
	uint8_t *scratch = aligned_alloc(8, MAX_RECORD_BYTES);

	if (!scratch)
		return -ENOMEM;
	*ret = (struct dp_ring){.page = page,
				.data = data,
				.data_bytes = data_bytes,
				.head = page->data_tail,
				.tail = page->data_tail,
				.scratch = scratch};
	return 0;
}

int dp_ring_map(struct dp_ring *ret, int fd, size_t data_bytes)
{
	size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	size_t mapped_bytes = page_bytes + data_bytes;
	uint8_t *base;
	int r;

	base = mmap(NULL, mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		return -errno;
	r = dp_ring_init(ret, (struct perf_event_mmap_page *)base, base + page_bytes, data_bytes);
	if (r < 0) {
		munmap(base, mapped_bytes);
		return r;
	}
	ret->mapped_bytes = mapped_bytes;
	return 0;
}

void dp_ring_unmap(struct dp_ring *ring)
{
	free(ring->scratch);
	if (ring->mapped_bytes)
		munmap(ring->page, ring->mapped_bytes);
	*ring = (struct dp_ring){0};
}

void dp_ring_refresh(struct dp_ring *ring)
{
	/* Pairs with the kernel's barrier before it stores data_head in perf_output_put_handle().
	 */
	ring->head = __atomic_load_n(&ring->page->data_head, __ATOMIC_ACQUIRE);
}

int dp_ring_next(struct dp_ring *ring, const void **ret, size_t *ret_bytes)
{
	uint64_t available = ring->head - ring->tail;
	size_t at = (size_t)(ring->tail & (ring->data_bytes - 1));
	struct perf_event_header header;
	size_t first;

	if (available == 0)
		return 0;
	/* Records are 8-byte aligned and a header is 8 bytes, so a header never straddles the end.
	 */
	if (available < sizeof(header) || available > ring->data_bytes || at % 8 != 0)
		goto corrupt;
	memcpy(&header, ring->data + at, sizeof(header));
	if (header.size < sizeof(header) || header.size % 8 != 0 || header.size > available)
		goto corrupt;
	first = ring->data_bytes - at;
	if (header.size <= first) {
		*ret = ring->data + at;
	} else {
		memcpy(ring->scratch, ring->data + at, first);
		memcpy(ring->scratch + first, ring->data, header.size - first);
		*ret = ring->scratch;
	}
	*ret_bytes = header.size;
	ring->tail += header.size;
	return 1;
corrupt:
	ring->tail = ring->head;
	return -EBADMSG;
}

void dp_ring_release(struct dp_ring *ring)
{
	/* Pairs with the kernel's load of data_tail in __perf_output_begin(): our reads are done
	 * before it reuses the space. */
	__atomic_store_n(&ring->page->data_tail, ring->tail, __ATOMIC_RELEASE);
}
