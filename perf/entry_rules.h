/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
#ifndef DP_PERF_ENTRY_RULES_H
#define DP_PERF_ENTRY_RULES_H

#include <linux/types.h>
#include <stdbool.h>

/*
 * What can be told of allocation calls of which the entry is all that is seen: the same for the BPF
 * programs and for src/pairing.
 */

/* Of a product that is beyond 64 bits. */
#define DP_ENTRY_OVERFLOW (~(__u64)0)

/* What every object is aligned to at least. Source: malloc(3), on a 64-bit machine. */
#define DP_ENTRY_MALLOC_ALIGN 16

/* What one call asks for. */
struct dp_entry_call {
	__u64 function; /* equal for functions of one prototype that do the same */
	__u64 size;	/* in bytes, DP_ENTRY_OVERFLOW: too many */
	__u64 pointer;	/* the object that a resize was given, 0 if none */
	__u64 align;	/* that it was asked for, 0 if none */
	bool resizes;
	bool stores;  /* the new object goes through a pointer argument */
	bool aligned; /* to more than malloc aligns to, as asked for or to a page */
	bool counts;  /* size times count, cleared */
};

/* Whether the call gives no object, whatever happens: too large, or it frees (realloc to nothing).
 */
static inline bool dp_entry_fails(const struct dp_entry_call *call)
{
	return call->size == DP_ENTRY_OVERFLOW || (call->size == 0 && call->pointer != 0);
}

/*
 * Whether the call @from may end by jumping into the function of the call @to: what it has to do
 * with the result afterwards it could not do then. One place that calls now this, now that function
 * by a jump of its own looks nearly the same, so no more is believed than allocators do.
 */
static inline bool dp_entry_may_jump(const struct dp_entry_call *from,
				     const struct dp_entry_call *to)
{
	if (to->size == DP_ENTRY_OVERFLOW || from->pointer != to->pointer)
		return false;
	if (from->function == to->function) /* another library's */
		return to->size >= from->size;
	if (from->stores || to->stores)
		return false;
	if (from->resizes)
		return to->size == from->size && !to->aligned;
	if (!from->aligned)
		return false;
	/* What malloc aligns to anyway it does (glibc's aligned_alloc). */
	if (!to->aligned)
		return from->align != 0 && from->align <= DP_ENTRY_MALLOC_ALIGN && !to->counts &&
		       to->size == from->size;
	return to->size >= from->size;
}

#endif
