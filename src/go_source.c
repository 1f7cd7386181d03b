/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: the target is not stopped, so a reading may fall together with its end or with
 * the execution of another program. A descriptor of its memory, opened at the attach, belongs to
 * the memory of that program alone and reads nothing once it is gone: a reading counts if that
 * descriptor can still be read afterwards.
 */
#include "src/go_source.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/array.h"
#include "src/base/clock.h"
#include "src/base/map.h"
#include "src/scale.h"

#define N_LISTS 3
/* A bucket that changes all the time may be in the midst of it at each look. */
#define MAX_BASE_READINGS 20

/* A bucket of the heap, as of the last reading that counts. */
struct heap_row {
	uint32_t stack;
	uint64_t size;
	bool is_known;	      /* has been read whole */
	bool needs_base;      /* was there when the source was made, and could not be read whole */
	uint64_t base_allocs; /* when the source was made */
	uint64_t allocs, frees;
};

/* A bucket of the others. */
struct wait_row {
	uint32_t group;
	bool needs_base;
	int64_t base_count, base_cycles; /* that are not to count */
};

/* Block and mutex: buckets of equal stacks are one. */
struct group {
	uint32_t stack;
	int64_t count, cycles; /* of the reading that is being taken in */
	int64_t last_count, last_cycles;
	int64_t total_count, total_ns; /* since the source was made */
};

struct list {
	struct dp_go_buckets *buckets; /* NULL: not kept by the runtime */
	uint64_t read_ns;
	struct heap_row *rows; /* of each bucket of the heap */
	size_t n_rows, rows_capacity;
	struct group *groups;
	size_t n_groups, groups_capacity;
	struct wait_row *wait_rows; /* of each bucket of the others */
	size_t n_wait_rows, wait_rows_capacity;
	struct dp_map by_stack; /* → group */
};

struct dp_go_source {
	struct dp_go_runtime runtime;
	const struct dp_space *space;
	struct dp_stacks *stacks;
	int memory_fd;
	struct dp_go_rates rates;
	struct list lists[N_LISTS];
	uint64_t *frames; /* of one stack */
	size_t frames_capacity;
	uint64_t n_failed, n_negative, n_late;
};

static int intern(struct dp_go_source *source, const struct dp_go_bucket *bucket, uint32_t *ret)
{
	int r = dp_array_reserve((void **)&source->frames, &source->frames_capacity,
				 bucket->n_pcs + 1, sizeof(*source->frames));

	if (r < 0)
		return r;
	for (size_t i = 0; i < bucket->n_pcs; i++)
		source->frames[i] = dp_space_frame(source->space, bucket->pcs[i] - 1);
	*ret = dp_stacks_intern(source->stacks, source->frames, bucket->n_pcs);
	return 0;
}

static int take_heap(struct dp_go_source *source, bool as_base)
{
	struct list *list = &source->lists[DP_GO_HEAP];
	size_t n = dp_go_buckets_count(list->buckets);
	int r = dp_array_reserve((void **)&list->rows, &list->rows_capacity, n,
				 sizeof(*list->rows));

	for (size_t i = 0; r == 0 && i < n; i++) {
		struct heap_row *row = &list->rows[i];
		struct dp_go_bucket bucket;

		dp_go_buckets_get(list->buckets, i, &bucket);
		if (i == list->n_rows) {
			*row = (struct heap_row){.size = bucket.size, .needs_base = as_base};
			r = intern(source, &bucket, &row->stack);
			if (r < 0)
				break;
			list->n_rows++;
		}
		if (!bucket.is_known)
			continue;
		if (row->needs_base) {
			row->base_allocs = bucket.allocs;
			row->needs_base = false;
			source->n_late += !as_base;
		}
		row->is_known = true;
		row->allocs = bucket.allocs;
		row->frees = bucket.frees;
	}
	return r;
}

static int find_group(struct list *list, uint32_t stack, uint32_t *ret)
{
	uint64_t found;
	int r;

	if (dp_map_get(&list->by_stack, stack, &found)) {
		*ret = (uint32_t)found;
		return 0;
	}
	r = dp_array_reserve((void **)&list->groups, &list->groups_capacity, list->n_groups + 1,
			     sizeof(*list->groups));
	if (r == 0)
		r = dp_map_set(&list->by_stack, stack, list->n_groups);
	if (r < 0)
		return r;
	list->groups[list->n_groups] = (struct group){.stack = stack};
	*ret = (uint32_t)list->n_groups++;
	return 0;
}

static int take_new_wait_buckets(struct dp_go_source *source, struct list *list, bool as_base)
{
	size_t n = dp_go_buckets_count(list->buckets);
	struct dp_go_bucket bucket;
	uint32_t stack;
	int r = dp_array_reserve((void **)&list->wait_rows, &list->wait_rows_capacity, n,
				 sizeof(*list->wait_rows));

	for (size_t i = list->n_wait_rows; r == 0 && i < n; i++) {
		list->wait_rows[i] = (struct wait_row){.needs_base = as_base};
		dp_go_buckets_get(list->buckets, i, &bucket);
		r = intern(source, &bucket, &stack);
		if (r == 0)
			r = find_group(list, stack, &list->wait_rows[i].group);
		if (r == 0)
			list->n_wait_rows = i + 1;
	}
	return r;
}

/*
 * What the runtime's ticks are in nanoseconds, cumulative, and what its events count. Until Go 1.19
 * a mutex event stands for as many as the fraction says, and tools multiply when they read.
 */
static void convert(const struct dp_go_source *source, enum dp_go_list which, int64_t cycles,
		    int64_t *ret_ns, int64_t *ret_factor)
{
	int64_t per_second = llround(source->rates.ticks_per_ns * 1e9);

	*ret_factor = 1;
	*ret_ns = dp_scale_go_delay(cycles, per_second);
	if (which == DP_GO_MUTEX && !source->runtime.layout.mutex_is_scaled) {
		*ret_factor = (int64_t)source->rates.mutex_fraction;
		*ret_ns = (int64_t)((double)cycles /
				    (source->rates.ticks_per_ns > 0 ? source->rates.ticks_per_ns
								    : 1.0) *
				    (double)*ret_factor);
	}
}

/*
 * A step of the cumulative figures as converted, so that the sum of all steps is the conversion of
 * the whole as long as the rates stay what they are, and a change of rates is no jump.
 */
static void advance(struct dp_go_source *source, enum dp_go_list which, struct group *group,
		    bool as_base)
{
	int64_t now_ns, before_ns, factor;

	if (group->count < group->last_count || group->cycles < group->last_cycles) {
		source->n_negative++;
	} else if (!as_base) {
		convert(source, which, group->cycles, &now_ns, &factor);
		convert(source, which, group->last_cycles, &before_ns, &factor);
		group->total_ns += now_ns - before_ns;
		group->total_count += (group->count - group->last_count) * factor;
	}
	group->last_count = group->count;
	group->last_cycles = group->cycles;
}

/* Adds a bucket to its group; what it had before it could first be read whole does not count. */
static void add_to_group(struct dp_go_source *source, struct list *list, struct wait_row *row,
			 const struct dp_go_bucket *bucket, bool as_base)
{
	struct group *group = &list->groups[row->group];

	if (!bucket->is_known)
		return;
	if (row->needs_base && !as_base) {
		row->base_count = bucket->count;
		row->base_cycles = bucket->cycles;
		source->n_late++;
	}
	row->needs_base = false;
	if (__builtin_add_overflow(group->count, bucket->count - row->base_count, &group->count) ||
	    __builtin_add_overflow(group->cycles, bucket->cycles - row->base_cycles,
				   &group->cycles))
		source->n_negative++;
}

static void take_waits(struct dp_go_source *source, enum dp_go_list which, bool as_base)
{
	struct list *list = &source->lists[which];
	struct dp_go_bucket bucket;

	for (size_t g = 0; g < list->n_groups; g++)
		list->groups[g].count = list->groups[g].cycles = 0;
	for (size_t i = 0; i < list->n_wait_rows; i++) {
		dp_go_buckets_get(list->buckets, i, &bucket);
		add_to_group(source, list, &list->wait_rows[i], &bucket, as_base);
	}
	for (size_t g = 0; g < list->n_groups; g++)
		advance(source, which, &list->groups[g], as_base);
}

/* Whether the program that was attached to is still the one whose memory was just read. */
static bool is_same_program(const struct dp_go_source *source)
{
	uint64_t word;

	return pread(source->memory_fd, &word, sizeof(word),
		     (off_t)source->runtime.variables.heap_rate) == sizeof(word);
}

/*
 * Returns 0; 1 when nothing could be read, or nothing that belongs to this program; or -ENOMEM.
 */
static int read_list(struct dp_go_source *source, enum dp_go_list which)
{
	uint64_t start_ns = dp_monotonic_ns();
	struct dp_go_rates rates;
	int r = dp_go_read_rates(&source->runtime, &rates);

	if (r == 0)
		r = dp_go_buckets_read(source->lists[which].buckets);
	source->lists[which].read_ns = dp_monotonic_ns() - start_ns;
	if (r == -ENOMEM)
		return r;
	if (r < 0 || !is_same_program(source)) {
		source->n_failed++;
		return 1;
	}
	source->rates = rates;
	return 0;
}

static int update(struct dp_go_source *source, enum dp_go_list which, bool as_base)
{
	int r = read_list(source, which);

	if (r != 0)
		return r < 0 ? r : 0;
	if (which == DP_GO_HEAP)
		return take_heap(source, as_base);
	r = take_new_wait_buckets(source, &source->lists[which], as_base);
	if (r == 0)
		take_waits(source, which, as_base);
	return r;
}

static bool is_all_known(const struct dp_go_buckets *buckets)
{
	size_t n = dp_go_buckets_count(buckets);
	struct dp_go_bucket bucket = {.is_known = true};

	for (size_t i = 0; bucket.is_known && i < n; i++)
		dp_go_buckets_get(buckets, i, &bucket);
	return bucket.is_known;
}

static int open_list(struct dp_go_source *source, enum dp_go_list which)
{
	int r = dp_go_buckets_new(&source->lists[which].buckets, &source->runtime, which);

	if (r == -ENOENT)
		return 0;
	for (int i = 0; r == 0 && i < MAX_BASE_READINGS; i++) {
		r = update(source, which, true);
		if (r == 0 && is_all_known(source->lists[which].buckets))
			break;
	}
	return r == 0 && source->n_failed > 0 ? -ESRCH : r;
}

static bool is_on(const struct dp_go_rates *rates, enum dp_go_list which)
{
	switch (which) {
	case DP_GO_HEAP:
		return true;
	case DP_GO_BLOCK:
		return rates->block_ticks > 0;
	case DP_GO_MUTEX:
		return rates->mutex_fraction > 0;
	}
	return false;
}

static int open_source(struct dp_go_source *source)
{
	char path[64];
	int r;

	snprintf(path, sizeof(path), "/proc/%d/mem", source->runtime.pid);
	source->memory_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (source->memory_fd < 0)
		return -errno;
	r = dp_go_read_rates(&source->runtime, &source->rates);
	for (int which = 0; r == 0 && which < N_LISTS; which++) {
		if (is_on(&source->rates, (enum dp_go_list)which))
			r = open_list(source, (enum dp_go_list)which);
	}
	return r;
}

int dp_go_source_new(struct dp_go_source **ret, const struct dp_go_runtime *runtime,
		     const struct dp_space *space, struct dp_stacks *stacks, struct dp_error *err)
{
	struct dp_go_source *source = calloc(1, sizeof(*source));
	int r;

	if (!source)
		return dp_error_set(err, -ENOMEM, "pid %d: out of memory", runtime->pid);
	source->runtime = *runtime;
	source->space = space;
	source->stacks = stacks;
	source->memory_fd = -1;
	r = open_source(source);
	if (r < 0) {
		dp_go_source_free(source);
		return dp_error_set(err, r, "pid %d: reading the memory of a Go program: %s%s",
				    runtime->pid, strerror(-r),
				    r == -EPERM || r == -EACCES
					    ? "; it takes CAP_SYS_PTRACE, run as root"
					    : "");
	}
	*ret = source;
	return 0;
}

void dp_go_source_free(struct dp_go_source *source)
{
	if (!source)
		return;
	for (size_t i = 0; i < N_LISTS; i++) {
		struct list *list = &source->lists[i];

		dp_go_buckets_free(list->buckets);
		free(list->rows);
		free(list->groups);
		free(list->wait_rows);
		dp_map_clear(&list->by_stack);
	}
	if (source->memory_fd >= 0)
		close(source->memory_fd);
	free(source->frames);
	free(source);
}

bool dp_go_source_has(const struct dp_go_source *source, enum dp_go_list list)
{
	return source->lists[list].buckets != NULL;
}

/* Newest first, which is the runtime's own order. */
static int feed_heap(const struct list *list, struct dp_delta *delta)
{
	int result = 0;

	for (size_t i = list->n_rows; i-- > 0;) {
		const struct heap_row *row = &list->rows[i];
		int64_t values[DP_DELTA_MAX_VALUES] = {0};
		int r;

		if (!row->is_known)
			continue;
		values[0] = (int64_t)(row->allocs - row->base_allocs);
		values[2] = (int64_t)(row->allocs - row->frees);
		r = dp_delta_add(delta, row->stack, row->size, values);
		if (r == -ENOMEM)
			return r;
		if (r < 0)
			result = r;
	}
	return result;
}

static int feed_waits(const struct list *list, struct dp_delta *delta)
{
	int result = 0;

	for (size_t g = 0; g < list->n_groups; g++) {
		const struct group *group = &list->groups[g];
		int r = dp_delta_add(delta, group->stack, 0,
				     (int64_t[]){group->total_count, group->total_ns});

		if (r == -ENOMEM)
			return r;
		if (r < 0)
			result = r;
	}
	return result;
}

int dp_go_source_feed(struct dp_go_source *source, enum dp_go_list list, struct dp_delta *delta)
{
	int r;

	if (!source->lists[list].buckets)
		return 0;
	r = update(source, list, false);
	if (r < 0)
		return r;
	return list == DP_GO_HEAP ? feed_heap(&source->lists[list], delta)
				  : feed_waits(&source->lists[list], delta);
}

struct dp_delta_spec dp_go_delta_spec(enum dp_go_list list, size_t max_rows)
{
	if (list == DP_GO_HEAP)
		return (struct dp_delta_spec){
			.n_values = 4, .delta_mask = 1u << 0, .max_rows = max_rows};
	return (struct dp_delta_spec){.n_values = 2,
				      .delta_mask = 1u << 0 | 1u << 1,
				      .negative_moves_base = true,
				      .max_rows = max_rows};
}

bool dp_go_source_scale(const struct dp_go_rates *rates, struct dp_delta_row *row)
{
	int64_t *values = row->values;
	int64_t size = (int64_t)row->tag;

	for (size_t i = 0; i < 4; i += 2) {
		int64_t objects = values[i], bytes;

		if (__builtin_mul_overflow(objects, size, &bytes))
			bytes = INT64_MAX;
		dp_scale_go_heap(objects, bytes, rates->heap_bytes, &values[i], &values[i + 1]);
	}
	return values[0] || values[1] || values[2] || values[3];
}

const struct dp_go_runtime *dp_go_source_runtime(const struct dp_go_source *source)
{
	return &source->runtime;
}

void dp_go_source_get_stats(const struct dp_go_source *source, struct dp_go_source_stats *ret)
{
	*ret = (struct dp_go_source_stats){.rates = source->rates,
					   .n_failed = source->n_failed,
					   .n_late = source->n_late,
					   .n_negative = source->n_negative};
	for (size_t i = 0; i < N_LISTS; i++) {
		if (source->lists[i].buckets)
			ret->lists[i] = *dp_go_buckets_get_stats(source->lists[i].buckets);
		ret->read_ns[i] = source->lists[i].read_ns;
	}
}
