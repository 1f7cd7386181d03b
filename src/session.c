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
#include <unistd.h>

#include "perf/arch.h"
#include "src/base/clock.h"
#include "src/base/frame.h"
#include "src/base/proc_stat.h"
#include "src/delta.h"
#include "src/interner.h"
#include "src/locks.h"
#include "src/stack.h"
#include "symbolize/space.h"
#include "symbolize/symbolizer.h"

#define MAX_STACKS (1u << 20)
#define MAX_FRAMES ((size_t)1 << 26)
#define MAX_LIVE ((size_t)1 << 26)
#define MAX_THREADS ((size_t)1 << 16)
#define STACK_CACHE_SLOTS 8192
/* A ring that fills slowly wakes nobody, so one has to look this often. */
#define SLEEP_MS 100
#define SLEEP_CHANGING_MS 5
/* Attaches that met a library with an allocator being loaded meanwhile, before we give up. */
#define MAX_ATTEMPTS 5

struct dp_session {
	struct dp_session_options options;
	struct dp_safety safety;
	struct dp_target target;
	struct dp_modules *modules;
	struct dp_space *space;
	struct dp_probes *probes;
	struct dp_sampler *sampler;
	struct dp_stacks *stacks;
	struct dp_stack_cache *cache;
	struct dp_heap *heap;
	struct dp_pairing *pairing;
	struct dp_contention *contention;
	struct dp_go_source *go; /* NULL: it is no Go program */
	struct dp_go_changes go_changes;
	struct dp_locks *locks;
	struct dp_unwinder *unwinder;
	struct dp_perf_map *perf_map;
	struct dp_symbolizer *symbolizer;
	struct dp_report_source source;
	struct pollfd *pollfds;
	size_t n_pollfds;
	struct dp_interner interner;
	uint64_t n_unknown_probes;
	bool callchain;
	bool probes_heap; /* allocation functions are probed */
	enum dp_session_state state;
};

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

/* What takes events in. */
static int open_engines(struct dp_session *session)
{
	int r = 0;

	if (session->probes_heap)
		r = open_heap(session);
	if (r == 0 && session->options.contention && !session->go)
		r = open_contention(session);
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

static int open_sampler(struct dp_session *session, struct dp_error *err)
{
	struct dp_sampler_options options = {.pid = session->options.pid,
					     .mode = session->options.sampler,
					     .heap_rate_bytes = session->options.heap_rate_bytes,
					     .block_rate_ns = session->options.block_rate_ns,
					     .seed = session->options.seed,
					     .contention = session->contention != NULL,
					     .without_returns = session->options.without_returns,
					     .heap_stacks = session->options.heap_unwound,
					     .wants_stack = wants_stack,
					     .context = session,
					     .except_tid = session->options.except_tid};
	struct dp_probe_site *sites = NULL;
	const struct dp_probe *list = NULL;
	int r;

	options.stack_bytes = dp_stack_size_guess(options.pid);
	if (session->probes) {
		list = dp_probes_list(session->probes, &options.n_sites);
		sites = calloc(options.n_sites, sizeof(*sites));
		if (!sites)
			return dp_error_set(err, -ENOMEM, "pid %d: out of memory", options.pid);
	}
	for (size_t i = 0; i < options.n_sites; i++)
		sites[i] = (struct dp_probe_site){
			.fd = dp_module_fd(session->modules, dp_frame_module(list[i].frame)),
			.file_off = dp_frame_offset(list[i].frame),
			.kind = kind_of(list[i].function->kind),
			.i_size = (int8_t)list[i].function->i_size,
			.i_count = (int8_t)list[i].function->i_count,
			.i_pointer = (int8_t)list[i].function->i_pointer};
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

/* Why something is off that is. */
static const char *why(const struct dp_session *session, unsigned off)
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
				    options->pid, why(session, DP_OFF_CALLCHAINS));
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

	if (event->type == DP_EVENT_FREE && event->entry.decided) {
		dp_heap_alloc_unsampled(session->heap, event->entry.args[0]);
		return 0;
	}
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

static int take_mmap(struct dp_session *session, const struct dp_event *event)
{
	const struct dp_file_identity identity = {.build_id = event->mmap.build_id,
						  .build_id_bytes = event->mmap.build_id_bytes,
						  .major = event->mmap.major,
						  .minor = event->mmap.minor,
						  .inode = event->mmap.inode};
	int r = dp_space_add(session->space, event->mmap.start,
			     event->mmap.start + event->mmap.length_bytes, event->mmap.file_off,
			     event->mmap.path, &identity);

	if (r == 0 && session->locks)
		r = dp_locks_update(session->locks);
	return r;
}

static void take_exit(struct dp_session *session, uint32_t tid)
{
	if (session->pairing)
		dp_pairing_thread_exit(session->pairing, tid);
	if (session->contention)
		dp_contention_thread_exit(session->contention, tid);
}

static void take_gap(struct dp_session *session)
{
	if (session->pairing)
		dp_pairing_gap(session->pairing);
	if (session->contention)
		dp_contention_gap(session->contention);
}

static int take_event(struct dp_session *session, const struct dp_event *event)
{
	bool ours = event->pid == (uint32_t)session->options.pid;

	switch (event->type) {
	case DP_EVENT_ALLOC_ENTRY:
	case DP_EVENT_ALLOC_RETURN:
	case DP_EVENT_FREE:
		return take_call(session, event);
	case DP_EVENT_FUTEX_ENTER:
	case DP_EVENT_FUTEX_EXIT:
	case DP_EVENT_WAKING:
	case DP_EVENT_RELEASE:
	case DP_EVENT_WAIT:
		return dp_contention_event(session->contention, event);
	case DP_EVENT_MMAP:
		return ours ? take_mmap(session, event) : 0;
	case DP_EVENT_COMM:
		if (ours && event->comm.exec)
			session->state = DP_SESSION_EXECED;
		return 0;
	case DP_EVENT_EXIT:
		if (ours)
			take_exit(session, event->tid);
		return 0;
	case DP_EVENT_LOST:
		take_gap(session);
		return 0;
	case DP_EVENT_FORK:
		return 0;
	}
	return 0;
}

/*
 * Whether any mapped code keeps frame pointers, so that the kernel's callchain can be of use.
 * Returns 1, 0 or -ENOMEM.
 */
static int keeps_frame_pointers(const struct dp_session *session)
{
	uint32_t n = dp_modules_count(session->modules);
	int r = 0;

	for (uint32_t id = 1; r == 0 && id <= n; id++) {
		struct dp_module_info info;

		/* The vdso calls nothing. */
		if (dp_module_get(session->modules, id, &info) && info.kind == DP_MODULE_ELF)
			r = dp_unwinder_keeps_frame_pointers(session->unwinder, id);
	}
	return r;
}

/*
 * Copies more of each stack where too many were cut; and where the kernel cannot copy more, has it
 * follow the frame pointers too, if there are any. Where that cannot be had, for want of
 * descriptors perhaps, they stay cut, which is counted.
 */
static void adapt_stack_size(struct dp_session *session)
{
	uint32_t bytes = dp_sampler_stack_bytes(session->sampler);
	uint32_t chosen = dp_stack_size_choose(&session->interner.size, session->options.pid, bytes,
					       dp_monotonic_ns());
	struct dp_error unused;
	bool callchain;

	if (chosen == bytes || session->state != DP_SESSION_RUNNING)
		return;
	callchain = chosen == DP_STACK_SIZE_MAX && session->options.stacks_go_on &&
		    keeps_frame_pointers(session) == 1;
	if (dp_sampler_resize(session->sampler, chosen, callchain, &unused) == 0)
		session->callchain = callchain;
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
	if (r == 0)
		adapt_stack_size(session);
	return r;
}

int dp_session_cut(struct dp_session *session, uint64_t cut_ns)
{
	int r = dp_session_pump(session, cut_ns);

	while (r == 0 && dp_sampler_horizon_ns(session->sampler) < cut_ns)
		r = dp_session_pump(session, cut_ns);
	return r;
}

int dp_session_sleep_ms(const struct dp_session *session)
{
	return dp_sampler_is_changing(session->sampler) ? SLEEP_CHANGING_MS : SLEEP_MS;
}

bool dp_session_reached(const struct dp_session *session, uint64_t cut_ns)
{
	return dp_sampler_horizon_ns(session->sampler) >= cut_ns;
}

int dp_session_stop(struct dp_session *session)
{
	dp_sampler_disable(session->sampler);
	return dp_session_cut(session, dp_monotonic_ns());
}

enum dp_session_state dp_session_state(const struct dp_session *session)
{
	return session->state;
}

bool dp_session_has(const struct dp_session *session, enum dp_kind kind)
{
	switch (kind) {
	case DP_KIND_HEAP:
		return session->options.heap;
	case DP_KIND_BLOCK:
	case DP_KIND_MUTEX:
		return session->options.contention;
	case DP_KIND_CHEAP:
		return session->go && session->heap && session->probes;
	}
	return false;
}

static enum dp_go_list go_list(enum dp_kind kind)
{
	static const enum dp_go_list lists[] = {[DP_KIND_HEAP] = DP_GO_HEAP,
						[DP_KIND_BLOCK] = DP_GO_BLOCK,
						[DP_KIND_MUTEX] = DP_GO_MUTEX};

	return lists[kind];
}

const struct dp_go_source *dp_session_go_source(const struct dp_session *session, enum dp_kind kind)
{
	if (!session->go || kind == DP_KIND_CHEAP || !dp_go_source_has(session->go, go_list(kind)))
		return NULL;
	return session->go;
}

const struct dp_go_runtime *dp_session_go_runtime(const struct dp_session *session)
{
	return session->go ? dp_go_source_runtime(session->go) : NULL;
}

struct dp_delta_spec dp_session_delta_spec(const struct dp_session *session, enum dp_kind kind,
					   size_t max_rows)
{
	if (dp_session_go_source(session, kind))
		return dp_go_delta_spec(go_list(kind), max_rows);
	if (kind == DP_KIND_HEAP || kind == DP_KIND_CHEAP)
		return dp_heap_delta_spec(max_rows);
	return dp_contention_delta_spec(max_rows);
}

int dp_session_feed(struct dp_session *session, enum dp_kind kind, struct dp_delta *delta)
{
	if (dp_session_go_source(session, kind))
		return dp_go_source_feed(session->go, go_list(kind), delta);
	switch (kind) {
	case DP_KIND_HEAP:
	case DP_KIND_CHEAP:
		return dp_heap_feed(session->heap, delta);
	case DP_KIND_BLOCK:
		return session->go ? 0 : dp_contention_feed_block(session->contention, delta);
	case DP_KIND_MUTEX:
		return session->go ? 0 : dp_contention_feed_mutex(session->contention, delta);
	}
	return -EINVAL;
}

const struct dp_stacks *dp_session_stacks(const struct dp_session *session)
{
	return session->stacks;
}

const struct dp_report_source *dp_session_source(const struct dp_session *session)
{
	return &session->source;
}

/* What the kernel decided without telling of it joins what was counted here. */
static void add_decided(const struct dp_kernel_counts *kernel, struct dp_session_stats *ret)
{
	struct dp_contention_stats *waits = &ret->contention;

	ret->n_skipped = kernel->n_skipped;
	ret->heap.n_seen += kernel->n_drawn;
	ret->heap.n_sampled += kernel->n_sampled;
	ret->heap.n_live_overflow += kernel->n_live_overflow;
	ret->pairing.n_nested += kernel->n_nested;
	ret->pairing.n_failed += kernel->n_overflowed;
	ret->pairing.n_no_room += kernel->n_no_room;
	waits->n_calls += kernel->n_calls;
	waits->n_waits += kernel->n_waits;
	/* Of the same moment as the others: what is kept has not all been taken in yet. */
	if (kernel->n_waits > 0)
		waits->n_kept = kernel->n_kept;
	waits->n_lost += kernel->n_kept_lost;
	waits->n_not_slept += kernel->n_not_slept;
	waits->n_other_calls += kernel->n_other_calls;
	waits->n_released += kernel->n_released;
	waits->n_ended_otherwise += kernel->n_ended_otherwise;
	waits->n_unpaired_exits += kernel->n_unpaired_exits;
	waits->n_forgotten += kernel->n_forgotten;
	waits->n_abandoned += kernel->n_abandoned;
	waits->n_no_room += kernel->n_calls_no_room;
}

void dp_session_get_stats(struct dp_session *session, struct dp_session_stats *ret)
{
	*ret = (struct dp_session_stats){0};
	dp_sampler_get_stats(session->sampler, &ret->sampler);
	if (session->heap) {
		ret->pairing = *dp_pairing_get_stats(session->pairing);
		ret->heap = *dp_heap_get_stats(session->heap);
		ret->n_pending = dp_pairing_pending(session->pairing);
	}
	if (session->contention)
		ret->contention = *dp_contention_get_stats(session->contention);
	add_decided(&ret->sampler.kernel, ret);
	dp_unwinder_get_stats(session->unwinder, &ret->unwind);
	ret->unwound_heap = session->interner.heap;
	ret->unwound_waits = session->interner.waits;
	ret->stack_bytes = dp_sampler_stack_bytes(session->sampler);
	ret->callchain = session->callchain;
	ret->heap_is_copied = session->options.heap_unwound;
	if (session->go)
		dp_go_source_get_stats(session->go, &ret->go);
	if (session->probes && session->options.without_returns)
		ret->no_returns = why(session, DP_OFF_RETURN_PROBES);
	ret->n_stacks = dp_stacks_count(session->stacks);
	ret->n_stacks_truncated = session->interner.n_truncated;
	ret->n_stacks_cut = session->interner.n_cut;
	ret->n_stacks_overflowed = dp_stacks_overflowed(session->stacks);
	ret->n_unknown_probes = session->n_unknown_probes;
	ret->n_stacks_missing = session->interner.n_missing;
}

void dp_session_get_perf_map_stats(const struct dp_session *session, struct dp_perf_map_stats *ret)
{
	dp_symbolizer_get_perf_map_stats(session->symbolizer, ret);
}

bool dp_session_get_debuginfod_stats(const struct dp_session *session,
				     struct dp_debuginfod_stats *ret)
{
	return dp_symbolizer_get_debuginfod_stats(session->symbolizer, ret);
}

const struct dp_target *dp_session_target(const struct dp_session *session)
{
	return &session->target;
}

const struct dp_probes *dp_session_probes(const struct dp_session *session)
{
	return session->probes;
}

bool dp_session_is_kernel(const struct dp_session *session)
{
	return dp_sampler_is_kernel(session->sampler);
}

const char *dp_session_why_direct(const struct dp_session *session)
{
	return dp_sampler_why_direct(session->sampler);
}

const struct dp_safety *dp_session_safety(const struct dp_session *session)
{
	return &session->safety;
}

const struct dp_session_options *dp_session_options(const struct dp_session *session)
{
	return &session->options;
}

void dp_session_get_size(const struct dp_session *session, size_t *ret_threads, size_t *ret_fds)
{
	dp_sampler_get_size(session->sampler, ret_threads, ret_fds);
}
