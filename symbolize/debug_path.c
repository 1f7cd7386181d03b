/* SPDX-License-Identifier: MIT */
#include "symbolize/debug_path.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "symbolize/proc.h"

/*
 * The one hard idea: libdwfl maps what it is given, and a mapped file that is cut short kills who
 * reads it.
 */

static int copy_from_root(int root_fd, const char *path)
{
	int copy = -1, fd = dp_proc_open_in_root(root_fd, path, strlen(path), 0);
	size_t n_left = 0;
	struct stat st;
	ssize_t n = 1;

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) == 0 && st.st_size <= DP_DEBUG_PATH_MAX_COPIED) {
		copy = memfd_create("debug", MFD_CLOEXEC);
		n_left = (size_t)st.st_size;
	}
	while (copy >= 0 && n_left > 0 && n > 0) {
		n = sendfile(copy, fd, NULL, n_left);
		n_left -= n > 0 ? (size_t)n : 0;
	}
	close(fd);
	if (copy >= 0 && n_left > 0) {
		close(copy);
		return -1;
	}
	return copy;
}

static int open_regular(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0 || !S_ISREG(st.st_mode))
		return -1;
	return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

int dp_debug_path_open(int root_fd, const char *path)
{
	return root_fd < 0 ? open_regular(path) : copy_from_root(root_fd, path);
}
