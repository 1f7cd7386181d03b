/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_ELF_COPY_H
#define DP_SYMBOLIZE_ELF_COPY_H

#include <stddef.h>
#include <stdint.h>

#include "symbolize/module_registry.h"

/*
 * A module's file in memory without its code and data: the headers, symbols, notes and what debug
 * information names addresses by at their places, zeros in between and a page of zeros behind.
 * Zeroed memory is none.
 */
struct dp_elf_copy {
	char *bytes;
	size_t n_bytes;	 /* of the file */
	size_t n_mapped; /* of memory */
};

/*
 * Copies module @id's file; the vdso is copied whole. Reads at most 4 GiB.
 *
 * Returns 0, -EFBIG (also if the address space does not hold it), or -ENOEXEC (no such module,
 * opaque, or not to be read).
 */
int dp_elf_copy_read(struct dp_elf_copy *ret, struct dp_modules *modules, uint32_t id);

/* Frees it, after everything that was made from it. */
void dp_elf_copy_clear(struct dp_elf_copy *copy);

#endif
