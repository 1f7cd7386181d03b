/* SPDX-License-Identifier: MIT */
/*
 * Each ring has a queue, kept as a list of chunks that come and go with its length; a binary heap
 * holds the rings that have something queued, ordered by the time of their first record. The record
 * given out last stays where it is, so that the caller needs no copy: the next call removes it.
 */
#include "perf/merge.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES (32 * 1024)

/*
 * Chunks that are kept for the next round: about as much as a ring holds. Memory that goes back to
 * the system and comes again costs a page fault per 4 KiB, four times what the rest of a record's
 * way through here does.
 */
#define MAX_SPARE_PER_RING 32
#define MAX_SPARE 256

/* In front of each record. */
struct entry {
	uint64_t time_ns;
	uint64_t n_bytes;
};

_Static_assert(sizeof(struct entry) == DP_MERGE_RECORD_OVERHEAD_BYTES, "said in the header");

struct chunk {
	struct chunk *next;
	size_t capacity_bytes;
	size_t used_bytes;
	_Alignas(8) uint8_t bytes[];
};

struct queue {
	struct chunk *first; /* NULL: empty */
	struct chunk *last;
	size_t at_bytes; /* where the first entry lies in the first chunk */
	size_t queued_bytes;
	uint64_t newest_ns; /* of the record pushed last */
};

struct head {
	uint64_t time_ns;
	unsigned i_ring;
};

struct dp_merge {
	struct queue *queues;
	struct head *heads; /* heap of the rings with something queued, oldest first */
	unsigned n_rings;
	unsigned n_heads;
	size_t max_bytes;
	bool popped; /* the record of heads[0] has been given out and is to be removed */
	uint64_t released_ns;
	struct chunk *spare;
	unsigned n_spare, max_spare;
	struct dp_merge_stats stats;
};

int dp_merge_new(struct dp_merge **ret, unsigned n_rings, size_t max_bytes)
{
	struct dp_merge *merge;

	if (n_rings == 0)
		return -EINVAL;
	merge = calloc(1, sizeof(*merge));
	if (!merge)
		return -ENOMEM;
	merge->n_rings = n_rings;
	merge->max_spare =
		n_rings < MAX_SPARE / MAX_SPARE_PER_RING ? n_rings * MAX_SPARE_PER_RING : MAX_SPARE;
	merge->max_bytes = max_bytes;
	merge->queues = calloc(n_rings, sizeof(*merge->queues));
	merge->heads = calloc(n_rings, sizeof(*merge->heads));
	if (!merge->queues || !merge->heads) {
		dp_merge_free(merge);
		return -ENOMEM;
	}
	*ret = merge;
	return 0;
}

int dp_merge_reserve(struct dp_merge *merge, size_t n_bytes)
{
	unsigned n = (unsigned)(n_bytes / CHUNK_BYTES);

	if (merge->max_spare < n)
		merge->max_spare = n;
	while (merge->n_spare < n) {
		struct chunk *chunk = malloc(sizeof(*chunk) + CHUNK_BYTES);

		if (!chunk)
			return -ENOMEM;
		/* Not 0, which the compiler would make a calloc() of pages that are not there yet.
		 */
		memset(chunk, 0xff, sizeof(*chunk) + CHUNK_BYTES);
		chunk->capacity_bytes = CHUNK_BYTES;
		chunk->next = merge->spare;
		merge->spare = chunk;
		merge->n_spare++;
	}
	return 0;
}

static void free_chunks(struct chunk *chunk)
{
	while (chunk) {
		struct chunk *next = chunk->next;

		free(chunk);
		chunk = next;
	}
}

void dp_merge_free(struct dp_merge *merge)
{
	if (!merge)
		return;
	for (unsigned i = 0; merge->queues && i < merge->n_rings; i++)
		free_chunks(merge->queues[i].first);
	free_chunks(merge->spare);
	free(merge->queues);
	free(merge->heads);
	free(merge);
}

static bool older(const struct head *a, const struct head *b)
{
	if (a->time_ns != b->time_ns)
		return a->time_ns < b->time_ns;
	return a->i_ring < b->i_ring;
}

/* Puts @head where it belongs, from the empty place @i upwards. */
static void sift_up(struct dp_merge *merge, unsigned i, struct head head)
{
	while (i > 0 && older(&head, &merge->heads[(i - 1) / 2])) {
		merge->heads[i] = merge->heads[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	merge->heads[i] = head;
}

/* Puts @head where it belongs, from the empty top downwards. */
static void sift_down(struct dp_merge *merge, struct head head)
{
	unsigned i = 0;

	for (;;) {
		unsigned child = 2 * i + 1;

		if (child >= merge->n_heads)
			break;
		if (child + 1 < merge->n_heads &&
		    older(&merge->heads[child + 1], &merge->heads[child]))
			child++;
		if (!older(&merge->heads[child], &head))
			break;
		merge->heads[i] = merge->heads[child];
		i = child;
	}
	merge->heads[i] = head;
}

static size_t entry_bytes(size_t n_bytes)
{
	return sizeof(struct entry) + (n_bytes + 7) / 8 * 8;
}

static struct entry *first_entry(const struct queue *queue)
{
	return (struct entry *)(queue->first->bytes + queue->at_bytes);
}

static void add_chunk(struct queue *queue, struct chunk *chunk)
{
	chunk->next = NULL;
	chunk->used_bytes = 0;
	if (queue->last)
		queue->last->next = chunk;
	else
		queue->first = chunk;
	queue->last = chunk;
}

/* Makes room for @n_bytes at the queue's end. */
static int make_room(struct dp_merge *merge, struct queue *queue, size_t n_bytes)
{
	size_t capacity_bytes = n_bytes > CHUNK_BYTES ? n_bytes : CHUNK_BYTES;
	struct chunk *chunk = queue->last;

	if (chunk && n_bytes <= chunk->capacity_bytes - chunk->used_bytes)
		return 0;
	if (merge->spare && n_bytes <= CHUNK_BYTES) {
		chunk = merge->spare;
		merge->spare = chunk->next;
		merge->n_spare--;
	} else {
		chunk = malloc(sizeof(*chunk) + capacity_bytes);
		if (!chunk)
			return -ENOMEM;
		chunk->capacity_bytes = capacity_bytes;
	}
	add_chunk(queue, chunk);
	return 0;
}

/* Takes off the first chunk, of which nothing is queued any more. */
static void remove_chunk(struct dp_merge *merge, struct queue *queue)
{
	struct chunk *chunk = queue->first;

	queue->first = chunk->next;
	queue->at_bytes = 0;
	if (!queue->first)
		queue->last = NULL;
	if (chunk->capacity_bytes == CHUNK_BYTES && merge->n_spare < merge->max_spare) {
		chunk->next = merge->spare;
		merge->spare = chunk;
		merge->n_spare++;
	} else {
		free(chunk);
	}
}

static void append(struct queue *queue, const void *record, size_t n_bytes, uint64_t time_ns)
{
	struct entry entry = {.time_ns = time_ns, .n_bytes = n_bytes};
	uint8_t *to = queue->last->bytes + queue->last->used_bytes;

	memcpy(to, &entry, sizeof(entry));
	memcpy(to + sizeof(entry), record, n_bytes);
	queue->last->used_bytes += entry_bytes(n_bytes);
	queue->queued_bytes += entry_bytes(n_bytes);
	queue->newest_ns = time_ns;
}

/* Removes the record that was given out last. */
static void settle(struct dp_merge *merge)
{
	struct head head = merge->heads[0];
	struct queue *queue = &merge->queues[head.i_ring];

	if (!merge->popped)
		return;
	merge->popped = false;
	queue->at_bytes += entry_bytes(first_entry(queue)->n_bytes);
	if (queue->at_bytes == queue->first->used_bytes)
		remove_chunk(merge, queue);
	if (queue->first)
		head.time_ns = first_entry(queue)->time_ns;
	else
		head = merge->heads[--merge->n_heads];
	if (merge->n_heads > 0)
		sift_down(merge, head);
}

static void count_push(struct dp_merge_stats *stats, size_t n_bytes)
{
	stats->n_pushed++;
	stats->n_queued++;
	stats->queued_bytes += entry_bytes(n_bytes);
	if (stats->queued_bytes > stats->max_queued_bytes)
		stats->max_queued_bytes = stats->queued_bytes;
}

int dp_merge_push(struct dp_merge *merge, unsigned i_ring, const void *record, size_t n_bytes,
		  uint64_t time_ns)
{
	struct queue *queue;
	bool was_empty;
	int r = 0;

	assert(i_ring < merge->n_rings && n_bytes > 0);
	queue = &merge->queues[i_ring];
	settle(merge);
	was_empty = !queue->first;
	if (entry_bytes(n_bytes) > merge->max_bytes - queue->queued_bytes)
		r = -ENOBUFS;
	else
		r = make_room(merge, queue, entry_bytes(n_bytes));
	if (r) {
		merge->stats.n_dropped++;
		return r;
	}
	if (time_ns < queue->newest_ns)
		merge->stats.n_out_of_order++;
	append(queue, record, n_bytes, time_ns);
	if (was_empty)
		sift_up(merge, merge->n_heads++,
			(struct head){.time_ns = time_ns, .i_ring = i_ring});
	count_push(&merge->stats, n_bytes);
	return 0;
}

bool dp_merge_pop(struct dp_merge *merge, uint64_t watermark_ns, const void **ret_record,
		  size_t *ret_bytes)
{
	struct entry *entry;
	struct queue *queue;

	settle(merge);
	if (merge->n_heads == 0 || merge->heads[0].time_ns >= watermark_ns)
		return false;
	queue = &merge->queues[merge->heads[0].i_ring];
	entry = first_entry(queue);
	if (entry->time_ns < merge->released_ns)
		merge->stats.n_released_late++;
	else
		merge->released_ns = entry->time_ns;
	merge->popped = true;
	queue->queued_bytes -= entry_bytes(entry->n_bytes);
	merge->stats.n_released++;
	merge->stats.n_queued--;
	merge->stats.queued_bytes -= entry_bytes(entry->n_bytes);
	*ret_record = entry + 1;
	*ret_bytes = entry->n_bytes;
	return true;
}

const struct dp_merge_stats *dp_merge_get_stats(const struct dp_merge *merge)
{
	return &merge->stats;
}
