/* SPDX-License-Identifier: MIT */
#ifndef DP_INTERNER_H
#define DP_INTERNER_H

#include <stddef.h>
#include <stdint.h>

#include "perf/record.h"
#include "src/locks.h"
#include "src/pairing.h"
#include "src/stack.h"
#include "src/stack_size.h"
#include "symbolize/space.h"
#include "symbolize/unwind.h"

/*
 * From an event to the id of its stack: normalised or unwound, cut where it should begin, and
 * interned.
 */
struct dp_interner {
	/* All borrowed; must outlive it. */
	const struct dp_space *space;
	struct dp_stacks *stacks;
	struct dp_stack_cache *cache;
	struct dp_unwinder *unwinder;	  /* NULL where stacks are not copied */
	struct dp_locks *locks;		  /* NULL where contention is not observed */
	const struct dp_pairing *pairing; /* NULL where the heap is not observed */
	size_t max_callchain;		  /* what the kernel limits callchains to */

	/* Counters; the stacks are distinct ones. */
	uint64_t n_truncated; /* as long as the kernel's limit: there may be more */
	uint64_t n_cut;	      /* with outermost addresses cut off: in no mapped code */
	uint64_t n_missing;   /* events whose record had no registers */
	struct dp_unwind_counts heap, waits; /* unwound stacks */
	struct dp_stack_size size;
};

/* What the kernel limits callchains to. Source: Documentation/admin-guide/sysctl/kernel.rst. */
size_t dp_interner_max_callchain(void);

/*
 * A dp_intern_stack_fn (src/pairing.h): the stack of an ALLOC_ENTRY event from the kernel's
 * callchain. @context: a struct dp_interner.
 */
uint32_t dp_interner_entry(void *context, const struct dp_event *event);

/* The same, unwound from the event's registers and copy of the stack. */
uint32_t dp_interner_entry_unwound(void *context, const struct dp_event *event);

/*
 * A dp_contention_stack_fn (src/contention.h): the stack of a FUTEX_EXIT or WAKING event, unwound,
 * from the locking function outwards.
 * @context: a struct dp_interner with locks and unwinder.
 */
uint32_t dp_interner_wait(void *context, const struct dp_event *event, enum dp_wait_kind *ret_kind);

#endif
