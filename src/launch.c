/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: the child waits at a socket until it is traced, so nothing of its start escapes
 * the tracer. The same socket, which execve() closes, brings back why an execve() failed, so that a
 * command that cannot be run and a program that exits with 127 are never mistaken for each other.
 */
#include "src/launch.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/launch_trace.h"

#define EXIT_OURS 125
#define EXIT_CANNOT_EXECUTE 126
#define EXIT_NOT_FOUND 127
#define EXIT_SIGNAL 128

/* Where execvp() looks when there is no PATH. Source: glibc's confstr(_CS_PATH). */
#define DEFAULT_PATH "/bin:/usr/bin"

struct dp_launch {
	pid_t pid;
	pid_t tracer_tid;
	bool is_late;
	bool released;
	bool ended;
	int status; /* once it has ended */
};

/* Why execve() failed. */
struct report {
	int error;
	bool exists; /* a file of that name, whose interpreter is what was not found */
};

/* What the child needs, put together before the fork: afterwards nothing may be allocated. */
struct child {
	char *const *argv;
	const char *path;
	struct dp_launch_signals signals;
	int parent_fd, child_fd; /* the two ends */
};

void dp_launch_signals_get(struct dp_launch_signals *ret)
{
	sigemptyset(&ret->ignored);
	pthread_sigmask(SIG_BLOCK, NULL, &ret->mask);
	for (int signal = 1; signal < NSIG; signal++) {
		struct sigaction action;

		if (sigaction(signal, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
			sigaddset(&ret->ignored, signal);
	}
}

/* With all signals blocked: none is handled by a handler of the parent's. */
static void restore_signals(const struct dp_launch_signals *signals)
{
	for (int signal = 1; signal < NSIG; signal++) {
		bool ignored = sigismember(&signals->ignored, signal) == 1;
		struct sigaction action = {.sa_handler = ignored ? SIG_IGN : SIG_DFL};

		sigaction(signal, &action, NULL);
	}
	sigprocmask(SIG_SETMASK, &signals->mask, NULL);
}

/* Returns only if it fails: with the errno. */
static int execute_file(const char *file, char *const *argv, struct report *report)
{
	int error;

	execve(file, argv, environ);
	error = errno;
	if (error == ENOENT && access(file, F_OK) == 0)
		report->exists = true;
	return error;
}

/* Errors after which execvp() tries the next directory, beside EACCES. */
static bool is_not_there(int error)
{
	return error == ENOENT || error == ENOTDIR || error == ENODEV || error == ESTALE ||
	       error == ETIMEDOUT;
}

/* Source: execvp(3). Async-signal-safe. */
static struct report execute(const struct child *child)
{
	struct report report = {.error = ENOENT};
	const char *name = child->argv[0], *dir = child->path;
	bool more = true;

	if (strchr(name, '/')) {
		report.error = execute_file(name, child->argv, &report);
		return report;
	}
	while (more) {
		size_t n_dir = strcspn(dir, ":");
		size_t n_name = strlen(name);
		char file[PATH_MAX];
		int error = ENOENT;

		if (n_dir + n_name + 2 <= sizeof(file)) {
			memcpy(file, dir, n_dir);
			file[n_dir] = '/';
			memcpy(file + n_dir + (n_dir > 0), name, n_name + 1);
			error = execute_file(file, child->argv, &report);
		}
		if (!is_not_there(error))
			report.error = error;
		more = dir[n_dir] == ':' && (is_not_there(error) || error == EACCES);
		dir += n_dir + 1;
	}
	return report;
}

static _Noreturn void become(const struct child *child)
{
	struct report report;
	char go = 0;
	ssize_t n;

	/* A profiler with file capabilities or a changed user is not dumpable, and so its child
	 * could not be traced. The execve() decides anew. */
	prctl(PR_SET_DUMPABLE, 1);
	close(child->parent_fd);
	if (write(child->child_fd, &go, 1) != 1)
		_exit(EXIT_OURS);
	do {
		n = read(child->child_fd, &go, 1);
	} while (n < 0 && errno == EINTR);
	if (n == 1) {
		restore_signals(&child->signals);
		report = execute(child);
		n = write(child->child_fd, &report, sizeof(report));
	}
	_exit(n > 0 ? EXIT_NOT_FOUND : EXIT_OURS);
}

/* Forks with all signals blocked, so that the child's beginning is undisturbed. */
static pid_t fork_child(const struct child *child)
{
	sigset_t all, before;
	int error;
	pid_t pid;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid == 0)
		become(child);
	error = errno;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return pid < 0 ? -error : pid;
}

static int describe(const char *name, const struct report *report, struct dp_error *err)
{
	struct stat st;

	if (report->error == ENOENT && report->exists)
		return dp_error_set(
			err, -ENOENT,
			"%.200s: cannot be executed: the file is there, but the "
			"interpreter or dynamic loader that it names is not; install that",
			name);
	if (report->error == ENOENT || report->error == ENOTDIR)
		return dp_error_set(err, -ENOENT, "%.200s: %s", name,
				    strchr(name, '/')
					    ? "no such file; check the path"
					    : "command not found; check the name and PATH");
	if (report->error == ENOEXEC)
		return dp_error_set(err, -ENOEXEC,
				    "%.200s: cannot be executed: neither a program for this "
				    "machine nor a script with a #! line; name its interpreter, as "
				    "in: sh %.200s",
				    name, name);
	if (report->error == EACCES && strchr(name, '/') && stat(name, &st) == 0 &&
	    S_ISDIR(st.st_mode))
		return dp_error_set(err, -EACCES,
				    "%.200s: cannot be executed: is a directory; name a program in "
				    "it",
				    name);
	if (report->error == EACCES)
		return dp_error_set(
			err, -EACCES,
			"%.200s: cannot be executed: %s; check its mode (chmod +x), "
			"its directories' and whether its file system is mounted noexec",
			name, strerror(EACCES));
	return dp_error_set(err, -EACCES,
			    "%.200s: cannot be executed: %s; see whether it starts without the "
			    "profiler",
			    name, strerror(report->error));
}

/* Waits until the child waits to be traced, or is dead. */
static void await_ready(int fd)
{
	char ready;

	while (recv(fd, &ready, 1, 0) < 0 && errno == EINTR)
		continue;
}

/* Traces the child, lets it execute the command, and follows it to the stop. */
static int follow(struct dp_launch *launch, const struct child *child, struct dp_error *err)
{
	const char *name = child->argv[0];
	struct report report;
	int r;

	await_ready(child->parent_fd);
	r = dp_trace_seize(launch->pid, name, err);
	/* One that has been killed cannot be traced either. */
	if (r < 0 && dp_launch_poll(launch, &launch->status) == 1)
		return 1;
	if (r < 0)
		return r;
	/* If that fails the child is gone, and the next line sees it. */
	send(child->parent_fd, "", 1, MSG_NOSIGNAL);
	r = dp_trace_until_mapped(launch->pid, name, &launch->status, err);
	if (r < 0)
		return r;
	launch->is_late = r == DP_TRACE_LATE;
	launch->ended = r == DP_TRACE_ENDED;
	if (launch->ended &&
	    recv(child->parent_fd, &report, sizeof(report), MSG_DONTWAIT) == sizeof(report))
		return describe(name, &report, err);
	return launch->ended ? 1 : 0;
}

/* A process that ignores SIGCHLD is not told how its children ended. Source: sigaction(2). */
static void see_children_end(void)
{
	struct sigaction action;

	if (sigaction(SIGCHLD, NULL, &action) == 0 &&
	    (action.sa_handler == SIG_IGN || (action.sa_flags & SA_NOCLDWAIT))) {
		action.sa_flags &= ~SA_NOCLDWAIT;
		if (action.sa_handler == SIG_IGN)
			action.sa_handler = SIG_DFL;
		sigaction(SIGCHLD, &action, NULL);
	}
}

static int start(struct dp_launch *launch, struct child *child, struct dp_error *err)
{
	int fds[2];
	int r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return dp_error_set(err, errno == ENFILE ? -EMFILE : -errno,
				    "%.200s: cannot be started: socketpair: %s", child->argv[0],
				    strerror(errno));
	child->parent_fd = fds[0];
	child->child_fd = fds[1];
	see_children_end();
	r = fork_child(child);
	close(child->child_fd);
	if (r < 0) {
		dp_error_set(err, r,
			     "%.200s: cannot be started: fork: %s; check the limit of processes "
			     "(ulimit -u)",
			     child->argv[0], strerror(-r));
	} else {
		launch->pid = r;
		r = follow(launch, child, err);
	}
	close(child->parent_fd);
	return r;
}

int dp_launch_start(struct dp_launch **ret, char *const *argv,
		    const struct dp_launch_signals *signals, struct dp_error *err)
{
	struct child child = {.argv = argv, .path = getenv("PATH")};
	struct dp_launch *launch;
	int r;

	if (!argv[0])
		return dp_error_set(err, -EINVAL, "no command; name one after --");
	if (!argv[0][0])
		return dp_error_set(err, -ENOENT, "the command's name is empty; name one after --");
	if (!child.path)
		child.path = DEFAULT_PATH;
	if (signals)
		child.signals = *signals;
	else
		dp_launch_signals_get(&child.signals);
	launch = calloc(1, sizeof(*launch));
	if (!launch)
		return dp_error_set(err, -ENOMEM, "%.200s: cannot be started: out of memory",
				    argv[0]);
	launch->tracer_tid = gettid();
	r = start(launch, &child, err);
	if (r < 0) {
		dp_launch_free(launch);
		return r;
	}
	*ret = launch;
	return r;
}

int dp_launch_failure_code(int error)
{
	switch (error) {
	case -ENOENT:
		return EXIT_NOT_FOUND;
	case -EACCES:
	case -ENOEXEC:
		return EXIT_CANNOT_EXECUTE;
	default:
		return EXIT_OURS;
	}
}

pid_t dp_launch_pid(const struct dp_launch *launch)
{
	return launch->pid;
}

bool dp_launch_is_late(const struct dp_launch *launch)
{
	return launch->is_late;
}

int dp_launch_release(struct dp_launch *launch, struct dp_error *err)
{
	if (launch->released || launch->ended)
		return 0;
	assert(launch->tracer_tid == gettid());
	/* ESRCH: killed, so no longer stopped. */
	if (ptrace(PTRACE_DETACH, launch->pid, NULL, NULL) < 0 && errno != ESRCH)
		return dp_error_set(err, -EIO, "pid %d: cannot be let go: PTRACE_DETACH: %s",
				    launch->pid, strerror(errno));
	launch->released = true;
	return 0;
}

int dp_launch_poll(struct dp_launch *launch, int *ret_status)
{
	int status;
	pid_t pid;

	if (!launch->ended) {
		pid = waitpid(launch->pid, &status, WNOHANG | __WALL);
		if (pid < 0)
			return -errno;
		if (pid == 0 || WIFSTOPPED(status))
			return 0;
		launch->ended = true;
		launch->status = status;
	}
	*ret_status = launch->status;
	return 1;
}

int dp_launch_wait(struct dp_launch *launch, int *ret_status)
{
	int r = dp_launch_poll(launch, ret_status);

	if (r != 0)
		return r < 0 ? r : 0;
	if (!launch->released)
		return -EBUSY;
	r = dp_trace_wait_end(launch->pid, &launch->status);
	if (r < 0)
		return r;
	launch->ended = true;
	*ret_status = launch->status;
	return 0;
}

void dp_launch_free(struct dp_launch *launch)
{
	int status;

	if (!launch)
		return;
	if (launch->pid > 0 && !launch->ended && !launch->released) {
		kill(launch->pid, SIGKILL);
		dp_trace_wait_end(launch->pid, &status);
	} else if (launch->pid > 0) {
		dp_launch_poll(launch, &status);
	}
	free(launch);
}

int dp_launch_exit_code(int status)
{
	return WIFSIGNALED(status) ? EXIT_SIGNAL + WTERMSIG(status) : WEXITSTATUS(status);
}

int dp_launch_mirror(int status)
{
	const struct rlimit no_core = {0, 0};
	struct sigaction action = {.sa_handler = SIG_DFL};
	sigset_t set;

	if (!WIFSIGNALED(status))
		return dp_launch_exit_code(status);
	/* The limit does not hold for a core dump that goes into a pipe. Source: core(5). */
	setrlimit(RLIMIT_CORE, &no_core);
	prctl(PR_SET_DUMPABLE, 0);
	sigaction(WTERMSIG(status), &action, NULL);
	sigemptyset(&set);
	sigaddset(&set, WTERMSIG(status));
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	raise(WTERMSIG(status));
	return dp_launch_exit_code(status);
}
