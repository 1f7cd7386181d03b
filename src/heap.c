/* SPDX-License-Identifier: MIT */
#include "src/heap.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/array.h"
#include "src/base/random.h"
#include "src/live.h"
#include "src/scale.h"

/*
 * The hard idea: an object leaves with exactly the weight that it came with. A weight depends on
 * size and rate only and is turned into fixed point (2^-32) before it is summed, so that sums are
 * integers: in-use goes back to 0 and never below, whatever the order and however long the run, and
 * at rate 1 every number is the target's own. Doubles would drift, and stop being exact at 2^53
 * bytes. A weight is off by at most 2^-33, which is below one in 10^9 of the smallest.
 */

#define FRACTION_BITS 32

typedef unsigned __int128 fixed_point;

struct weight {
	fixed_point objects;
	fixed_point bytes;
};

struct counters {
	struct weight alloc;
	struct weight inuse;
};

struct dp_heap {
	uint64_t rate_bytes;
	struct dp_random random;
	double countdown_bytes; /* to the next point of the Poisson process */
	struct dp_live live;
	size_t n_taken; /* objects out of the table whose room is kept, see dp_heap_take() */
	struct counters *stacks; /* by stack id */
	size_t stacks_capacity;
	size_t n_stacks;
	struct dp_heap_stats stats;
};

int dp_heap_new(struct dp_heap **ret, const struct dp_heap_options *options)
{
	struct dp_heap *heap;

	if (options->rate_bytes == 0)
		return -EINVAL;
	heap = calloc(1, sizeof(*heap));
	if (!heap)
		return -ENOMEM;
	heap->rate_bytes = options->rate_bytes;
	dp_random_seed(&heap->random, options->seed);
	heap->countdown_bytes = dp_random_exponential(&heap->random, (double)heap->rate_bytes);
	dp_live_init(&heap->live, options->max_live);
	*ret = heap;
	return 0;
}

void dp_heap_free_all(struct dp_heap *heap)
{
	if (!heap)
		return;
	dp_live_deinit(&heap->live);
	free(heap->stacks);
	free(heap);
}

bool dp_heap_draw(struct dp_heap *heap, uint64_t size)
{
	double n_bytes = (double)(size ? size : 1); /* as dp_scale_probability() has it */

	if (heap->rate_bytes > 1) {
		if (heap->countdown_bytes > n_bytes) {
			heap->countdown_bytes -= n_bytes;
			return false;
		}
		/* The rest of the event is skipped: the process has no memory, so what comes next
		 * is independent of it. */
		heap->countdown_bytes =
			dp_random_exponential(&heap->random, (double)heap->rate_bytes);
	}
	return true;
}

void dp_heap_count_drawn(struct dp_heap *heap, bool sampled)
{
	heap->stats.n_seen++;
	heap->stats.n_sampled += sampled;
}

static fixed_point to_fixed(double x)
{
	/* 1/p is at most 2^64 and size/p at most 2^65: with the fraction, 97 of 128 bits. */
	return (fixed_point)(ldexp(x, FRACTION_BITS) + 0.5);
}

static struct weight weight_of(const struct dp_heap *heap, uint64_t size)
{
	double p;

	if (heap->rate_bytes <= 1)
		return (struct weight){(fixed_point)1 << FRACTION_BITS,
				       (fixed_point)size << FRACTION_BITS};
	p = dp_scale_probability(size, heap->rate_bytes);
	return (struct weight){to_fixed(1 / p), to_fixed((double)size / p)};
}

static void add_weight(struct weight *sum, struct weight weight)
{
	sum->objects += weight.objects;
	sum->bytes += weight.bytes;
}

static void subtract_weight(struct weight *sum, struct weight weight)
{
	assert(sum->objects >= weight.objects && sum->bytes >= weight.bytes);
	sum->objects -= weight.objects;
	sum->bytes -= weight.bytes;
}

static int reserve_counters(struct dp_heap *heap, uint32_t stack)
{
	size_t need = (size_t)stack + 1;
	int r;

	if (need <= heap->n_stacks)
		return 0;
	r = dp_array_reserve((void **)&heap->stacks, &heap->stacks_capacity, need,
			     sizeof(*heap->stacks));
	if (r < 0)
		return r;
	memset(&heap->stacks[heap->n_stacks], 0, (need - heap->n_stacks) * sizeof(*heap->stacks));
	heap->n_stacks = need;
	return 0;
}

/* The object, which is not in the table any more, is no longer in use. */
static void end_use(struct dp_heap *heap, const struct dp_heap_object *object)
{
	subtract_weight(&heap->stacks[object->stack].inuse, weight_of(heap, object->size));
	heap->stats.n_live--;
}

int dp_heap_alloc(struct dp_heap *heap, uint32_t stack, uint64_t size, uint64_t addr)
{
	struct dp_heap_object object = {.addr = addr, .size = size, .stack = stack};
	struct weight weight = weight_of(heap, size);
	int r = reserve_counters(heap, stack);

	if (r < 0)
		return r;
	add_weight(&heap->stacks[stack].alloc, weight);
	if (addr == 0) {
		heap->stats.n_untracked++;
		return 0;
	}
	dp_heap_alloc_unsampled(heap, addr);
	if (dp_live_reserve(&heap->live, heap->live.n_objects + heap->n_taken + 1) < 0) {
		heap->stats.n_live_overflow++;
		return 0;
	}
	dp_live_put(&heap->live, &object);
	add_weight(&heap->stacks[stack].inuse, weight);
	heap->stats.n_live++;
	return 0;
}

void dp_heap_alloc_unsampled(struct dp_heap *heap, uint64_t addr)
{
	struct dp_heap_object object;

	if (!dp_live_take(&heap->live, addr, &object))
		return;
	end_use(heap, &object);
	heap->stats.n_replaced++;
}

void dp_heap_release(struct dp_heap *heap, uint64_t addr)
{
	struct dp_heap_object object;

	if (addr == 0)
		return;
	if (!dp_live_take(&heap->live, addr, &object)) {
		heap->stats.n_frees_unknown++;
		return;
	}
	end_use(heap, &object);
	heap->stats.n_frees++;
}

bool dp_heap_take(struct dp_heap *heap, uint64_t addr, struct dp_heap_object *ret)
{
	if (!dp_live_take(&heap->live, addr, ret))
		return false;
	heap->n_taken++;
	return true;
}

void dp_heap_put_back(struct dp_heap *heap, const struct dp_heap_object *object)
{
	assert(heap->n_taken > 0);
	/* Something else can only be there if records of it were lost; the resize that just failed
	 * is the later word on what lives at this address. */
	dp_heap_alloc_unsampled(heap, object->addr);
	heap->n_taken--;
	dp_live_put(&heap->live, object);
}

void dp_heap_drop(struct dp_heap *heap, const struct dp_heap_object *object)
{
	assert(heap->n_taken > 0);
	heap->n_taken--;
	end_use(heap, object);
	heap->stats.n_frees++;
}

static int64_t round_fixed(fixed_point x)
{
	fixed_point rounded = (x + ((fixed_point)1 << (FRACTION_BITS - 1))) >> FRACTION_BITS;

	return rounded > INT64_MAX ? INT64_MAX : (int64_t)rounded;
}

int dp_heap_feed(const struct dp_heap *heap, struct dp_delta *delta)
{
	for (size_t stack = 0; stack < heap->n_stacks; stack++) {
		const struct counters *counters = &heap->stacks[stack];
		int64_t values[DP_DELTA_MAX_VALUES];
		int r;

		if (counters->alloc.objects == 0)
			continue;
		values[0] = round_fixed(counters->alloc.objects);
		values[1] = round_fixed(counters->alloc.bytes);
		values[2] = round_fixed(counters->inuse.objects);
		values[3] = round_fixed(counters->inuse.bytes);
		r = dp_delta_add(delta, (uint32_t)stack, 0, values);
		/* The delta counts what is beyond its bound; the stacks that it knows must come. */
		if (r < 0 && r != -ENOSPC)
			return r;
	}
	return 0;
}

const struct dp_heap_stats *dp_heap_get_stats(const struct dp_heap *heap)
{
	return &heap->stats;
}

struct dp_delta_spec dp_heap_delta_spec(size_t max_rows)
{
	return (struct dp_delta_spec){
		.n_values = 4,
		.delta_mask = 0x3, /* alloc_* are differences, inuse_* are as they are now */
		.negative_moves_base = false,
		.max_rows = max_rows,
	};
}
