/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: an interval is cut by the events' own time. Everything stamped before the cut is
 * taken in, everything after it stays queued, so consecutive profiles neither share nor miss an
 * event however late the rings are read.
 */
#include "src/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "encode/gzip.h"
#include "encode/pprof.h"
#include "perf/arch.h"
#include "src/base/frame.h"
#include "src/comments.h"
#include "src/delta.h"
#include "src/report.h"
#include "src/stack.h"
#include "symbolize/normalize.h"
#include "symbolize/space.h"
#include "symbolize/symbolizer.h"

#define MAX_STACKS (1u << 20)
#define MAX_FRAMES ((size_t)1 << 26)
#define MAX_LIVE ((size_t)1 << 26)
#define MAX_THREADS ((size_t)1 << 16)
#define STACK_CACHE_SLOTS 8192
/* Attaches that met a library with an allocator being loaded meanwhile, before we give up. */
#define MAX_ATTEMPTS 5

struct dp_session {
	struct dp_session_options options;
	struct dp_target target;
	struct dp_modules *modules;
	struct dp_space *space;
	struct dp_probes *probes;
	struct dp_sampler *sampler;
	struct dp_stacks *stacks;
	struct dp_stack_cache *cache;
	struct dp_heap *heap;
	struct dp_pairing *pairing;
	struct dp_delta *delta;
	struct dp_symbolizer *symbolizer;
	struct pollfd *pollfds;
	size_t n_pollfds;
	uint64_t n_stacks_truncated, n_stacks_cut;
	struct dp_session_stats reported; /* as of the last profile that was written */
	size_t max_callchain;
	uint64_t n_unknown_probes;
	enum dp_session_state state;
};

/* What the kernel limits callchains to. Source: Documentation/admin-guide/sysctl/kernel.rst. */
static size_t read_max_callchain(void)
{
	FILE *file = fopen("/proc/sys/kernel/perf_event_max_stack", "re");
	unsigned limit = 127;

	if (!file)
		return limit;
	if (fscanf(file, "%u", &limit) != 1)
		limit = 127;
	fclose(file);
	return limit;
}

/* dp_intern_stack_fn: called for sampled allocations only. */
static uint32_t intern(void *context, const struct dp_event *event)
{
	struct dp_session *session = context;
	uint64_t words[DP_STACK_MAX_FRAMES + 1];
	uint64_t frames[DP_STACK_MAX_FRAMES + 1];
	size_t n = event->entry.n_callchain;
	uint64_t generation = dp_space_generation(session->space);
	struct dp_normalize_stats stats = {0};
	size_t n_frames;
	uint32_t n_known, id;

	if (n > DP_STACK_MAX_FRAMES)
		n = DP_STACK_MAX_FRAMES;
	memcpy(words, event->entry.callchain, n * sizeof(*words));
	words[n] = event->entry.stack0;
	if (dp_stack_cache_get(session->cache, generation, words, n + 1, &id) == 1)
		return id;
	n_frames = dp_normalize_entry(session->space, words, n, event->entry.stack0,
				      session->max_callchain, frames, &stats);
	n_known = dp_stacks_count(session->stacks);
	id = dp_stacks_intern(session->stacks, frames, n_frames);
	if (dp_stacks_count(session->stacks) > n_known) {
		session->n_stacks_truncated += stats.n_stacks_truncated;
		session->n_stacks_cut += stats.n_frames_invented > 0;
	}
	dp_stack_cache_put(session->cache, generation, words, n + 1, id);
	return id;
}

static int open_tables(struct dp_session *session)
{
	const struct dp_heap_options heap = {.rate_bytes = session->options.heap_rate_bytes,
					     .seed = session->options.seed,
					     .max_live = MAX_LIVE};
	const struct dp_delta_spec spec = dp_heap_delta_spec(MAX_STACKS + 1);
	int r;

	r = dp_stacks_new(&session->stacks, MAX_STACKS, MAX_FRAMES);
	if (r == 0)
		r = dp_stack_cache_new(&session->cache, STACK_CACHE_SLOTS);
	if (r == 0)
		r = dp_heap_new(&session->heap, &heap);
	if (r == 0)
		r = dp_pairing_new(&session->pairing, session->heap, MAX_THREADS, intern, session);
	if (r == 0)
		r = dp_delta_new(&session->delta, &spec);
	if (r == 0)
		r = dp_modules_new(&session->modules);
	if (r == 0)
		r = dp_space_new(&session->space, session->modules, session->options.pid);
	if (r == 0)
		r = dp_symbolizer_new(&session->symbolizer, session->modules);
	return r;
}

static int open_sampler(struct dp_session *session, struct dp_error *err)
{
	struct dp_sampler_options options = {.pid = session->options.pid};
	struct dp_probe_site *sites;
	const struct dp_probe *list;
	int r;

	list = dp_probes_list(session->probes, &options.n_sites);
	sites = calloc(options.n_sites, sizeof(*sites));
	if (!sites)
		return dp_error_set(err, -ENOMEM, "pid %d: out of memory", options.pid);
	for (size_t i = 0; i < options.n_sites; i++)
		sites[i] = (struct dp_probe_site){
			.fd = dp_module_fd(session->modules, dp_frame_module(list[i].frame)),
			.file_off = dp_frame_offset(list[i].frame),
			.is_free = list[i].function->kind == DP_ALLOC_FREE};
	options.sites = sites;
	r = dp_sampler_open(&session->sampler, &options, err);
	free(sites);
	return r;
}

/*
 * Probes what is mapped now, then looks again once mappings are being reported: whatever was mapped
 * in between is seen by one or the other. Returns 0, 1 if another allocator appeared meanwhile, or
 * a negative errno.
 */
static int attach_once(struct dp_session *session, struct dp_error *err)
{
	struct dp_probes *again = NULL;
	int r;

	r = dp_space_load(session->space, err);
	if (r == 0)
		r = dp_probes_find(&session->probes, session->modules, session->options.pid, err);
	if (r == 0)
		r = open_sampler(session, err);
	if (r == 0)
		r = dp_space_load(session->space, err);
	if (r == 0)
		r = dp_probes_find(&again, session->modules, session->options.pid, err);
	if (r == 0 && !dp_probes_equal(session->probes, again)) {
		dp_sampler_close(session->sampler);
		dp_probes_free(session->probes);
		session->sampler = NULL;
		session->probes = NULL;
		r = 1;
	}
	dp_probes_free(again);
	return r;
}

static int make_pollfds(struct dp_session *session)
{
	size_t n;
	const struct pollfd *rings = dp_sampler_pollfds(session->sampler, &n);

	session->pollfds = calloc(n + 1, sizeof(*session->pollfds));
	if (!session->pollfds)
		return -ENOMEM;
	memcpy(session->pollfds, rings, n * sizeof(*rings));
	session->pollfds[n] = (struct pollfd){.fd = session->target.pidfd, .events = POLLIN};
	session->n_pollfds = n + 1;
	return 0;
}

int dp_session_open(struct dp_session **ret, const struct dp_session_options *options,
		    struct dp_error *err)
{
	struct dp_session *session = calloc(1, sizeof(*session));
	int r;

	if (!session)
		return dp_error_set(err, -ENOMEM, "pid %d: out of memory", options->pid);
	session->options = *options;
	session->target.pidfd = -1;
	session->max_callchain = read_max_callchain();
	r = dp_target_open(&session->target, options->pid, err);
	if (r < 0)
		goto out;
	r = open_tables(session);
	if (r < 0) {
		dp_error_set(err, r, "pid %d: out of memory", options->pid);
		goto out;
	}
	r = 1;
	for (int i = 0; r == 1 && i < MAX_ATTEMPTS; i++)
		r = attach_once(session, err);
	if (r == 1)
		r = dp_error_set(
			err, -EAGAIN,
			"pid %d: keeps loading allocators faster than they can be probed; try "
			"again",
			options->pid);
	if (r == 0)
		r = make_pollfds(session);
	if (r < 0)
		goto out;
	dp_sampler_enable(session->sampler);
	*ret = session;
	return 0;
out:
	dp_session_close(session);
	return r;
}

void dp_session_close(struct dp_session *session)
{
	if (!session)
		return;
	dp_sampler_close(session->sampler);
	dp_pairing_free(session->pairing);
	dp_heap_free_all(session->heap);
	dp_delta_free(session->delta);
	dp_stack_cache_free(session->cache);
	dp_stacks_free(session->stacks);
	dp_symbolizer_free(session->symbolizer);
	dp_probes_free(session->probes);
	dp_space_free(session->space);
	dp_modules_free(session->modules);
	dp_target_close(&session->target);
	free(session->pollfds);
	free(session);
}

const struct pollfd *dp_session_pollfds(const struct dp_session *session, size_t *ret_n)
{
	*ret_n = session->n_pollfds;
	return session->pollfds;
}

static int take_call(struct dp_session *session, const struct dp_event *event)
{
	uint64_t avma = event->type == DP_EVENT_ALLOC_RETURN ? event->ret.probe_avma
							     : event->entry.probe_avma;
	const struct dp_probe *probe =
		dp_probes_at(session->probes, dp_space_frame(session->space, avma));

	if (!probe) {
		session->n_unknown_probes++;
		return 0;
	}
	switch (event->type) {
	case DP_EVENT_ALLOC_ENTRY:
		return dp_pairing_entry(session->pairing, event, probe->function);
	case DP_EVENT_ALLOC_RETURN:
		return dp_pairing_return(session->pairing, event, probe->function,
					 probe->dx_is_result);
	default:
		dp_pairing_free_call(session->pairing, event, probe->function);
		return 0;
	}
}

static int take_event(struct dp_session *session, const struct dp_event *event)
{
	bool ours = event->pid == (uint32_t)session->options.pid;

	switch (event->type) {
	case DP_EVENT_ALLOC_ENTRY:
	case DP_EVENT_ALLOC_RETURN:
	case DP_EVENT_FREE:
		return take_call(session, event);
	case DP_EVENT_MMAP:
		if (!ours)
			return 0;
		return dp_space_add(session->space, event->mmap.start,
				    event->mmap.start + event->mmap.length_bytes,
				    event->mmap.file_off, event->mmap.path);
	case DP_EVENT_COMM:
		if (ours && event->comm.exec)
			session->state = DP_SESSION_EXECED;
		return 0;
	case DP_EVENT_EXIT:
		if (ours)
			dp_pairing_thread_exit(session->pairing, event->tid);
		return 0;
	case DP_EVENT_LOST:
		dp_pairing_gap(session->pairing);
		return 0;
	case DP_EVENT_FORK:
	case DP_EVENT_FUTEX_ENTER:
	case DP_EVENT_FUTEX_EXIT:
	case DP_EVENT_WAKING:
		return 0;
	}
	return 0;
}

int dp_session_pump(struct dp_session *session, uint64_t before_ns)
{
	struct dp_event event;
	int r = 0;

	if (session->state == DP_SESSION_RUNNING && dp_target_has_ended(&session->target))
		session->state = DP_SESSION_ENDED;
	dp_sampler_round(session->sampler);
	while (r == 0 && dp_sampler_next(session->sampler, before_ns, &event) == 1)
		r = take_event(session, &event);
	return r;
}

int dp_session_cut(struct dp_session *session, uint64_t cut_ns)
{
	int r = dp_session_pump(session, cut_ns);

	while (r == 0 && dp_sampler_horizon_ns(session->sampler) < cut_ns)
		r = dp_session_pump(session, cut_ns);
	return r;
}

int dp_session_stop(struct dp_session *session)
{
	dp_sampler_disable(session->sampler);
	return dp_session_cut(session, dp_sampler_now_ns());
}

enum dp_session_state dp_session_state(const struct dp_session *session)
{
	return session->state;
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

static int new_heap_profile(const struct dp_session *session, int64_t start_unix_ns,
			    uint64_t duration_ns, struct dp_pprof **ret)
{
	static const struct dp_value_type types[] = {{"alloc_objects", "count"},
						     {"alloc_space", "bytes"},
						     {"inuse_objects", "count"},
						     {"inuse_space", "bytes"}};
	char dropped[512];
	const struct dp_pprof_header header = {.sample_types = types,
					       .n_sample_types = 4,
					       .period_type = {"space", "bytes"},
					       .period = (int64_t)session->options.heap_rate_bytes,
					       .default_sample_type = "alloc_space",
					       .time_nanos = start_unix_ns,
					       .duration_nanos = (int64_t)duration_ns,
					       .drop_frames = dropped};

	name_dropped_frames(dropped, sizeof(dropped));
	return dp_pprof_new(ret, &header);
}

/* Everything of a profile but its delivery. */
static int build_heap(struct dp_session *session, struct dp_pprof *profile,
		      const struct dp_session_stats *now)
{
	const struct dp_report_source source = {.stacks = session->stacks,
						.space = session->space,
						.modules = session->modules,
						.probes = session->probes,
						.symbolizer = session->symbolizer};
	const struct dp_delta_row *rows;
	struct dp_report_counts counts = {0};
	size_t n_rows;
	int r;

	dp_delta_begin(session->delta);
	r = dp_heap_feed(session->heap, session->delta);
	if (r == -ENOSPC)
		r = 0; /* counted by the delta */
	if (r == 0)
		r = dp_delta_end(session->delta, &rows, &n_rows);
	if (r == 0)
		r = dp_report_rows(profile, &source, rows, n_rows, &counts);
	if (r == 0)
		r = dp_comments_heap(profile, &session->target, session->options.heap_rate_bytes,
				     &session->reported, now, &counts);
	return r;
}

int dp_session_write_heap(struct dp_session *session, int64_t start_unix_ns, uint64_t duration_ns,
			  dp_session_writer *write, void *context, size_t *ret_bytes,
			  struct dp_error *err)
{
	struct dp_pprof *profile = NULL;
	struct dp_session_stats now;
	uint8_t *packed = NULL, *zipped = NULL;
	size_t n_packed, n_zipped = 0;
	int r;

	dp_session_get_stats(session, &now);
	r = new_heap_profile(session, start_unix_ns, duration_ns, &profile);
	if (r == 0)
		r = build_heap(session, profile, &now);
	if (r == 0)
		r = dp_pprof_pack(profile, &packed, &n_packed);
	if (r == 0)
		r = dp_gzip(packed, n_packed, &zipped, &n_zipped);
	if (r < 0)
		dp_error_set(err, r, "pid %d: heap profile: %s", session->options.pid,
			     strerror(-r));
	else
		r = write(context, zipped, n_zipped, err);
	if (r < 0) {
		dp_delta_abort(session->delta);
	} else {
		dp_delta_commit(session->delta);
		session->reported = now;
		if (ret_bytes)
			*ret_bytes = n_zipped;
	}
	free(zipped);
	free(packed);
	dp_pprof_free(profile);
	return r;
}

void dp_session_get_stats(struct dp_session *session, struct dp_session_stats *ret)
{
	dp_sampler_get_stats(session->sampler, &ret->sampler);
	ret->pairing = *dp_pairing_get_stats(session->pairing);
	ret->heap = *dp_heap_get_stats(session->heap);
	ret->n_stacks_truncated = session->n_stacks_truncated;
	ret->n_stacks_cut = session->n_stacks_cut;
	ret->n_pending = dp_pairing_pending(session->pairing);
	ret->n_stacks = dp_stacks_count(session->stacks);
	ret->n_stacks_overflowed = dp_stacks_overflowed(session->stacks);
	ret->n_unknown_probes = session->n_unknown_probes;
}

const struct dp_target *dp_session_target(const struct dp_session *session)
{
	return &session->target;
}

const struct dp_probes *dp_session_probes(const struct dp_session *session)
{
	return session->probes;
}

const struct dp_modules *dp_session_modules(const struct dp_session *session)
{
	return session->modules;
}

void dp_session_get_size(const struct dp_session *session, size_t *ret_threads, size_t *ret_fds)
{
	dp_sampler_get_size(session->sampler, ret_threads, ret_fds);
}
