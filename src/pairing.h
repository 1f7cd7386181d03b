/* SPDX-License-Identifier: MIT */
#ifndef DP_PAIRING_H
#define DP_PAIRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "perf/record.h"
#include "src/allocator.h"
#include "src/heap.h"

/*
 * Pairs the entries and returns of allocation functions, per thread, and tells the heap what they
 * mean: what is allocated inside an allocation counts once, at the outermost call.
 */

struct dp_pairing;

/* Gives the id of the stack of an ALLOC_ENTRY event; called only for calls that are sampled. */
typedef uint32_t dp_intern_stack_fn(void *context, const struct dp_event *event);

/*
 * Every entry is counted in exactly one of the others once it is over: n_entries = n_calls +
 * n_failed + n_nested + n_abandoned + n_forgotten + n_no_room + dp_pairing_pending().
 */
struct dp_pairing_stats {
	uint64_t n_entries;   /* entry events */
	uint64_t n_returns;   /* return events */
	uint64_t n_calls;     /* outermost calls that returned with an object; without returns, all
				 that may have */
	uint64_t n_nested;    /* calls inside another, counted with it */
	uint64_t n_failed;    /* outermost calls that returned none */
	uint64_t n_abandoned; /* outermost calls whose return never came (longjmp, kernel limit,
				 thread ended) */
	uint64_t n_unpaired_returns; /* returns without an entry (in flight at attach, or the entry
					was lost) */
	uint64_t n_forgotten; /* outermost calls dropped because records were lost, their own or
				 that of the call that jumped to them */
	uint64_t n_no_room;   /* entries beyond the bounds of threads or depth, or of memory */
};

/*
 * @heap: borrowed, must outlive it. @max_threads: bound of threads with pending calls.
 * @intern: called with @context. Returns 0 or -ENOMEM.
 */
int dp_pairing_new(struct dp_pairing **ret, struct dp_heap *heap, size_t max_threads,
		   dp_intern_stack_fn *intern, void *context);

/* Whether the code at @avma is part of an allocation function that is probed. */
typedef bool dp_is_allocating_fn(void *context, uint64_t avma);

/*
 * Where returns are not probed: from now on entries are all there is, so to be called before the
 * first. Each outermost call counts at once, as if it succeeded, but one whose size overflows or
 * that frees (realloc to nothing) counts as failed; no object is tracked. A call is inside another
 * if its return address is, or if the other jumped to it: as the thread's next entry, with the same
 * stack pointer and return address, and asking for what the other must ask for.
 *
 * @is_allocating: called with @context of each entry.
 */
void dp_pairing_without_returns(struct dp_pairing *pairing, dp_is_allocating_fn *is_allocating,
				void *context);

/* Objects of calls that have not returned count as freed. NULL is allowed. */
void dp_pairing_free(struct dp_pairing *pairing);

/*
 * Draws an ALLOC_ENTRY event of @function that has been read and brings a copy of its stack:
 * whether that is to be kept until the event's turn comes. To be asked once of each, in any order.
 */
bool dp_pairing_wants_stack(struct dp_pairing *pairing, const struct dp_event *event,
			    const struct dp_alloc_function *function);

/*
 * An ALLOC_ENTRY event of @function, which is not of kind DP_ALLOC_FREE. Returns 0, or -ENOMEM: the
 * call is not tracked (n_no_room), or without returns could not be counted in the heap.
 */
int dp_pairing_entry(struct dp_pairing *pairing, const struct dp_event *event,
		     const struct dp_alloc_function *function);

/*
 * An ALLOC_RETURN event of @function.
 *
 * @dx_is_result: the function leaves the object that it stored through its pointer argument in the
 * third argument register too. True of glibc's posix_memalign on x86-64, of nothing else that is
 * known; without it and without a call inside that is probed, such an object is counted in alloc_*
 * only.
 * Returns 0 or -ENOMEM (the call is over, but could not be counted in the heap).
 */
int dp_pairing_return(struct dp_pairing *pairing, const struct dp_event *event,
		      const struct dp_alloc_function *function, bool dx_is_result);

/* A FREE event. */
void dp_pairing_free_call(struct dp_pairing *pairing, const struct dp_event *event,
			  const struct dp_alloc_function *function);

/* Thread @tid ended. */
void dp_pairing_thread_exit(struct dp_pairing *pairing, uint32_t tid);

/*
 * Records were lost, of whatever thread: a pending call may have lost its return. It is closed by
 * its return all the same if that comes next on its thread; the thread's next entry instead means
 * that it was lost, and the pending calls are forgotten.
 */
void dp_pairing_gap(struct dp_pairing *pairing);

/*
 * The return address that thread @tid's pending call had at @sp, where the kernel has put a
 * trampoline meanwhile; 0 if no pending call is known there.
 */
uint64_t dp_pairing_return_address(const struct dp_pairing *pairing, uint32_t tid, uint64_t sp);

/* Outermost calls that were entered and have not returned: what will be counted later. */
size_t dp_pairing_pending(const struct dp_pairing *pairing);

const struct dp_pairing_stats *dp_pairing_get_stats(const struct dp_pairing *pairing);

#endif
