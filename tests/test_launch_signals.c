/* SPDX-License-Identifier: MIT */
/* Signals and the end of a launched command: nothing is swallowed, nothing is invented. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/launch.h"
#include "tests/launch_fixture.h"
#include "tests/sym_oracle.h"

#define N_RACES 200

/* Runs @argument (and @number) of the sample program to its end; returns the status. */
static int run_sample(const char *argument, const char *number)
{
	char *argv[] = {(char *)oracle_sample("launch-pie"), (char *)argument, (char *)number,
			NULL};
	struct command command;
	int status = -1;
	char *text;

	assert_int_equal(command_start(&command, argv, NULL), 0);
	text = command_finish(&command, &status);
	assert_string_equal(text, "constructor\nmain\n");
	free(text);
	return status;
}

static void exit_codes_and_signals_are_the_commands_own(void **state)
{
	static const char *const codes[] = {"0", "1", "2", "125", "126", "127", "200", "255"};
	static const char *const signals[] = {"1", "2", "6", "9", "11", "13", "15", "34", "64"};

	(void)state;
	for (size_t i = 0; i < sizeof(codes) / sizeof(*codes); i++) {
		int status = run_sample("exit", codes[i]);

		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), atoi(codes[i]));
		assert_int_equal(dp_launch_exit_code(status), atoi(codes[i]));
	}
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
		int status = run_sample("kill", signals[i]);

		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), atoi(signals[i]));
		assert_int_equal(dp_launch_exit_code(status), 128 + atoi(signals[i]));
	}
}

/*
 * @signal is sent before each call of ptrace() in turn. If it kills, the command's status says so,
 * whether it came before the stop or is delivered at the release; else the command runs as ever.
 */
static void send_everywhere(int signal, bool kills)
{
	char *argv[] = {(char *)oracle_sample("launch-pie"), NULL};
	unsigned n_early = 0, n = 0;

	for (unsigned k = 1;; k++) {
		struct command command;
		int status = -1, r;
		char *text;

		ptrace_hook(k, 0, signal);
		r = command_start(&command, argv, NULL);
		assert_true(r == 0 || r == 1);
		text = command_finish(&command, &status);
		if (!ptrace_hook_happened()) {
			assert_int_equal(status, 0);
			free(text);
			break;
		}
		if (kills) {
			assert_string_equal(text, "");
			assert_true(WIFSIGNALED(status));
			assert_int_equal(WTERMSIG(status), signal);
		} else {
			assert_int_equal(r, 0);
			assert_string_equal(text, "constructor\nmain\n");
			assert_int_equal(status, 0);
		}
		n_early += r == 1;
		n++;
		free(text);
	}
	ptrace_hook(0, 0, 0);
	assert_true(n > 10);
	assert_true(n_early == 0 || kills);
	assert_true(n_early > 0 || !kills);
}

static void signals_that_arrive_during_the_start_are_delivered(void **state)
{
	(void)state;
	send_everywhere(SIGTERM, true);
	send_everywhere(SIGINT, true);
	send_everywhere(SIGTRAP, true);
	send_everywhere(SIGSEGV, true);
	send_everywhere(SIGRTMIN, true);
}

static void sigkill_at_any_moment_is_the_commands_end_and_no_failure_of_ours(void **state)
{
	(void)state;
	send_everywhere(SIGKILL, true);
}

static void signals_that_do_nothing_by_default_do_nothing(void **state)
{
	(void)state;
	send_everywhere(SIGWINCH, false);
	send_everywhere(SIGCHLD, false);
	send_everywhere(SIGURG, false);
	send_everywhere(SIGCONT, false);
}

/* Stopped by its signal and continued at every moment of the start; and stopped at the release. */
static void a_command_that_is_stopped_meanwhile_goes_on_with_sigcont(void **state)
{
	char *argv[] = {(char *)oracle_sample("launch-pie"), NULL};
	bool more = true;

	(void)state;
	for (unsigned k = 1; more; k++) {
		struct command command;
		int status = -1;
		char *text;

		ptrace_hook(k, 0, SIGSTOP);
		assert_int_equal(command_start(&command, argv, NULL), 0);
		text = command_finish(&command, &status);
		more = ptrace_hook_happened();
		assert_string_equal(text, "constructor\nmain\n");
		assert_int_equal(status, 0);
		free(text);
	}
}

struct race {
	_Atomic pid_t pid; /* 0: not started; -1: the thread is to end */
	uint64_t random;
};

/* Sends SIGTERM to each process, once, after a random moment. */
static void *terminate(void *context)
{
	struct race *race = context;
	pid_t last = 0;

	for (;;) {
		pid_t pid = ptrace_last_seized();
		struct timespec pause;

		if (race->pid == -1)
			return NULL;
		if (pid == last)
			continue;
		last = pid;
		race->random = race->random * 6364136223846793005u + 1442695040888963407u;
		pause = (struct timespec){0, (long)(race->random >> 43)}; /* up to 2 ms */
		nanosleep(&pause, NULL);
		kill(pid, SIGTERM);
	}
}

static void a_signal_at_a_random_moment_always_ends_the_command(void **state)
{
	char *argv[] = {(char *)oracle_sample("launch-pie"), "cat", NULL};
	struct race race = {.random = 1};
	unsigned n_early = 0;
	pthread_t thread;
	int in[2], saved;

	(void)state;
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	saved = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
	dup2(in[0], STDIN_FILENO);
	assert_int_equal(pthread_create(&thread, NULL, terminate, &race), 0);
	for (int i = 0; i < N_RACES; i++) {
		struct command command;
		int status = -1;
		int r = command_start(&command, argv, NULL);

		assert_true(r == 0 || r == 1);
		n_early += r == 1;
		free(command_finish(&command, &status));
		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGTERM);
	}
	race.pid = -1;
	pthread_join(thread, NULL);
	dup2(saved, STDIN_FILENO);
	close(saved);
	close(in[0]);
	close(in[1]);
	print_message("%u of %d ended before the stop\n", n_early, N_RACES);
}

static void handle(int signal)
{
	(void)signal;
	_exit(99);
}

/* What the sample says of its signals when it is started by fork() and execv() alone. */
static char *signals_of_a_plain_child(void)
{
	char *argv[] = {(char *)oracle_sample("launch-pie"), "signals", NULL};
	int fds[2], status;
	char *text;
	pid_t pid;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		dup2(fds[1], STDOUT_FILENO);
		execv(argv[0], argv);
		_exit(127);
	}
	close(fds[1]);
	text = read_all(fds[0]);
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	return text;
}

static void the_command_has_the_signals_that_the_caller_had_at_first(void **state)
{
	char *argv[] = {(char *)oracle_sample("launch-pie"), "signals", NULL};
	struct dp_launch_signals signals;
	struct command command;
	sigset_t block, before;
	char *expected, *text;
	int status;

	(void)state;
	sigemptyset(&block);
	sigaddset(&block, SIGUSR2);
	sigprocmask(SIG_BLOCK, &block, &before);
	signal(SIGUSR1, SIG_IGN);
	expected = signals_of_a_plain_child();
	assert_non_null(strstr(expected, "SigBlk:\t0000000000000800\n"));
	dp_launch_signals_get(&signals);

	sigfillset(&block);
	sigprocmask(SIG_SETMASK, &block, NULL);
	signal(SIGUSR1, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGTERM, handle);
	assert_int_equal(command_start(&command, argv, &signals), 0);
	text = command_finish(&command, &status);
	assert_string_equal(text, expected);
	assert_int_equal(status, 0);
	free(text);
	free(expected);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGXFSZ, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	sigprocmask(SIG_SETMASK, &before, NULL);
}

static void without_a_wish_the_command_has_the_callers_present_signals(void **state)
{
	char *argv[] = {(char *)oracle_sample("launch-pie"), "signals", NULL};
	struct command command;
	char *expected, *text;
	int status;

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTERM, handle);
	expected = signals_of_a_plain_child();
	assert_int_equal(command_start(&command, argv, NULL), 0);
	text = command_finish(&command, &status);
	assert_string_equal(text, expected);
	free(text);
	free(expected);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
}

static void a_caller_that_ignores_sigchld_is_told_the_commands_end(void **state)
{
	struct sigaction action = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};

	(void)state;
	signal(SIGCHLD, SIG_IGN);
	assert_int_equal(WEXITSTATUS(run_sample("exit", "5")), 5);
	sigaction(SIGCHLD, &action, NULL);
	assert_int_equal(WEXITSTATUS(run_sample("exit", "6")), 6);
	signal(SIGCHLD, SIG_DFL);
}

/* What becomes of a child that mirrors @status, with @signal blocked and ignored. */
static int mirrored(int status, int signal_number)
{
	int result = -1;
	pid_t pid = fork();

	if (pid == 0) {
		const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
		sigset_t all;

		if (signal_number > 0)
			signal(signal_number, SIG_IGN);
		sigfillset(&all);
		sigprocmask(SIG_BLOCK, &all, NULL);
		setrlimit(RLIMIT_CORE, &unlimited);
		_exit(dp_launch_mirror(status));
	}
	assert_int_equal(waitpid(pid, &result, 0), pid);
	return result;
}

static void the_commands_end_is_mirrored(void **state)
{
	static const int signals[] = {SIGHUP, SIGINT, SIGKILL, SIGSEGV, SIGTERM, SIGABRT, SIGPIPE};

	(void)state;
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
		int status = mirrored(W_EXITCODE(0, signals[i]) | WCOREFLAG, signals[i]);

		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), signals[i]);
		assert_false(WCOREDUMP(status));
	}
	assert_int_equal(mirrored(W_EXITCODE(0, 0), 0), W_EXITCODE(0, 0));
	assert_int_equal(mirrored(W_EXITCODE(127, 0), 0), W_EXITCODE(127, 0));
}

/* A process that starts the sample and ends without a word; this one inherits the orphan. */
static void a_caller_that_dies_before_the_release_takes_the_command_with_it(void **state)
{
	char *argv[] = {(char *)oracle_sample("launch-pie"), "cat", NULL};
	int status, fds[2];
	pid_t command_pid = 0, pid;

	(void)state;
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	pid = fork();
	if (pid == 0) {
		struct dp_launch *launch = NULL;

		if (dp_launch_start(&launch, argv, NULL, NULL) != 0)
			_exit(1);
		command_pid = dp_launch_pid(launch);
		if (write(fds[1], &command_pid, sizeof(command_pid)) < 0)
			_exit(2);
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(read(fds[0], &command_pid, sizeof(command_pid)), sizeof(command_pid));
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(waitpid(command_pid, &status, 0), command_pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGKILL);
	prctl(PR_SET_CHILD_SUBREAPER, 0);
}

static void a_command_that_was_never_released_is_killed_with_the_object(void **state)
{
	char *argv[] = {(char *)oracle_sample("launch-pie"), NULL};
	struct command command;
	pid_t pid;

	(void)state;
	assert_int_equal(command_start(&command, argv, NULL), 0);
	pid = dp_launch_pid(command.launch);
	dp_launch_free(command.launch);
	command.launch = NULL;
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(errno, ESRCH);
	assert_string_equal(command_printed(&command), "");
	command_drop(&command);
	dp_launch_free(NULL);
}

static void a_released_command_outlives_the_object(void **state)
{
	char *argv[] = {"sleep", "1000", NULL};
	struct command command;
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(command_start(&command, argv, NULL), 0);
	pid = dp_launch_pid(command.launch);
	assert_int_equal(dp_launch_release(command.launch, NULL), 0);
	assert_int_equal(dp_launch_release(command.launch, NULL), 0);
	command_drop(&command);
	assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WTERMSIG(status), SIGKILL);
}

#define test(function) cmocka_unit_test_setup_teardown(function, launch_setup, launch_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(exit_codes_and_signals_are_the_commands_own),
		test(signals_that_arrive_during_the_start_are_delivered),
		test(sigkill_at_any_moment_is_the_commands_end_and_no_failure_of_ours),
		test(signals_that_do_nothing_by_default_do_nothing),
		test(a_command_that_is_stopped_meanwhile_goes_on_with_sigcont),
		test(a_signal_at_a_random_moment_always_ends_the_command),
		test(the_command_has_the_signals_that_the_caller_had_at_first),
		test(without_a_wish_the_command_has_the_callers_present_signals),
		test(a_caller_that_ignores_sigchld_is_told_the_commands_end),
		test(the_commands_end_is_mirrored),
		test(a_caller_that_dies_before_the_release_takes_the_command_with_it),
		test(a_command_that_was_never_released_is_killed_with_the_object),
		test(a_released_command_outlives_the_object),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
