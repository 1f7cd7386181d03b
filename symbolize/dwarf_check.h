/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_DWARF_CHECK_H
#define DP_SYMBOLIZE_DWARF_CHECK_H

#include <elfutils/libdw.h>
#include <stdbool.h>

/*
 * Sees to it that every string of @dwarf, and of the file that dwz has moved parts to, ends: libdw
 * 0.188 only checks where one begins. To be called before libdw is asked for anything else. Of
 * split DWARF (.dwo), which libdw opens by itself, nothing is said.
 *
 * Returns false when that cannot be had, or when the other file's path leads to no regular file;
 * @dwarf is not to be used then.
 */
bool dp_dwarf_end_strings(Dwarf *dwarf);

/*
 * Whether libdw may be let look for the split unit of skeleton unit @die: it opens the path that is
 * given there, and would wait at a pipe, or wake a device. False if anything but a regular file is
 * at an absolute one.
 */
bool dp_dwarf_split_is_file(Dwarf_Die *die);

#endif
