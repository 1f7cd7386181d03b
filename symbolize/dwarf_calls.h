/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_DWARF_CALLS_H
#define DP_SYMBOLIZE_DWARF_CALLS_H

#include <elfutils/libdw.h>
#include <stdint.h>

#include "symbolize/range_index.h"

/* Inlined calls deeper than this are left out, the innermost ones. */
#define DP_DWARF_MAX_LINES 256

/* One call that was inlined. */
struct dp_dwarf_call {
	void *die_addr; /* its DIE's, in the function's unit */
	uint32_t outer; /* the call that it is part of; DP_DWARF_NO_CALL: the function itself */
};

#define DP_DWARF_NO_CALL UINT32_MAX

/* The inlined calls of one function by address. Zeroed memory is a function without any. */
struct dp_dwarf_calls {
	struct dp_dwarf_call *calls;
	size_t n, capacity;
	struct dp_range_index by_pc; /* value: index into calls */
};

/*
 * Fills @ret, which must be empty, with the inlined calls of @function (a subprogram's DIE). What
 * is beyond its bounds (256 levels, 1 Mi DIEs, 1 Mi ranges) is left out.
 *
 * *@room: how many calls and ranges all functions together may still have, of at most 32 bytes
 * each; the function's are taken off.
 * Returns 0 or -ENOMEM (@ret is empty then).
 */
int dp_dwarf_calls_build(struct dp_dwarf_calls *ret, const Dwarf_Die *function, size_t *room);

/* Frees what it holds. */
void dp_dwarf_calls_clear(struct dp_dwarf_calls *calls);

/*
 * The calls around @pc in @function, innermost first and @function itself last.
 *
 * @ret: room for DP_DWARF_MAX_LINES. Returns how many, at least 1.
 */
size_t dp_dwarf_calls_at(const struct dp_dwarf_calls *calls, const Dwarf_Die *function, uint64_t pc,
			 Dwarf_Die *ret);

#endif
