// SPDX-License-Identifier: MIT
/*
 * How many events a second the line takes, from a ring's bytes to the delta engine, with no kernel
 * in the way: a generator writes what perf would (tests/sample_builder), the line reads it, and
 * only the reading is timed. The stages are the real ones in their real order, each measured
 * together with all before it; the last is what deltaprof-perf does between two profiles.
 *
 * usage: bench_line [EVENTS]
 *
 *     prints, for each stage:  NAME EVENTS NS LOST
 */
#include <errno.h>
#include <linux/perf_event.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "perf/merge.h"
#include "perf/record.h"
#include "perf/ring.h"
#include "src/allocator.h"
#include "src/base/clock.h"
#include "src/base/hash.h"
#include "src/delta.h"
#include "src/heap.h"
#include "src/pairing.h"
#include "src/stack.h"
#include "symbolize/module.h"
#include "symbolize/normalize.h"
#include "symbolize/space.h"
#include "tests/sample_builder.h"

#define N_RINGS 2
#define RING_BYTES ((size_t)1 << 20)
#define MAX_QUEUE_BYTES ((size_t)64 << 20)
#define MAX_EVENTS 1000000000ul

/* The workload: the pairs of N_THREADS threads in turn, from N_STACKS places; an object is freed
 * when N_LIVE younger ones were made. */
#define N_THREADS 4
#define N_STACKS 512
#define DEPTH 16
#define N_LIVE 4096
#define EVENTS_PER_PASS 100000

#define ENTRY_AVMA UINT64_C(0x7f0000001000)
#define FREE_AVMA UINT64_C(0x7f0000002000)

enum stage { RECORDS, MERGE, STACKS, HEAP, DELTA };

static const struct {
	const char *name;
	enum stage until;
	uint64_t heap_rate_bytes;
} measured[] = {
	{"ring, record", RECORDS, 1},
	{"+ merge", MERGE, 1},
	{"+ normalise, stack", STACKS, 1},
	{"+ pairing, heap", HEAP, 1},
	{"+ delta: the line, --heap-rate 1", DELTA, 1},
	{"the line, 512 KiB", DELTA, 512 << 10},
};

struct generator {
	uint64_t callchains[N_STACKS][DEPTH + 1];
	uint64_t n_events;
	uint64_t time_ns;
	uint8_t *record; /* SAMPLE_MAX_BYTES */
};

struct line {
	enum stage until;
	struct perf_event_mmap_page pages[N_RINGS];
	uint8_t *data[N_RINGS];
	struct dp_ring rings[N_RINGS];
	struct dp_merge *merge;
	struct dp_modules *modules;
	struct dp_space *space;
	struct dp_stacks *stacks;
	struct dp_stack_cache *cache;
	struct dp_normalize_stats normalize_stats;
	struct dp_heap *heap;
	struct dp_pairing *pairing;
	struct dp_delta *delta;
	const struct dp_alloc_function *malloc_function, *free_function;
	uint64_t n_taken;
	uint64_t n_delivered; /* allocations that came out as differences */
};

/* ---- the generator -------------------------------------------------------------------------- */

static int generator_init(struct generator *generator, const struct dp_space *space)
{
	size_t n_ranges;
	const struct dp_space_range *ranges = dp_space_ranges(space, &n_ranges);
	uint64_t random = 1;

	if (n_ranges == 0)
		return -ENOENT;
	for (size_t i = 0; i < N_STACKS; i++) {
		generator->callchains[i][0] = PERF_CONTEXT_USER;
		generator->callchains[i][1] = ENTRY_AVMA;
		for (size_t j = 2; j <= DEPTH; j++) {
			const struct dp_space_range *range;

			random = dp_hash_u64(random + 1);
			range = &ranges[random % n_ranges];
			generator->callchains[i][j] =
				range->start + (random >> 8) % (range->end - range->start);
		}
	}
	generator->record = malloc(SAMPLE_MAX_BYTES);
	return generator->record ? 0 : -ENOMEM;
}

static uint64_t address_of(uint64_t i_pair)
{
	return UINT64_C(0x550000000000) + i_pair % (4 * (uint64_t)N_LIVE) * 1024;
}

/* Event @i: of each three, an entry, its return, and the free of an old object. */
static void make_event(const struct generator *generator, uint64_t i, struct dp_event *ret)
{
	uint64_t i_pair = i / 3, hash = dp_hash_u64(i_pair + 1);
	const uint64_t *callchain = generator->callchains[hash % N_STACKS];
	uint32_t thread = (uint32_t)(i_pair % N_THREADS);
	uint64_t sp = UINT64_C(0x7ffd00000000) + thread * UINT64_C(0x100000);

	*ret = (struct dp_event){.pid = 1000, .tid = 1000 + thread, .time_ns = generator->time_ns};
	if (i % 3 == 0) {
		ret->type = DP_EVENT_ALLOC_ENTRY;
		ret->entry.probe_avma = ENTRY_AVMA;
		ret->entry.args[0] = 16 + (hash >> 32) % 1000;
		ret->entry.sp = sp;
		ret->entry.stack0 = callchain[2];
		ret->entry.user.callchain = callchain;
		ret->entry.user.n_callchain = DEPTH + 1;
	} else if (i % 3 == 1) {
		ret->type = DP_EVENT_ALLOC_RETURN;
		ret->ret.probe_avma = ENTRY_AVMA;
		ret->ret.retval = address_of(i_pair);
		ret->ret.sp = sp + 8;
	} else {
		ret->type = DP_EVENT_FREE;
		ret->entry.probe_avma = FREE_AVMA;
		ret->entry.args[0] = i_pair < N_LIVE ? 0 : address_of(i_pair - N_LIVE);
		ret->entry.sp = sp;
	}
}

/* Writes the next event as the kernel does. Returns false if its ring has no room now. */
static bool write_event(struct generator *generator, struct line *line)
{
	struct dp_event event;
	size_t n_bytes, i_ring, at, first;
	struct perf_event_mmap_page *page;

	make_event(generator, generator->n_events, &event);
	n_bytes = sample_build(generator->record, &sample_layout, &event);
	i_ring = event.tid % N_RINGS;
	page = &line->pages[i_ring];
	if (page->data_head + n_bytes - page->data_tail > RING_BYTES)
		return false;
	at = page->data_head % RING_BYTES;
	first = n_bytes < RING_BYTES - at ? n_bytes : RING_BYTES - at;
	memcpy(line->data[i_ring] + at, generator->record, first);
	memcpy(line->data[i_ring], generator->record + first, n_bytes - first);
	page->data_head += n_bytes;
	generator->n_events++;
	generator->time_ns += 100;
	return true;
}

/* ---- the line ------------------------------------------------------------------------------- */

/* As src/session does. */
static uint32_t intern(void *context, const struct dp_event *event)
{
	struct line *line = context;
	uint64_t words[DP_STACK_MAX_FRAMES + 1], frames[DP_STACK_MAX_FRAMES + 1];
	size_t n = event->entry.user.n_callchain;
	uint64_t generation = dp_space_generation(line->space);
	uint32_t id;

	memcpy(words, event->entry.user.callchain, n * sizeof(*words));
	words[n] = event->entry.stack0;
	if (dp_stack_cache_get(line->cache, generation, words, n + 1, &id) == 1)
		return id;
	n = dp_normalize_entry(line->space, words, n, event->entry.stack0, 127, frames,
			       &line->normalize_stats);
	id = dp_stacks_intern(line->stacks, frames, n);
	dp_stack_cache_put(line->cache, generation, words, event->entry.user.n_callchain + 1, id);
	return id;
}

static int take(struct line *line, const struct dp_event *event)
{
	line->n_taken++;
	if (line->until < STACKS)
		return 0;
	if (line->until == STACKS) {
		if (event->type == DP_EVENT_ALLOC_ENTRY)
			intern(line, event);
		return 0;
	}
	switch (event->type) {
	case DP_EVENT_ALLOC_ENTRY:
		return dp_pairing_entry(line->pairing, event, line->malloc_function);
	case DP_EVENT_ALLOC_RETURN:
		return dp_pairing_return(line->pairing, event, line->malloc_function, false);
	default:
		dp_pairing_free_call(line->pairing, event, line->free_function);
		return 0;
	}
}

static int parse(struct line *line, const void *record, size_t n_bytes)
{
	struct dp_event event;
	int r = dp_record_parse(&sample_layout, record, n_bytes, &event);

	return r < 0 ? r : take(line, &event);
}

static int read_rings(struct line *line)
{
	int r = 0;

	for (unsigned i = 0; i < N_RINGS && r >= 0; i++) {
		const void *record;
		uint64_t time_ns;
		size_t n_bytes;

		dp_ring_refresh(&line->rings[i]);
		while (r >= 0 && (r = dp_ring_next(&line->rings[i], &record, &n_bytes)) == 1) {
			if (line->until == RECORDS) {
				r = parse(line, record, n_bytes);
				continue;
			}
			r = dp_record_time(record, n_bytes, &time_ns);
			if (r == 0)
				r = dp_merge_push(line->merge, i, record, n_bytes, time_ns);
		}
		dp_ring_release(&line->rings[i]);
	}
	return r;
}

static int one_round(struct line *line, uint64_t watermark_ns)
{
	const void *record;
	size_t n_bytes;
	int r = read_rings(line);

	while (r >= 0 && dp_merge_pop(line->merge, watermark_ns, &record, &n_bytes))
		r = parse(line, record, n_bytes);
	return r;
}

static int pass(struct line *line)
{
	const struct dp_delta_row *rows;
	size_t n_rows;
	int r;

	dp_delta_begin(line->delta);
	r = dp_heap_feed(line->heap, line->delta);
	if (r == 0)
		r = dp_delta_end(line->delta, &rows, &n_rows);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n_rows; i++)
		line->n_delivered += (uint64_t)rows[i].values[0];
	dp_delta_commit(line->delta);
	return 0;
}

static void line_free(struct line *line)
{
	dp_delta_free(line->delta);
	dp_pairing_free(line->pairing);
	dp_heap_free_all(line->heap);
	dp_stack_cache_free(line->cache);
	dp_stacks_free(line->stacks);
	dp_space_free(line->space);
	dp_modules_free(line->modules);
	dp_merge_free(line->merge);
	for (size_t i = 0; i < N_RINGS; i++) {
		dp_ring_unmap(&line->rings[i]);
		free(line->data[i]);
	}
}

static int open_tables(struct line *line, uint64_t heap_rate_bytes)
{
	const struct dp_heap_options heap = {
		.rate_bytes = heap_rate_bytes, .seed = 1, .max_live = 1 << 20};
	const struct dp_delta_spec spec = dp_heap_delta_spec(1 << 16);
	int r = dp_stacks_new(&line->stacks, 1 << 16, 1 << 22);

	if (r == 0)
		r = dp_stack_cache_new(&line->cache, 8192);
	if (r == 0)
		r = dp_heap_new(&line->heap, &heap);
	if (r == 0)
		r = dp_pairing_new(&line->pairing, line->heap, 64, intern, line);
	if (r == 0)
		r = dp_delta_new(&line->delta, &spec);
	if (r == 0)
		r = dp_modules_new(&line->modules);
	if (r == 0)
		r = dp_space_new(&line->space, line->modules, getpid());
	if (r == 0)
		r = dp_space_load(line->space, NULL);
	return r;
}

static int line_open(struct line *line, enum stage until, uint64_t heap_rate_bytes)
{
	size_t n_functions;
	const struct dp_alloc_function *functions = dp_alloc_functions(&n_functions);
	int r = dp_merge_new(&line->merge, N_RINGS, MAX_QUEUE_BYTES);

	line->until = until;
	for (size_t i = 0; i < n_functions; i++) {
		if (strcmp(functions[i].name, "malloc") == 0)
			line->malloc_function = &functions[i];
		if (strcmp(functions[i].name, "free") == 0)
			line->free_function = &functions[i];
	}
	for (size_t i = 0; i < N_RINGS && r == 0; i++) {
		line->data[i] = malloc(RING_BYTES);
		r = line->data[i] ? dp_ring_init(&line->rings[i], &line->pages[i], line->data[i],
						 RING_BYTES)
				  : -ENOMEM;
	}
	if (r == 0)
		r = open_tables(line, heap_rate_bytes);
	return r;
}

/* ---- measuring ------------------------------------------------------------------------------ */

/* What went in and did not come out at the end of the line, or at the stage that was measured. */
static uint64_t count_lost(const struct line *line, uint64_t n_events, bool exact)
{
	const struct dp_pairing_stats *pairing = dp_pairing_get_stats(line->pairing);
	uint64_t lost = n_events - line->n_taken;

	if (line->until >= HEAP)
		lost += (n_events + 2) / 3 - pairing->n_calls - dp_pairing_pending(line->pairing);
	if (line->until >= DELTA && exact)
		lost += pairing->n_calls - line->n_delivered;
	return lost;
}

static int run(struct line *line, struct generator *generator, uint64_t n_events, uint64_t *ret_ns)
{
	uint64_t total_ns = 0, watermark_ns = 0, next_pass = EVENTS_PER_PASS;
	bool last;
	int r;

	do {
		uint64_t written_ns, start_ns;

		while (generator->n_events < n_events && write_event(generator, line))
			;
		written_ns = generator->time_ns;
		last = generator->n_events == n_events;
		start_ns = dp_monotonic_ns();
		r = one_round(line, last ? UINT64_MAX : watermark_ns);
		if (r >= 0 && line->until == DELTA && (last || line->n_taken >= next_pass)) {
			next_pass = line->n_taken + EVENTS_PER_PASS;
			r = pass(line);
		}
		total_ns += dp_monotonic_ns() - start_ns;
		watermark_ns = written_ns;
	} while (r >= 0 && !last);
	*ret_ns = total_ns;
	return r < 0 ? r : 0;
}

static int measure(size_t i, uint64_t n_events)
{
	struct line line = {0};
	struct generator *generator = calloc(1, sizeof(*generator));
	uint64_t ns;
	int r = generator ? line_open(&line, measured[i].until, measured[i].heap_rate_bytes)
			  : -ENOMEM;

	if (r == 0)
		r = generator_init(generator, line.space);
	if (r == 0)
		r = run(&line, generator, n_events, &ns);
	if (r == 0)
		printf("%s %llu %llu %llu\n", measured[i].name, (unsigned long long)n_events,
		       (unsigned long long)ns,
		       (unsigned long long)count_lost(&line, n_events,
						      measured[i].heap_rate_bytes == 1));
	line_free(&line);
	if (generator)
		free(generator->record);
	free(generator);
	return r;
}

int main(int argc, char **argv)
{
	uint64_t n_events = argc == 2 ? strtoul(argv[1], NULL, 10) : 1000000;
	int r = 0;

	if (argc > 2 || n_events == 0 || n_events > MAX_EVENTS) {
		fprintf(stderr, "usage: bench_line [EVENTS]\n");
		return 2;
	}
	for (size_t i = 0; i < sizeof(measured) / sizeof(measured[0]) && r == 0; i++)
		r = measure(i, n_events);
	if (r < 0)
		fprintf(stderr, "bench_line: %s\n", strerror(-r));
	return r < 0;
}
