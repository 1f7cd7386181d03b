/* SPDX-License-Identifier: MIT */
#include "tests/go_memory_fixture.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct go_fake *go_fake_new(unsigned minor)
{
	struct go_fake *fake = calloc(1, sizeof(*fake));
	struct dp_go_variables *v;

	assert(fake);
	v = &fake->runtime.variables;
	assert(dp_go_layout_get(minor, &fake->runtime.layout) >= 0);
	fake->runtime.pid = getpid();
	fake->runtime.text_start = 0x400000;
	fake->runtime.text_end = 0x500000;
	for (unsigned i = 0; i < 3; i++)
		v->buckets[i] = (uintptr_t)&fake->heads[i];
	v->heap_cycle = (uintptr_t)&fake->cycle;
	v->heap_rate = (uintptr_t)&fake->heap_rate;
	v->block_rate = (uintptr_t)&fake->block_rate;
	v->mutex_fraction = (uintptr_t)&fake->mutex_fraction;
	v->heap_disabled = (uintptr_t)&fake->heap_disabled;
	v->ticks = (uintptr_t)fake->ticks;
	v->heap_lock = (uintptr_t)&fake->heap_lock;
	v->events_lock = (uintptr_t)&fake->events_lock;
	fake->arena = mmap(NULL, GO_FAKE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);
	assert(fake->arena != MAP_FAILED);
	return fake;
}

void go_fake_free(struct go_fake *fake)
{
	munmap(fake->arena, GO_FAKE_BYTES);
	free(fake);
}

uint64_t *go_fake_newest(struct go_fake *fake, enum dp_go_list list)
{
	return (uint64_t *)(uintptr_t)fake->heads[list];
}

uint64_t *go_fake_add(struct go_fake *fake, enum dp_go_list list, uint64_t size,
		      const uint64_t *pcs, size_t n_pcs)
{
	uint64_t *bucket = (uint64_t *)(void *)(fake->arena + fake->n_bytes);

	fake->n_bytes += 48 + 8 * n_pcs + (list == DP_GO_HEAP ? 128 : 16);
	assert(fake->n_bytes <= GO_FAKE_BYTES);
	bucket[1] = fake->heads[list];
	bucket[2] = (uint64_t)list + 1;
	bucket[3] = 0x1234567;
	bucket[4] = size;
	bucket[5] = n_pcs;
	memcpy(bucket + 6, pcs, 8 * n_pcs);
	fake->heads[list] = (uintptr_t)bucket;
	return bucket + 6 + n_pcs;
}

void go_fake_set(struct go_fake *fake, uint64_t *record, int i, uint64_t size, uint64_t allocs,
		 uint64_t frees)
{
	bool has_bytes = fake->runtime.layout.minor < 27;
	uint64_t *words = record + (i + 1) * (has_bytes ? 4 : 2);

	words[0] = allocs;
	words[1] = frees;
	if (has_bytes) {
		words[2] = allocs * size;
		words[3] = frees * size;
	}
}
