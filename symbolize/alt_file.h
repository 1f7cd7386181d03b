/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_ALT_FILE_H
#define DP_SYMBOLIZE_ALT_FILE_H

#include <elfutils/libdwfl.h>

/*
 * Opens the alternate file that dwz made of what several files share, where @module's DWARF says
 * that it lies: at @link, which may be relative to the directory of @file_name (absolute, or NULL
 * if not known). @root_fd: as for dp_debug_path_open().
 *
 * To be called out of libdwfl's search for debug files only. Returns a descriptor of the caller's,
 * or -1 if there is no such file or it has another build-id.
 */
int dp_alt_file_open(Dwfl_Module *module, int root_fd, const char *file_name, const char *link);

#endif
