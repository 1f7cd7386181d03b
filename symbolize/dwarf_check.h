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
 * Returns false when that cannot be had, and @dwarf is not to be used.
 */
bool dp_dwarf_end_strings(Dwarf *dwarf);

#endif
