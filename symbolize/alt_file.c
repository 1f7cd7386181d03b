/* SPDX-License-Identifier: MIT */
#include "symbolize/alt_file.h"

#include <elfutils/libdwelf.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "symbolize/debug_path.h"
#include "symbolize/elf_image.h"

/*
 * The one hard idea: libdw would look for the alternate file itself, but beside a file that it has
 * a descriptor of, and ours are in memory. While libdwfl asks, the module's DWARF is open already,
 * and so says which build-id is wanted.
 */

int dp_alt_file_open(Dwfl_Module *module, int root_fd, const char *file_name, const char *link)
{
	const char *slash = file_name ? strrchr(file_name, '/') : NULL, *name;
	char path[PATH_MAX];
	const void *build_id;
	ssize_t build_id_bytes;
	Dwarf_Addr bias;
	int fd, n;

	if (link[0] != '/' && (!slash || file_name[0] != '/'))
		return -1;
	build_id_bytes =
		dwelf_dwarf_gnu_debugaltlink(dwfl_module_getdwarf(module, &bias), &name, &build_id);
	if (build_id_bytes <= 0)
		return -1;
	n = link[0] == '/' ? snprintf(path, sizeof(path), "%s", link)
			   : snprintf(path, sizeof(path), "%.*s/%s", (int)(slash - file_name),
				      file_name, link);
	if (n < 0 || (size_t)n >= sizeof(path))
		return -1;
	fd = dp_debug_path_open(root_fd, path);
	if (fd >= 0 && !dp_elf_file_has_build_id(fd, build_id, (size_t)build_id_bytes)) {
		close(fd);
		return -1;
	}
	return fd;
}
