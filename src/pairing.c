/* SPDX-License-Identifier: MIT */
#include "src/pairing.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "perf/arch.h"
#include "perf/entry_rules.h"
#include "src/base/trampoline.h"
#include "src/pending.h"

/*
 * The hard idea: returns go missing (longjmp, exceptions, the kernel's limit, probes that were
 * armed one after the other), and a pending call that is not really there would swallow everything
 * after it as nested. So each entry is taken as evidence of which pending frames are gone:
 *
 * - the stack grows down: at an entry at sp S, frames below S are gone;
 * - a function is not entered twice at one sp without having returned;
 * - two functions share one sp only by a tail jump, and then the word at sp is the same return
 *   address, or the trampoline that the kernel put in its place; a new call pushes its own;
 * - nothing allocates a thousand times inside one allocation.
 *
 * A call that is found gone had unknown success. If it was a resize, its old object is taken for
 * freed, which is what nearly every resize does.
 *
 * Without returns nothing says when a call is over, so nothing is pending: what a thread has in the
 * table then is its newest chain of calls that jumped into each other, outermost first.
 */

#define MAX_NESTED 1000

/* Nothing is mapped in the lowest 64 KiB. Source: vm.mmap_min_addr, sysctl/vm.rst. */
#define MIN_ADDR UINT64_C(0x10000)

struct dp_pairing {
	struct dp_heap *heap;
	dp_intern_stack_fn *intern;
	void *context;
	dp_is_allocating_fn *is_allocating; /* NULL where returns are probed */
	void *is_allocating_context;
	struct dp_pending pending;
	size_t n_busy; /* threads with a pending call */
	struct dp_pairing_stats stats;
};

int dp_pairing_new(struct dp_pairing **ret, struct dp_heap *heap, size_t max_threads,
		   dp_intern_stack_fn *intern, void *context)
{
	struct dp_pairing *pairing = calloc(1, sizeof(*pairing));

	if (!pairing)
		return -ENOMEM;
	pairing->heap = heap;
	pairing->intern = intern;
	pairing->context = context;
	dp_pending_init(&pairing->pending, max_threads);
	*ret = pairing;
	return 0;
}

void dp_pairing_without_returns(struct dp_pairing *pairing, dp_is_allocating_fn *is_allocating,
				void *context)
{
	pairing->is_allocating = is_allocating;
	pairing->is_allocating_context = context;
}

/* The outermost call of @thread, and so every other, is over. */
static void leave(struct dp_pairing *pairing, struct dp_pending_thread *thread)
{
	thread->depth = 0;
	thread->doubtful = false;
	pairing->n_busy--;
}

/*
 * Discards the calls of @thread from the @n_kept-th on. If the outermost is among them it is
 * counted in *@counter, and the object that it had taken is freed.
 */
static void discard(struct dp_pairing *pairing, struct dp_pending_thread *thread, size_t n_kept,
		    uint64_t *counter)
{
	assert(n_kept <= thread->depth);
	if (n_kept > 0 || thread->depth == 0 || pairing->is_allocating) {
		thread->depth = n_kept;
		return;
	}
	if (thread->taken)
		dp_heap_drop(pairing->heap, &thread->old);
	(*counter)++;
	leave(pairing, thread);
}

static void discard_all(struct dp_pairing *pairing, uint64_t *counter)
{
	for (size_t i = 0; i < pairing->pending.n_threads; i++)
		discard(pairing, pairing->pending.threads[i], 0, counter);
	assert(pairing->n_busy == 0);
}

void dp_pairing_free(struct dp_pairing *pairing)
{
	if (!pairing)
		return;
	discard_all(pairing, &pairing->stats.n_abandoned);
	dp_pending_deinit(&pairing->pending);
	free(pairing);
}

/* How many of the pending calls can still be there when @event enters a function. */
static size_t count_alive(const struct dp_pending_thread *thread, const struct dp_event *event)
{
	const struct dp_pending_call *calls = thread->calls;
	size_t n = thread->depth;
	size_t first; /* of those at the entry's sp */

	while (n > 0 && calls[n - 1].sp < event->entry.sp)
		n--;
	first = n;
	while (first > 0 && calls[first - 1].sp == event->entry.sp)
		first--;
	for (size_t i = first; i < n; i++) {
		if (calls[i].probe_avma == event->entry.probe_avma)
			n = i;
	}
	if (first < n && event->entry.stack0 != calls[first].stack0 &&
	    !dp_is_return_trampoline(event->entry.stack0))
		n = first;
	if (thread->n_nested >= MAX_NESTED)
		n = 0;
	return n;
}

/*
 * Draws an outermost call, if the kernel has not. One that brought a copy of its stack was drawn
 * when it was read: where the draw was lost, so was the copy (dp_pairing_wants_stack()).
 */
static bool is_sampled(struct dp_pairing *pairing, const struct dp_event *event, uint64_t size)
{
	const struct dp_user_state *user = &event->entry.user;
	bool sampled;

	if (event->entry.decided)
		return event->entry.sampled;
	if (size == UINT64_MAX)
		return false;
	if (user->asked_bytes > 0)
		sampled = !user->left_out;
	else
		sampled = dp_heap_draw(pairing->heap, size);
	dp_heap_count_drawn(pairing->heap, sampled);
	return sampled;
}

bool dp_pairing_wants_stack(struct dp_pairing *pairing, const struct dp_event *event,
			    const struct dp_alloc_function *function)
{
	uint64_t size = dp_alloc_size(function, event->entry.args);

	return size != UINT64_MAX && dp_heap_draw(pairing->heap, size);
}

/* An outermost call begins: the only one that counts, and that takes the old object away. */
static void enter(struct dp_pairing *pairing, struct dp_pending_thread *thread,
		  const struct dp_event *event, const struct dp_alloc_function *function)
{
	thread->size = dp_alloc_size(function, event->entry.args);
	thread->n_nested = 0;
	thread->sampled = is_sampled(pairing, event, thread->size);
	if (thread->sampled)
		thread->stack = pairing->intern(pairing->context, event);
	thread->taken =
		function->kind == DP_ALLOC_RESIZE &&
		dp_heap_take(pairing->heap, event->entry.args[function->i_pointer], &thread->old);
	pairing->n_busy++;
}

/* What @event's call asks for, in the words of the rules that the kernel sampler has too. */
static struct dp_entry_call call_of(const struct dp_event *event,
				    const struct dp_alloc_function *function)
{
	const uint64_t *args = event->entry.args;

	return (struct dp_entry_call){
		.function = (uintptr_t)function,
		.size = dp_alloc_size(function, args),
		.pointer = function->kind == DP_ALLOC_RESIZE ? args[function->i_pointer] : 0,
		.align = function->i_align < 0 ? 0 : args[function->i_align],
		.resizes = function->kind == DP_ALLOC_RESIZE,
		.stores = function->kind == DP_ALLOC_OUT,
		.aligned = function->aligned,
		.counts = function->i_count >= 0,
	};
}

/*
 * Whether @event is another entry of the call that @thread entered last. Where someone else probes
 * returns, the second function of a chain may see their trampoline.
 */
static bool is_jumped_to(const struct dp_pending_thread *thread, const struct dp_event *event,
			 const struct dp_entry_call *asked)
{
	if (thread->depth == 0 || thread->calls[0].sp != event->entry.sp)
		return false;
	if (thread->calls[0].stack0 != event->entry.stack0 &&
	    !dp_is_return_trampoline(event->entry.stack0))
		return false;
	for (size_t i = 0; i < thread->depth; i++) {
		if (thread->calls[i].probe_avma == event->entry.probe_avma)
			return false;
	}
	return dp_entry_may_jump(&thread->newest, asked);
}

/* Remembers an entry as the newest of its thread; says whether it was jumped to. Where there is no
 * room nothing is remembered. */
static bool follow(struct dp_pairing *pairing, const struct dp_event *event,
		   const struct dp_entry_call *asked)
{
	const struct dp_pending_call call = {.probe_avma = event->entry.probe_avma,
					     .sp = event->entry.sp,
					     .stack0 = event->entry.stack0};
	struct dp_pending_thread *thread;
	bool jumped;

	if (dp_pending_get(&pairing->pending, event->tid, &thread) < 0)
		return false;
	jumped = is_jumped_to(thread, event, asked);
	if (!jumped)
		thread->depth = 0;
	if (dp_pending_push(thread, &call) < 0)
		return jumped;
	thread->newest = *asked;
	return jumped;
}

/* An entry whose return is not probed. Where the kernel has drawn it, it has looked for jumps too,
 * and for calls from inside as far as it knew where functions lie. */
static int count_entry(struct dp_pairing *pairing, const struct dp_event *event,
		       const struct dp_alloc_function *function)
{
	const struct dp_entry_call asked = call_of(event, function);

	if (pairing->is_allocating(pairing->is_allocating_context, event->entry.stack0 - 1) ||
	    (!event->entry.decided && follow(pairing, event, &asked))) {
		pairing->stats.n_nested++;
		return 0;
	}
	if (dp_entry_fails(&asked)) {
		pairing->stats.n_failed++;
		return 0;
	}
	pairing->stats.n_calls++;
	if (!is_sampled(pairing, event, asked.size))
		return 0;
	return dp_heap_alloc(pairing->heap, pairing->intern(pairing->context, event), asked.size,
			     0);
}

int dp_pairing_entry(struct dp_pairing *pairing, const struct dp_event *event,
		     const struct dp_alloc_function *function)
{
	struct dp_pending_call call = {
		.probe_avma = event->entry.probe_avma,
		.sp = event->entry.sp,
		.stack0 = event->entry.stack0,
	};
	struct dp_pending_thread *thread;
	int r;

	assert(function->kind != DP_ALLOC_FREE);
	if (function->kind == DP_ALLOC_OUT)
		call.out_align = event->entry.args[function->i_align];
	pairing->stats.n_entries++;
	if (pairing->is_allocating)
		return count_entry(pairing, event, function);
	r = dp_pending_get(&pairing->pending, event->tid, &thread);
	if (r >= 0) {
		if (thread->doubtful)
			discard(pairing, thread, 0, &pairing->stats.n_forgotten);
		discard(pairing, thread, event->entry.decided ? 0 : count_alive(thread, event),
			&pairing->stats.n_abandoned);
		/* Jumped to by a call whose entry was lost: with it went the caller. */
		if (thread->depth == 0 && dp_is_return_trampoline(call.stack0)) {
			pairing->stats.n_forgotten++;
			return 0;
		}
		r = dp_pending_push(thread, &call);
	}
	if (r < 0) {
		pairing->stats.n_no_room++;
		return r == -ENOSPC ? 0 : r;
	}
	if (thread->depth == 1) {
		enter(pairing, thread, event, function);
	} else {
		thread->n_nested++;
		pairing->stats.n_nested++;
	}
	return 0;
}

static bool is_aligned(uint64_t addr, uint64_t align)
{
	return align != 0 && (align & (align - 1)) == 0 && (addr & (align - 1)) == 0;
}

/* The object that a call returned or stored; 0 if it is not known. Only of one that succeeded. */
static uint64_t result_of(const struct dp_pending_call *call, const struct dp_event *event,
			  const struct dp_alloc_function *function, bool dx_is_result)
{
	if (event->ret.has_result)
		return event->ret.untracked ? 0 : event->ret.dx;
	if (function->kind != DP_ALLOC_OUT)
		return event->ret.retval;
	if (call->inner_addr)
		return call->inner_addr;
	if (dx_is_result && event->ret.dx >= MIN_ADDR && is_aligned(event->ret.dx, call->out_align))
		return event->ret.dx;
	return 0;
}

static bool succeeded(const struct dp_event *event, const struct dp_alloc_function *function)
{
	/* posix_memalign returns an int: the upper half of the register is anything. */
	if (function->kind == DP_ALLOC_OUT)
		return (uint32_t)event->ret.retval == 0;
	return event->ret.retval != 0;
}

/* A call inside the first @n_outer ones returned @addr: those that store theirs may mean this one.
 */
static void offer(struct dp_pending_thread *thread, size_t n_outer, uint64_t addr)
{
	for (size_t i = 0; i < n_outer; i++) {
		if (addr && is_aligned(addr, thread->calls[i].out_align))
			thread->calls[i].inner_addr = addr;
	}
}

/* The outermost call returned. */
static int close_outermost(struct dp_pairing *pairing, struct dp_pending_thread *thread, bool ok,
			   uint64_t addr)
{
	leave(pairing, thread);
	if (!ok) {
		pairing->stats.n_failed++;
		/* realloc(p, 0) that returns nothing has freed p. */
		if (thread->taken && thread->size == 0)
			dp_heap_drop(pairing->heap, &thread->old);
		else if (thread->taken)
			dp_heap_put_back(pairing->heap, &thread->old);
		return 0;
	}
	pairing->stats.n_calls++;
	if (thread->taken)
		dp_heap_drop(pairing->heap, &thread->old);
	if (thread->sampled)
		return dp_heap_alloc(pairing->heap, thread->stack, thread->size, addr);
	dp_heap_alloc_unsampled(pairing->heap, addr);
	return 0;
}

/*
 * The index of the pending call that @event returns from, or @thread's depth if there is none.
 * Calls below its frame are gone and are discarded first.
 */
static size_t match_return(struct dp_pairing *pairing, struct dp_pending_thread *thread,
			   const struct dp_event *event)
{
	uint64_t sp = event->ret.sp - dp_arch.return_sp_delta_bytes; /* as at entry */
	size_t n = thread->depth;

	while (n > 0 && thread->calls[n - 1].sp < sp)
		n--;
	discard(pairing, thread, n, &pairing->stats.n_abandoned);
	for (size_t i = n; i > 0 && thread->calls[i - 1].sp == sp; i--) {
		if (thread->calls[i - 1].probe_avma == event->ret.probe_avma)
			return i - 1;
	}
	return n;
}

int dp_pairing_return(struct dp_pairing *pairing, const struct dp_event *event,
		      const struct dp_alloc_function *function, bool dx_is_result)
{
	struct dp_pending_thread *thread = dp_pending_find(&pairing->pending, event->tid);
	uint64_t addr;
	size_t i;
	bool ok;

	pairing->stats.n_returns++;
	i = thread ? match_return(pairing, thread, event) : 0;
	if (!thread || i == thread->depth) {
		pairing->stats.n_unpaired_returns++;
		return 0;
	}
	ok = succeeded(event, function);
	addr = ok ? result_of(&thread->calls[i], event, function, dx_is_result) : 0;
	if (i == 0)
		return close_outermost(pairing, thread, ok, addr);
	offer(thread, i, addr);
	thread->depth = i;
	return 0;
}

void dp_pairing_free_call(struct dp_pairing *pairing, const struct dp_event *event,
			  const struct dp_alloc_function *function)
{
	dp_heap_release(pairing->heap, event->entry.args[function->i_pointer]);
}

void dp_pairing_thread_exit(struct dp_pairing *pairing, uint32_t tid)
{
	struct dp_pending_thread *thread = dp_pending_find(&pairing->pending, tid);

	if (!thread)
		return;
	discard(pairing, thread, 0, &pairing->stats.n_abandoned);
	dp_pending_remove(&pairing->pending, tid);
}

void dp_pairing_gap(struct dp_pairing *pairing)
{
	for (size_t i = 0; i < pairing->pending.n_threads; i++) {
		struct dp_pending_thread *thread = pairing->pending.threads[i];

		thread->doubtful = thread->depth > 0;
	}
}

uint64_t dp_pairing_return_address(const struct dp_pairing *pairing, uint32_t tid, uint64_t sp)
{
	const struct dp_pending_thread *thread = dp_pending_find(&pairing->pending, tid);

	for (size_t i = 0; thread && i < thread->depth; i++) {
		if (thread->calls[i].sp == sp && !dp_is_return_trampoline(thread->calls[i].stack0))
			return thread->calls[i].stack0;
	}
	return 0;
}

size_t dp_pairing_pending(const struct dp_pairing *pairing)
{
	return pairing->n_busy;
}

const struct dp_pairing_stats *dp_pairing_get_stats(const struct dp_pairing *pairing)
{
	return &pairing->stats;
}
