/* SPDX-License-Identifier: MIT */
/*
 * Reads a Go program's profile buckets from outside and prints them as tests/targets/go/buckets
 * prints its own: "heap SIZE ALLOCS FREES pc…", "block 0 COUNT CYCLES pc…", "mutex …", newest
 * first.
 *
 *   go_read PID            what was found, and the three lists, once
 *   go_read PID N          reads the heap N times first, counts what cannot be, then the lists
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/go_buckets.h"

static const char *const names[] = {"heap", "block", "mutex"};

static void print_bucket(const char *name, const struct dp_go_bucket *b, bool is_heap)
{
	printf("%s %" PRIu64 " %" PRIu64 " %" PRIu64, name, b->size,
	       is_heap ? b->allocs : (uint64_t)b->count, is_heap ? b->frees : (uint64_t)b->cycles);
	for (size_t i = 0; i < b->n_pcs; i++)
		printf(" %" PRIx64, b->pcs[i]);
	putchar('\n');
}

static void print_stats(const char *name, const struct dp_go_buckets *buckets, uint64_t ns)
{
	const struct dp_go_buckets_stats *s = dp_go_buckets_get_stats(buckets);

	fprintf(stderr,
		"%s: %" PRIu64 " buckets, last read %" PRIu64 " us, %" PRIu64 " reads, %" PRIu64
		" cycle changes, %" PRIu64 " torn, %" PRIu64 " kept, %" PRIu64 " refused, %" PRIu64
		" without room, %" PRIu64 " unreadable\n",
		name, s->n_buckets, ns / 1000, s->n_reads, s->n_cycle_changes, s->n_torn, s->n_kept,
		s->n_refused, s->n_without_room, s->n_unreadable);
}

static int print_list(struct dp_go_buckets *buckets, enum dp_go_list list)
{
	uint64_t start = dp_monotonic_ns();
	int r = dp_go_buckets_read(buckets);

	if (r < 0)
		return r;
	print_stats(names[list], buckets, dp_monotonic_ns() - start);
	for (size_t i = dp_go_buckets_count(buckets); i-- > 0;) {
		struct dp_go_bucket b;

		dp_go_buckets_get(buckets, i, &b);
		print_bucket(names[list], &b, list == DP_GO_HEAP);
	}
	return 0;
}

/* The figures that were given out may only grow, and no more may be freed than was allocated. */
static uint64_t count_wrong(const struct dp_go_buckets *buckets, struct dp_go_bucket *before,
			    size_t *n_before)
{
	uint64_t n_wrong = 0;

	for (size_t i = 0; i < dp_go_buckets_count(buckets) && i < 1u << 17; i++) {
		struct dp_go_bucket b;

		dp_go_buckets_get(buckets, i, &b);
		n_wrong += b.frees > b.allocs;
		if (i < *n_before)
			n_wrong += b.allocs < before[i].allocs || b.frees < before[i].frees;
		before[i] = b;
	}
	*n_before = dp_go_buckets_count(buckets);
	return n_wrong;
}

static int stress(struct dp_go_buckets *heap, unsigned long n)
{
	struct dp_go_bucket *before = calloc(1u << 17, sizeof(*before));
	uint64_t n_wrong = 0, n_values = 0, start = dp_monotonic_ns();
	size_t n_before = 0;
	int r = 0;

	for (unsigned long i = 0; before && r == 0 && i < n; i++) {
		r = dp_go_buckets_read(heap);
		n_wrong += count_wrong(heap, before, &n_before);
		n_values += n_before;
	}
	fprintf(stderr,
		"stress: %lu reads in %" PRIu64 " ms, %" PRIu64 " values, %" PRIu64 " wrong\n", n,
		(dp_monotonic_ns() - start) / 1000000, n_values, n_wrong);
	print_stats("heap", heap, 0);
	free(before);
	return r;
}

static void print_runtime(const struct dp_go_runtime *g)
{
	struct dp_go_rates rates;
	int r = dp_go_read_rates(g, &rates);

	fprintf(stderr, "%s%s%s cycle=%d buckets=%d%d%d locks=%d%d ticks=%d", g->version,
		g->is_stripped ? " stripped" : "", g->has_cgo ? " cgo" : "",
		g->variables.heap_cycle != 0, g->variables.buckets[0] != 0,
		g->variables.buckets[1] != 0, g->variables.buckets[2] != 0,
		g->variables.heap_lock != 0, g->variables.events_lock != 0,
		g->variables.ticks != 0);
	fprintf(stderr,
		" rates: %d heap %" PRId64 " block %" PRIu64 " mutex %" PRIu64 "%s %.6f/ns\n", r,
		rates.heap_bytes, rates.block_ticks, rates.mutex_fraction,
		rates.heap_disabled ? " disabled" : "", rates.ticks_per_ns);
}

static int run(struct dp_go_runtime *runtime, unsigned long n_stress)
{
	struct dp_go_buckets *lists[3] = {NULL};
	int r = 0;

	for (unsigned i = 0; r == 0 && i < 3; i++)
		r = dp_go_buckets_new(&lists[i], runtime, (enum dp_go_list)i);
	if (r == 0 && n_stress > 0)
		r = stress(lists[DP_GO_HEAP], n_stress);
	if (r == 0 && n_stress > 0) {
		/* The target is told to be quiet. */
		puts("quiet?");
		fflush(stdout);
		getchar();
	}
	for (unsigned i = 0; r == 0 && i < 3; i++)
		r = print_list(lists[i], (enum dp_go_list)i);
	for (unsigned i = 0; i < 3; i++)
		dp_go_buckets_free(lists[i]);
	return r;
}

int main(int argc, char **argv)
{
	pid_t pid = argc > 1 ? (pid_t)strtol(argv[1], NULL, 10) : 0;
	struct dp_modules *modules = NULL;
	struct dp_go_runtime runtime;
	struct dp_space *space = NULL;
	struct dp_error err = {""};
	int r;

	if (pid <= 0) {
		fputs("usage: go_read PID [READS]\n", stderr);
		return 2;
	}
	r = dp_modules_new(&modules);
	if (r == 0)
		r = dp_space_new(&space, modules, pid);
	if (r == 0)
		r = dp_space_load(space, &err);
	if (r == 0)
		r = dp_go_runtime_find(&runtime, modules, space, pid, &err);
	if (r == 0) {
		print_runtime(&runtime);
		r = run(&runtime, argc > 2 ? strtoul(argv[2], NULL, 10) : 0);
	}
	if (r != 0)
		fprintf(stderr, "go_read: %d %s\n", r, err.text);
	dp_space_free(space);
	dp_modules_free(modules);
	return r != 0;
}
