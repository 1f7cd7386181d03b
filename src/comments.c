/* SPDX-License-Identifier: MIT */
#include "src/comments.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#define N(x) ((unsigned long long)(x))
/* How much a counter grew since the last profile. */
#define GREW(field) N(now->field - before->field)

static int add(struct dp_pprof *profile, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static int add(struct dp_pprof *profile, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return dp_pprof_add_comment(profile, text);
}

static int add_settings(struct dp_pprof *profile, const struct dp_target *target,
			uint64_t rate_bytes)
{
	int r = add(profile, "deltaprof-perf: version %s", DP_VERSION);

	if (r == 0)
		r = add(profile, "process: pid %d, name %s", target->pid, target->comm);
	if (r == 0)
		r = add(profile,
			"sampler: direct (perf delivers every hit), armed 100 %% of the time");
	if (r == 0)
		r = add(profile, "stacks: kernel callchain (frame pointers), caller of the probed "
				 "function from its stack word");
	if (r == 0 && rate_bytes <= 1)
		r = add(profile, "heap rate: 1 bytes (every allocation)");
	else if (r == 0)
		r = add(profile, "heap rate: %llu bytes (Poisson sampling, values scaled)",
			N(rate_bytes));
	return r;
}

static int add_interval(struct dp_pprof *profile, const struct dp_session_stats *before,
			const struct dp_session_stats *now, const struct dp_report_counts *counts)
{
	int r;

	r = add(profile,
		"allocations: seen %llu, sampled %llu, skipped %llu, failed %llu, nested %llu, "
		"abandoned %llu, unpaired %llu, forgotten %llu, noroom %llu",
		GREW(heap.n_seen), GREW(heap.n_sampled), GREW(heap.n_seen) - GREW(heap.n_sampled),
		GREW(pairing.n_failed), GREW(pairing.n_nested), GREW(pairing.n_abandoned),
		GREW(pairing.n_unpaired_returns), GREW(pairing.n_forgotten),
		GREW(pairing.n_no_room));
	if (r == 0)
		r = add(profile,
			"live objects: tracked %llu, freed %llu, replaced %llu, untracked %llu, "
			"overflowed %llu",
			N(now->heap.n_live), GREW(heap.n_frees), GREW(heap.n_replaced),
			GREW(heap.n_untracked), GREW(heap.n_live_overflow));
	if (r == 0)
		r = add(profile,
			"records: delivered %llu, lost %llu, dropped %llu, duplicate %llu, "
			"malformed "
			"%llu, late %llu, unknown %llu",
			GREW(sampler.n_delivered), GREW(sampler.n_lost), GREW(sampler.n_dropped),
			GREW(sampler.n_duplicates), GREW(sampler.n_malformed),
			GREW(sampler.n_out_of_order), GREW(n_unknown_probes));
	if (r == 0)
		r = add(profile,
			"stacks: in this profile %llu, known %llu, truncated %llu, cut %llu, "
			"overflowed "
			"%llu",
			N(counts->n_stacks), N(now->n_stacks), N(now->n_stacks_truncated),
			N(now->n_stacks_cut), GREW(n_stacks_overflowed));
	if (r == 0)
		r = add(profile, "addresses: in this profile %llu, unresolved %llu",
			N(counts->n_locations), N(counts->n_unresolved));
	return r;
}

/*
 * The kernel counts hits by itself; once events have stopped, hit is the sum of all that follows it
 * (and of dropped and duplicate entries). Before that, what is still in flight makes the
 * difference.
 */
static int add_totals(struct dp_pprof *profile, const struct dp_session_stats *now)
{
	int r;

	r = add(profile,
		"entries since attach: hit %llu, returned %llu, failed %llu, nested %llu, "
		"abandoned "
		"%llu, forgotten %llu, noroom %llu, pending %llu, lost %llu",
		N(now->sampler.n_entry_hits), N(now->pairing.n_calls), N(now->pairing.n_failed),
		N(now->pairing.n_nested), N(now->pairing.n_abandoned), N(now->pairing.n_forgotten),
		N(now->pairing.n_no_room), N(now->n_pending), N(now->sampler.n_entry_lost));
	if (r == 0)
		r = add(profile,
			"records since attach: hit %llu, delivered %llu, lost %llu, dropped %llu, "
			"duplicate %llu, pending %llu",
			N(now->sampler.n_entry_hits + now->sampler.n_return_hits +
			  now->sampler.n_free_hits),
			N(now->sampler.n_delivered),
			N(now->sampler.n_entry_lost + now->sampler.n_return_lost +
			  now->sampler.n_free_lost),
			N(now->sampler.n_dropped), N(now->sampler.n_duplicates), N(now->n_pending));
	return r;
}

int dp_comments_heap(struct dp_pprof *profile, const struct dp_target *target, uint64_t rate_bytes,
		     const struct dp_session_stats *before, const struct dp_session_stats *now,
		     const struct dp_report_counts *counts)
{
	int r = add_settings(profile, target, rate_bytes);

	if (r == 0)
		r = add_interval(profile, before, now, counts);
	if (r == 0)
		r = add_totals(profile, now);
	return r;
}
