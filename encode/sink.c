/* SPDX-License-Identifier: MIT */
/*
 * The order is what makes a file whole or absent, also after a power cut: the data reaches the
 * disk before the name exists, the name is given by one atomic step that never replaces a file,
 * and the directory reaches the disk before success is reported. If that last step fails the name
 * is taken away again, because the caller will write the same delta once more.
 *
 * Source: rename(2), open(2), fsync(2).
 */
#include "encode/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S INT64_C(1000000000)
#define NS_PER_MS INT64_C(1000000)
#define SUFFIX ".pb.gz"
#define MAX_COMM 64
#define MAX_PROFILE 16
#define MAX_SAME_NAME 1000
#define MAX_TEMPORARY_TRIES 100
#define FILE_MODE 0644

_Static_assert(MAX_COMM + sizeof("--2147483648-") + MAX_PROFILE +
			       sizeof("-20261122T173000.123Z" SUFFIX) <=
		       DP_SINK_NAME_MAX,
	       "every name fits");

static bool is_safe(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '_' || c == '+' || c == '-';
}

static void safe_comm(char ret[MAX_COMM + 1], const char *comm)
{
	size_t n;

	if (!*comm)
		comm = "unknown";
	n = strnlen(comm, MAX_COMM);
	for (size_t i = 0; i < n; i++)
		ret[i] = is_safe(comm[i]) ? comm[i] : '_';
	ret[n] = '\0';
	if (ret[0] == '.' || ret[0] == '-')
		ret[0] = '_';
}

void dp_sink_name(char ret[DP_SINK_NAME_MAX], const char *comm, pid_t pid, const char *profile,
		  int64_t start_ns)
{
	char safe[MAX_COMM + 1], date[32] = "";
	int64_t ns = start_ns % NS_PER_S;
	time_t s = start_ns / NS_PER_S;
	struct tm utc;

	if (ns < 0) {
		ns += NS_PER_S;
		s--;
	}
	safe_comm(safe, comm);
	if (gmtime_r(&s, &utc))
		strftime(date, sizeof(date), "%Y%m%dT%H%M%S", &utc);
	snprintf(ret, DP_SINK_NAME_MAX, "%s-%d-%.*s-%s.%03dZ" SUFFIX, safe, (int)pid, MAX_PROFILE,
		 profile, date, (int)(ns / NS_PER_MS));
}

static const char *next_step(int code)
{
	switch (code) {
	case -ENOENT:
		return "create the directory (mkdir -p) or choose another one with --output";
	case -ENOTDIR:
		return "choose a directory with --output";
	case -EACCES:
	case -EPERM:
		return "make the directory writable for this user or choose another one with "
		       "--output";
	case -EROFS:
		return "choose a directory on a writable filesystem with --output";
	case -ENOSPC:
	case -EDQUOT:
		return "free some space or choose another directory with --output";
	case -EFBIG:
		return "raise the file size limit (ulimit -f) or choose another directory with "
		       "--output";
	case -EMFILE:
		return "raise the limit of open files (ulimit -n)";
	case -EIO:
		return "check the disk (dmesg) or choose another directory with --output";
	case -EEXIST:
		return "remove old files or choose another directory with --output";
	default:
		return "choose another directory with --output";
	}
}

/* "cannot WHAT DIR[/NAME]: WHY: NEXT STEP"; a path that would push out the next step is cut. */
static int fail(struct dp_error *err, int code, const char *what, const char *dir, const char *name)
{
	return dp_error_set(err, code, "cannot %s %.300s%s%.200s: %s: %s", what, dir,
			    name ? "/" : "", name ? name : "", strerror(-code), next_step(code));
}

static int open_at(int dir_fd, const char *path, int flags)
{
	int fd;

	do {
		fd = openat(dir_fd, path, flags | O_CLOEXEC, FILE_MODE);
	} while (fd < 0 && errno == EINTR);
	return fd < 0 ? -errno : fd;
}

/*
 * Opens @dir. One that may be written to but not listed can still take files; only its fsync must
 * be done without (an O_PATH descriptor gives EBADF there).
 */
static int open_dir(const char *dir)
{
	int fd = open_at(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY);

	return fd == -EACCES ? open_at(AT_FDCWD, dir, O_PATH | O_DIRECTORY) : fd;
}

/* Creates a file with a random hidden name in @dir_fd and opens it for writing. */
static int open_temporary(int dir_fd, char ret_name[DP_SINK_NAME_MAX])
{
	uint64_t random;
	int fd;

	for (int i = 0; i < MAX_TEMPORARY_TRIES; i++) {
		if (getrandom(&random, sizeof(random), 0) != sizeof(random))
			return -errno;
		snprintf(ret_name, DP_SINK_NAME_MAX, ".deltaprof-%016llx.tmp",
			 (unsigned long long)random);
		fd = open_at(dir_fd, ret_name, O_WRONLY | O_CREAT | O_EXCL);
		if (fd != -EEXIST)
			return fd;
	}
	return -EEXIST;
}

static int write_all(int fd, const char *data, size_t n_bytes)
{
	while (n_bytes > 0) {
		ssize_t n = TEMP_FAILURE_RETRY(write(fd, data, n_bytes));

		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		data += n;
		n_bytes -= (size_t)n;
	}
	return 0;
}

/* A filesystem that knows no fsync for this kind of file is not a failure. */
static int sync_fd(int fd)
{
	if (TEMP_FAILURE_RETRY(fsync(fd)) == 0 || errno == EINVAL || errno == EBADF ||
	    errno == EOPNOTSUPP)
		return 0;
	return -errno;
}

/* Network filesystems report a failed write as late as at close; EINTR has closed it. */
static int close_fd(int fd)
{
	return close(fd) < 0 && errno != EINTR ? -errno : 0;
}

/* Gives @from the name @to unless that exists (-EEXIST). */
static int rename_new(int dir_fd, const char *from, const char *to)
{
	if (renameat2(dir_fd, from, dir_fd, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	if (linkat(dir_fd, from, dir_fd, to, 0) < 0)
		return -errno;
	unlinkat(dir_fd, from, 0);
	return 0;
}

/* The @number-th file of that name: NAME.pb.gz, NAME-2.pb.gz, NAME-3.pb.gz … */
static int numbered_name(char ret[NAME_MAX + 1], const char *name, int number)
{
	size_t n_stem = strlen(name), n_suffix = strlen(SUFFIX);
	const char *suffix = "";
	int n;

	if (n_stem >= n_suffix && strcmp(name + n_stem - n_suffix, SUFFIX) == 0) {
		n_stem -= n_suffix;
		suffix = SUFFIX;
	}
	if (n_stem > NAME_MAX)
		return -ENAMETOOLONG;
	if (number == 1)
		n = snprintf(ret, NAME_MAX + 1, "%s", name);
	else
		n = snprintf(ret, NAME_MAX + 1, "%.*s-%d%s", (int)n_stem, name, number, suffix);
	return n > NAME_MAX ? -ENAMETOOLONG : 0;
}

/* Gives @temporary the first free name of the series and makes that durable. */
static int publish(int dir_fd, const char *temporary, const char *name)
{
	char final[NAME_MAX + 1];
	int r = -EEXIST;

	for (int i = 1; i <= MAX_SAME_NAME && r == -EEXIST; i++) {
		r = numbered_name(final, name, i);
		if (r < 0)
			return r;
		r = rename_new(dir_fd, temporary, final);
	}
	if (r < 0)
		return r;
	r = sync_fd(dir_fd);
	if (r < 0)
		unlinkat(dir_fd, final, 0);
	return r;
}

int dp_sink_check(const char *dir, struct dp_error *err)
{
	char temporary[DP_SINK_NAME_MAX];
	int dir_fd, fd, r = 0;

	dir_fd = open_dir(dir);
	if (dir_fd < 0)
		return fail(err, dir_fd, "open the output directory", dir, NULL);
	fd = open_temporary(dir_fd, temporary);
	if (fd < 0) {
		r = fail(err, fd, "create files in", dir, NULL);
		goto out;
	}
	close(fd);
	if (unlinkat(dir_fd, temporary, 0) < 0)
		r = fail(err, -errno, "remove the test file", dir, temporary);
out:
	close(dir_fd);
	return r;
}

int dp_sink_write(const char *dir, const char *name, const void *data, size_t n_bytes,
		  struct dp_error *err)
{
	char temporary[DP_SINK_NAME_MAX] = "";
	int dir_fd, fd, r, closed;

	dir_fd = open_dir(dir);
	if (dir_fd < 0)
		return fail(err, dir_fd, "open the output directory", dir, NULL);
	fd = open_temporary(dir_fd, temporary);
	if (fd < 0) {
		r = fail(err, fd, "create a file in", dir, NULL);
		goto out;
	}
	r = write_all(fd, data, n_bytes);
	if (r == 0)
		r = sync_fd(fd);
	closed = close_fd(fd);
	if (r == 0)
		r = closed;
	if (r == 0)
		r = publish(dir_fd, temporary, name);
	if (r < 0) {
		unlinkat(dir_fd, temporary, 0);
		r = fail(err, r, "write", dir, name);
	}
out:
	close(dir_fd);
	return r;
}
