/* SPDX-License-Identifier: MIT */
#ifndef DP_GO_BUILD_INFO_H
#define DP_GO_BUILD_INFO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Reads the version ("go1.24.4") out of the build information at @avma of process @pid: since Go
 * 1.18 it is in it, before that it is pointed at. Cut to fit @ret of @n_bytes.
 *
 * Returns 0, -EBADMSG (it makes no sense), or a negative errno. Source: Go's debug/buildinfo.
 */
int dp_go_build_info_version(pid_t pid, uint64_t avma, char *ret, size_t n_bytes);

#endif
