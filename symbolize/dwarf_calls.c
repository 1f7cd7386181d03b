/* SPDX-License-Identifier: MIT */
#include "symbolize/dwarf_calls.h"

#include <dwarf.h>
#include <errno.h>
#include <stdlib.h>

#include "src/base/array.h"

/*
 * The one hard idea: a tree of blocks and inlined calls is walked once for each function, not for
 * each address, and its calls are found by their own ranges alone. A walk from the outside in would
 * lose calls: gcc describes some whose code lies outside the block that they are in.
 */

#define MAX_DEPTH 256
#define MAX_DIES (1u << 20)
#define MAX_RANGE_STEPS (1u << 20)

struct walk {
	struct dp_dwarf_calls *calls;
	size_t *room;
	size_t n_dies, n_range_steps;
	size_t depth;
	Dwarf_Die path[MAX_DEPTH];
	uint32_t outer[MAX_DEPTH]; /* the call around the DIEs of each level */
};

void dp_dwarf_calls_clear(struct dp_dwarf_calls *calls)
{
	free(calls->calls);
	dp_range_index_clear(&calls->by_pc);
	*calls = (struct dp_dwarf_calls){0};
}

static bool is_scope(int tag)
{
	return tag == DW_TAG_inlined_subroutine || tag == DW_TAG_lexical_block ||
	       tag == DW_TAG_try_block || tag == DW_TAG_catch_block || tag == DW_TAG_with_stmt;
}

/* Of calls with the same code the innermost one is found. */
static int add_ranges(struct walk *walk, Dwarf_Die *die, uint32_t i_call)
{
	Dwarf_Addr base, low, high;
	ptrdiff_t next = 0;

	while (walk->n_range_steps++ < MAX_RANGE_STEPS &&
	       (next = dwarf_ranges(die, next, &base, &low, &high)) > 0) {
		struct dp_range range = {low, high, i_call, MAX_DEPTH - (uint32_t)walk->depth};

		if (*walk->room == 0)
			break;
		--*walk->room;
		if (dp_range_index_add(&walk->calls->by_pc, &range) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int add_call(struct walk *walk, Dwarf_Die *die)
{
	struct dp_dwarf_calls *calls = walk->calls;

	if (dp_array_reserve((void **)&calls->calls, &calls->capacity, calls->n + 1,
			     sizeof(*calls->calls)) < 0)
		return -ENOMEM;
	--*walk->room;
	calls->calls[calls->n] = (struct dp_dwarf_call){die->addr, walk->outer[walk->depth]};
	return add_ranges(walk, die, (uint32_t)calls->n++);
}

/* Goes into @die, the walk's place, if there is something to find in it. */
static bool descend(struct walk *walk, Dwarf_Die *die, int tag)
{
	size_t inner = walk->depth + 1;

	if (inner == MAX_DEPTH || !is_scope(tag) || dwarf_child(die, &walk->path[inner]) != 0)
		return false;
	walk->outer[inner] = tag == DW_TAG_inlined_subroutine ? (uint32_t)walk->calls->n - 1
							      : walk->outer[walk->depth];
	walk->depth = inner;
	return true;
}

/* Depth first; a DIE always lies behind its parent and its elder sibling. */
static int walk_calls(struct walk *walk)
{
	while (walk->n_dies++<MAX_DIES && * walk->room> 0) {
		Dwarf_Die *die = &walk->path[walk->depth];
		int tag = dwarf_tag(die);

		if (tag == DW_TAG_inlined_subroutine && add_call(walk, die) < 0)
			return -ENOMEM;
		if (descend(walk, die, tag))
			continue;
		while (dwarf_siblingof(&walk->path[walk->depth], &walk->path[walk->depth]) != 0) {
			if (walk->depth-- == 0)
				return 0;
		}
	}
	return 0;
}

int dp_dwarf_calls_build(struct dp_dwarf_calls *ret, const Dwarf_Die *function, size_t *room)
{
	struct walk walk = {.calls = ret, .room = room, .outer = {DP_DWARF_NO_CALL}};
	const size_t all_room = *room;
	Dwarf_Die die = *function;
	int r;

	if (dwarf_child(&die, &walk.path[0]) != 0)
		return 0;
	r = walk_calls(&walk);
	if (r == 0)
		r = dp_range_index_sort(&ret->by_pc);
	if (r < 0) {
		dp_dwarf_calls_clear(ret);
		*room = all_room;
	}
	return r;
}

size_t dp_dwarf_calls_at(const struct dp_dwarf_calls *calls, const Dwarf_Die *function, uint64_t pc,
			 Dwarf_Die *ret)
{
	const struct dp_range *range = dp_range_index_find(&calls->by_pc, pc);
	uint32_t chain[MAX_DEPTH];
	size_t n_chain = 0, n = 0, i;

	for (uint32_t c = range ? range->value : DP_DWARF_NO_CALL; c != DP_DWARF_NO_CALL;
	     c = calls->calls[c].outer)
		chain[n_chain++] = c;
	for (i = n_chain < DP_DWARF_MAX_LINES ? 0 : n_chain - DP_DWARF_MAX_LINES + 1; i < n_chain;
	     i++)
		ret[n++] = (Dwarf_Die){.addr = calls->calls[chain[i]].die_addr, .cu = function->cu};
	ret[n++] = *function;
	return n;
}
