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

static int add_process(struct dp_pprof *profile, const struct dp_session *session)
{
	const struct dp_target *target = dp_session_target(session);
	int r = add(profile, "deltaprof-perf: version %s", DP_VERSION);

	if (r == 0)
		r = add(profile, "process: pid %d, name %s", target->pid, target->comm);
	return r;
}

static int add_settings(struct dp_pprof *profile, const struct dp_session *session)
{
	int r = add_process(profile, session);

	if (r == 0)
		r = add(profile, "sampler: %s, armed 100 %% of the time",
			dp_session_is_kernel(session) ? "kernel (BPF programs deliver what is kept)"
						      : "direct (perf delivers every hit)");
	return r;
}

/* @copied: what the profile's stacks come from; else the callchain alone. */
static int add_stack_source(struct dp_pprof *profile, const struct dp_session_stats *now,
			    bool copied)
{
	if (!copied)
		return add(profile,
			   "stack source: kernel callchain (frame pointers), caller of the probed "
			   "function from its stack word");
	return add(profile, "stack source: registers and %u bytes of stack, unwound with CFI%s",
		   now->stack_bytes,
		   now->callchain ? ", continued with the kernel's callchain in code that keeps "
				    "frame pointers"
				  : "");
}

static int add_heap_settings(struct dp_pprof *profile, const struct dp_session *session,
			     const struct dp_session_stats *now)
{
	uint64_t rate_bytes = dp_session_options(session)->heap_rate_bytes;
	int r = add_stack_source(profile, now, now->heap_is_copied);

	if (r == 0 && rate_bytes <= 1)
		r = add(profile, "heap rate: 1 bytes (every allocation)");
	else if (r == 0)
		r = add(profile, "heap rate: %llu bytes (Poisson sampling, values scaled)",
			N(rate_bytes));
	return r;
}

static int add_allocations(struct dp_pprof *profile, const struct dp_session_stats *before,
			   const struct dp_session_stats *now)
{
	int r = add(profile,
		    "allocations: seen %llu, sampled %llu, skipped %llu, failed %llu, nested %llu, "
		    "abandoned %llu, unpaired %llu, forgotten %llu, noroom %llu",
		    GREW(heap.n_seen), GREW(heap.n_sampled),
		    GREW(heap.n_seen) - GREW(heap.n_sampled), GREW(pairing.n_failed),
		    GREW(pairing.n_nested), GREW(pairing.n_abandoned),
		    GREW(pairing.n_unpaired_returns), GREW(pairing.n_forgotten),
		    GREW(pairing.n_no_room));

	if (r == 0 && now->no_returns)
		return add(profile, "in use: not known, %s; failed calls count too",
			   now->no_returns);
	if (r == 0)
		r = add(profile,
			"live objects: tracked %llu, freed %llu, replaced %llu, untracked %llu, "
			"overflowed %llu",
			N(now->heap.n_live), GREW(heap.n_frees), GREW(heap.n_replaced),
			GREW(heap.n_untracked), GREW(heap.n_live_overflow));
	return r;
}

/*
 * The kernel counts hits by itself; once events have stopped, hit is the sum of all that follows it
 * (and of dropped and duplicate entries). Before that, what is still in flight makes the
 * difference.
 */
static int add_heap_totals(struct dp_pprof *profile, const struct dp_session_stats *now)
{
	const struct dp_sampler_stats *sampler = &now->sampler;
	int r = add(profile,
		    "entries since attach: hit %llu, returned %llu, failed %llu, nested %llu, "
		    "abandoned %llu, forgotten %llu, noroom %llu, pending %llu, lost %llu, "
		    "duplicate %llu, skipped %llu",
		    N(sampler->n_entry_hits), N(now->pairing.n_calls), N(now->pairing.n_failed),
		    N(now->pairing.n_nested), N(now->pairing.n_abandoned),
		    N(now->pairing.n_forgotten), N(now->pairing.n_no_room), N(now->n_pending),
		    N(sampler->n_entry_lost), N(sampler->n_entry_duplicates), N(now->n_skipped));

	return r;
}

static int add_block_rate(struct dp_pprof *profile, uint64_t rate_ns)
{
	if (rate_ns <= 1)
		return add(profile, "block rate: 1 ns (every wait)");
	return add(profile,
		   "block rate: %llu ns (shorter waits sampled by duration, values scaled)",
		   N(rate_ns));
}

static int add_contention_settings(struct dp_pprof *profile, const struct dp_session *session,
				   const struct dp_session_stats *now)
{
	int r = add_stack_source(profile, now, true);

	return r == 0 ? add_block_rate(profile, dp_session_options(session)->block_rate_ns) : r;
}

static int add_waits(struct dp_pprof *profile, const struct dp_session_stats *before,
		     const struct dp_session_stats *now)
{
	int r = add(profile,
		    "waits: ended %llu, sampled %llu, skipped %llu, lost %llu, not slept %llu, "
		    "unpaired %llu, forgotten %llu, noroom %llu",
		    GREW(contention.n_waits), GREW(contention.n_kept),
		    GREW(contention.n_waits) - GREW(contention.n_kept) - GREW(contention.n_lost),
		    GREW(contention.n_lost), GREW(contention.n_not_slept),
		    GREW(contention.n_unpaired_exits), GREW(contention.n_forgotten),
		    GREW(contention.n_no_room));

	if (r == 0)
		r = add(profile,
			"wait ends: released %llu, otherwise %llu, otherwise for a lock %llu (a "
			"timer, "
			"a signal, another process, a thread's end: not in mutex)",
			GREW(contention.n_released), GREW(contention.n_ended_otherwise),
			GREW(contention.n_lock_ended_otherwise));
	return r;
}

static int add_unwound(struct dp_pprof *profile, const struct dp_unwind_counts *before,
		       const struct dp_unwind_counts *now)
{
	return add(profile,
		   "unwound: stacks %llu, whole %llu, cut by the copy %llu, no CFI %llu, limit "
		   "%llu, broken %llu, frame pointer steps %llu, callchain steps %llu",
		   GREW(n_stacks), GREW(n_ends[DP_UNWIND_OUTERMOST]),
		   GREW(n_ends[DP_UNWIND_STACK_CUT]), GREW(n_ends[DP_UNWIND_NO_CFI]),
		   GREW(n_ends[DP_UNWIND_LIMIT]), GREW(n_ends[DP_UNWIND_BROKEN]), GREW(n_fp_steps),
		   GREW(n_chain_steps));
}

static int add_unwinding(struct dp_pprof *profile, const struct dp_session_stats *before,
			 const struct dp_session_stats *now)
{
	return add(profile,
		   "unwinding: without registers %llu, corrupt CFI %llu, CFI too large %llu",
		   GREW(n_stacks_missing), GREW(unwind.n_cfi_bad), GREW(unwind.n_files_no_room));
}

static int add_addresses(struct dp_pprof *profile, const struct dp_report_counts *counts)
{
	return add(profile, "addresses: in this profile %llu, unresolved %llu",
		   N(counts->n_locations), N(counts->n_unresolved));
}

static int add_records(struct dp_pprof *profile, const struct dp_session_stats *before,
		       const struct dp_session_stats *now, const struct dp_report_counts *counts)
{
	int r = add(profile,
		    "records: delivered %llu, lost %llu, dropped %llu, duplicate %llu, malformed "
		    "%llu, late %llu, unknown %llu",
		    GREW(sampler.n_delivered), GREW(sampler.n_lost), GREW(sampler.n_dropped),
		    GREW(sampler.n_duplicates), GREW(sampler.n_malformed),
		    GREW(sampler.n_out_of_order), GREW(n_unknown_probes));

	if (r == 0)
		r = add(profile,
			"stacks: in this profile %llu, known %llu, truncated %llu, cut %llu, "
			"overflowed "
			"%llu, without a row %llu, negative %llu",
			N(counts->n_stacks), N(now->n_stacks), N(now->n_stacks_truncated),
			N(now->n_stacks_cut), GREW(n_stacks_overflowed), N(counts->n_overflowed),
			N(counts->n_suppressed));
	if (r == 0)
		r = add(profile,
			"records since attach: hit %llu, delivered %llu, lost %llu, dropped %llu, "
			"duplicate %llu, pending %llu",
			N(now->sampler.n_hits), N(now->sampler.n_delivered),
			N(now->sampler.n_hits_lost), N(now->sampler.n_dropped),
			N(now->sampler.n_duplicates), N(now->n_pending));
	if (r == 0 && GREW(sampler.n_gaps) > 0)
		r = add(profile,
			"gaps: %llu times the threads that kept the probes in had all ended; what "
			"was called "
			"until others were found is missing",
			GREW(sampler.n_gaps));
	return r == 0 ? add_addresses(profile, counts) : r;
}

static int add_heap(struct dp_pprof *profile, const struct dp_session *session,
		    const struct dp_session_stats *before, const struct dp_session_stats *now)
{
	int r = add_heap_settings(profile, session, now);

	if (r == 0)
		r = add_allocations(profile, before, now);
	if (r == 0 && now->heap_is_copied)
		r = add_unwound(profile, &before->unwound_heap, &now->unwound_heap);
	return r;
}

static int add_contention(struct dp_pprof *profile, const struct dp_session *session,
			  const struct dp_session_stats *before, const struct dp_session_stats *now)
{
	int r = add_contention_settings(profile, session, now);

	if (r == 0)
		r = add_waits(profile, before, now);
	if (r == 0)
		r = add_unwound(profile, &before->unwound_waits, &now->unwound_waits);
	return r;
}

/* A target that writes no perf map needs no line about it. */
static int add_perf_map(struct dp_pprof *profile, const struct dp_session *session)
{
	struct dp_perf_map_stats stats;

	dp_session_get_perf_map_stats(session, &stats);
	if (stats.n_files == 0 && stats.n_refused == 0)
		return 0;
	return add(profile,
		   "perf map: lines %llu, bad %llu, without-room %llu, bytes-without-room %llu, "
		   "files %llu, read-anew %llu, refused %llu",
		   N(stats.text.n_lines), N(stats.text.n_bad), N(stats.text.n_over_limit),
		   N(stats.n_bytes_over_limit), N(stats.n_files), N(stats.n_rereads),
		   N(stats.n_refused));
}

static int add_debuginfod(struct dp_pprof *profile, const struct dp_session *session)
{
	struct dp_debuginfod_stats stats;

	if (!dp_session_get_debuginfod_stats(session, &stats))
		return 0;
	return add(profile,
		   "debuginfod: asked %llu, found %llu, missing %llu, failed %llu, pending %llu, "
		   "without-room %llu",
		   N(stats.n_asked), N(stats.n_found), N(stats.n_missing), N(stats.n_failed),
		   N(stats.n_asked - stats.n_found - stats.n_missing - stats.n_failed),
		   N(stats.n_over_limit));
}

/* Who has set a rate. @wish: what we were asked to. */
static const char *whose(uint64_t wish)
{
	return wish ? "written by us" : "the program's own";
}

static int add_go_events_rate(struct dp_pprof *profile, const char *name, uint64_t rate,
			      uint64_t wish, const struct dp_go_rates *rates)
{
	if (rate == 0)
		return add(profile, "%s: 0, the program has switched it off since the attach",
			   name);
	return add(profile, "%s: %llu (%s), %.0f ticks a second", name, N(rate), whose(wish),
		   rates->ticks_per_ns * 1e9);
}

/* What the program itself has set, or we in it. */
static int add_go_settings(struct dp_pprof *profile, enum dp_kind kind,
			   const struct dp_session *session, const struct dp_session_stats *now)
{
	const struct dp_go_wishes *wishes = &dp_session_options(session)->go_wishes;
	const struct dp_go_runtime *runtime = dp_session_go_runtime(session);
	const struct dp_go_rates *rates = &now->go.rates;
	int r = add(profile,
		    "source: what the runtime of %s keeps by itself, read from the process's "
		    "memory; nothing is probed",
		    runtime->version);

	if (r < 0)
		return r;
	if (kind == DP_KIND_HEAP && rates->heap_disabled && rates->heap_bytes <= 0)
		return add(profile, "heap rate: 0, Go's linker has switched memory profiling off, "
				    "as nothing in the program reads it");
	if (kind == DP_KIND_HEAP)
		return add(profile,
			   "heap rate: %lld bytes (%s, values scaled); figures as of its last "
			   "finished collections",
			   (long long)rates->heap_bytes, whose(wishes->heap_bytes));
	if (kind == DP_KIND_BLOCK)
		return add_go_events_rate(profile, "block rate in ticks", rates->block_ticks,
					  wishes->block_ns, rates);
	return add_go_events_rate(profile, "mutex fraction, 1 in", rates->mutex_fraction,
				  wishes->mutex_fraction, rates);
}

static int add_go_buckets(struct dp_pprof *profile, const struct dp_go_buckets_stats *before,
			  const struct dp_go_buckets_stats *now, uint64_t read_ns)
{
	return add(
		profile,
		"buckets: known %llu, read in %llu us, torn %llu, kept as they were %llu, refused "
		"%llu, without room %llu, unreadable %llu, begun again %llu",
		N(now->n_buckets), N(read_ns / 1000), GREW(n_torn), GREW(n_kept), GREW(n_refused),
		GREW(n_without_room), GREW(n_unreadable), GREW(n_cycle_changes));
}

/* A profile of what a Go program's runtime keeps. */
static int add_go(struct dp_pprof *profile, enum dp_kind kind, const struct dp_session *session,
		  const struct dp_session_stats *before, const struct dp_session_stats *now,
		  const struct dp_report_counts *counts)
{
	enum dp_go_list list = dp_kind_go_list(kind);
	int r = add_process(profile, session);

	if (r == 0)
		r = add_go_settings(profile, kind, session, now);
	if (r == 0)
		r = add_go_buckets(profile, &before->go.lists[list], &now->go.lists[list],
				   now->go.read_ns[list]);
	if (r == 0 && GREW(go.n_failed) > 0)
		r = add(profile,
			"readings: %llu failed, the process was ending or executing another "
			"program; what it did since the last one is missing",
			GREW(go.n_failed));
	if (r == 0 && GREW(go.n_late) > 0)
		r = add(profile,
			"late: %llu buckets could not be read whole at the attach; what they "
			"counted "
			"from then until this profile is missing",
			GREW(go.n_late));
	if (r == 0)
		r = add(profile,
			"stacks: in this profile %llu, known %llu, overflowed %llu, without a row "
			"%llu, negative %llu",
			N(counts->n_stacks), N(now->n_stacks), GREW(n_stacks_overflowed),
			N(counts->n_overflowed), N(counts->n_suppressed) + GREW(go.n_negative));
	return r == 0 ? add_addresses(profile, counts) : r;
}

/* Goroutines' waits, seen from probes. */
static int add_go_waits(struct dp_pprof *profile, const struct dp_session *session,
			const struct dp_session_stats *before, const struct dp_session_stats *now)
{
	uint64_t rate_ns = dp_session_options(session)->block_rate_ns;
	const struct dp_kernel_counts *kernel = &now->sampler.kernel;
	int r = add(profile,
		    "source: probes on runtime.gopark and runtime.ready of %s, as the program has "
		    "this profile off",
		    dp_session_go_runtime(session)->version);

	if (r == 0)
		r = add(profile, "stack source: frame pointers, which Go code keeps");
	if (r == 0)
		r = add_block_rate(profile, rate_ns);
	if (r == 0)
		r = add(profile,
			"goroutine waits: ended %llu, sampled %llu, skipped %llu, lost %llu, "
			"internal %llu, forgotten %llu, noroom %llu, stacks cut %llu",
			GREW(go_waits.n_waits), GREW(go_waits.n_kept), GREW(go_waits.n_skipped),
			N(kernel->n_go_kept_lost - before->sampler.kernel.n_go_kept_lost),
			GREW(go_waits.n_internal), GREW(go_waits.n_forgotten),
			GREW(go_waits.n_no_room), GREW(go_waits.n_truncated));
	if (r == 0)
		r = add(profile, "locks whose release was not found: %llu (in block, not in mutex)",
			GREW(go_waits.n_locks_otherwise));
	return r;
}

int dp_comments_add(struct dp_pprof *profile, enum dp_kind kind, const struct dp_session *session,
		    const struct dp_session_stats *before, const struct dp_session_stats *now,
		    const struct dp_report_counts *counts)
{
	bool heap = kind == DP_KIND_HEAP || kind == DP_KIND_CHEAP;
	int r;

	if (dp_session_go_source(session, kind))
		return add_go(profile, kind, session, before, now, counts);
	r = add_settings(profile, session);
	if (r == 0 && heap)
		r = add_heap(profile, session, before, now);
	if (r == 0 && !heap && dp_session_go_runtime(session))
		r = add_go_waits(profile, session, before, now);
	else if (r == 0 && !heap)
		r = add_contention(profile, session, before, now);
	if (r == 0 && (heap || !dp_session_go_runtime(session)))
		r = add_unwinding(profile, before, now);
	if (r == 0)
		r = add_records(profile, before, now, counts);
	if (r == 0 && heap)
		r = add_heap_totals(profile, now);
	if (r == 0)
		r = add_perf_map(profile, session);
	if (r == 0)
		r = add_debuginfod(profile, session);
	return r;
}
