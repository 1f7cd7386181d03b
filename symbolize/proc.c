/* SPDX-License-Identifier: MIT */
#include "symbolize/proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "src/base/array.h"

/*
 * The one hard idea: a path out of another process decides nothing. map_files leads to the mapped
 * file itself; a path is believed only when the inode behind it is the mapped one.
 */

#define MAX_MAPS_BYTES (64u << 20)
#define MAX_MEMORY_BYTES (1u << 20)

static int read_whole(const char *path, char **ret_text, size_t *ret_bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t n_bytes = 0, capacity = 0;
	char *text = NULL;
	ssize_t n;
	int r;

	if (fd < 0)
		return -errno;
	do {
		r = dp_array_reserve((void **)&text, &capacity, n_bytes + (64u << 10), 1);
		if (r < 0)
			goto out;
		n = read(fd, text + n_bytes, capacity - n_bytes);
		if (n < 0 && errno != EINTR) {
			r = -errno;
			goto out;
		}
		n_bytes += n > 0 ? (size_t)n : 0;
		if (n_bytes > MAX_MAPS_BYTES) {
			r = -EFBIG;
			goto out;
		}
	} while (n != 0);
	*ret_text = text;
	*ret_bytes = n_bytes;
	text = NULL;
	r = 0;
out:
	free(text);
	close(fd);
	return r;
}

/* A thread without memory of its own reads as nothing; newer kernels refuse the open instead. */
static int read_task_maps(pid_t pid, pid_t tid, char **ret_text, size_t *ret_bytes)
{
	char path[64], *text = NULL;
	size_t n_bytes = 0;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/maps", pid, tid);
	r = read_whole(path, &text, &n_bytes);
	if (r < 0)
		return r == -ENOENT ? -ESRCH : r;
	if (n_bytes == 0) {
		free(text);
		return -ESRCH;
	}
	*ret_text = text;
	*ret_bytes = n_bytes;
	return 0;
}

int dp_proc_read_maps(pid_t pid, char **ret_text, size_t *ret_bytes, pid_t *ret_tid)
{
	int r = read_task_maps(pid, pid, ret_text, ret_bytes);
	char path[64];
	struct dirent *entry;
	pid_t tid = pid;
	DIR *dir;

	if (r != -ESRCH)
		goto out;
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? -ESRCH : -errno;
	while (r == -ESRCH && (entry = readdir(dir))) {
		tid = (pid_t)strtol(entry->d_name, NULL, 10);
		if (tid > 0 && tid != pid)
			r = read_task_maps(pid, tid, ret_text, ret_bytes);
	}
	closedir(dir);
out:
	if (r == 0)
		*ret_tid = tid;
	return r;
}

/* Opens @path if it is a regular file with @inode (0: any). */
static int open_regular(const char *path, uint64_t inode)
{
	struct stat st;
	int fd, r = 0;

	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -ENODEV;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		r = -errno;
	else if (!S_ISREG(st.st_mode) || (inode && st.st_ino != inode))
		r = -ESTALE;
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

int dp_proc_open_path(pid_t tid, const struct dp_maps_line *line)
{
	char path[PATH_MAX];
	int n;

	if (line->path_bytes == 0 || line->path[0] != '/')
		return -ENOENT;
	n = snprintf(path, sizeof(path), "/proc/%d/root%.*s", tid,
		     (int)(line->path_bytes < PATH_MAX ? line->path_bytes : PATH_MAX), line->path);
	if (n >= (int)sizeof(path))
		return -ENAMETOOLONG;
	return open_regular(path, line->inode);
}

int dp_proc_open_mapping(pid_t tid, const struct dp_maps_line *line)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, tid, line->start,
		 line->end);
	fd = open_regular(path, 0);
	if (fd >= 0 || fd == -EMFILE || fd == -ENFILE || line->deleted || line->inode == 0)
		return fd;
	return dp_proc_open_path(tid, line);
}

int dp_proc_open_root(pid_t tid)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/root", tid);
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return fd;
}

int dp_proc_open_in_root(int root_fd, const char *path, size_t path_bytes, uint64_t inode)
{
	const struct open_how how = {.flags = O_PATH | O_CLOEXEC,
				     .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	char text[PATH_MAX], again[32];
	int found, fd;

	if (path_bytes >= sizeof(text))
		return -ENAMETOOLONG;
	memcpy(text, path, path_bytes);
	text[path_bytes] = '\0';
	found = (int)syscall(SYS_openat2, root_fd, text, &how, sizeof(how));
	if (found < 0)
		return -errno;
	snprintf(again, sizeof(again), "/proc/self/fd/%d", found);
	fd = open_regular(again, inode);
	close(found);
	return fd;
}

int dp_proc_read_memory(pid_t tid, uint64_t avma, size_t n_bytes, void **ret)
{
	char path[64];
	char *bytes;
	ssize_t n;
	int fd, r = 0;

	if (n_bytes > MAX_MEMORY_BYTES)
		return -E2BIG;
	snprintf(path, sizeof(path), "/proc/%d/mem", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	bytes = malloc(n_bytes);
	if (!bytes) {
		r = -ENOMEM;
		goto out;
	}
	n = pread(fd, bytes, n_bytes, (off_t)avma);
	if (n != (ssize_t)n_bytes) {
		r = n < 0 ? -errno : -EIO;
		goto out;
	}
	*ret = bytes;
	bytes = NULL;
out:
	free(bytes);
	close(fd);
	return r;
}

/* The last number of the line that begins with @key (a newline first) in @status, or @otherwise. */
static unsigned long last_number(const char *status, const char *key, unsigned long otherwise)
{
	const char *line = strstr(status, key), *end;

	if (!line)
		return otherwise;
	line++;
	end = line + strcspn(line, "\n");
	while (end > line && end[-1] >= '0' && end[-1] <= '9')
		end--;
	return strtoul(end, NULL, 10);
}

int dp_proc_read_identity(pid_t pid, struct dp_proc_identity *ret)
{
	char path[64], status[8192], *uid;
	unsigned int real, effective;
	ssize_t n;
	int fd, r;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	n = read(fd, status, sizeof(status) - 1);
	r = n < 0 ? -errno : 0;
	close(fd);
	if (r < 0)
		return r;
	status[n] = '\0';
	uid = strstr(status, "\nUid:");
	if (!uid || sscanf(uid, " Uid: %u %u", &real, &effective) != 2)
		return -EBADMSG;
	ret->uid = effective;
	ret->ns_pid = (pid_t)last_number(status, "\nNSpid:", (unsigned long)pid);
	return 0;
}

int dp_proc_open_directory(pid_t pid, const char *path)
{
	struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
			       .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	char root[64];
	int root_fd, fd, r;

	snprintf(root, sizeof(root), "/proc/%d/root", pid);
	root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root_fd < 0)
		return -errno;
	fd = (int)syscall(SYS_openat2, root_fd, path, &how, sizeof(how));
	if (fd < 0 && errno == ENOSYS)
		fd = openat(root_fd, path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	r = fd < 0 ? -errno : fd;
	close(root_fd);
	return r;
}

static bool is_believed(const struct stat *st, uid_t uid)
{
	return S_ISREG(st->st_mode) && (st->st_uid == uid || st->st_uid == 0);
}

int dp_proc_open_owned(int directory_fd, const char *name, uid_t uid, const struct stat *except,
		       struct stat *ret)
{
	struct stat st;
	int fd;

	if (fstatat(directory_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (!is_believed(&st, uid))
		return -EPERM;
	if (except && st.st_dev == except->st_dev && st.st_ino == except->st_ino)
		return -EEXIST;
	fd = openat(directory_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || !is_believed(&st, uid)) {
		close(fd);
		return -EPERM;
	}
	*ret = st;
	return fd;
}
