/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_DWARF_UNITS_H
#define DP_SYMBOLIZE_DWARF_UNITS_H

#include <elfutils/libdw.h>
#include <elfutils/libdwfl.h>

#include "symbolize/dwarf_calls.h"
#include "symbolize/elf_image.h"
#include "symbolize/range_index.h"

/*
 * The units of one module's DWARF by address, and in each unit, once it is needed, its functions.
 * Zeroed memory is a module without DWARF. Everything in the file may be a lie: every walk is
 * bounded in depth and in steps.
 */
struct dp_dwarf {
	Dwarf *dwarf;	   /* libdwfl's; NULL: none */
	uint64_t bias;	   /* pc in the DWARF + bias = address of libdwfl */
	uint64_t elf_bias; /* svma + elf_bias = address of libdwfl */
	const struct dp_elf_image *image;
	struct dp_dwarf_unit *units; /* in the file's order */
	size_t n_units, units_capacity;
	struct dp_range_index by_pc; /* value: index into units */
	size_t n_steps;		     /* range list entries read while building */
	size_t room_for_calls;	     /* see dp_dwarf_calls_build() */
};

struct dp_dwarf_function {
	Dwarf_Die die;
	bool walked; /* for its calls */
	struct dp_dwarf_calls calls;
};

struct dp_dwarf_unit {
	Dwarf_Die die;	/* has the line table */
	Dwarf_Die code; /* has the functions: the same, or the split unit's in a .dwo file */
	bool indexed;
	const char *directory; /* that relative paths begin in; "" if unknown */
	struct dp_dwarf_function *functions;
	size_t n_functions, functions_capacity;
	struct dp_range_index by_pc; /* value: index into functions */
};

/*
 * Fills @ret, which must be empty, from @module, whose code @image (borrowed) describes. A module
 * without DWARF gives an empty one. Returns 0 or -ENOMEM (to be cleared all the same).
 */
int dp_dwarf_build(struct dp_dwarf *ret, Dwfl_Module *module, const struct dp_elf_image *image);

/* Frees what it holds, before the module goes. */
void dp_dwarf_clear(struct dp_dwarf *dwarf);

/*
 * The unit and the function at @pc (of the DWARF).
 *
 * *@ret_unit: NULL if no unit has code there; valid until @dwarf is cleared. *@ret_function: with
 * its calls; NULL if the unit has none there (assembler code).
 * Returns 0 or -ENOMEM.
 */
int dp_dwarf_find(struct dp_dwarf *dwarf, uint64_t pc, struct dp_dwarf_unit **ret_unit,
		  struct dp_dwarf_function **ret_function);

#endif
