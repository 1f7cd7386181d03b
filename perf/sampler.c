/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: all records of a CPU share one ring, whose owner is a dummy event of that CPU that
 * lives as long as we do. What writes into them is one of two: perf itself, at every hit
 * (perf/direct.h), or the programs of perf/kernel.h, which keep what is sampled.
 */
#include "perf/sampler.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>

#include "perf/direct.h"
#include "perf/kernel.h"
#include "perf/merge.h"
#include "perf/rings.h"
#include "perf/sorts.h"
#include "src/base/clock.h"

/* Per ring, of records that wait for their turn. */
#define MAX_QUEUE_BYTES ((size_t)128 << 20)

/* Of all rings together, kept ready where every allocation brings a copy of its stack. */
#define EXACT_QUEUE_BYTES ((size_t)32 << 20)

/* Copied of the user's stack, if the caller does not say. */
#define DEFAULT_STACK_BYTES 8192

struct dp_sampler {
	struct dp_sampler_options options; /* without sites, once they are probed */
	struct dp_direct *direct;	   /* one of these two */
	struct dp_kernel *kernel;
	struct dp_error why_direct; /* though the kernel sampler was preferred; "": it was not */
	struct dp_merge *merge;
	struct dp_record_layout layout;
	struct dp_rings rings;
	uint64_t round_ns;			/* start of the last round */
	uint64_t horizon_ns;			/* start of the one before */
	uint64_t given_ns;			/* all that is older has been given */
	_Alignas(uint64_t) uint8_t slim[16384]; /* a record without its copy of the stack */
	struct dp_sampler_stats stats;
};

/* Leaves the copy of the stack out of @record if it is not wanted. Returns what is to be kept. */
static const void *slim(struct dp_sampler *sampler, const void *record, size_t *n_bytes)
{
	size_t n_slim;
	struct dp_event event;

	if (!sampler->options.wants_stack || !sampler->direct ||
	    *n_bytes < dp_direct_smallest_copy(sampler->direct) ||
	    dp_record_parse(&sampler->layout, record, *n_bytes, &event) != 0 ||
	    event.type != DP_EVENT_ALLOC_ENTRY || !event.entry.user.stack ||
	    sampler->options.wants_stack(sampler->options.context, &event))
		return record;
	n_slim = dp_record_leave_out_stack(record, &event, sampler->slim, sizeof(sampler->slim));
	if (n_slim == 0)
		return record;
	*n_bytes = n_slim;
	return sampler->slim;
}

/*
 * Whether @record tells of another process's threads or mappings: the kernel sampler's rings are
 * told of the whole machine's. Source: perf_event_open(2): these records begin with the process's
 * id.
 */
static bool is_of_others(const struct dp_sampler *sampler, const void *record, size_t n_bytes)
{
	struct {
		struct perf_event_header header;
		uint32_t pid;
	} begin;

	if (!sampler->kernel || n_bytes < sizeof(begin))
		return false;
	memcpy(&begin, record, sizeof(begin));
	switch (begin.header.type) {
	case PERF_RECORD_MMAP2:
	case PERF_RECORD_COMM:
	case PERF_RECORD_FORK:
	case PERF_RECORD_EXIT:
		return begin.pid != (uint32_t)sampler->options.pid;
	default:
		return false;
	}
}

static void read_ring(struct dp_sampler *sampler, size_t i)
{
	struct dp_ring *ring = &sampler->rings.rings[i];
	const void *record;
	uint64_t time_ns;
	size_t n_bytes;
	int r;

	dp_ring_refresh(ring);
	while ((r = dp_ring_next(ring, &record, &n_bytes)) != 0) {
		if (r < 0 || dp_record_time(record, n_bytes, &time_ns) < 0) {
			sampler->stats.n_malformed++;
			continue;
		}
		if (is_of_others(sampler, record, n_bytes))
			continue;
		record = slim(sampler, record, &n_bytes);
		if (dp_merge_push(sampler->merge, (unsigned)i, record, n_bytes, time_ns) < 0)
			sampler->stats.n_dropped++;
	}
	dp_ring_release(ring);
}

static void read_rings(void *context)
{
	struct dp_sampler *sampler = context;

	for (size_t i = 0; i < sampler->rings.n; i++)
		read_ring(sampler, i);
}

/* The rings, and what their records wait in: they are read while events are being opened. */
static int open_rings(struct dp_sampler *sampler, bool sideband, struct dp_error *err)
{
	int r = dp_rings_open(&sampler->rings, sampler->options.ring_bytes,
			      sampler->options.heap_stacks, sideband, err);

	if (r < 0)
		return r;
	r = dp_merge_new(&sampler->merge, (unsigned)sampler->rings.n, MAX_QUEUE_BYTES);
	if (r == 0 && sampler->options.heap_stacks && sampler->options.heap_rate_bytes <= 1)
		r = dp_merge_reserve(sampler->merge, EXACT_QUEUE_BYTES);
	return r == 0 ? 0
		      : dp_error_set(err, -ENOMEM, "pid %d: out of memory", sampler->options.pid);
}

static void close_rings(struct dp_sampler *sampler)
{
	dp_merge_free(sampler->merge);
	sampler->merge = NULL;
	dp_rings_close(&sampler->rings);
}

static int open_direct(struct dp_sampler *sampler, struct dp_error *err)
{
	int r = open_rings(sampler, false, err);

	if (r == 0)
		r = dp_direct_open(&sampler->direct, &sampler->options, &sampler->rings,
				   &sampler->layout, read_rings, sampler, err);
	return r;
}

static int open_kernel(struct dp_sampler *sampler, struct dp_error *err)
{
	int r = open_rings(sampler, true, err);

	if (r == 0)
		r = dp_kernel_open(&sampler->kernel, &sampler->options, &sampler->rings,
				   &sampler->layout, err);
	return r;
}

/* The one that was asked for; if neither was, the kernel sampler where it can be had. */
static int open_preferred(struct dp_sampler *sampler, struct dp_error *err)
{
	enum dp_sampler_mode mode = sampler->options.mode;
	int r;

	if (mode == DP_SAMPLER_DIRECT)
		return open_direct(sampler, err);
	r = open_kernel(sampler, mode == DP_SAMPLER_AUTO ? &sampler->why_direct : err);
	if (r >= 0 || mode != DP_SAMPLER_AUTO)
		return r;
	close_rings(sampler);
	return open_direct(sampler, err);
}

/* Without frees nothing would ever leave what is in use. */
static int check_sites(const struct dp_sampler_options *options, struct dp_error *err)
{
	size_t n_frees = 0, n_go = 0, n_heap;

	for (size_t i = 0; i < options->n_sites; i++) {
		n_frees += options->sites[i].kind == DP_KERNEL_FREE;
		n_go += dp_kernel_kind_is_go(options->sites[i].kind) != 0;
	}
	n_heap = options->n_sites - n_go;
	if (n_heap == 0 || (n_frees > 0 && n_frees < n_heap))
		return 0;
	return dp_error_set(err, -ENOENT, "pid %d: no function to probe (%s)", options->pid,
			    n_frees == 0 ? "free" : "entry");
}

int dp_sampler_open(struct dp_sampler **ret, const struct dp_sampler_options *options,
		    struct dp_error *err)
{
	struct dp_sampler *sampler = calloc(1, sizeof(*sampler));
	int r;

	if (!sampler)
		return dp_error_set(err, -ENOMEM, "pid %d: out of memory", options->pid);
	sampler->options = *options;
	if (sampler->options.stack_bytes == 0)
		sampler->options.stack_bytes = DEFAULT_STACK_BYTES;
	r = check_sites(options, err);
	if (r == 0)
		r = open_preferred(sampler, err);
	sampler->options.sites = NULL;
	if (r < 0) {
		dp_sampler_close(sampler);
		return r;
	}
	*ret = sampler;
	return 0;
}

const char *dp_sampler_why_direct(const struct dp_sampler *sampler)
{
	return sampler->direct && sampler->why_direct.text[0] ? sampler->why_direct.text : NULL;
}

bool dp_sampler_is_kernel(const struct dp_sampler *sampler)
{
	return sampler->kernel != NULL;
}

void dp_sampler_enable(struct dp_sampler *sampler)
{
	if (sampler->kernel)
		dp_kernel_enable(sampler->kernel);
	else
		dp_direct_enable(sampler->direct);
}

void dp_sampler_disable(struct dp_sampler *sampler)
{
	if (sampler->kernel)
		dp_kernel_disable(sampler->kernel);
	else
		dp_direct_disable(sampler->direct);
}

bool dp_sampler_is_changing(const struct dp_sampler *sampler)
{
	return sampler->kernel ? dp_kernel_is_anchored(sampler->kernel)
			       : dp_direct_is_changing(sampler->direct);
}

int dp_sampler_resize(struct dp_sampler *sampler, uint32_t stack_bytes, bool callchain,
		      struct dp_error *err)
{
	if (sampler->kernel)
		return dp_kernel_resize(sampler->kernel, stack_bytes, callchain, err);
	return dp_direct_resize(sampler->direct, stack_bytes, callchain, sampler->given_ns, err);
}

uint32_t dp_sampler_stack_bytes(const struct dp_sampler *sampler)
{
	return sampler->kernel ? dp_kernel_stack_bytes(sampler->kernel)
			       : dp_direct_stack_bytes(sampler->direct);
}

void dp_sampler_close(struct dp_sampler *sampler)
{
	if (!sampler)
		return;
	dp_kernel_close(sampler->kernel);
	dp_direct_close(sampler->direct);
	close_rings(sampler);
	free(sampler);
}

const struct pollfd *dp_sampler_pollfds(const struct dp_sampler *sampler, size_t *ret_n)
{
	*ret_n = sampler->rings.n;
	return sampler->rings.pollfds;
}

void dp_sampler_round(struct dp_sampler *sampler)
{
	uint64_t now_ns = dp_monotonic_ns();

	if (sampler->direct)
		dp_direct_before_round(sampler->direct, now_ns);
	read_rings(sampler);
	sampler->horizon_ns = sampler->round_ns;
	sampler->round_ns = now_ns;
	if (sampler->direct)
		dp_direct_after_round(sampler->direct, sampler->given_ns);
}

uint64_t dp_sampler_horizon_ns(const struct dp_sampler *sampler)
{
	return sampler->horizon_ns;
}

/* Returns whether the event is for the caller. */
static bool account(struct dp_sampler *sampler, const struct dp_event *event)
{
	switch (event->type) {
	case DP_EVENT_ALLOC_ENTRY:
	case DP_EVENT_ALLOC_RETURN:
	case DP_EVENT_FREE:
	case DP_EVENT_FUTEX_ENTER:
	case DP_EVENT_FUTEX_EXIT:
	case DP_EVENT_WAKING:
	case DP_EVENT_RELEASE:
	case DP_EVENT_WAIT:
	case DP_EVENT_GO_PARK:
	case DP_EVENT_GO_READY:
	case DP_EVENT_GO_WAIT:
	case DP_EVENT_GO_ACQUIRE:
		if (sampler->direct && dp_direct_is_duplicate(sampler->direct, event)) {
			sampler->stats.n_duplicates++;
			sampler->stats.n_entry_duplicates += event->type == DP_EVENT_ALLOC_ENTRY;
			return false;
		}
		sampler->stats.n_delivered++;
		return true;
	case DP_EVENT_LOST:
		sampler->stats.n_lost += event->lost.n_records;
		return true;
	default:
		if (sampler->direct)
			dp_direct_follow(sampler->direct, event);
		else
			dp_kernel_follow(sampler->kernel, event);
		return true;
	}
}

int dp_sampler_next(struct dp_sampler *sampler, uint64_t before_ns, struct dp_event *ret)
{
	uint64_t limit_ns = before_ns < sampler->horizon_ns ? before_ns : sampler->horizon_ns;
	const void *record;
	size_t n_bytes;

	while (dp_merge_pop(sampler->merge, limit_ns, &record, &n_bytes)) {
		int r = dp_record_parse(&sampler->layout, record, n_bytes, ret);

		if (r < 0)
			sampler->stats.n_malformed++;
		else if (r == 0 && account(sampler, ret))
			return 1;
	}
	sampler->given_ns = limit_ns;
	return 0;
}

static void count_direct(const struct dp_sampler *sampler, struct dp_sampler_stats *stats)
{
	uint64_t hits[DP_N_SORTS], lost[DP_N_SORTS];

	for (enum dp_sort sort = DP_SORT_SIDEBAND + 1; sort < DP_N_SORTS; sort++) {
		dp_direct_count(sampler->direct, sort, &hits[sort], &lost[sort]);
		stats->n_hits += hits[sort];
		stats->n_hits_lost += lost[sort];
	}
	stats->n_entry_hits = hits[DP_SORT_ENTRY];
	stats->n_entry_lost = lost[DP_SORT_ENTRY];
	stats->n_return_hits = hits[DP_SORT_RETURN];
	stats->n_return_lost = lost[DP_SORT_RETURN];
	stats->n_free_hits = hits[DP_SORT_FREE];
	stats->n_free_lost = lost[DP_SORT_FREE];
}

/* What was to be delivered is what counts as a hit here. */
static void count_kernel(const struct dp_sampler *sampler, struct dp_sampler_stats *stats)
{
	struct dp_kernel_counts *counts = &stats->kernel;
	uint64_t n_entries_out;

	dp_kernel_count(sampler->kernel, counts);
	n_entries_out = counts->n_entries - counts->n_nested - counts->n_failed -
			counts->n_skipped - counts->n_no_room;
	stats->n_hits = n_entries_out + counts->n_returns_out + counts->n_frees_out +
			counts->n_waits_out + counts->n_go_kept + counts->n_go_kept_lost;
	stats->n_hits_lost = counts->n_entry_lost + counts->n_return_lost + counts->n_free_lost +
			     counts->n_waits_lost + counts->n_go_kept_lost;
	stats->n_entry_hits = counts->n_entries;
	stats->n_entry_lost = counts->n_entry_lost;
	stats->n_return_hits = counts->n_returns;
	stats->n_return_lost = counts->n_return_lost;
	stats->n_free_hits = counts->n_frees;
	stats->n_free_lost = counts->n_free_lost;
}

void dp_sampler_get_stats(struct dp_sampler *sampler, struct dp_sampler_stats *ret)
{
	struct dp_sampler_stats *stats = &sampler->stats;

	stats->n_hits = stats->n_hits_lost = 0;
	if (sampler->kernel)
		count_kernel(sampler, stats);
	else
		count_direct(sampler, stats);
	stats->n_gaps = sampler->kernel ? dp_kernel_n_gaps(sampler->kernel)
					: dp_direct_n_gaps(sampler->direct);
	stats->n_out_of_order = dp_merge_get_stats(sampler->merge)->n_released_late;
	*ret = *stats;
}

void dp_sampler_get_size(const struct dp_sampler *sampler, size_t *ret_threads, size_t *ret_fds)
{
	if (sampler->kernel)
		dp_kernel_get_size(sampler->kernel, ret_threads, ret_fds);
	else
		dp_direct_get_size(sampler->direct, ret_threads, ret_fds);
	*ret_fds += sampler->rings.n;
}
