/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_LAUNCH_FIXTURE_H
#define DP_TESTS_LAUNCH_FIXTURE_H

#include <stdbool.h>
#include <sys/ptrace.h>

#include "src/launch.h"

/*
 * Commands that are launched with their output in a pipe, and a ptrace() that can be made to fail
 * or to send a signal at any of its calls (linked with -Wl,--wrap=ptrace).
 */

struct command {
	struct dp_launch *launch;
	struct dp_error err;
	int fd; /* reads the command's stdout and stderr */
};

/* cmocka fixtures: a test must leave neither a child process nor a descriptor behind. */
int launch_setup(void **state);
int launch_teardown(void **state);

/* dp_launch_start() with stdout and stderr in a pipe. */
int command_start(struct command *command, char *const *argv,
		  const struct dp_launch_signals *signals);

/* The same without a wish for signals, with stdin from a pipe that *@ret_fd writes into. */
int command_start_fed(struct command *command, char *const *argv, int *ret_fd);

/* What it has printed up to now, without waiting for more. Valid until the next call. */
const char *command_printed(const struct command *command);

/* All that comes out of @fd, to be freed. */
char *read_all(int fd);

/* Releases the command, waits for its end and frees everything. Returns all that it printed, to be
 * freed. */
char *command_finish(struct command *command, int *ret_status);

/* Starts @argv, which must stop, lets it run, and checks its whole output and its exit code. */
void command_must_print(char *const *argv, const char *output, int exit_code);

/* Lets go of a command that did not start or that is not to be finished. */
void command_drop(struct command *command);

/* The @k-th call of ptrace() from now on (1: the next) fails with @error, or is preceded by sending
 * the tracee @signal; the other one is 0. A tracee that has been stopped by that signal is
 * continued at the PTRACE_LISTEN that must follow. 0: none. */
void ptrace_hook(unsigned k, int error, int signal);

/* Whether that has happened. */
bool ptrace_hook_happened(void);

/* The last process that PTRACE_SEIZE was called for. */
pid_t ptrace_last_seized(void);

/* A directory for this test program, and DIRECTORY/@name, valid until the next call but seven. */
const char *scratch(const char *name);

/* Writes a file into the scratch directory; returns its path. */
const char *scratch_file(const char *name, const void *data, size_t n_bytes, unsigned mode);

/* Removes the directory. */
void scratch_remove(void);

#endif
