/* SPDX-License-Identifier: MIT */
#include "tests/launch_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

long __real_ptrace(enum __ptrace_request request, pid_t pid, void *address, void *data);
long __wrap_ptrace(enum __ptrace_request request, pid_t pid, void *address, void *data);

static struct {
	unsigned countdown;
	int error, signal;
	bool happened;
} hook;

static _Atomic pid_t last_seized;

void ptrace_hook(unsigned k, int error, int signal)
{
	hook.countdown = k;
	hook.error = error;
	hook.signal = signal;
	hook.happened = false;
}

bool ptrace_hook_happened(void)
{
	return hook.happened;
}

pid_t ptrace_last_seized(void)
{
	return last_seized;
}

long __wrap_ptrace(enum __ptrace_request request, pid_t pid, void *address, void *data)
{
	long result;

	if (hook.countdown > 0 && --hook.countdown == 0) {
		hook.happened = true;
		if (hook.signal != 0)
			kill(pid, hook.signal);
		if (hook.error != 0) {
			errno = hook.error;
			return -1;
		}
	}
	result = __real_ptrace(request, pid, address, data);
	if (request == PTRACE_SEIZE)
		last_seized = pid;
	if ((request == PTRACE_LISTEN || request == PTRACE_DETACH) && hook.happened &&
	    hook.signal == SIGSTOP)
		kill(pid, SIGCONT);
	return result;
}

static unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

int launch_setup(void **state)
{
	ptrace_hook(0, 0, 0);
	*state = (void *)(uintptr_t)count_fds();
	return 0;
}

int launch_teardown(void **state)
{
	ptrace_hook(0, 0, 0);
	assert_int_equal(waitpid(-1, NULL, WNOHANG | __WALL), -1);
	assert_int_equal(errno, ECHILD);
	assert_int_equal(count_fds(), (uintptr_t)*state);
	return 0;
}

int command_start(struct command *command, char *const *argv,
		  const struct dp_launch_signals *signals)
{
	int fds[2], out, error, r;

	*command = (struct command){0};
	fflush(stdout);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	error = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	assert_true(out >= 0 && error >= 0);
	dup2(fds[1], STDOUT_FILENO);
	dup2(fds[1], STDERR_FILENO);
	r = dp_launch_start(&command->launch, argv, signals, &command->err);
	dup2(out, STDOUT_FILENO);
	dup2(error, STDERR_FILENO);
	close(out);
	close(error);
	close(fds[1]);
	command->fd = fds[0];
	if (r >= 0) {
		assert_non_null(command->launch);
		assert_true(dp_launch_pid(command->launch) > 0);
	} else {
		assert_null(command->launch);
		assert_string_not_equal(command->err.text, "");
	}
	return r;
}

int command_start_fed(struct command *command, char *const *argv, int *ret_fd)
{
	int fds[2], saved, r;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	saved = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
	assert_true(saved >= 0);
	dup2(fds[0], STDIN_FILENO);
	r = command_start(command, argv, NULL);
	dup2(saved, STDIN_FILENO);
	close(saved);
	close(fds[0]);
	*ret_fd = fds[1];
	return r;
}

const char *command_printed(const struct command *command)
{
	static char text[4096];
	ssize_t n;

	fcntl(command->fd, F_SETFL, O_NONBLOCK);
	n = read(command->fd, text, sizeof(text) - 1);
	fcntl(command->fd, F_SETFL, 0);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

char *read_all(int fd)
{
	size_t n_bytes = 0, capacity = 1 << 16;
	char *text = malloc(capacity);
	ssize_t n;

	assert_non_null(text);
	while ((n = read(fd, text + n_bytes, capacity - 1 - n_bytes)) > 0)
		n_bytes += (size_t)n;
	assert_int_equal(n, 0);
	text[n_bytes] = '\0';
	return text;
}

char *command_finish(struct command *command, int *ret_status)
{
	char *text;

	assert_int_equal(dp_launch_release(command->launch, &command->err), 0);
	text = read_all(command->fd);
	assert_int_equal(dp_launch_wait(command->launch, ret_status), 0);
	command_drop(command);
	return text;
}

void command_drop(struct command *command)
{
	dp_launch_free(command->launch);
	close(command->fd);
	command->launch = NULL;
}

void command_must_print(char *const *argv, const char *output, int exit_code)
{
	struct command command;
	int status = -1;
	char *text;
	int r = command_start(&command, argv, NULL);

	if (r != 0)
		fail_msg("%s: %d %s", argv[0], r,
			 r < 0 ? command.err.text : command_printed(&command));
	assert_string_equal(command_printed(&command), "");
	text = command_finish(&command, &status);
	assert_string_equal(text, output);
	assert_int_equal(dp_launch_exit_code(status), exit_code);
	free(text);
}

static char scratch_dir[64];

const char *scratch(const char *name)
{
	static char paths[8][256];
	static unsigned i;
	char *path = paths[i++ % 8];

	if (!*scratch_dir) {
		snprintf(scratch_dir, sizeof(scratch_dir), "/tmp/dpl.XXXXXX");
		assert_non_null(mkdtemp(scratch_dir));
		assert_int_equal(chmod(scratch_dir, 0755), 0);
	}
	snprintf(path, sizeof(paths[0]), "%s/%s", scratch_dir, name);
	return path;
}

const char *scratch_file(const char *name, const void *data, size_t n_bytes, unsigned mode)
{
	const char *path = scratch(name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, n_bytes), n_bytes);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
	return path;
}

void scratch_remove(void)
{
	char command[128];

	if (!*scratch_dir)
		return;
	snprintf(command, sizeof(command), "rm -rf '%s'", scratch_dir);
	assert_int_equal(system(command), 0); // NOLINT: a path of our own
	*scratch_dir = '\0';
}
