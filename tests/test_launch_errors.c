/* SPDX-License-Identifier: MIT */
/* Commands that cannot be started, and starts that fail: a sentence, an exit code, nothing left. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/launch.h"
#include "tests/alloc_fail.h"
#include "tests/launch_fixture.h"
#include "tests/sym_oracle.h"

#define NOBODY 65534

/* @name must not start, with @error, @exit_code and a sentence that names it and has @part in it.
 */
static void must_fail(const char *name, int error, int exit_code, const char *part)
{
	char *argv[] = {(char *)name, NULL};
	struct command command;
	int r = command_start(&command, argv, NULL);

	if (r != error || !strstr(command.err.text, part))
		fail_msg("%s: %d %s", name, r, command.err.text);
	assert_int_equal(strncmp(command.err.text, name, strlen(name)), 0);
	assert_null(strchr(command.err.text, '\n'));
	assert_int_equal(dp_launch_failure_code(r), exit_code);
	command_drop(&command);
}

static void a_command_that_is_not_there_is_127(void **state)
{
	(void)state;
	must_fail("no-such-command-at-all", -ENOENT, 127, "command not found; check the name");
	must_fail("/no/such/file", -ENOENT, 127, "no such file; check the path");
	must_fail("/bin/true/x", -ENOENT, 127, "no such file; check the path");
	assert_int_equal(dp_launch_start(NULL, (char *[]){"", NULL}, NULL, NULL), -ENOENT);
}

static void a_file_whose_interpreter_is_missing_is_127_and_says_so(void **state)
{
	static const char script[] = "#!/no/such/interpreter\n";

	(void)state;
	must_fail(scratch_file("orphan", script, sizeof(script) - 1, 0755), -ENOENT, 127,
		  "interpreter");
}

static void a_command_that_cannot_be_executed_is_126(void **state)
{
	static const char garbage[] = "\177ELF this is none";
	static const char text[] = "echo no first line\n";

	(void)state;
	must_fail(scratch_file("plain", text, sizeof(text) - 1, 0644), -EACCES, 126, "chmod +x");
	must_fail("/usr/lib", -EACCES, 126, "is a directory");
	must_fail(scratch_file("empty", "", 0, 0755), -ENOEXEC, 126, "#! line");
	must_fail(scratch_file("garbage", garbage, sizeof(garbage), 0755), -ENOEXEC, 126,
		  "#! line");
	must_fail(scratch_file("no-line", text, sizeof(text) - 1, 0755), -ENOEXEC, 126,
		  "in: sh /tmp/");
}

static void too_many_arguments_are_126_and_say_so(void **state)
{
	size_t n_bytes = 1 << 20;
	char *argument = malloc(n_bytes);
	char *argv[] = {"true", argument, NULL};
	struct command command;

	(void)state;
	assert_non_null(argument);
	memset(argument, 'x', n_bytes - 1);
	argument[n_bytes - 1] = '\0';
	assert_int_equal(command_start(&command, argv, NULL), -EACCES);
	assert_string_equal(command.err.text,
			    "true: cannot be executed: Argument list too long; see "
			    "whether it starts without the profiler");
	command_drop(&command);
	free(argument);
}

/* Directories of PATH: not there, a file, one with a file that is not executable, empty (here). */
static void path_is_searched_as_execvp_does(void **state)
{
	char *before = strdup(getenv("PATH"));
	char path[512], here[4096];
	static const char script[] = "#!/bin/sh\necho found\n";
	char *argv[] = {"searched", NULL};

	(void)state;
	assert_non_null(getcwd(here, sizeof(here)));
	mkdir(scratch("a"), 0755);
	mkdir(scratch("b"), 0755);
	scratch_file("a/searched", script, sizeof(script) - 1, 0644);
	snprintf(path, sizeof(path), "/no/such:/bin/true:%s", scratch("a"));
	setenv("PATH", path, 1);
	must_fail("searched", -EACCES, 126, "Permission denied");
	scratch_file("b/searched", script, sizeof(script) - 1, 0755);
	snprintf(path, sizeof(path), "/no/such:/bin/true:%s:%s", scratch("a"), scratch("b"));
	setenv("PATH", path, 1);
	command_must_print(argv, "found\n", 0);
	assert_int_equal(chdir(scratch("b")), 0);
	setenv("PATH", "/no/such:", 1);
	command_must_print(argv, "found\n", 0);
	setenv("PATH", "", 1);
	command_must_print(argv, "found\n", 0);
	setenv("PATH", "/no/such", 1);
	must_fail("searched", -ENOENT, 127, "command not found");
	unsetenv("PATH");
	must_fail("searched", -ENOENT, 127, "command not found");
	command_must_print((char *[]){"true", NULL}, "", 0);
	assert_int_equal(chdir(here), 0);
	setenv("PATH", before, 1);
	free(before);
}

/* The sample's library lies beside it; a copy elsewhere does not find it. */
static void a_missing_library_is_the_loaders_failure_and_its_status(void **state)
{
	char *copy = oracle_run("cp '%s' '%s'", oracle_sample("launch-stages"), scratch("alone"));
	char *argv[] = {(char *)scratch("alone"), NULL};
	struct command command;
	int status = -1;
	char *text;

	(void)state;
	assert_int_equal(command_start(&command, argv, NULL), 1);
	text = command_finish(&command, &status);
	assert_non_null(strstr(text, "launch-library.so: cannot open shared object"));
	assert_int_equal(dp_launch_exit_code(status), 127);
	free(text);
	free(copy);
}

static void any_ptrace_call_may_fail_and_nothing_is_left_running(void **state)
{
	char *argv[] = {(char *)oracle_sample("launch-pie"), NULL};
	unsigned k;

	(void)state;
	for (k = 1;; k++) {
		struct command command;
		int r;

		ptrace_hook(k, EIO, 0);
		r = command_start(&command, argv, NULL);
		if (r == 0) {
			command_drop(&command);
			assert_false(ptrace_hook_happened());
			break;
		}
		assert_true(r == -EIO || (k == 1 && r == -EPERM));
		assert_int_equal(dp_launch_failure_code(r), 125);
		assert_non_null(strstr(command.err.text, "launch-pie: "));
		assert_string_equal(command_printed(&command), "");
		assert_int_equal(waitpid(-1, NULL, WNOHANG | __WALL), -1);
		command_drop(&command);
	}
	assert_true(k > 10);
}

static void a_failed_release_leaves_the_command_stopped_and_is_said(void **state)
{
	char *argv[] = {(char *)oracle_sample("launch-pie"), NULL};
	struct command command;
	int status;

	(void)state;
	assert_int_equal(command_start(&command, argv, NULL), 0);
	ptrace_hook(1, EIO, 0);
	assert_int_equal(dp_launch_release(command.launch, &command.err), -EIO);
	assert_non_null(strstr(command.err.text, "cannot be let go"));
	assert_int_equal(dp_launch_wait(command.launch, &status), -EBUSY);
	assert_int_equal(dp_launch_release(command.launch, &command.err), 0);
	assert_int_equal(dp_launch_wait(command.launch, &status), 0);
	assert_int_equal(status, 0);
	command_drop(&command);
}

static int start_and_free(void)
{
	char *argv[] = {"true", NULL};
	struct dp_launch *launch = NULL;
	int r = dp_launch_start(&launch, argv, NULL, NULL);

	assert_int_equal(launch != NULL, r == 0);
	dp_launch_free(launch);
	return r;
}

static void any_allocation_may_fail_and_nothing_is_left_running(void **state)
{
	(void)state;
	ALLOC_FAIL_EACH(start_and_free());
}

static void too_few_descriptors_are_a_failure_of_ours(void **state)
{
	char *argv[] = {"true", NULL};
	struct rlimit before, none;
	struct dp_launch *launch = NULL;
	struct dp_error err;
	int r;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	for (rlim_t n = 0;; n++) {
		none = before;
		none.rlim_cur = n;
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
		r = dp_launch_start(&launch, argv, NULL, &err);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
		if (r == 0 || r == 1)
			break;
		assert_int_equal(r, -EMFILE);
		assert_null(launch);
	}
	dp_launch_free(launch);
}

static void no_command_at_all_is_said(void **state)
{
	struct dp_error err;

	(void)state;
	assert_int_equal(dp_launch_start(NULL, (char *[]){NULL}, NULL, &err), -EINVAL);
	assert_string_equal(err.text, "no command; name one after --");
	assert_int_equal(dp_launch_failure_code(-EINVAL), 125);
}

/* Runs @argv to its end as an unprivileged user. Returns dp_launch_start()'s result if that is not
 * 0, else the exit code; the sentence in @ret. */
static int run_as_nobody(char *const *argv, struct dp_error *ret)
{
	int fds[2], status;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		struct dp_launch *launch = NULL;
		struct dp_error err = {""};
		int r;

		if (syscall(SYS_setgroups, 0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
			_exit(90);
		r = dp_launch_start(&launch, argv, NULL, &err);
		if (write(fds[1], &err, sizeof(err)) < 0)
			_exit(91);
		if (r < 0)
			_exit(-r);
		if (dp_launch_release(launch, &err) < 0 || dp_launch_wait(launch, &status) < 0)
			_exit(92);
		dp_launch_free(launch);
		_exit(100 + dp_launch_exit_code(status));
	}
	close(fds[1]);
	assert_int_equal(read(fds[0], ret, sizeof(*ret)), sizeof(*ret));
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	status = WEXITSTATUS(status);
	return status < 90 ? -status : status - 100;
}

static void an_unprivileged_user_can_launch(void **state)
{
	struct dp_error err;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(run_as_nobody((char *[]){"true", NULL}, &err), 0);
	assert_int_equal(run_as_nobody((char *[]){"false", NULL}, &err), 1);
	assert_int_equal(run_as_nobody((char *[]){"sh", "-c", "exit 7", NULL}, &err), 7);
}

static void a_program_that_tracing_would_rob_of_its_privileges_is_refused(void **state)
{
	char *argv[] = {NULL, NULL};
	struct dp_error err;
	char *copy;

	(void)state;
	if (geteuid() != 0)
		skip();
	argv[0] = (char *)scratch("privileged");
	copy = oracle_run("cp /bin/true '%s'", argv[0]);
	free(copy);
	assert_int_equal(run_as_nobody(argv, &err), 0);
	assert_int_equal(chmod(argv[0], 04755), 0);
	assert_int_equal(run_as_nobody(argv, &err), -EPERM);
	assert_non_null(strstr(err.text, "is set-user-ID"));
	assert_int_equal(chmod(argv[0], 02755), 0);
	assert_int_equal(run_as_nobody(argv, &err), -EPERM);
	assert_non_null(strstr(err.text, "is set-group-ID"));
	/* Its mode alone means nothing: it is ours. */
	command_must_print(argv, "", 0);
	assert_int_equal(chown(argv[0], NOBODY, NOBODY), 0);
	assert_int_equal(chmod(argv[0], 06755), 0);
	assert_int_equal(run_as_nobody(argv, &err), 0);
	command_must_print(argv, "", 0);
}

static void a_program_that_cannot_be_read_is_refused_to_an_unprivileged_user(void **state)
{
	char *argv[] = {NULL, NULL};
	struct dp_error err;
	char *copy;

	(void)state;
	if (geteuid() != 0)
		skip();
	argv[0] = (char *)scratch("unreadable");
	copy = oracle_run("cp /bin/true '%s'", argv[0]);
	free(copy);
	assert_int_equal(chmod(argv[0], 0711), 0);
	assert_int_equal(run_as_nobody(argv, &err), -EPERM);
	assert_non_null(strstr(err.text,
			       "unreadable: may not be traced, because its file may not be read"));
	command_must_print(argv, "", 0);
}

#define test(function) cmocka_unit_test_setup_teardown(function, launch_setup, launch_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(a_command_that_is_not_there_is_127),
		test(a_file_whose_interpreter_is_missing_is_127_and_says_so),
		test(a_command_that_cannot_be_executed_is_126),
		test(too_many_arguments_are_126_and_say_so),
		test(path_is_searched_as_execvp_does),
		test(a_missing_library_is_the_loaders_failure_and_its_status),
		test(any_ptrace_call_may_fail_and_nothing_is_left_running),
		test(a_failed_release_leaves_the_command_stopped_and_is_said),
		test(any_allocation_may_fail_and_nothing_is_left_running),
		test(too_few_descriptors_are_a_failure_of_ours),
		test(no_command_at_all_is_said),
		test(an_unprivileged_user_can_launch),
		test(a_program_that_tracing_would_rob_of_its_privileges_is_refused),
		test(a_program_that_cannot_be_read_is_refused_to_an_unprivileged_user),
	};
	int r = cmocka_run_group_tests(tests, NULL, NULL);

	scratch_remove();
	return r;
}
