/* SPDX-License-Identifier: MIT */
/* Finding tracefs, and what is said where it cannot be used. Each test runs in a child of its own.
 */
#include "perf/tracefs.h"

#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/magic.h>

#include <cmocka.h>

#include "tests/perf_fixture.h"

#define TRACING "/sys/kernel/tracing"

static bool is_tracefs(void)
{
	struct statfs fs;

	return statfs(TRACING, &fs) == 0 && (unsigned long)fs.f_type == TRACEFS_MAGIC;
}

/* Into a mount namespace of its own, where tracefs is not mounted. */
static bool leave_tracefs(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return false;
	umount2("/sys/kernel/debug", MNT_DETACH);
	while (umount2(TRACING, MNT_DETACH) == 0) {
	}
	return !is_tracefs();
}

/* The exit status of a child that runs @body, which returns what it found wrong. */
static void expect_well(const char *(*body)(void))
{
	pid_t pid = fork();
	int status = 0;

	assert_true(pid >= 0);
	if (pid == 0) {
		const char *wrong = body();

		if (wrong)
			fprintf(stderr, "%s\n", wrong);
		_exit(wrong ? 1 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static const char *mount_it(void)
{
	struct dp_tracefs *tracefs = NULL;
	struct dp_error err = {0};
	int fd;

	if (!leave_tracefs())
		return "no mount namespace without tracefs";
	if (dp_tracefs_open(&tracefs, &err) < 0)
		return strdup(err.text);
	if (!is_tracefs())
		return "not mounted";
	fd = program_fd();
	if (dp_tracefs_define(tracefs, "entry", false, fd, program_file_off(probed_alloc),
			      "sp=%sp:u64", &err) < 0)
		return strdup(err.text);
	close(fd);
	dp_tracefs_close(tracefs);
	return count_own_definitions() == 0 ? NULL : "a definition stays";
}

static void a_tracefs_that_is_not_mounted_is_mounted(void **state)
{
	(void)state;
	expect_well(mount_it);
	assert_true(is_tracefs()); /* here nothing has changed */
}

static const char *may_not_mount(void)
{
	struct dp_tracefs *tracefs = NULL;
	struct dp_error err = {0};
	int r;

	if (!leave_tracefs() || setresuid(65534, 65534, 65534) < 0)
		return "no mount namespace without tracefs";
	r = dp_tracefs_open(&tracefs, &err);
	if (r != -EPERM || tracefs)
		return "mounted without privilege?";
	return strstr(err.text, "mount -t tracefs") ? NULL : strdup(err.text);
}

static void without_the_right_to_mount_the_sentence_says_how(void **state)
{
	(void)state;
	expect_well(may_not_mount);
}

static const char *may_not_write(void)
{
	struct dp_tracefs *tracefs = NULL;
	struct dp_error err = {0};
	int r;

	if (setresuid(65534, 65534, 65534) < 0)
		return "setresuid";
	r = dp_tracefs_open(&tracefs, &err);
	if (r != -EACCES || tracefs)
		return "opened without privilege?";
	if (!strstr(err.text, "uprobe_events") || !strstr(err.text, "run as root"))
		return strdup(err.text);
	return NULL;
}

static void without_the_right_to_write_the_sentence_says_what_is_needed(void **state)
{
	(void)state;
	expect_well(may_not_write);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_tracefs_that_is_not_mounted_is_mounted),
		cmocka_unit_test(without_the_right_to_mount_the_sentence_says_how),
		cmocka_unit_test(without_the_right_to_write_the_sentence_says_what_is_needed),
	};
	int r = perf_must_skip();

	return r ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
