/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: an interval is cut by the events' own time. Everything stamped before the cut is
 * taken in, everything after it stays queued, so consecutive profiles neither share nor miss an
 * event however late the rings are read.
 */
#include "src/session.h"

#include <errno.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/delta.h"
#include "src/session_parts.h"

/* A ring that fills slowly wakes nobody, so one has to look this often. */
#define SLEEP_MS 100
#define SLEEP_CHANGING_MS 5

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
	if (session->go_watch.waits)
		dp_go_waits_gap(session->go_watch.waits);
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
	case DP_EVENT_GO_PARK:
	case DP_EVENT_GO_READY:
	case DP_EVENT_GO_WAIT:
	case DP_EVENT_GO_ACQUIRE:
		return dp_go_waits_event(session->go_watch.waits, event);
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

const struct dp_go_source *dp_session_go_source(const struct dp_session *session, enum dp_kind kind)
{
	if (!session->go || kind == DP_KIND_CHEAP ||
	    !dp_go_source_has(session->go, dp_kind_go_list(kind)))
		return NULL;
	return session->go;
}

const char *dp_session_go_library(const struct dp_session *session)
{
	struct dp_module_info info;

	if (session->go || !dp_module_get(session->modules, session->go_library, &info))
		return NULL;
	return info.path;
}

const char *dp_session_why_no_go_waits(const struct dp_session *session)
{
	const char *text = session->why_no_go_waits.text;

	return session->go && text[0] ? text : NULL;
}

const struct dp_go_runtime *dp_session_go_runtime(const struct dp_session *session)
{
	return session->go ? dp_go_source_runtime(session->go) : NULL;
}

struct dp_delta_spec dp_session_delta_spec(const struct dp_session *session, enum dp_kind kind,
					   size_t max_rows)
{
	if (dp_session_go_source(session, kind))
		return dp_go_delta_spec(dp_kind_go_list(kind), max_rows);
	if (kind == DP_KIND_HEAP || kind == DP_KIND_CHEAP)
		return dp_heap_delta_spec(max_rows);
	return dp_contention_delta_spec(max_rows);
}

static int feed_go_waits(const struct dp_session *session, enum dp_kind kind,
			 struct dp_delta *delta)
{
	const struct dp_go_waits *waits = session->go_watch.waits;

	if (!waits)
		return 0;
	return kind == DP_KIND_BLOCK ? dp_go_waits_feed_block(waits, delta)
				     : dp_go_waits_feed_mutex(waits, delta);
}

int dp_session_feed(struct dp_session *session, enum dp_kind kind, struct dp_delta *delta)
{
	if (dp_session_go_source(session, kind))
		return dp_go_source_feed(session->go, dp_kind_go_list(kind), delta);
	if (session->go && kind != DP_KIND_CHEAP)
		return feed_go_waits(session, kind, delta);
	switch (kind) {
	case DP_KIND_HEAP:
	case DP_KIND_CHEAP:
		return dp_heap_feed(session->heap, delta);
	case DP_KIND_BLOCK:
		return dp_contention_feed_block(session->contention, delta);
	case DP_KIND_MUTEX:
		return dp_contention_feed_mutex(session->contention, delta);
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

/* The same of goroutines. */
static void add_decided_go(const struct dp_kernel_counts *kernel, struct dp_go_waits_stats *ret)
{
	ret->n_parks += kernel->n_go_parks - kernel->n_go_other;
	ret->n_waits += kernel->n_go_waits;
	ret->n_skipped += kernel->n_go_waits - kernel->n_go_kept;
	ret->n_forgotten += kernel->n_go_forgotten;
	ret->n_no_room += kernel->n_go_no_room;
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
	ret->pairing.n_failed += kernel->n_failed;
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
	if (session->go_watch.waits) {
		ret->go_waits = *dp_go_waits_get_stats(session->go_watch.waits);
		add_decided_go(&ret->sampler.kernel, &ret->go_waits);
	}
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
		ret->no_returns = dp_session_why_off(session, DP_OFF_RETURN_PROBES);
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
