/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_GO_VARIABLES_H
#define DP_SYMBOLIZE_GO_VARIABLES_H

#include <stddef.h>
#include <stdint.h>

/*
 * Looks for @n_names symbols of any kind, local ones too, in .symtab of the ELF file that is open
 * at
 * @fd: @ret[i] is the svma of the first one that is called @names[i], 0 if there is none. Nothing
 * in the file is trusted. Reads the file; may block on it.
 *
 * Returns how many were found; 0 too if it is no ELF file or was stripped.
 */
size_t dp_go_find_variables(int fd, const char *const *names, size_t n_names, uint64_t *ret);

/*
 * Where Go's build information lies (svma) in the file that is open at @fd: the section, or the
 * magic in a writable segment. Returns 0, -ENOENT, -ENOEXEC or -ENOMEM.
 */
int dp_go_find_build_info(int fd, uint64_t *ret_svma);

#endif
