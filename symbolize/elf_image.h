/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_ELF_IMAGE_H
#define DP_SYMBOLIZE_ELF_IMAGE_H

#include <libelf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "symbolize/module.h"

/*
 * Where the code of an ELF file lies and how it is identified: what is read of every file when it
 * is first seen. Nothing in the file is trusted.
 */

#define DP_ELF_MAX_SEGMENTS 16

struct dp_elf_segment {
	uint64_t svma, file_off;
	uint64_t n_bytes; /* in the file */
};

struct dp_elf_image {
	int machine;	    /* e_machine */
	uint64_t base, end; /* svma: of the first PT_LOAD, aligned as loaded; behind the last */
	size_t n_segments;  /* executable PT_LOADs */
	size_t n_unfit;	    /* executable PT_LOADs beyond DP_ELF_MAX_SEGMENTS */
	struct dp_elf_segment segments[DP_ELF_MAX_SEGMENTS];
	size_t build_id_bytes; /* 0: none */
	uint8_t build_id[DP_MODULE_BUILD_ID_MAX];
};

/*
 * Reads the image's description of @elf. Only what can be executed (ET_EXEC, ET_DYN with an
 * executable PT_LOAD) is accepted.
 *
 * Returns 0, or -ENOEXEC. Source: elf(5).
 */
int dp_elf_image_read(Elf *elf, struct dp_elf_image *ret);

/* Whether @elf, or the file that is open at @fd, has the GNU build-id of @n_bytes at @build_id. */
bool dp_elf_has_build_id(Elf *elf, const void *build_id, size_t n_bytes);
bool dp_elf_file_has_build_id(int fd, const void *build_id, size_t n_bytes);

/* The svma of the code at @file_off. Returns false if no executable segment holds it. */
bool dp_elf_svma_of(const struct dp_elf_image *image, uint64_t file_off, uint64_t *ret_svma);

/* The file offset of the code at @svma. Returns false if no executable segment holds it. */
bool dp_elf_file_off_of(const struct dp_elf_image *image, uint64_t svma, uint64_t *ret_file_off);

/*
 * dp_module_find_functions() on @elf, described by @image.
 * Returns 0 or -ENOMEM; a corrupt table gives what could be read.
 */
int dp_elf_find_functions(Elf *elf, const struct dp_elf_image *image, const char *const *names,
			  size_t n_names, struct dp_found_symbol **ret, size_t *ret_n);

#endif
