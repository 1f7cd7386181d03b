/* SPDX-License-Identifier: MIT */
/*
 * The reader of Go's bucket lists, in memory of any content, which changes between two readings.
 * What it gives out must obey its contract.
 *
 * The input: the version, the list, where the second reading begins to differ, the cycle; then the
 * memory, in which the words 0x7a7aXXXX point at its byte XXXX, and which begins with the head.
 */
#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/go_buckets.h"

#define MEMORY_BYTES 65536u
#define HEADER_BYTES 4
#define POINTER 0x7a7au
#define MAX_KNOWN (MEMORY_BYTES / 8)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

struct memory {
	uint64_t words[MEMORY_BYTES / 8];
	uint32_t cycle;
	uint64_t lock;
};

static void fill(struct memory *memory, const uint8_t *data, size_t n_bytes, size_t from)
{
	if (n_bytes > MEMORY_BYTES)
		n_bytes = MEMORY_BYTES;
	if (from < n_bytes)
		memcpy((uint8_t *)memory->words + from, data + from, n_bytes - from);
	for (size_t i = 0; i < MEMORY_BYTES / 8; i++) {
		if (memory->words[i] >> 16 == POINTER)
			memory->words[i] = (uintptr_t)memory->words + (memory->words[i] & 0xffff);
	}
}

static struct dp_go_runtime describe(struct memory *memory, uint8_t version)
{
	struct dp_go_runtime runtime = {.pid = getpid()};

	assert(dp_go_layout_get(DP_GO_MIN_MINOR + version % 12, &runtime.layout) == 0);
	for (unsigned i = 0; i < 3; i++)
		runtime.variables.buckets[i] = (uintptr_t)memory->words;
	runtime.variables.heap_cycle = (uintptr_t)&memory->cycle;
	runtime.variables.heap_lock = runtime.variables.events_lock = (uintptr_t)&memory->lock;
	return runtime;
}

static void check(const struct dp_go_buckets *buckets, bool is_heap)
{
	const struct dp_go_buckets_stats *stats = dp_go_buckets_get_stats(buckets);
	volatile uint64_t sum = 0;

	assert(stats->n_buckets == dp_go_buckets_count(buckets));
	assert(stats->n_buckets <= MAX_KNOWN);
	for (size_t i = 0; i < stats->n_buckets; i++) {
		struct dp_go_bucket b;

		dp_go_buckets_get(buckets, i, &b);
		assert(b.n_pcs <= 1024);
		for (size_t k = 0; k < b.n_pcs; k++)
			sum += b.pcs[k]; /* they are readable */
		assert(is_heap ? b.frees <= b.allocs && b.size > 0
			       : b.count >= 0 && b.cycles >= 0 && b.size == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	struct memory *memory;
	struct dp_go_buckets *buckets = NULL;
	struct dp_go_runtime runtime;
	enum dp_go_list list;
	size_t half;

	if (n_bytes < HEADER_BYTES)
		return 0;
	memory = calloc(1, sizeof(*memory));
	assert(memory);
	list = (enum dp_go_list)(data[1] % 3);
	half = (n_bytes - HEADER_BYTES) * data[2] / 256;
	memory->cycle = data[3];
	memory->lock = data[1] >= 128;
	runtime = describe(memory, data[0]);
	fill(memory, data + HEADER_BYTES, half, 0);
	assert(dp_go_buckets_new(&buckets, &runtime, list) == 0);
	if (dp_go_buckets_read(buckets) == 0)
		check(buckets, list == DP_GO_HEAP);
	fill(memory, data + HEADER_BYTES, n_bytes - HEADER_BYTES, half);
	memory->cycle += 2;
	if (dp_go_buckets_read(buckets) == 0)
		check(buckets, list == DP_GO_HEAP);
	dp_go_buckets_free(buckets);
	free(memory);
	return 0;
}
