/* SPDX-License-Identifier: MIT */
#include "symbolize/debug_file.h"

#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "symbolize/alt_file.h"
#include "symbolize/debug_path.h"

/*
 * The one hard idea: libdwfl is given the file that the registry holds open, and a search of our
 * own for separate debug files. dwfl_standard_find_debuginfo() would ask debuginfod when
 * DEBUGINFOD_URLS is set, and block on the network while a target waits; of it only the build-id
 * part, dwfl_build_id_find_debuginfo(), looks at nothing but the disk (elfutils 0.188,
 * libdwfl/find-debuginfo.c and libdwfl/dwfl_build_id_find_debuginfo.c).
 *
 * The module's own file is a copy in memory (elf_copy.h). libdwfl maps separate debug files, which
 * package managers and linkers replace by a new file and do not cut short. Only what is found in
 * the target's own root, where nobody need be so careful, is copied too.
 */

struct candidate {
	Dwfl_Module *module;
	int root_fd; /* where paths begin; -1: our own root */
	const char *link;
	GElf_Word crc;
	char **ret_file_name; /* libdwfl's: where its alternate file is looked for */
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
	GElf_Addr vaddr;
	int wanted_bytes = dwfl_module_build_id(candidate->module, &wanted, &vaddr);

	if (wanted_bytes <= 0)
		return crc_matches(fd, candidate->crc);
	return dp_elf_file_has_build_id(fd, wanted, (size_t)wanted_bytes);
}

static int try_path(const struct candidate *candidate, const char *path)
{
	int fd = dp_debug_path_open(candidate->root_fd, path);

	if (fd >= 0 && !belongs(fd, candidate)) {
		close(fd);
		return -1;
	}
	if (fd >= 0)
		*candidate->ret_file_name = strdup(path);
	return fd;
}

/* Opens @prefix @directory @infix / link. */
static int try_open(const struct candidate *candidate, const char *prefix, const char *directory,
		    int directory_bytes, const char *infix)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s%.*s%s/%s", prefix, directory_bytes, directory, infix,
		     candidate->link) >= (int)sizeof(path))
		return -1;
	return try_path(candidate, path);
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

/* In the target's root, what dwfl_build_id_find_debuginfo() does in ours. */
static int find_by_build_id(const struct candidate *candidate)
{
	char path[64 + 2 * DP_MODULE_BUILD_ID_MAX] = "/usr/lib/debug/.build-id/";
	const unsigned char *bytes;
	GElf_Addr vaddr;
	int n_bytes = dwfl_module_build_id(candidate->module, &bytes, &vaddr);
	size_t n = strlen(path);

	if (n_bytes < 2 || n_bytes > DP_MODULE_BUILD_ID_MAX)
		return -1;
	for (int i = 0; i < n_bytes; i++)
		n += (size_t)snprintf(path + n, sizeof(path) - n, i == 0 ? "%02x/" : "%02x",
				      bytes[i]);
	snprintf(path + n, sizeof(path) - n, ".debug");
	return try_path(candidate, path);
}

/*
 * What @file_name is called inside the root: of a process that has changed its root but shares our
 * mounts, the kernel shows paths as we see them.
 */
static const char *name_in_root(int root_fd, const char *file_name)
{
	char link[32], root[PATH_MAX];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", root_fd);
	n = readlink(link, root, sizeof(root));
	if (n > 1 && strncmp(file_name, root, (size_t)n) == 0 && file_name[n] == '/')
		return file_name + n;
	return file_name;
}

/* By build-id and by link, in the target's root. */
static int find_in_root(const struct dp_debug_file *file, struct candidate candidate,
			const char *file_name, bool is_alternate)
{
	int fd;

	candidate.root_fd = file->root_fd;
	if (file_name)
		file_name = name_in_root(file->root_fd, file_name);
	if (is_alternate)
		return dp_alt_file_open(candidate.module, file->root_fd, file_name, candidate.link);
	fd = find_by_build_id(&candidate);
	if (fd < 0 && file_name && candidate.link)
		fd = find_by_link(&candidate, file_name);
	return fd;
}

/* libdwfl also asks here for the alternate file of dwz, with a CRC of 0. */
static int find_debuginfo(Dwfl_Module *module, void **userdata, const char *name, Dwarf_Addr base,
			  const char *file_name, const char *link, GElf_Word crc,
			  char **ret_file_name)
{
	const struct dp_debug_file *file = *userdata;
	struct candidate candidate = {module, -1, link, crc, ret_file_name};
	int fd = dwfl_build_id_find_debuginfo(module, userdata, name, base, file_name, link, crc,
					      ret_file_name);
	bool is_alternate = link && crc == 0;

	if (fd < 0 && is_alternate)
		fd = dp_alt_file_open(module, -1, file_name, link);
	if (fd < 0 && file_name && link && !is_alternate)
		fd = find_by_link(&candidate, file_name);
	if (fd < 0 && file && file->root_fd >= 0)
		fd = find_in_root(file, candidate, file_name, is_alternate);
	if (fd < 0 && file && file->separate)
		fd = duplicate(is_alternate ? file->separate->alt_fd : file->separate->debug_fd);
	return fd;
}

void dp_debug_file_close(struct dp_debug_file *file)
{
	if (file->dwfl)
		dwfl_end(file->dwfl);
	dp_elf_copy_clear(&file->copy);
	*file = (struct dp_debug_file){0};
}

/* @place: where *@file will be when it is asked for debug information. */
static int begin(struct dp_debug_file *file, const char *path, const struct dp_elf_image *image,
		 struct dp_debug_file *place)
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
	*userdata = place; /* for find_debuginfo() */
	return 0;
}

/* Whether the file is still what it was when it was first seen: not if it was overwritten in place.
 */
static bool is_unchanged(struct dp_modules *modules, uint32_t id, const struct dp_elf_image *image)
{
	Elf *elf = dp_module_elf_begin(modules, id);
	struct dp_elf_image now;
	bool same = elf && dp_elf_image_read(elf, &now) == 0 &&
		    now.build_id_bytes == image->build_id_bytes &&
		    memcmp(now.build_id, image->build_id, now.build_id_bytes) == 0;

	elf_end(elf);
	return same;
}

int dp_debug_file_open(struct dp_debug_file *ret, struct dp_modules *modules, uint32_t id,
		       const struct dp_separate_files *separate)
{
	const struct dp_elf_image *image = dp_module_image(modules, id);
	struct dp_debug_file file = {.root_fd = dp_modules_root(modules), .separate = separate};
	struct dp_module_info info;
	int r;

	if (!image || !dp_module_get(modules, id, &info))
		return -ENOEXEC;
	r = dp_elf_copy_read(&file.copy, modules, id);
	if (r == 0 && !is_unchanged(modules, id, image))
		r = -ESTALE;
	if (r == 0)
		r = begin(&file, info.path, image, ret);
	if (r < 0) {
		dp_debug_file_close(&file);
		return r;
	}
	*ret = file;
	return 0;
}
