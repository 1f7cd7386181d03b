/* SPDX-License-Identifier: MIT */
/*
 * The attach. Probes are chosen by what is mapped, which may change meanwhile: the process is
 * looked at again once its mappings are being reported.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/frame.h"
#include "src/base/proc_stat.h"
#include "src/session_parts.h"
#include "symbolize/go_binary.h"

#define MAX_STACKS (1u << 20)
#define MAX_FRAMES ((size_t)1 << 26)
#define MAX_LIVE ((size_t)1 << 26)
#define MAX_THREADS ((size_t)1 << 16)
#define STACK_CACHE_SLOTS 8192
/* Attaches that met a library with an allocator being loaded meanwhile, before we give up. */
#define MAX_ATTEMPTS 5

/* dp_is_allocating_fn */
static bool is_allocating(void *context, uint64_t avma)
{
	const struct dp_session *session = context;

	return dp_probes_is_allocating(session->probes, dp_space_frame(session->space, avma));
}

static int open_heap(struct dp_session *session)
{
	const struct dp_heap_options heap = {.rate_bytes = session->options.heap_rate_bytes,
					     .seed = session->options.seed,
					     .max_live = MAX_LIVE};
	bool copied = session->options.heap_unwound;
	int r = dp_heap_new(&session->heap, &heap);

	if (r == 0)
		r = dp_pairing_new(&session->pairing, session->heap, MAX_THREADS,
				   copied ? dp_interner_entry_unwound : dp_interner_entry,
				   &session->interner);
	if (r == 0 && session->options.without_returns)
		dp_pairing_without_returns(session->pairing, is_allocating, session);
	return r;
}

static int open_contention(struct dp_session *session)
{
	const struct dp_contention_options contention = {.pid = (uint64_t)session->options.pid,
							 .rate_ns = session->options.block_rate_ns,
							 .seed = ~session->options.seed,
							 .max_threads = MAX_THREADS};
	int r = dp_locks_new(&session->locks, session->modules);

	if (r == 0)
		r = dp_contention_new(&session->contention, &contention, dp_interner_wait,
				      &session->interner);
	return r;
}

static int open_names(struct dp_session *session)
{
	const struct dp_session_options *options = &session->options;
	int r = dp_symbolizer_new(&session->symbolizer, session->modules);

	if (r == 0)
		r = dp_perf_map_new(&session->perf_map, options->pid, session->target.pidfd);
	if (r == 0)
		dp_symbolizer_set_perf_map(session->symbolizer, session->perf_map);
	if (r == 0 && options->debuginfod && options->pid != getpid())
		r = dp_symbolizer_use_debuginfod(session->symbolizer);
	return r < 0 ? r : 0;
}

/* What any process needs. */
static int open_tables(struct dp_session *session)
{
	int r;

	r = dp_stacks_new(&session->stacks, MAX_STACKS, MAX_FRAMES);
	if (r == 0)
		r = dp_stack_cache_new(&session->cache, STACK_CACHE_SLOTS);
	if (r == 0)
		r = dp_modules_new(&session->modules);
	if (r == 0)
		r = dp_space_new(&session->space, session->modules, session->options.pid);
	if (r == 0)
		r = open_names(session);
	if (r == 0)
		r = dp_unwinder_new(&session->unwinder, session->modules);
	return r;
}

/*
 * Of waits that a Go program's runtime keeps no profile of. A program that they cannot be seen in
 * has its other profiles all the same.
 */
static int open_go_waits(struct dp_session *session)
{
	const struct dp_session_options *options = &session->options;
	int r;

	if (dp_go_source_has(session->go, DP_GO_BLOCK) &&
	    dp_go_source_has(session->go, DP_GO_MUTEX))
		return 0;
	r = dp_go_watch_open(&session->go_watch, dp_go_source_runtime(session->go),
			     session->modules, session->space, session->stacks,
			     options->block_rate_ns, ~options->seed, &session->why_no_go_waits);
	if (r == 0 || r == -ENOMEM)
		return r;
	dp_go_watch_close(&session->go_watch);
	return 0;
}

/* What takes events in. */
static int open_engines(struct dp_session *session)
{
	int r = 0;

	if (session->probes_heap)
		r = open_heap(session);
	if (r == 0 && session->options.contention)
		r = session->go ? open_go_waits(session) : open_contention(session);
	session->interner = (struct dp_interner){.space = session->space,
						 .stacks = session->stacks,
						 .cache = session->cache,
						 .unwinder = session->unwinder,
						 .locks = session->locks,
						 .pairing = session->pairing,
						 .max_callchain = dp_interner_max_callchain()};
	return r;
}

/* dp_sampler_options.wants_stack */
static bool wants_stack(void *context, const struct dp_event *event)
{
	struct dp_session *session = context;
	const struct dp_probe *probe = dp_probes_at(
		session->probes, dp_space_frame(session->space, event->entry.probe_avma));

	return !probe || dp_pairing_wants_stack(session->pairing, event, probe->function);
}

static enum dp_kernel_kind kind_of(enum dp_alloc_kind kind)
{
	static const enum dp_kernel_kind kinds[] = {[DP_ALLOC_NEW] = DP_KERNEL_NEW,
						    [DP_ALLOC_RESIZE] = DP_KERNEL_RESIZE,
						    [DP_ALLOC_OUT] = DP_KERNEL_OUT,
						    [DP_ALLOC_FREE] = DP_KERNEL_FREE};

	return kinds[kind];
}

static struct dp_probe_site site_of(const struct dp_session *session, const struct dp_probe *probe)
{
	const struct dp_alloc_function *function = probe->function;
	struct dp_probe_site site = {
		.fd = dp_module_fd(session->modules, dp_frame_module(probe->frame)),
		.file_off = dp_frame_offset(probe->frame),
		.kind = kind_of(function->kind),
		.i_size = (int8_t)function->i_size,
		.i_count = (int8_t)function->i_count,
		.i_pointer = (int8_t)function->i_pointer,
		.i_align = (int8_t)function->i_align,
		.aligned = function->aligned};
	struct dp_space_range range;
	uint64_t n_bytes = probe->size_bytes;

	/* Of unknown size: as dp_probes_is_allocating() has it. */
	if (n_bytes <= probe->offset_bytes)
		n_bytes = probe->offset_bytes + 1;
	if (dp_space_mapping_of(session->space, probe->frame, &range) == 0) {
		site.start_avma =
			range.start + site.file_off - range.file_off - probe->offset_bytes;
		site.end_avma = site.start_avma + n_bytes;
	}
	return site;
}

/* Every instruction that is probed. *@ret: of *@ret_n, to be freed. Returns 0 or -ENOMEM. */
static int make_sites(const struct dp_session *session, struct dp_probe_site **ret, size_t *ret_n)
{
	const struct dp_go_watch *go = &session->go_watch;
	size_t n = 0, n_go = go->waits ? DP_GO_WAITS_N_SITES : 0;
	const struct dp_probe *list = NULL;
	struct dp_probe_site *sites;

	if (session->probes)
		list = dp_probes_list(session->probes, &n);
	sites = calloc(n + n_go + 1, sizeof(*sites));
	if (!sites)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		sites[i] = site_of(session, &list[i]);
	memcpy(sites + n, go->sites, n_go * sizeof(*sites));
	*ret = sites;
	*ret_n = n + n_go;
	return 0;
}

static int open_sampler(struct dp_session *session, struct dp_error *err)
{
	struct dp_sampler_options options = {.pid = session->options.pid,
					     .mode = session->options.sampler,
					     .heap_rate_bytes = session->options.heap_rate_bytes,
					     .block_rate_ns = session->options.block_rate_ns,
					     .seed = session->options.seed,
					     .go = session->go_watch.park,
					     .contention = session->contention != NULL,
					     .without_returns = session->options.without_returns,
					     .heap_stacks = session->options.heap_unwound,
					     .wants_stack = wants_stack,
					     .context = session,
					     .except_tid = session->options.except_tid};
	struct dp_probe_site *sites;
	int r = make_sites(session, &sites, &options.n_sites);

	if (r < 0)
		return dp_error_set(err, r, "pid %d: out of memory", options.pid);
	options.stack_bytes = dp_stack_size_guess(options.pid);
	options.sites = sites;
	r = dp_sampler_open(&session->sampler, &options, err);
	free(sites);
	return r;
}

/* The address space as it is now, and what there is to be probed or recognised in it. */
static int look(struct dp_session *session, struct dp_probes **ret_probes, struct dp_error *err)
{
	int r = dp_space_load(session->space, err);

	if (r == 0 && session->probes_heap)
		r = dp_probes_find(ret_probes, session->modules, session->options.pid, err);
	/* A Go program may well have no C heap. */
	if (r == -ENOENT && session->go)
		r = 0;
	if (r == 0 && session->contention) {
		r = dp_locks_update(session->locks);
		if (r < 0)
			dp_error_set(err, r, "pid %d: out of memory", session->options.pid);
	}
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

	r = look(session, &session->probes, err);
	if (r == 0)
		r = open_sampler(session, err);
	if (r == 0)
		r = look(session, &again, err);
	if (r == 0 && again && (!session->probes || !dp_probes_equal(session->probes, again))) {
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

/* What can be done before the first event, so that it does not keep the rings waiting. */
static int prepare(struct dp_session *session, struct dp_error *err)
{
	int r = make_pollfds(session);

	if (r == 0 && (session->contention || (session->heap && session->options.heap_unwound)))
		r = dp_unwinder_prepare(session->unwinder);
	if (r < 0)
		return dp_error_set(err, r, "pid %d: out of memory", session->options.pid);
	return 0;
}

const char *dp_session_why_off(const struct dp_session *session, unsigned off)
{
	const char *text = dp_safety_why(&session->safety, off);

	return text ? text : "it is switched off";
}

/* Looks at what must not be used on the process, and takes it out of the options. */
static int keep_safe(struct dp_session *session, struct dp_error *err)
{
	struct dp_session_options *options = &session->options;
	int r = dp_safety_look(options->pid, &session->safety);

	if (r < 0)
		return dp_error_set(err, r, "pid %d: reading its state in /proc: %s", options->pid,
				    strerror(-r));
	if (session->safety.off & DP_OFF_RETURN_PROBES)
		options->without_returns = true;
	if (session->safety.off & DP_OFF_CALLCHAINS)
		options->without_callchains = true;
	if (!options->without_callchains)
		return 0;
	options->stacks_go_on = false;
	if (session->probes_heap && !options->heap_unwound)
		return dp_error_set(err, -EOPNOTSUPP,
				    "pid %d: stacks cannot be found by frame pointers: %s; use "
				    "--stacks auto or dwarf",
				    options->pid, dp_session_why_off(session, DP_OFF_CALLCHAINS));
	return 0;
}

/* A module that Go's linker made, or 0. */
static uint32_t find_go_library(const struct dp_session *session)
{
	uint32_t n = dp_modules_count(session->modules);

	for (uint32_t id = 1; id <= n; id++) {
		int fd = dp_module_fd(session->modules, id);

		if (fd >= 0 && dp_file_is_go(fd))
			return id;
	}
	return 0;
}

/*
 * A Go program's runtime keeps profiles by itself: then these are read, and probes are for what its
 * C code allocates.
 */
static int look_for_go(struct dp_session *session, struct dp_error *err)
{
	const struct dp_session_options *options = &session->options;
	struct dp_go_runtime runtime;
	int r = dp_space_load(session->space, err);

	session->probes_heap = options->heap;
	if (r == 0)
		r = dp_go_runtime_find(&runtime, session->modules, session->space, options->pid,
				       err);
	if (r == 1)
		session->go_library = find_go_library(session);
	if (r != 0)
		return r < 0 ? r : 0;
	session->probes_heap = options->cheap;
	r = dp_go_rates_change(&runtime, &options->go_wishes, &session->go_changes, err);
	if (r < 0)
		return r;
	return dp_go_source_new(&session->go, &runtime, session->space, session->stacks, err);
}

static int open_session(struct dp_session **ret, const struct dp_session_options *options,
			struct dp_error *err)
{
	struct dp_session *session = calloc(1, sizeof(*session));
	int r;

	if (!session)
		return dp_error_set(err, -ENOMEM, "pid %d: out of memory", options->pid);
	session->options = *options;
	session->target.pidfd = -1;
	r = dp_target_open(&session->target, options->pid, err);
	if (r < 0)
		goto out;
	r = open_tables(session);
	if (r < 0) {
		dp_error_set(err, r, "pid %d: out of memory", options->pid);
		goto out;
	}
	r = look_for_go(session, err);
	if (r == 0)
		r = keep_safe(session, err);
	if (r < 0)
		goto out;
	r = open_engines(session);
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
		r = prepare(session, err);
	if (r < 0)
		goto out;
	session->source = (struct dp_report_source){.space = session->space,
						    .modules = session->modules,
						    .probes = session->probes,
						    .symbolizer = session->symbolizer};
	dp_sampler_enable(session->sampler);
	*ret = session;
	return 0;
out:
	dp_session_close(session);
	return r;
}

int dp_session_open(struct dp_session **ret, const struct dp_session_options *options,
		    struct dp_error *err)
{
	const bool began_alive = dp_thread_is_alive(options->pid, options->pid);
	int r = open_session(ret, options, err);

	/* Mapped files are opened through a thread that lives, and that has ended in the midst of
	 * it. */
	if ((r == -ENOENT || r == -EACCES) && began_alive &&
	    !dp_thread_is_alive(options->pid, options->pid))
		r = open_session(ret, options, err);
	return r;
}

void dp_session_close(struct dp_session *session)
{
	if (!session)
		return;
	dp_sampler_close(session->sampler);
	dp_pairing_free(session->pairing);
	dp_heap_free_all(session->heap);
	dp_contention_free(session->contention);
	dp_go_watch_close(&session->go_watch);
	dp_go_rates_restore(&session->go_changes);
	dp_go_source_free(session->go);
	dp_unwinder_free(session->unwinder);
	dp_locks_free(session->locks);
	dp_stack_cache_free(session->cache);
	dp_stacks_free(session->stacks);
	dp_symbolizer_free(session->symbolizer);
	dp_perf_map_free(session->perf_map);
	dp_probes_free(session->probes);
	dp_space_free(session->space);
	dp_modules_free(session->modules);
	dp_target_close(&session->target);
	free(session->pollfds);
	free(session);
}
