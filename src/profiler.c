/* SPDX-License-Identifier: MIT */
#include "src/profiler.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "encode/gzip.h"
#include "encode/pprof.h"
#include "src/base/array.h"
#include "src/comments.h"
#include "src/delta.h"
#include "src/locks.h"
#include "src/report.h"

#define MAX_ROWS (1u << 22)
#define NS_PER_SECOND INT64_C(1000000000)

struct dp_profiler {
	struct dp_session *session;
	enum dp_kind kind;
	const struct dp_go_source *go; /* NULL: it is not what a Go program's runtime keeps */
	struct dp_delta *delta;
	uint64_t start_ns;
	struct dp_delta_row *rows; /* collected */
	size_t n_rows, rows_capacity;
	struct dp_report_stacks stacks;
	uint64_t built_ns;		   /* where the profile ends that was built last */
	int64_t unix_offset_ns;		   /* CLOCK_REALTIME minus CLOCK_MONOTONIC */
	struct dp_session_stats delivered; /* as of the last profile that was delivered */
	struct dp_session_stats built;	   /* as of the one built last */
};

static int64_t to_ns(const struct timespec *time)
{
	return (int64_t)time->tv_sec * (int64_t)NS_PER_SECOND + time->tv_nsec;
}

/*
 * Between the two clocks' readings we may be descheduled: of several tries the one that took the
 * shortest is the truest.
 */
static int64_t unix_offset_ns(void)
{
	int64_t offset_ns = 0, shortest_ns = INT64_MAX;

	for (int i = 0; i < 16; i++) {
		struct timespec before, real, after;
		int64_t before_ns, took_ns;

		clock_gettime(CLOCK_MONOTONIC, &before);
		clock_gettime(CLOCK_REALTIME, &real);
		clock_gettime(CLOCK_MONOTONIC, &after);
		before_ns = to_ns(&before);
		took_ns = to_ns(&after) - before_ns;
		if (took_ns >= shortest_ns)
			continue;
		shortest_ns = took_ns;
		offset_ns = to_ns(&real) - (before_ns + took_ns / 2);
	}
	return offset_ns;
}

int dp_profiler_new(struct dp_profiler **ret, struct dp_session *session, enum dp_kind kind,
		    uint64_t start_ns)
{
	const struct dp_delta_spec spec = dp_session_delta_spec(session, kind, MAX_ROWS);
	struct dp_profiler *profiler = calloc(1, sizeof(*profiler));
	int r;

	if (!profiler)
		return -ENOMEM;
	r = dp_delta_new(&profiler->delta, &spec);
	if (r < 0) {
		free(profiler);
		return r;
	}
	profiler->session = session;
	profiler->kind = kind;
	profiler->go = dp_session_go_source(session, kind);
	profiler->start_ns = start_ns;
	profiler->unix_offset_ns = unix_offset_ns();
	*ret = profiler;
	return 0;
}

void dp_profiler_free(struct dp_profiler *profiler)
{
	if (!profiler)
		return;
	dp_delta_free(profiler->delta);
	dp_report_clear_stacks(&profiler->stacks);
	free(profiler->rows);
	free(profiler);
}

static bool is_heap(enum dp_kind kind)
{
	return kind == DP_KIND_HEAP || kind == DP_KIND_CHEAP;
}

/* The probed functions' names as one regular expression: pprof leaves these leaf frames out of what
 * it shows. */
static void name_dropped_frames(char *ret, size_t n_bytes)
{
	size_t n_functions, at = 0;
	const struct dp_alloc_function *functions = dp_alloc_functions(&n_functions);

	*ret = '\0';
	for (size_t i = 0; i < n_functions && at < n_bytes; i++) {
		if (functions[i].kind != DP_ALLOC_FREE)
			at += (size_t)snprintf(ret + at, n_bytes - at, "%s%s", at ? "|" : "",
					       functions[i].name);
	}
}

static int new_profile(const struct dp_profiler *profiler, uint64_t cut_ns, struct dp_pprof **ret)
{
	static const struct dp_value_type heap_types[] = {{"alloc_objects", "count"},
							  {"alloc_space", "bytes"},
							  {"inuse_objects", "count"},
							  {"inuse_space", "bytes"}};
	static const struct dp_value_type wait_types[] = {{"contentions", "count"},
							  {"delay", "nanoseconds"}};
	const struct dp_session_options *options = dp_session_options(profiler->session);
	char dropped[512];
	struct dp_pprof_header header = {.time_nanos = (int64_t)profiler->start_ns +
						       profiler->unix_offset_ns,
					 .duration_nanos = (int64_t)(cut_ns - profiler->start_ns)};

	if (is_heap(profiler->kind)) {
		header.sample_types = heap_types;
		header.n_sample_types = 4;
		header.period_type = (struct dp_value_type){"space", "bytes"};
		header.default_sample_type = "alloc_space";
		if (profiler->go) {
			header.period = profiler->built.go.rates.heap_bytes;
		} else {
			name_dropped_frames(dropped, sizeof(dropped));
			header.period = (int64_t)options->heap_rate_bytes;
			header.drop_frames = dropped;
		}
	} else {
		header.sample_types = wait_types;
		header.n_sample_types = 2;
		header.period_type = (struct dp_value_type){"contentions", "count"};
		header.period = 1;
		header.default_sample_type = "delay";
	}
	return dp_pprof_new(ret, &header);
}

static const char *wait_label(uint64_t tag)
{
	return dp_wait_kind_name((enum dp_wait_kind)tag);
}

/* Keeps the delta's rows, as they are to be shown. Returns 0 or -ENOMEM. */
static int take_rows(struct dp_profiler *profiler, const struct dp_delta_row *rows, size_t n)
{
	bool scales = profiler->go && is_heap(profiler->kind);
	int r = dp_array_reserve((void **)&profiler->rows, &profiler->rows_capacity, n,
				 sizeof(*profiler->rows));

	if (r < 0)
		return r;
	profiler->n_rows = 0;
	for (size_t i = 0; i < n; i++) {
		struct dp_delta_row *row = &profiler->rows[profiler->n_rows];

		*row = rows[i];
		if (!scales || dp_go_source_scale(&profiler->built.go.rates, row))
			profiler->n_rows++;
	}
	return 0;
}

int dp_profiler_collect(struct dp_profiler *profiler, uint64_t cut_ns)
{
	const struct dp_stacks *stacks = dp_session_stacks(profiler->session);
	const struct dp_delta_row *rows;
	size_t n_rows;
	int r;

	/* A cut before the last profile's end is at that end. */
	if (cut_ns < profiler->start_ns)
		cut_ns = profiler->start_ns;
	profiler->built_ns = cut_ns;
	dp_report_clear_stacks(&profiler->stacks);
	dp_delta_begin(profiler->delta);
	r = dp_session_feed(profiler->session, profiler->kind, profiler->delta);
	dp_session_get_stats(profiler->session, &profiler->built);
	if (r == -ENOSPC)
		r = 0; /* counted by the delta, and said in the comments */
	if (r == 0)
		r = dp_delta_end(profiler->delta, &rows, &n_rows);
	if (r == 0)
		r = take_rows(profiler, rows, n_rows);
	if (r == 0)
		r = dp_report_take_stacks(&profiler->stacks, stacks, profiler->rows,
					  profiler->n_rows);
	if (r < 0)
		dp_delta_abort(profiler->delta);
	return r;
}

/* Whether its stacks are those of goroutines. */
static bool is_of_go_code(const struct dp_profiler *profiler)
{
	return dp_session_go_runtime(profiler->session) && profiler->kind != DP_KIND_CHEAP;
}

/* As Go's own tools trim the stacks of a heap: by the version that made them. */
static enum dp_go_trim choose_trim(const struct dp_profiler *profiler)
{
	if (!is_heap(profiler->kind))
		return DP_GO_TRIM_NOTHING;
	return dp_session_go_runtime(profiler->session)->layout.trims_internal_runtime
		       ? DP_GO_TRIM_INTERNAL_RUNTIME
		       : DP_GO_TRIM_RUNTIME;
}

/* As Go's own tools label: a heap's samples with the objects' size, waits with nothing. */
static void choose_labels(const struct dp_profiler *profiler, struct dp_report_source *source)
{
	if (profiler->go && is_heap(profiler->kind)) {
		source->label_key = "bytes";
	} else if (!is_of_go_code(profiler) && profiler->kind == DP_KIND_BLOCK) {
		source->label_key = "wait";
		source->label_text = wait_label;
	}
}

static int fill(struct dp_profiler *profiler, struct dp_pprof *profile)
{
	struct dp_report_source source = *dp_session_source(profiler->session);
	struct dp_report_counts counts = {0};
	int r;

	choose_labels(profiler, &source);
	if (profiler->go || !is_heap(profiler->kind))
		source.probes = NULL;
	source.is_go = is_of_go_code(profiler);
	if (source.is_go)
		source.go_trim = choose_trim(profiler);
	r = dp_report_rows(profile, &source, &profiler->stacks, profiler->rows, profiler->n_rows,
			   &counts);
	counts.n_overflowed = dp_delta_overflowed(profiler->delta);
	counts.n_suppressed = dp_delta_suppressed(profiler->delta);
	if (r == 0)
		r = dp_comments_add(profile, profiler->kind, profiler->session,
				    &profiler->delivered, &profiler->built, &counts);
	return r;
}

int dp_profiler_build(struct dp_profiler *profiler, uint8_t **ret, size_t *ret_bytes)
{
	struct dp_pprof *profile = NULL;
	uint8_t *packed = NULL;
	size_t n_packed;
	int r;

	r = new_profile(profiler, profiler->built_ns, &profile);
	if (r == 0)
		r = fill(profiler, profile);
	if (r == 0)
		r = dp_pprof_pack(profile, &packed, &n_packed);
	if (r == 0)
		r = dp_gzip(packed, n_packed, ret, ret_bytes);
	if (r < 0)
		dp_delta_abort(profiler->delta);
	free(packed);
	dp_pprof_free(profile);
	dp_report_clear_stacks(&profiler->stacks);
	return r;
}

void dp_profiler_commit(struct dp_profiler *profiler)
{
	dp_delta_commit(profiler->delta);
	profiler->delivered = profiler->built;
	profiler->start_ns = profiler->built_ns;
}

void dp_profiler_abort(struct dp_profiler *profiler)
{
	dp_delta_abort(profiler->delta);
}

int64_t dp_profiler_start_unix_ns(const struct dp_profiler *profiler)
{
	return (int64_t)profiler->start_ns + profiler->unix_offset_ns;
}
