/* SPDX-License-Identifier: MIT */
/*
 * Real directories, real full and read-only filesystems where we may mount them, and a few system
 * calls (linked with --wrap) that can be told to fail in ways no filesystem at hand offers.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "encode/sink.h"

#define NAME "redis-server-812-heap-20261122T173000.123Z.pb.gz"
#define STEM "redis-server-812-heap-20261122T173000.123Z"
#define NOBODY 65534

/* What the wrapped calls do instead of their work; all zero: nothing. */
static struct {
	int write_errno;       /* every write fails so */
	size_t write_at_most;  /* bytes that one write takes */
	int write_interrupted; /* every second write fails with EINTR */
	unsigned n_writes;
	int fsync_errno[2]; /* of the file and of the directory */
	unsigned n_fsyncs;
	int rename_errno, link_errno;
	const char *absent; /* a path that must not exist during write and fsync */
} fake;

ssize_t __real_write(int fd, const void *data, size_t n_bytes);
int __real_fsync(int fd);
int __real_renameat2(int old_fd, const char *old, int new_fd, const char *new, unsigned flags);
int __real_linkat(int old_fd, const char *old, int new_fd, const char *new, int flags);
ssize_t __wrap_write(int fd, const void *data, size_t n_bytes);
int __wrap_fsync(int fd);
int __wrap_renameat2(int old_fd, const char *old, int new_fd, const char *new, unsigned flags);
int __wrap_linkat(int old_fd, const char *old, int new_fd, const char *new, int flags);

static int fails_with(int error)
{
	if (error)
		errno = error;
	return error;
}

ssize_t __wrap_write(int fd, const void *data, size_t n_bytes)
{
	if (fake.absent)
		assert_int_equal(access(fake.absent, F_OK), -1);
	if (fake.write_interrupted && fake.n_writes++ % 2 == 0)
		return errno = EINTR, -1;
	if (fails_with(fake.write_errno))
		return -1;
	if (fake.write_at_most && n_bytes > fake.write_at_most)
		n_bytes = fake.write_at_most;
	return __real_write(fd, data, n_bytes);
}

int __wrap_fsync(int fd)
{
	unsigned i = fake.n_fsyncs++;

	if (fake.absent && i == 0)
		assert_int_equal(access(fake.absent, F_OK), -1);
	return i < 2 && fails_with(fake.fsync_errno[i]) ? -1 : __real_fsync(fd);
}

int __wrap_renameat2(int old_fd, const char *old, int new_fd, const char *new, unsigned flags)
{
	assert_int_equal(flags, RENAME_NOREPLACE);
	return fails_with(fake.rename_errno) ? -1
					     : __real_renameat2(old_fd, old, new_fd, new, flags);
}

int __wrap_linkat(int old_fd, const char *old, int new_fd, const char *new, int flags)
{
	return fails_with(fake.link_errno) ? -1 : __real_linkat(old_fd, old, new_fd, new, flags);
}

/* Each test has a fresh directory, which is gone after it. */
static char dir[64];
static struct dp_error err;

static int set_up(void **state)
{
	(void)state;
	memset(&fake, 0, sizeof(fake));
	memset(&err, 0, sizeof(err));
	strcpy(dir, "/tmp/deltaprof-test-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
	char command[128];

	(void)state;
	memset(&fake, 0, sizeof(fake));
	umount2(dir, MNT_DETACH); /* what a failed test has left */
	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	return system(command);
}

/* Asserts that the directory has the files of @wanted, a sorted line each, and no others. */
static void assert_files(const char *wanted)
{
	char command[128], files[1024] = "";
	FILE *pipe;

	snprintf(command, sizeof(command), "LC_ALL=C ls -A '%s'", dir);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	files[fread(files, 1, sizeof(files) - 1, pipe)] = '\0';
	assert_int_equal(pclose(pipe), 0);
	assert_string_equal(files, wanted);
}

static void assert_content(const char *name, const char *wanted)
{
	char path[256], content[64] = "";
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "r");
	assert_non_null(file);
	assert_int_equal(fread(content, 1, sizeof(content) - 1, file), strlen(wanted));
	assert_string_equal(content, wanted);
	fclose(file);
}

static int write_text(const char *text)
{
	return dp_sink_write(dir, NAME, text, strlen(text), &err);
}

/* Asserts that a write fails with @code, leaves nothing and says @why and @next. */
static void assert_write_fails(int code, const char *why, const char *next)
{
	assert_int_equal(write_text("text"), code);
	assert_files("");
	if (!strstr(err.text, dir) || !strstr(err.text, why) || !strstr(err.text, next))
		fail_msg("wrong sentence: %s", err.text);
	assert_null(strchr(err.text, '\n'));
}

static void a_file_is_written_whole_and_nothing_else(void **state)
{
	struct stat st;
	char path[256];
	mode_t umask_before = umask(027);

	(void)state;
	assert_int_equal(write_text("some bytes"), 0);
	umask(umask_before);
	assert_files(NAME "\n");
	assert_content(NAME, "some bytes");
	snprintf(path, sizeof(path), "%s/%s", dir, NAME);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(st.st_nlink, 1);
	assert_int_equal(fake.n_fsyncs, 2);
	assert_string_equal(err.text, "");
}

static void the_name_appears_only_after_the_data_is_on_disk(void **state)
{
	char path[256];

	(void)state;
	snprintf(path, sizeof(path), "%s/%s", dir, NAME);
	fake.absent = path;
	fake.write_at_most = 1;
	assert_int_equal(write_text("abc"), 0);
	assert_content(NAME, "abc");
}

static void short_and_interrupted_writes_are_continued(void **state)
{
	(void)state;
	fake.write_at_most = 3;
	fake.write_interrupted = 1;
	assert_int_equal(write_text("0123456789"), 0);
	assert_int_equal(fake.n_writes, 8);
	assert_files(NAME "\n");
	assert_content(NAME, "0123456789");
}

static void an_empty_file_can_be_written(void **state)
{
	(void)state;
	assert_int_equal(dp_sink_write(dir, NAME, NULL, 0, &err), 0);
	assert_files(NAME "\n");
	assert_content(NAME, "");
}

static void an_existing_file_is_kept_and_the_new_one_numbered(void **state)
{
	(void)state;
	assert_int_equal(write_text("first"), 0);
	assert_int_equal(write_text("second"), 0);
	assert_int_equal(write_text("third"), 0);
	assert_files(STEM "-2.pb.gz\n" STEM "-3.pb.gz\n" NAME "\n");
	assert_content(NAME, "first");
	assert_content(STEM "-2.pb.gz", "second");
	assert_content(STEM "-3.pb.gz", "third");
}

static void without_rename_noreplace_a_link_does_the_same(void **state)
{
	(void)state;
	fake.rename_errno = EINVAL;
	assert_int_equal(write_text("first"), 0);
	assert_files(NAME "\n");
	fake.rename_errno = ENOSYS;
	assert_int_equal(write_text("second"), 0);
	assert_files(STEM "-2.pb.gz\n" NAME "\n");
	assert_content(NAME, "first");
	assert_content(STEM "-2.pb.gz", "second");
}

static void a_filesystem_without_rename_noreplace_and_link_is_named(void **state)
{
	(void)state;
	fake.rename_errno = EINVAL;
	fake.link_errno = EOPNOTSUPP;
	assert_write_fails(-EOPNOTSUPP, "Operation not supported", "--output");
}

static void a_name_without_the_suffix_is_numbered_at_its_end(void **state)
{
	(void)state;
	assert_int_equal(dp_sink_write(dir, "x", "1", 1, &err), 0);
	assert_int_equal(dp_sink_write(dir, "x", "2", 1, &err), 0);
	assert_files("x\nx-2\n");
}

static void a_name_that_is_too_long_is_refused(void **state)
{
	char name[300];

	(void)state;
	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(dp_sink_write(dir, name, "1", 1, &err), -ENAMETOOLONG);
	assert_files("");
}

static void writers_of_one_name_all_get_a_file(void **state)
{
	enum { n_writers = 4, n_files = 10 };
	char command[256];
	int status;

	(void)state;
	for (int i = 0; i < n_writers; i++) {
		if (fork() > 0)
			continue;
		for (int k = 0; k < n_files; k++) {
			if (write_text("same") != 0)
				_exit(1);
		}
		_exit(0);
	}
	for (int i = 0; i < n_writers; i++) {
		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
	snprintf(command, sizeof(command),
		 "test $(cat %s/" STEM "*.pb.gz | wc -c) = 160 && test $(ls -A %s | wc -l) = 40",
		 dir, dir);
	assert_int_equal(system(command), 0);
}

static void check_leaves_nothing(void **state)
{
	(void)state;
	assert_int_equal(dp_sink_check(dir, &err), 0);
	assert_files("");
	assert_string_equal(err.text, "");
	assert_int_equal(dp_sink_check(dir, NULL), 0);
}

static void a_missing_directory_is_named(void **state)
{
	char missing[128];

	(void)state;
	snprintf(missing, sizeof(missing), "%s/gone", dir);
	assert_int_equal(dp_sink_check(missing, &err), -ENOENT);
	assert_non_null(strstr(err.text, missing));
	assert_non_null(strstr(err.text, "No such file or directory: create the directory"));
	memset(&err, 0, sizeof(err));
	assert_int_equal(dp_sink_write(missing, NAME, "x", 1, &err), -ENOENT);
	assert_non_null(strstr(err.text, missing));
	assert_int_equal(dp_sink_write(missing, NAME, "x", 1, NULL), -ENOENT);
}

static void a_file_in_place_of_the_directory_is_named(void **state)
{
	char path[256];

	(void)state;
	assert_int_equal(write_text("x"), 0);
	snprintf(path, sizeof(path), "%s/%s", dir, NAME);
	assert_int_equal(dp_sink_check(path, &err), -ENOTDIR);
	assert_non_null(strstr(err.text, "Not a directory: choose a directory with --output"));
}

/* Root may write everywhere: run @call as somebody else then. */
#define AS_NOBODY(call)                                       \
	do {                                                  \
		int root_ = geteuid() == 0;                   \
		if (root_)                                    \
			assert_int_equal(seteuid(NOBODY), 0); \
		int result_ = (call);                         \
		if (root_)                                    \
			assert_int_equal(seteuid(0), 0);      \
		r = result_;                                  \
	} while (0)

static void an_unwritable_directory_is_named(void **state)
{
	int r;

	(void)state;
	assert_int_equal(chmod(dir, 0555), 0);
	AS_NOBODY(dp_sink_check(dir, &err));
	assert_int_equal(r, -EACCES);
	assert_non_null(strstr(err.text, dir));
	assert_non_null(strstr(err.text, "Permission denied: make the directory writable"));
	AS_NOBODY(write_text("x"));
	assert_int_equal(r, -EACCES);
	assert_int_equal(chmod(dir, 0755), 0);
	assert_files("");
}

static void a_directory_that_may_not_be_listed_still_takes_files(void **state)
{
	int r;

	(void)state;
	assert_int_equal(chmod(dir, 0333), 0);
	AS_NOBODY(dp_sink_check(dir, &err));
	assert_int_equal(r, 0);
	AS_NOBODY(write_text("x"));
	assert_int_equal(r, 0);
	assert_int_equal(chmod(dir, 0755), 0);
	assert_files(NAME "\n");
}

static void a_failed_write_leaves_nothing(void **state)
{
	(void)state;
	fake.write_errno = ENOSPC;
	assert_write_fails(-ENOSPC, "No space left on device", "free some space");
	fake.write_errno = EDQUOT;
	assert_write_fails(-EDQUOT, "Disk quota exceeded", "free some space");
	fake.write_errno = EIO;
	assert_write_fails(-EIO, "Input/output error", "dmesg");
}

static void a_failed_fsync_leaves_nothing(void **state)
{
	(void)state;
	fake.fsync_errno[0] = EIO;
	assert_write_fails(-EIO, "Input/output error", "dmesg");
	fake.n_fsyncs = 0;
	fake.fsync_errno[0] = 0;
	fake.fsync_errno[1] = ENOSPC;
	assert_write_fails(-ENOSPC, "No space left on device", "free some space");
	assert_int_equal(fake.n_fsyncs, 2);
}

static void a_failed_rename_leaves_nothing(void **state)
{
	(void)state;
	fake.rename_errno = EROFS;
	assert_write_fails(-EROFS, "Read-only file system", "writable filesystem");
	fake.rename_errno = EEXIST;
	assert_write_fails(-EEXIST, "File exists", "remove old files");
}

static void a_filesystem_that_knows_no_fsync_is_accepted(void **state)
{
	(void)state;
	fake.fsync_errno[0] = EINVAL;
	fake.fsync_errno[1] = EINVAL;
	assert_int_equal(write_text("x"), 0);
	assert_files(NAME "\n");
}

static void the_file_size_limit_is_named(void **state)
{
	struct rlimit before, small;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	small = before;
	small.rlim_cur = 3;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_equal(write_text("text"), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	signal(SIGXFSZ, SIG_DFL);
	assert_files("");
	assert_non_null(strstr(err.text, "File too large: raise the file size limit (ulimit -f)"));
}

/* Mounts a tmpfs on dir that nobody else sees. Returns 0 if we may not. */
static int mount_tmpfs(unsigned long flags, const char *options)
{
	static int is_private;

	if (!is_private &&
	    (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0))
		return 0;
	is_private = 1;
	return mount("deltaprof-test", dir, "tmpfs", flags, options) == 0;
}

static void a_full_disk_is_named_and_left_as_it_was(void **state)
{
	static char big[200000];

	(void)state;
	if (!mount_tmpfs(0, "size=64k,mode=0755"))
		skip();
	assert_int_equal(dp_sink_write(dir, NAME, big, sizeof(big), &err), -ENOSPC);
	assert_files("");
	assert_non_null(strstr(err.text, "No space left on device: free some space or choose"));
	assert_int_equal(write_text("fits"), 0);
	assert_files(NAME "\n");
	assert_int_equal(umount(dir), 0);
}

static void a_read_only_filesystem_is_named(void **state)
{
	(void)state;
	if (!mount_tmpfs(MS_RDONLY, "mode=0777"))
		skip();
	assert_int_equal(dp_sink_check(dir, &err), -EROFS);
	assert_write_fails(-EROFS, "Read-only file system", "writable filesystem");
	assert_int_equal(umount(dir), 0);
}

static void the_next_step_survives_a_very_long_path(void **state)
{
	char path[4000];

	(void)state;
	memset(path, 'd', sizeof(path));
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(dp_sink_check(path, &err), -ENAMETOOLONG);
	assert_non_null(strstr(err.text, "choose another directory with --output"));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_file_is_written_whole_and_nothing_else),
		TEST(the_name_appears_only_after_the_data_is_on_disk),
		TEST(short_and_interrupted_writes_are_continued),
		TEST(an_empty_file_can_be_written),
		TEST(an_existing_file_is_kept_and_the_new_one_numbered),
		TEST(without_rename_noreplace_a_link_does_the_same),
		TEST(a_filesystem_without_rename_noreplace_and_link_is_named),
		TEST(a_name_without_the_suffix_is_numbered_at_its_end),
		TEST(a_name_that_is_too_long_is_refused),
		TEST(writers_of_one_name_all_get_a_file),
		TEST(check_leaves_nothing),
		TEST(a_missing_directory_is_named),
		TEST(a_file_in_place_of_the_directory_is_named),
		TEST(an_unwritable_directory_is_named),
		TEST(a_directory_that_may_not_be_listed_still_takes_files),
		TEST(a_failed_write_leaves_nothing),
		TEST(a_failed_fsync_leaves_nothing),
		TEST(a_failed_rename_leaves_nothing),
		TEST(a_filesystem_that_knows_no_fsync_is_accepted),
		TEST(the_file_size_limit_is_named),
		TEST(a_full_disk_is_named_and_left_as_it_was),
		TEST(a_read_only_filesystem_is_named),
		TEST(the_next_step_survives_a_very_long_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
