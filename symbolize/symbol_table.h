/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_SYMBOL_TABLE_H
#define DP_SYMBOLIZE_SYMBOL_TABLE_H

#include <elfutils/libdwfl.h>
#include <stdbool.h>

#include "symbolize/elf_image.h"
#include "symbolize/range_index.h"

/*
 * The functions of one module's symbol tables (.symtab, else .dynsym, of the file or of its
 * separate debug file, and .gnu_debugdata) by address. Zeroed memory is an empty table.
 */
struct dp_symbol_table {
	const char **names; /* range value → name, borrowed from libdwfl */
	size_t n, capacity;
	struct dp_range_index sized;
	struct dp_range_index labels; /* symbols of size 0 */
	bool has_locals;	      /* and so is not .dynsym alone */
};

/*
 * Fills @table, which must be empty, from @module, whose code @image describes. A file without
 * symbols gives an empty table.
 *
 * Returns 0 or -ENOMEM (@table is to be cleared all the same).
 */
int dp_symbol_table_build(struct dp_symbol_table *table, Dwfl_Module *module,
			  const struct dp_elf_image *image);

/* Frees what it holds, before the module goes. */
void dp_symbol_table_clear(struct dp_symbol_table *table);

/*
 * The name of the function at @address (of libdwfl), as in the file, a version ("@@GLIBC_2.2.5")
 * included; NULL if no symbol holds it. A symbol of size 0 holds what lies between it and the next
 * symbol or the end of its section, but only its first byte if the file has been stripped of local
 * functions, of which one may follow. Of several names of one function a global one with few
 * leading underscores is given. *@ret_is_global: set only if there is one.
 */
const char *dp_symbol_table_find(const struct dp_symbol_table *table, uint64_t address,
				 bool *ret_is_global);

#endif
