/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_DEBUG_FILE_H
#define DP_SYMBOLIZE_DEBUG_FILE_H

#include <elfutils/libdwfl.h>

#include "symbolize/elf_copy.h"
#include "symbolize/module_registry.h"

/* Debug files that are already open; -1: none. */
struct dp_separate_files {
	int debug_fd;
	int alt_fd; /* what dwz has moved out of it */
};

/* One module's debug information, open. Zeroed memory is none. */
struct dp_debug_file {
	Dwfl *dwfl;
	Dwfl_Module *module;
	struct dp_elf_copy copy;
	int root_fd; /* of the modules: where the target finds its files; -1: none */
	const struct dp_separate_files *separate; /* or NULL */
};

/*
 * Opens libdwfl on module @id, one session a module, so that svma are its addresses (up to the bias
 * that each of its functions gives). Separate debug files are found by build-id and by
 * .gnu_debuglink, first in our own root, then in the target's, on this machine's disks only: never
 * over the network, whatever DEBUGINFOD_URLS says.
 *
 * @separate: where the disks have none, these are taken; borrowed until the file is closed. They
 * are the right ones: the caller has compared the build-ids. NULL: none.
 * @ret: to be given to dp_debug_file_close(); must not be moved before.
 * Returns 0, -ENOMEM, or another negative errno when there is nothing to be had; -ESTALE: the file
 * was overwritten in place, what it says now is not of what was mapped.
 */
int dp_debug_file_open(struct dp_debug_file *ret, struct dp_modules *modules, uint32_t id,
		       const struct dp_separate_files *separate);

/* Closes it, after everything that borrows from it. */
void dp_debug_file_close(struct dp_debug_file *file);

#endif
