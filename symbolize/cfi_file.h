/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_CFI_FILE_H
#define DP_SYMBOLIZE_CFI_FILE_H

#include <elfutils/libdw.h>
#include <libelf.h>
#include <stddef.h>
#include <stdint.h>

#include "symbolize/module.h"

/* One module's call frame information, open. Zeroed memory is none. */
struct dp_cfi_file {
	uint8_t *bytes; /* an ELF image in memory with nothing else in it */
	size_t n_bytes;
	Elf *elf;
	Dwarf *dwarf;
	Dwarf_CFI *eh_frame, *debug_frame; /* NULL: there is none */
};

/*
 * Reads .eh_frame and .debug_frame of module @id. Only 64-bit x86-64 files have any for us.
 *
 * @max_bytes: takes no more memory than this, but for what libdw makes of the entries it is asked
 * for.
 * *@n_bad: grows by what was refused as corrupt (cfi_check.h), whatever is returned.
 * @ret: to be closed. Returns 0; -ENOENT (no such module, opaque, or without anything usable);
 * -EFBIG; or -ENOMEM.
 */
int dp_cfi_file_open(struct dp_cfi_file *ret, const struct dp_modules *modules, uint32_t id,
		     size_t max_bytes, uint64_t *n_bad);

/* Closes it, after everything that borrows from it. */
void dp_cfi_file_close(struct dp_cfi_file *file);

#endif
