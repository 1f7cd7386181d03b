/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_DWARF_LINES_H
#define DP_SYMBOLIZE_DWARF_LINES_H

#include "symbolize/dwarf_units.h"

/* One call at an address: a function and where in its source. The strings are libdw's. */
struct dp_dwarf_line {
	const char *linkage_name; /* NULL: none */
	const char *name;	  /* NULL: none */
	const char *directory;	  /* that @file is relative to; "" if it is absolute or unknown */
	const char *file;	  /* "" if unknown */
	int64_t line, start_line; /* 0 if unknown */
};

/*
 * Finds the calls at @address (of libdwfl), innermost inlined call first.
 *
 * @ret: room for DP_DWARF_MAX_LINES. *@ret_n: 0 if the DWARF knows nothing there. Where it knows
 * the line but no function (assembler code), one line without names.
 * Returns 0 or -ENOMEM.
 */
int dp_dwarf_lines(struct dp_dwarf *dwarf, uint64_t address, struct dp_dwarf_line *ret,
		   size_t *ret_n);

#endif
