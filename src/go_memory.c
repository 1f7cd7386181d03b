/* SPDX-License-Identifier: MIT */
/*
 * The one hard idea: a read that fails in the middle says only how many bytes came before, so the
 * pieces are counted off against it.
 */
#include "src/go_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "src/base/proc_stat.h"

typedef int read_batch(pid_t tid, const struct iovec *local, const struct iovec *remote, size_t n,
		       size_t *ret_n);

static int read_vm(pid_t tid, const struct iovec *local, const struct iovec *remote, size_t n,
		   size_t *ret_n)
{
	ssize_t r = process_vm_readv(tid, local, n, remote, n, 0);
	size_t left, i = 0;

	*ret_n = 0;
	if (r < 0)
		return -errno;
	for (left = (size_t)r; i < n && left >= remote[i].iov_len; i++)
		left -= remote[i].iov_len;
	*ret_n = i;
	return i < n ? -EFAULT : 0;
}

static int read_file(pid_t tid, const struct iovec *local, const struct iovec *remote, size_t n,
		     size_t *ret_n)
{
	char path[64];
	size_t i;
	int fd, r = 0;

	*ret_n = 0;
	snprintf(path, sizeof(path), "/proc/%d/mem", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	for (i = 0; i < n; i++) {
		ssize_t got = pread(fd, local[i].iov_base, remote[i].iov_len,
				    (off_t)(uintptr_t)remote[i].iov_base);

		if (got != (ssize_t)remote[i].iov_len) {
			/* Nothing at all, without an error: the memory is gone with the process. */
			r = got == 0 && remote[i].iov_len > 0 ? -ESRCH : -EFAULT;
			break;
		}
	}
	close(fd);
	*ret_n = i;
	return r;
}

static int read_through(read_batch *read, pid_t pid, const struct iovec *local,
			const struct iovec *remote, size_t n, size_t *ret_n)
{
	int r = read(pid, local, remote, n, ret_n);
	pid_t tid;

	if (r != -ESRCH)
		return r;
	tid = dp_find_live_thread(pid);
	return tid == 0 || tid == pid ? r : read(tid, local, remote, n, ret_n);
}

int dp_go_memory_read_all(pid_t pid, const struct iovec *local, const struct iovec *remote,
			  size_t n, size_t *ret_n)
{
	size_t done = 0, got;
	int r = 0;

	while (done < n && r == 0) {
		size_t some = n - done < IOV_MAX ? n - done : IOV_MAX;

		r = read_through(read_vm, pid, local + done, remote + done, some, &got);
		if (r == -ENOSYS || r == -EPERM)
			r = read_through(read_file, pid, local + done, remote + done, some, &got);
		done += got;
	}
	*ret_n = done;
	return r;
}

int dp_go_memory_read(pid_t pid, uint64_t avma, void *ret, size_t n_bytes)
{
	struct iovec local = {ret, n_bytes}, remote = {(void *)(uintptr_t)avma, n_bytes};
	size_t n;

	return dp_go_memory_read_all(pid, &local, &remote, 1, &n);
}
