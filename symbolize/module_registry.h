/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_MODULE_REGISTRY_H
#define DP_SYMBOLIZE_MODULE_REGISTRY_H

#include <libelf.h>
#include <sys/types.h>

#include "symbolize/elf_image.h"
#include "symbolize/module.h"

/*
 * How this layer itself puts modules into the registry and reads them; not for other folders.
 *
 * The functions that add give the id of the module that is the same already, or of a new one, in
 * *@ret_id; 0 when the registry is full, which is counted. @path of @path_bytes is copied. They
 * return 0 or -ENOMEM.
 */

/*
 * Adds the file open at @fd (regular, readable). @fd is taken over in every case: kept open, or
 * closed when the file is known, is no ELF (the module is opaque then), or on failure.
 */
int dp_modules_add_file(struct dp_modules *modules, int fd, const char *path, size_t path_bytes,
			uint32_t *ret_id);

/* Adds the vdso that was copied to @bytes (of malloc(), taken over in every case). */
int dp_modules_add_vdso(struct dp_modules *modules, void *bytes, size_t n_bytes, uint32_t *ret_id);

/*
 * Adds a file that cannot be had. @dev and @inode as far as known, else 0. @open_errno: why
 * (positive errno), for the statistics.
 */
int dp_modules_add_opaque(struct dp_modules *modules, dev_t dev, ino_t inode, const char *path,
			  size_t path_bytes, int open_errno, uint32_t *ret_id);

/*
 * The newest module of a file with this path and build-id (@n_bytes, at least 1), or 0. Returns
 * what it was when it was opened: asks no file system.
 */
uint32_t dp_modules_find(const struct dp_modules *modules, const char *path, size_t path_bytes,
			 const uint8_t *build_id, size_t n_bytes);

/*
 * Says where the process that the modules are of finds its files: @fd is its root directory, taken
 * over in every case; only the first one is kept.
 */
void dp_modules_set_root(struct dp_modules *modules, int fd);

/* That directory, owned by @modules; -1: not known. */
int dp_modules_root(const struct dp_modules *modules);

/*
 * Opens libelf on the module: its own handle at each call, to be given to elf_end(), valid as long
 * as @modules. The file is read, never mapped: a file that is cut short while we look at it gives
 * an error and not SIGBUS. NULL if there is no such module, it is opaque, or on failure.
 */
Elf *dp_module_elf_begin(const struct dp_modules *modules, uint32_t id);

/* The size of the vdso's copy; 0 if the module is none. */
size_t dp_module_vdso_bytes(const struct dp_modules *modules, uint32_t id);

/* The module's image, valid as long as @modules; NULL if there is no such module or it is opaque.
 */
const struct dp_elf_image *dp_module_image(const struct dp_modules *modules, uint32_t id);

#endif
