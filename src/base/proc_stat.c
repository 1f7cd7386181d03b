/* SPDX-License-Identifier: MIT */
#include "src/base/proc_stat.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int dp_read_text(const char *path, char *ret, size_t n_bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, ret, n_bytes - 1);
	if (n < 0)
		n = -errno;
	close(fd);
	if (n < 0)
		return (int)n;
	ret[n] = '\0';
	return 0;
}

/* The name, field 2, may contain anything; the fields after its last ')' are plain: 3 is the state,
 * 9 the flags, 20 the threads, 22 the start, 28 the stack's. */
int dp_proc_stat_read(const char *path, struct dp_proc_stat *ret)
{
	struct dp_proc_stat stat;
	char text[1024];
	const char *at;
	int r = dp_read_text(path, text, sizeof(text));

	if (r < 0)
		return r;
	at = strrchr(text, ')');
	if (!at || sscanf(at,
			  ") %c %*s %*s %*s %*s %*s %u %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %ld "
			  "%*s %llu %*s %*s %*s %*s %*s %" SCNu64,
			  &stat.state, &stat.flags, &stat.n_threads, &stat.start_ticks,
			  &stat.stack_start) != 5)
		return -EBADMSG;
	*ret = stat;
	return 0;
}

bool dp_thread_is_alive(pid_t pid, pid_t tid)
{
	struct dp_proc_stat line;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
	return dp_proc_stat_read(path, &line) == 0 && line.state != 'Z' && line.state != 'X';
}

pid_t dp_find_live_thread(pid_t pid)
{
	struct dirent *entry;
	char path[64];
	pid_t found = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	if (!dir)
		return 0;
	while (found == 0 && (entry = readdir(dir))) {
		pid_t tid = atoi(entry->d_name);

		if (tid > 0 && dp_thread_is_alive(pid, tid))
			found = tid;
	}
	closedir(dir);
	return found;
}
