/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_DEBUG_FILE_H
#define DP_SYMBOLIZE_DEBUG_FILE_H

#include <elfutils/libdwfl.h>

#include "symbolize/module_registry.h"

/*
 * Opens libdwfl on module @id, one session a module, so that svma are its addresses (up to the bias
 * that each of its functions gives). Separate debug files are found by build-id and by
 * .gnu_debuglink, on this machine's disks only: never over the network, whatever DEBUGINFOD_URLS
 * says.
 *
 * *@ret_dwfl: to be given to dwfl_end(); before @modules goes. *@ret_module: borrowed from it.
 * Returns 0, or -ENOEXEC (no such module, opaque, or libdwfl fails).
 */
int dp_debug_file_open(const struct dp_modules *modules, uint32_t id, Dwfl **ret_dwfl,
		       Dwfl_Module **ret_module);

#endif
