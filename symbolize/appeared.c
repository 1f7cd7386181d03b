/* SPDX-License-Identifier: MIT */
#include "symbolize/appeared.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "symbolize/proc.h"

/*
 * The one hard idea: the record of a mapping is read later than it was written, and the same
 * address may hold another library by then. So the address only leads to a file, and the build-id
 * that the kernel wrote into the record says whether it is the right one. Where a file has none,
 * the path must be the same.
 */

struct search {
	struct dp_modules *modules;
	pid_t pid;
	const struct dp_file_identity *identity; /* or NULL */
};

static bool has_build_id(const struct search *search)
{
	return search->identity && search->identity->build_id_bytes > 0;
}

/* Closes @fd, and gives -ESTALE, if it is a file of another build-id. */
static int check_build_id(const struct search *search, int fd)
{
	const struct dp_file_identity *identity = search->identity;
	struct dp_elf_image image;
	Elf *elf;
	bool same;

	if (fd < 0 || !has_build_id(search))
		return fd;
	elf = elf_begin(fd, ELF_C_READ, NULL);
	same = elf && dp_elf_image_read(elf, &image) == 0 &&
	       image.build_id_bytes == identity->build_id_bytes &&
	       memcmp(image.build_id, identity->build_id, image.build_id_bytes) == 0;
	elf_end(elf);
	if (same)
		return fd;
	close(fd);
	return -ESTALE;
}

/* Finds the line of the mapping that holds @avma in the maps at @text. */
static bool find_line(const char *text, size_t n_bytes, uint64_t avma, struct dp_maps_line *ret)
{
	const char *end = text + n_bytes, *next;

	for (; text < end; text = next) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));

		next = newline ? newline + 1 : end;
		if (dp_maps_parse_line(text, (size_t)(next - text), ret) == 0 &&
		    avma >= ret->start && avma < ret->end)
			return true;
	}
	return false;
}

static bool same_path(const struct dp_maps_line *a, const struct dp_maps_line *b)
{
	return a->path_bytes == b->path_bytes && memcmp(a->path, b->path, a->path_bytes) == 0;
}

/*
 * Opens the file that is mapped at @line's start now, whatever the kernel has split or united
 * since, if it is the wanted one. With a build-id its path need not be the same: of a file in an
 * overlay kernels before 6.19 write the one inside the layer (commit "perf/core: Fix MMAP event
 * path names with backing files"), and the one in the maps is what the target knows; that one is
 * given.
 *
 * *@ret_now: only on success; its path lies in @line's or in *@ret_text, which is to be freed in
 * every case.
 */
static int open_mapped_now(const struct search *search, const struct dp_maps_line *line,
			   struct dp_maps_line *ret_now, char **ret_text)
{
	struct dp_maps_line now = *line;
	pid_t tid = search->pid;
	size_t n_bytes;
	int fd, r = dp_proc_read_maps(search->pid, ret_text, &n_bytes, &tid);

	if (r == -ENOMEM)
		return r;
	if (r == 0 && !find_line(*ret_text, n_bytes, line->start, &now))
		return -ENOENT;
	if (!has_build_id(search) && !same_path(&now, line))
		return -ESTALE;
	fd = check_build_id(search, dp_proc_open_mapping(tid, &now));
	if (fd >= 0)
		*ret_now = now;
	return fd;
}

/* Opens the file at the path that the mapping had, also when the process has ended meanwhile. */
static int open_path(const struct search *search, const struct dp_maps_line *line)
{
	int fd, root_fd = dp_modules_root(search->modules);
	struct dp_maps_line wanted = *line;

	if (!search->identity || line->deleted)
		return -ENOENT;
	wanted.inode = has_build_id(search) ? 0 : search->identity->inode;
	fd = check_build_id(search, dp_proc_open_path(search->pid, &wanted));
	if (fd < 0 && root_fd >= 0)
		fd = check_build_id(search, dp_proc_open_in_root(root_fd, wanted.path,
								 wanted.path_bytes, wanted.inode));
	return fd;
}

static int add_opaque(const struct search *search, const struct dp_maps_line *line, int open_errno,
		      uint32_t *ret_module)
{
	struct dp_file_identity identity = {0};

	if (search->identity)
		identity = *search->identity;
	return dp_modules_add_opaque(search->modules, makedev(identity.major, identity.minor),
				     identity.inode, line->path, line->path_bytes, open_errno,
				     ret_module);
}

int dp_appeared_open(struct dp_modules *modules, pid_t pid, const struct dp_maps_line *line,
		     const struct dp_file_identity *identity, uint32_t *ret_module)
{
	const struct search search = {modules, pid, identity};
	struct dp_maps_line now = *line;
	char *text = NULL;
	int fd, r;

	/* Without a look at the process: of a library that comes and goes no trace may be left. */
	if (has_build_id(&search)) {
		*ret_module = dp_modules_find(modules, line->path, line->path_bytes,
					      identity->build_id, identity->build_id_bytes);
		if (*ret_module)
			return 0;
	}
	fd = open_mapped_now(&search, line, &now, &text);
	if (fd < 0 && fd != -EMFILE && fd != -ENFILE && fd != -ENOMEM)
		fd = open_path(&search, line);
	if (fd == -ENOMEM)
		r = fd;
	else if (fd < 0)
		r = add_opaque(&search, line, -fd, ret_module);
	else
		r = dp_modules_add_file(modules, fd, now.path, now.path_bytes, ret_module);
	free(text);
	return r;
}
