/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_APPEARED_H
#define DP_SYMBOLIZE_APPEARED_H

#include <stdint.h>
#include <sys/types.h>

#include "symbolize/maps.h"
#include "symbolize/module_registry.h"
#include "symbolize/space.h"

/*
 * Gives the module of a mapping of a file that the kernel told of, which may be gone by now, or
 * another one may have its place: what is not the file that was mapped then is not taken.
 *
 * @line: the mapping as it was told; its permissions are not looked at.
 * @identity: of the file; NULL if not known.
 * *@ret_module: opaque when the file cannot be had any more; 0 when the registry is full.
 * Blocks on file reads. Returns 0 or -ENOMEM.
 */
int dp_appeared_open(struct dp_modules *modules, pid_t pid, const struct dp_maps_line *line,
		     const struct dp_file_identity *identity, uint32_t *ret_module);

#endif
