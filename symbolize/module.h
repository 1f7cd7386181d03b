/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_MODULE_H
#define DP_SYMBOLIZE_MODULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

/*
 * A module is one ELF file that a target has mapped as code, opened while the target lives so that
 * its names can be resolved after the file was replaced, the library closed or the process gone.
 * Identity is the device, inode and build-id, never the path alone.
 */

#define DP_MODULE_BUILD_ID_MAX 64

struct dp_modules;

enum dp_module_kind {
	DP_MODULE_ELF,	  /* an ELF file that was opened */
	DP_MODULE_VDSO,	  /* the kernel's vdso, copied out of the target */
	DP_MODULE_OPAQUE, /* a file that is mapped but could not be opened or is no ELF */
};

struct dp_module_info {
	const char *path;	 /* as mapped in the target, " (deleted)" removed */
	const uint8_t *build_id; /* GNU build-id note; NULL if there is none */
	size_t build_id_bytes;
	enum dp_module_kind kind;
	int machine; /* ELF e_machine; 0 if opaque */
};

/*
 * Creates an empty registry. It keeps at most DP_FRAME_MAX_MODULE modules.
 * Returns 0 or -ENOMEM; *@ret only on success, owned by the caller.
 */
int dp_modules_new(struct dp_modules **ret);

/* Closes every file and frees the registry. NULL is allowed. */
void dp_modules_free(struct dp_modules *modules);

/*
 * The functions below may be called by any thread, also while another one adds modules.
 */

/* What could not be kept as it should be; cumulative. */
struct dp_modules_stats {
	uint64_t n_without_fd;	  /* opaque because no file descriptor was left */
	uint64_t n_unreadable;	  /* opaque because the file could not be opened or is no ELF */
	uint64_t n_over_limit;	  /* mappings without a module: DP_FRAME_MAX_MODULE reached */
	uint64_t n_segments_lost; /* executable segments beyond what is kept of one file */
};

void dp_modules_get_stats(const struct dp_modules *modules, struct dp_modules_stats *ret);

/* Number of modules; ids run from 1 to this number (0 is "no module"). */
uint32_t dp_modules_count(const struct dp_modules *modules);

/*
 * What is known of module @id (1 … count). The strings live as long as @modules.
 * Returns false if there is no such module.
 */
bool dp_module_get(const struct dp_modules *modules, uint32_t id, struct dp_module_info *ret);

/*
 * Duplicates nothing: returns the open file descriptor of the module's ELF file, owned by @modules,
 * or -1 (vdso, opaque).
 */
int dp_module_fd(const struct dp_modules *modules, uint32_t id);

/* One symbol that was asked for by name. */
struct dp_found_symbol {
	size_t i_name;	     /* index into the names that were asked for */
	uint64_t file_off;   /* where its first instruction lies in the module's file */
	uint64_t size_bytes; /* st_size; 0 if unknown */
};

/*
 * Finds functions by exact name (symbol versions ignored) in the module's .dynsym and .symtab:
 * defined, of type STT_FUNC or STT_GNU_IFUNC-free, in an executable segment. Every (name, offset)
 * is given once, sorted by i_name and then offset; a name may have several offsets (symbol
 * versions).
 *
 * @names: @n_names NUL-terminated strings.
 * *@ret: array of *@ret_n, to be freed with free(); NULL when nothing was found.
 * Reads the file; may block on it; allocates.
 * Returns 0, -ENOMEM, -ENOENT (no such module), or -ENOEXEC (opaque or corrupt: nothing can be
 * found).
 */
int dp_module_find_functions(struct dp_modules *modules, uint32_t id, const char *const *names,
			     size_t n_names, struct dp_found_symbol **ret, size_t *ret_n);

/*
 * Copies up to @n_bytes of the module's file from @file_off into @ret.
 * Returns the number of bytes copied (short at the end of the file), or a negative errno.
 */
ptrdiff_t dp_module_read(struct dp_modules *modules, uint32_t id, uint64_t file_off, void *ret,
			 size_t n_bytes);

#endif
