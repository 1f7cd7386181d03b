/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_LOADER_H
#define DP_SYMBOLIZE_LOADER_H

#include <stdbool.h>
#include <stdint.h>

/*
 * What the file of a program or of a dynamic loader says about how it starts: where it is entered,
 * and where it tells debuggers that it has mapped libraries.
 */
struct dp_loader {
	int machine;   /* ELF e_machine */
	bool is_64bit; /* ELFCLASS64 */
	/* ET_DYN, and not linked as a program (DF_1_PIE): without an interpreter, a dynamic loader
	 * that is run by its own name. */
	bool is_library;
	uint64_t entry_svma;
	/* _dl_debug_state, which the loader calls whenever its link map has changed; 0: none. */
	uint64_t notify_svma;
	/* _r_debug, a struct r_debug (link.h) that says in which way; 0: none (musl exports none,
	 * and notifies only of link maps that are whole). */
	uint64_t r_debug_svma;
};

/*
 * Reads the ELF file behind @fd, which stays open. Only the dynamic symbol table is looked at: a
 * static program has _dl_debug_state too, and calls it only from dlopen().
 *
 * Blocks on the file; allocates; any thread.
 * Returns 0 or -ENOEXEC (no ELF file, or one whose header cannot be read). What cannot be read
 * beyond the header counts as not there.
 * Source: the System V ABI, "Dynamic Section"; glibc's elf/dl-debug.c and musl's ldso/dynlink.c.
 */
int dp_loader_read(int fd, struct dp_loader *ret);

#endif
