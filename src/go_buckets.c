/* SPDX-License-Identifier: MIT */
/*
 * The one hard idea: figures are read twice, and in between, whether the lock is free under which
 * the runtime changes them. The words that we take never go down while the cycle stays, so those
 * that are equal both times have not changed in between; and when the lock was free there, nobody
 * was in the middle of changing them. So what is taken is what the program's own profile would have
 * shown at that moment, word for word. Where the lock is held, or not known, a bucket's figures are
 * only taken if they cannot be half of a change.
 *
 * The heap's figures come in cycles, one a collection: allocations are counted two cycles ahead,
 * frees one, and at a cycle's beginning its figures are added to the published ones and cleared.
 * Source: the runtime's mprof.go.
 */
#include "src/go_buckets.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/array.h"
#include "src/go_bucket_list.h"
#include "src/go_figures.h"
#include "src/go_memory.h"

#define N_ATTEMPTS 4
#define N_LOCK_ATTEMPTS 64
/* Records that lie so near are read as one piece. */
#define MAX_GAP_BYTES 512
#define MAX_BATCH_BYTES (256u << 10)
#define MAX_BATCH_NODES (MAX_BATCH_BYTES / DP_GO_EVENT_BYTES)
#define MAX_RUNS 256

struct state {
	struct dp_go_figures taken;	     /* as given out; count and cycles of block and mutex */
	struct dp_go_figures published, all; /* of this reading */
	bool is_taken, was_published;	     /* taken once; those taken were the published ones */
	bool has_published, has_all;	     /* they can be believed */
};

struct batch {
	struct iovec local[MAX_RUNS], remote[MAX_RUNS];
	size_t n_runs, n_bytes, n_nodes;
	uint32_t nodes[MAX_BATCH_NODES], offsets[MAX_BATCH_NODES]; /* of their records, in bytes */
	uint32_t cycle;
	bool is_same_cycle, is_quiet;
	uint8_t first[MAX_BATCH_BYTES], second[MAX_BATCH_BYTES];
};

struct dp_go_buckets {
	const struct dp_go_runtime *runtime;
	enum dp_go_list type;
	struct dp_go_list_reader list;
	struct state *states; /* by node */
	size_t states_capacity;
	uint32_t *order; /* nodes by address */
	size_t n_order, order_capacity;
	struct batch *batch;
	bool is_published; /* the first collection's figures have come: for good */
	struct dp_go_buckets_stats stats;
};

int dp_go_buckets_new(struct dp_go_buckets **ret, const struct dp_go_runtime *runtime,
		      enum dp_go_list list)
{
	struct dp_go_buckets *b;
	int r;

	if (runtime->variables.buckets[list] == 0 ||
	    (list == DP_GO_HEAP && runtime->variables.heap_cycle == 0))
		return -ENOENT;
	b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->runtime = runtime;
	b->type = list;
	b->batch = calloc(1, sizeof(*b->batch));
	/* The runtime's bucketType begins at 1 and has the same order. */
	r = dp_go_list_init(&b->list, runtime->pid, runtime->variables.buckets[list],
			    (uint64_t)list + 1);
	if (r < 0 || !b->batch) {
		dp_go_buckets_free(b);
		return -ENOMEM;
	}
	*ret = b;
	return 0;
}

void dp_go_buckets_free(struct dp_go_buckets *b)
{
	if (!b)
		return;
	dp_go_list_destroy(&b->list);
	free(b->states);
	free(b->order);
	free(b->batch);
	free(b);
}

static int by_record(const void *x, const void *y, void *list)
{
	const struct dp_go_node *nodes = ((const struct dp_go_list_reader *)list)->nodes;
	uint64_t a = nodes[*(const uint32_t *)x].record, b = nodes[*(const uint32_t *)y].record;

	return (a > b) - (a < b);
}

/* Makes room for the nodes that are new. */
static int admit(struct dp_go_buckets *b)
{
	size_t n = b->list.n_nodes;
	int r = dp_array_reserve((void **)&b->states, &b->states_capacity, n + 1,
				 sizeof(*b->states));

	if (r == 0)
		r = dp_array_reserve((void **)&b->order, &b->order_capacity, n + 1,
				     sizeof(*b->order));
	if (r < 0 || n == b->n_order)
		return r;
	for (size_t i = b->n_order; i < n; i++) {
		b->states[i] = (struct state){0};
		b->order[i] = (uint32_t)i;
	}
	b->n_order = n;
	qsort_r(b->order, n, sizeof(*b->order), by_record, &b->list);
	return 0;
}

static bool is_done(const struct dp_go_buckets *b, const struct state *state)
{
	return state->has_published && (b->is_published || b->type != DP_GO_HEAP || state->has_all);
}

static size_t record_bytes(const struct dp_go_buckets *b)
{
	return b->type == DP_GO_HEAP ? dp_go_heap_record_bytes(&b->runtime->layout)
				     : DP_GO_EVENT_BYTES;
}

/* Adds a node's record to the batch. Returns false if there is no room. */
static bool add_record(struct batch *batch, uint32_t node, uint64_t avma, size_t n_bytes)
{
	struct iovec *last = batch->n_runs > 0 ? &batch->remote[batch->n_runs - 1] : NULL;
	uint64_t end = last ? (uint64_t)(uintptr_t)last->iov_base + last->iov_len : 0;
	size_t gap = last && avma >= end && avma - end <= MAX_GAP_BYTES ? avma - end : SIZE_MAX;
	size_t more = n_bytes + (gap == SIZE_MAX ? 0 : gap);

	if (batch->n_bytes + more > MAX_BATCH_BYTES || batch->n_nodes == MAX_BATCH_NODES ||
	    (gap == SIZE_MAX && batch->n_runs == MAX_RUNS))
		return false;
	if (gap == SIZE_MAX) {
		batch->remote[batch->n_runs] = (struct iovec){(void *)(uintptr_t)avma, n_bytes};
		batch->local[batch->n_runs++].iov_len = n_bytes;
	} else {
		last->iov_len += more;
		batch->local[batch->n_runs - 1].iov_len += more;
	}
	batch->n_bytes += more;
	batch->nodes[batch->n_nodes] = node;
	batch->offsets[batch->n_nodes++] = (uint32_t)(batch->n_bytes - n_bytes);
	return true;
}

/* Fills the batch with nodes from place @i of the order on. Returns the place after them. */
static size_t fill_batch(struct dp_go_buckets *b, size_t i)
{
	struct batch *batch = b->batch;

	batch->n_runs = batch->n_bytes = batch->n_nodes = 0;
	for (; i < b->n_order; i++) {
		uint32_t node = b->order[i];

		if (!is_done(b, &b->states[node]) &&
		    !add_record(batch, node, b->list.nodes[node].record, record_bytes(b)))
			break;
	}
	return i;
}

static int read_runs(struct dp_go_buckets *b, uint8_t *ret)
{
	struct batch *batch = b->batch;
	size_t n;

	for (size_t i = 0; i < batch->n_runs; i++) {
		batch->local[i].iov_base = ret;
		ret += batch->local[i].iov_len;
	}
	return dp_go_memory_read_all(b->runtime->pid, batch->local, batch->remote, batch->n_runs,
				     &n);
}

static int read_cycle(struct dp_go_buckets *b, uint32_t *ret)
{
	uint32_t word;
	int r;

	*ret = 0;
	if (b->type != DP_GO_HEAP)
		return 0;
	r = dp_go_memory_read(b->runtime->pid, b->runtime->variables.heap_cycle, &word,
			      sizeof(word));
	/* Since Go 1.19 the lowest bit says that the cycle was published. */
	*ret = b->runtime->layout.minor >= 19 ? word >> 1 : word;
	return r;
}

/* Whether the lock is seen free. */
static int read_lock(struct dp_go_buckets *b, bool *ret_is_free)
{
	const struct dp_go_variables *v = &b->runtime->variables;
	uint64_t avma = b->type == DP_GO_HEAP ? v->heap_lock : v->events_lock;
	uint64_t key = 1;
	int r = 0;

	/* Block's and mutex's two words are half changed for nanoseconds, once in an event. */
	*ret_is_free = avma == 0 && b->type != DP_GO_HEAP;
	for (unsigned i = 0; r == 0 && avma != 0 && key != 0 && i < N_LOCK_ATTEMPTS; i++)
		r = dp_go_memory_read(b->runtime->pid, avma, &key, sizeof(key));
	if (avma != 0)
		*ret_is_free = r == 0 && key == 0;
	return r;
}

static int read_batch(struct dp_go_buckets *b)
{
	struct batch *batch = b->batch;
	uint32_t between, after;
	int r = read_cycle(b, &batch->cycle);

	if (r == 0)
		r = read_runs(b, batch->first);
	if (r == 0)
		r = read_cycle(b, &between);
	if (r == 0)
		r = read_lock(b, &batch->is_quiet);
	if (r == 0)
		r = read_runs(b, batch->second);
	if (r == 0)
		r = read_cycle(b, &after);
	if (r == 0)
		batch->is_same_cycle = batch->cycle == between && between == after;
	return r;
}

static void judge(struct dp_go_buckets *b, const struct dp_go_reading *reading, struct state *state)
{
	int64_t count, cycles;

	if (b->type == DP_GO_HEAP) {
		state->has_published = dp_go_figures_published(reading, &state->published);
		state->has_all = dp_go_figures_all(reading, &state->all);
		if (state->has_published && (state->published.allocs | state->published.frees))
			b->is_published = true;
	} else if (dp_go_figures_event(reading, &count, &cycles)) {
		state->has_published = true;
		state->published = (struct dp_go_figures){(uint64_t)count, (uint64_t)cycles};
	}
	if (!state->has_published)
		b->stats.n_torn++;
}

static void judge_batch(struct dp_go_buckets *b)
{
	const struct batch *batch = b->batch;

	for (size_t i = 0; i < batch->n_nodes; i++) {
		struct dp_go_reading reading = {
			.layout = &b->runtime->layout,
			.first = batch->first + batch->offsets[i],
			.second = batch->second + batch->offsets[i],
			.size = b->list.nodes[batch->nodes[i]].size,
			.cycle = batch->cycle,
			.is_quiet = batch->is_quiet,
		};

		judge(b, &reading, &b->states[batch->nodes[i]]);
	}
}

static void begin(struct dp_go_buckets *b)
{
	for (size_t i = 0; i < b->n_order; i++)
		b->states[i].has_published = b->states[i].has_all = false;
}

/*
 * Reads what is not done yet. Returns 0, 1 (a new cycle began, figures of two are not to be mixed),
 * or a negative errno.
 */
static int attempt(struct dp_go_buckets *b, uint32_t *cycle, bool may_mix)
{
	for (size_t i = 0; i < b->n_order;) {
		int r;

		i = fill_batch(b, i);
		if (b->batch->n_nodes == 0)
			break;
		r = read_batch(b);
		if (r == -EFAULT) {
			b->stats.n_unreadable++;
			continue;
		}
		if (r < 0)
			return r;
		if (!may_mix && (!b->batch->is_same_cycle || b->batch->cycle != *cycle))
			return 1;
		if (b->batch->is_same_cycle)
			judge_batch(b);
	}
	return 0;
}

static bool is_all_done(const struct dp_go_buckets *b)
{
	for (size_t i = 0; i < b->n_order; i++) {
		if (!is_done(b, &b->states[i]))
			return false;
	}
	return true;
}

static int read_figures(struct dp_go_buckets *b)
{
	uint32_t cycle = 0;
	int r = read_cycle(b, &cycle);

	begin(b);
	for (unsigned i = 0; r >= 0 && i < N_ATTEMPTS; i++) {
		r = attempt(b, &cycle, i == N_ATTEMPTS - 1);
		if (r == 1) {
			b->stats.n_cycle_changes++;
			begin(b);
			r = read_cycle(b, &cycle);
		} else if (r == 0 && is_all_done(b)) {
			break;
		}
	}
	return r;
}

/*
 * Counters that were published never go down; those of before the first collection may, by what it
 * has not published yet.
 */
static bool is_below(const struct dp_go_figures *a, const struct dp_go_figures *b)
{
	return a->allocs < b->allocs || a->frees < b->frees;
}

static void take(struct dp_go_buckets *b, struct state *state)
{
	bool all = b->type == DP_GO_HEAP && !b->is_published;
	const struct dp_go_figures *found = all ? &state->all : &state->published;

	if (!(all ? state->has_published && state->has_all : state->has_published) ||
	    (state->is_taken && state->was_published != all && is_below(found, &state->taken))) {
		b->stats.n_kept++;
		return;
	}
	state->taken = *found;
	state->is_taken = true;
	state->was_published = !all;
}

int dp_go_buckets_read(struct dp_go_buckets *b)
{
	int r = dp_go_list_walk(&b->list);

	b->stats.n_refused = b->list.n_refused;
	b->stats.n_without_room = b->list.n_without_room;
	if (r == 0)
		r = admit(b);
	if (r == 0)
		r = read_figures(b);
	if (r < 0)
		return r;
	for (size_t i = 0; i < b->n_order; i++)
		take(b, &b->states[i]);
	b->stats.n_buckets = b->n_order;
	b->stats.n_reads++;
	return 0;
}

size_t dp_go_buckets_count(const struct dp_go_buckets *b)
{
	return b->n_order;
}

void dp_go_buckets_get(const struct dp_go_buckets *b, size_t i, struct dp_go_bucket *ret)
{
	const struct dp_go_node *node = &b->list.nodes[i];
	const struct state *state = &b->states[i];

	*ret = (struct dp_go_bucket){
		.pcs = b->list.pcs + node->first_pc, .n_pcs = node->n_pcs, .size = node->size};
	if (!state->is_taken)
		return;
	ret->is_known = true;
	if (b->type == DP_GO_HEAP) {
		ret->allocs = state->taken.allocs;
		ret->frees = state->taken.frees;
		return;
	}
	ret->count = (int64_t)state->taken.allocs;
	ret->cycles = (int64_t)state->taken.frees;
	/* Source: the runtime's BlockProfile(). */
	if (b->type == DP_GO_BLOCK && ret->count == 0)
		ret->count = 1;
}

const struct dp_go_buckets_stats *dp_go_buckets_get_stats(const struct dp_go_buckets *b)
{
	return &b->stats;
}
