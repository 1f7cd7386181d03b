/* SPDX-License-Identifier: MIT */
#include "symbolize/debug_file.h"

#include <elfutils/libdwelf.h>
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "symbolize/alt_file.h"

/*
 * The one hard idea: libdwfl is given the file that the registry holds open, and a search of our
 * own for separate debug files. dwfl_standard_find_debuginfo() would ask debuginfod when
 * DEBUGINFOD_URLS is set, and block on the network while a target waits; of it only the build-id
 * part, dwfl_build_id_find_debuginfo(), looks at nothing but the disk (elfutils 0.188,
 * libdwfl/find-debuginfo.c and libdwfl/dwfl_build_id_find_debuginfo.c).
 *
 * The module's own file is a copy in memory (elf_copy.h). libdwfl maps separate debug files, which
 * package managers and linkers replace by a new file and do not cut short.
 */

struct candidate {
	Dwfl_Module *module;
	const char *link;
	GElf_Word crc;
};

static int find_elf(Dwfl_Module *module, void **userdata, const char *name, Dwarf_Addr base,
		    char **ret_file_name, Elf **ret_elf)
{
	(void)module;
	(void)base;
	*ret_elf = *userdata; /* now libdwfl's */
	*userdata = NULL;
	if (*ret_elf)
		*ret_file_name = strdup(name);
	return -1;
}

/* Source: GDB manual, "Debugging Information in Separate Files": the CRC-32 of IEEE 802.3. */
static GElf_Word crc32_update(GElf_Word crc, const unsigned char *bytes, size_t n_bytes)
{
	crc = ~crc;
	for (size_t i = 0; i < n_bytes; i++) {
		crc ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (0xedb88320u & -(crc & 1));
	}
	return ~crc;
}

static bool crc_matches(int fd, GElf_Word wanted)
{
	unsigned char bytes[16384];
	GElf_Word crc = 0;
	off_t at = 0;
	ssize_t n;

	while ((n = pread(fd, bytes, sizeof(bytes), at)) > 0) {
		crc = crc32_update(crc, bytes, (size_t)n);
		at += n;
	}
	return n == 0 && crc == wanted;
}

/* The build-id decides if the module has one, the CRC if not. */
static bool belongs(int fd, const struct candidate *candidate)
{
	const unsigned char *wanted;
	const void *found;
	GElf_Addr vaddr;
	int wanted_bytes = dwfl_module_build_id(candidate->module, &wanted, &vaddr);
	bool same;
	Elf *elf;

	if (wanted_bytes <= 0)
		return crc_matches(fd, candidate->crc);
	elf = elf_begin(fd, ELF_C_READ, NULL);
	if (!elf)
		return false;
	same = dwelf_elf_gnu_build_id(elf, &found) == wanted_bytes &&
	       memcmp(found, wanted, (size_t)wanted_bytes) == 0;
	elf_end(elf);
	return same;
}

/* Opens @prefix @directory @infix / link. */
static int try_open(const struct candidate *candidate, const char *prefix, const char *directory,
		    int directory_bytes, const char *infix)
{
	char path[PATH_MAX];
	struct stat st;
	int fd;

	if (snprintf(path, sizeof(path), "%s%.*s%s/%s", prefix, directory_bytes, directory, infix,
		     candidate->link) >= (int)sizeof(path) ||
	    stat(path, &st) < 0 || !S_ISREG(st.st_mode))
		return -1;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0 && !belongs(fd, candidate)) {
		close(fd);
		return -1;
	}
	return fd;
}

static int find_by_link(const struct candidate *candidate, const char *file_name)
{
	const char *slash = strrchr(file_name, '/');
	int directory_bytes = slash ? (int)(slash - file_name) : 0;
	int fd;

	if (file_name[0] != '/' || strchr(candidate->link, '/'))
		return -1;
	fd = try_open(candidate, "", file_name, directory_bytes, "/.debug");
	if (fd < 0)
		fd = try_open(candidate, "/usr/lib/debug", file_name, directory_bytes, "");
	if (fd < 0)
		fd = try_open(candidate, "", file_name, directory_bytes, "");
	return fd;
}

static int duplicate(int fd)
{
	return fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
}

/*
 * libdwfl also asks here for the alternate file of dwz, with a CRC of 0.
 */
static int find_debuginfo(Dwfl_Module *module, void **userdata, const char *name, Dwarf_Addr base,
			  const char *file_name, const char *link, GElf_Word crc,
			  char **ret_file_name)
{
	struct candidate candidate = {module, link, crc};
	const struct dp_separate_files *separate = *userdata;
	int fd = dwfl_build_id_find_debuginfo(module, userdata, name, base, file_name, link, crc,
					      ret_file_name);
	bool is_alternate = link && crc == 0;

	if (fd < 0 && file_name && link && is_alternate)
		fd = dp_alt_file_open(module, file_name, link);
	if (fd < 0 && file_name && link && !is_alternate)
		fd = find_by_link(&candidate, file_name);
	if (fd < 0 && separate)
		fd = duplicate(is_alternate ? separate->alt_fd : separate->debug_fd);
	return fd;
}

void dp_debug_file_close(struct dp_debug_file *file)
{
	if (file->dwfl)
		dwfl_end(file->dwfl);
	dp_elf_copy_clear(&file->copy);
	*file = (struct dp_debug_file){0};
}

static int begin(struct dp_debug_file *file, const char *path, const struct dp_elf_image *image,
		 const struct dp_separate_files *separate)
{
	static const Dwfl_Callbacks callbacks = {.find_elf = find_elf,
						 .find_debuginfo = find_debuginfo};
	void **userdata;
	GElf_Addr bias;

	file->dwfl = dwfl_begin(&callbacks);
	if (!file->dwfl)
		return -ENOMEM;
	dwfl_report_begin(file->dwfl);
	file->module = dwfl_report_module(file->dwfl, path, image->base, image->end);
	if (!file->module || dwfl_report_end(file->dwfl, NULL, NULL) != 0 ||
	    !dwfl_module_info(file->module, &userdata, NULL, NULL, NULL, NULL, NULL, NULL))
		return -ENOEXEC;
	*userdata = elf_memory(file->copy.bytes, file->copy.n_bytes);
	if (!*userdata || !dwfl_module_getelf(file->module, &bias))
		return -ENOEXEC;
	*userdata = (void *)separate; /* for find_debuginfo() */
	return 0;
}

int dp_debug_file_open(struct dp_debug_file *ret, struct dp_modules *modules, uint32_t id,
		       const struct dp_separate_files *separate)
{
	const struct dp_elf_image *image = dp_module_image(modules, id);
	struct dp_debug_file file = {0};
	struct dp_module_info info;
	int r;

	if (!image || !dp_module_get(modules, id, &info))
		return -ENOEXEC;
	r = dp_elf_copy_read(&file.copy, modules, id);
	if (r == 0)
		r = begin(&file, info.path, image, separate);
	if (r < 0) {
		dp_debug_file_close(&file);
		return r;
	}
	*ret = file;
	return 0;
}
