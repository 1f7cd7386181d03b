/* SPDX-License-Identifier: MIT */
#include "symbolize/perf_map.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "symbolize/proc.h"

/*
 * The one hard idea: the file grows while the process runs, and what was read of it stays good. So
 * only what is new is read, as long as the last bytes that were read are still where they were; a
 * file that got shorter, or another one, is read anew. The directory is held open, because the last
 * names are asked for when the process is gone, and its root with it.
 */

#define MAX_FILE_BYTES (64 << 20)
#define CHUNK_BYTES (64u << 10)
#define TAIL_BYTES 64u

struct dp_perf_map {
	pid_t pid;
	int pidfd;
	struct dp_proc_identity identity;
	int directory_fd; /* the process's /tmp; -1: not known */
	int fd;		  /* the map; -1: none */
	struct stat st;	  /* of the map when it was read last */
	off_t n_read;
	char tail[TAIL_BYTES]; /* the last n_tail bytes that were read */
	size_t n_tail;
	struct dp_jit_names names;
	struct dp_perf_map_stats stats;
};

static bool has_ended(int pidfd)
{
	struct pollfd pollfd = {.fd = pidfd, .events = POLLIN};

	return poll(&pollfd, 1, 0) > 0;
}

/* Who the process is, and where its files are, as far as it still lives. */
static void look_at_process(struct dp_perf_map *map)
{
	struct dp_proc_identity identity;
	int fd;

	if (dp_proc_read_identity(map->pid, &identity) < 0)
		return;
	fd = dp_proc_open_directory(map->pid, "tmp");
	if (fd < 0)
		return;
	if (has_ended(map->pidfd)) {
		close(fd);
		return;
	}
	if (map->directory_fd >= 0)
		close(map->directory_fd);
	map->directory_fd = fd;
	map->identity = identity;
}

int dp_perf_map_new(struct dp_perf_map **ret, pid_t pid, int pidfd)
{
	struct dp_perf_map *map = calloc(1, sizeof(*map));

	if (!map)
		return -ENOMEM;
	map->pid = pid;
	map->pidfd = pidfd;
	map->directory_fd = -1;
	map->fd = -1;
	look_at_process(map);
	*ret = map;
	return 0;
}

void dp_perf_map_free(struct dp_perf_map *map)
{
	if (!map)
		return;
	if (map->fd >= 0)
		close(map->fd);
	if (map->directory_fd >= 0)
		close(map->directory_fd);
	dp_jit_names_clear(&map->names);
	free(map);
}

/* Nothing was read. */
static void begin_anew(struct dp_perf_map *map)
{
	dp_jit_names_clear(&map->names);
	map->n_read = 0;
	map->n_tail = 0;
	map->st.st_size = -1;
	map->stats.n_bytes_over_limit = 0;
}

/* Opens the map if there is one that is not open. */
static void look_for_file(struct dp_perf_map *map)
{
	char name[64];
	struct stat st;
	int fd;

	if (map->directory_fd < 0)
		return;
	snprintf(name, sizeof(name), "perf-%d.map", map->identity.ns_pid);
	fd = dp_proc_open_owned(map->directory_fd, name, map->identity.uid,
				map->fd >= 0 ? &map->st : NULL, &st);
	if (fd < 0) {
		map->stats.n_refused += fd == -EPERM || fd == -ELOOP;
		return;
	}
	if (map->fd >= 0)
		close(map->fd);
	map->fd = fd;
	map->stats.n_files++;
	map->st = st;
	begin_anew(map);
}

/* Reads up to @n_bytes at @at; less at the end of the file or on failure. */
static size_t read_at(int fd, char *bytes, size_t n_bytes, off_t at)
{
	size_t n_read = 0;
	ssize_t n;

	while (n_read < n_bytes) {
		n = pread(fd, bytes + n_read, n_bytes - n_read, at + (off_t)n_read);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		n_read += (size_t)n;
	}
	return n_read;
}

/* Whether the file, as @st describes it now, goes on where it was read to. */
static bool goes_on(const struct dp_perf_map *map, const struct stat *st)
{
	char tail[TAIL_BYTES];

	return st->st_size > map->st.st_size &&
	       read_at(map->fd, tail, map->n_tail, map->n_read - (off_t)map->n_tail) ==
		       map->n_tail &&
	       memcmp(tail, map->tail, map->n_tail) == 0;
}

static void keep_tail(struct dp_perf_map *map, const char *bytes, size_t n_bytes)
{
	size_t n = n_bytes < TAIL_BYTES ? n_bytes : TAIL_BYTES;
	size_t n_old = map->n_tail < TAIL_BYTES - n ? map->n_tail : TAIL_BYTES - n;

	memmove(map->tail, map->tail + map->n_tail - n_old, n_old);
	memcpy(map->tail + n_old, bytes + n_bytes - n, n);
	map->n_tail = n_old + n;
}

/* Reads on to @end. */
static int read_on(struct dp_perf_map *map, off_t end)
{
	char *chunk = malloc(CHUNK_BYTES);
	int r = chunk ? 0 : -ENOMEM;

	while (r == 0 && map->n_read < end) {
		off_t left = end - map->n_read;
		size_t n = read_at(map->fd, chunk,
				   left < (off_t)CHUNK_BYTES ? (size_t)left : CHUNK_BYTES,
				   map->n_read);

		if (n == 0)
			break;
		r = dp_jit_names_feed(&map->names, chunk, n);
		keep_tail(map, chunk, n);
		map->n_read += (off_t)n;
	}
	free(chunk);
	return r == 0 ? dp_jit_names_commit(&map->names) : r;
}

static bool is_unchanged(const struct stat *a, const struct stat *b)
{
	return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

int dp_perf_map_refresh(struct dp_perf_map *map)
{
	struct stat st;
	off_t end;
	int r;

	look_at_process(map);
	look_for_file(map);
	if (map->fd < 0 || fstat(map->fd, &st) < 0 || is_unchanged(&st, &map->st))
		return 0;
	if (map->st.st_size >= 0 && !goes_on(map, &st)) {
		begin_anew(map);
		map->stats.n_rereads++;
	}
	end = st.st_size < MAX_FILE_BYTES ? st.st_size : MAX_FILE_BYTES;
	r = read_on(map, end);
	map->st = st;
	map->stats.n_bytes_over_limit = (uint64_t)(st.st_size - end);
	if (r < 0)
		begin_anew(map);
	return r;
}

const char *dp_perf_map_find(const struct dp_perf_map *map, uint64_t avma)
{
	return dp_jit_names_find(&map->names, avma);
}

void dp_perf_map_get_stats(const struct dp_perf_map *map, struct dp_perf_map_stats *ret)
{
	*ret = map->stats;
	ret->text = map->names.stats;
}
