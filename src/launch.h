/* SPDX-License-Identifier: MIT */
#ifndef DP_LAUNCH_H
#define DP_LAUNCH_H

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

#include "src/base/error.h"

/*
 * A command, started so that it can be attached to before it has run any code of its own. It is
 * traced (ptrace) only while its dynamic loader maps the libraries that it is linked with, and
 * stopped there: all of them are mapped and relocated, no constructor has run. A static program is
 * stopped at its entry point. Once released nothing traces it any more.
 *
 *	dp_launch_signals_get(&signals);          first of all, before any signal is blocked
 *	r = dp_launch_start(&launch, argv, &signals, &err);
 *	if (r < 0)
 *		return dp_launch_failure_code(r);
 *	if (r == 0) {
 *		attach to dp_launch_pid(launch);
 *		dp_launch_release(launch, &err);
 *	}
 *	dp_launch_wait(launch, &status);
 *	dp_launch_free(launch);
 *	return dp_launch_mirror(status);
 *
 * The program that execve() starts is the one that is stopped: for a script its interpreter, for
 * `env prog` or `sh -c prog` that is env or sh; what it executes later is not followed.
 *
 * The command stays in the caller's process group and keeps its standard streams: a signal from the
 * terminal (SIGINT, SIGQUIT, SIGTSTP) reaches the caller and the command alike. So the caller must
 * not forward it, nor die of it: it ignores or blocks SIGINT and SIGQUIT, waits for the command's
 * end, and ends as the command did. SIGTERM and SIGHUP that were sent to the caller alone are the
 * caller's to forward with kill().
 *
 * ptrace knows threads: every function but dp_launch_poll() and dp_launch_wait() is to be called by
 * the thread that called dp_launch_start(). Not for two threads at once on one object.
 */

struct dp_launch;

/* What a command inherits of a process's signals: handlers are not inherited. */
struct dp_launch_signals {
	sigset_t mask;	  /* blocked */
	sigset_t ignored; /* SIG_IGN; all others get their default action */
};

/* Fills @ret with the calling thread's mask and the signals that the process ignores now. */
void dp_launch_signals_get(struct dp_launch_signals *ret);

/*
 * Starts @argv and runs it up to its first consistent link map (r_debug of link.h), or to the
 * program's entry point if its loader does not announce one. Blocks until then: for a few
 * milliseconds, unless the command is stopped meanwhile (SIGSTOP) or its loader hangs. Signals
 * that the command is sent meanwhile are delivered.
 *
 * @argv: ends with NULL. argv[0] is looked for as execvp() does, but a file without a format that
 * the kernel knows is not handed to the shell.
 * @signals: what the command starts with; NULL: as dp_launch_signals_get() says now. Only SIGTRAP
 * may not stay blocked or ignored.
 * The environment is the caller's; of its descriptors the command has those that are not
 * close-on-exec. If the caller ignores SIGCHLD it gets the default action back here (the command's
 * end could not be seen otherwise); the command does not notice.
 *
 * Returns 0: stopped, to be released.
 *   1: has ended before it got that far, with a status of its own: a signal killed it, or the
 *      loader failed (said so itself, and exited with 127). There is nothing to attach to;
 *      dp_launch_wait() has the status.
 * or a negative errno with a sentence in @err; nothing is left running then, *@ret is untouched:
 *   -ENOENT: there is no such command, or not the interpreter that it names.
 *   -EACCES: it is there and cannot be executed, -ENOEXEC: its format is unknown.
 *   -EPERM: ptrace is forbidden, or it would rob the program of its privileges (set-user-ID,
 *      set-group-ID or file capabilities, and the caller lacks CAP_SYS_PTRACE).
 *   -EINVAL, -ENOMEM, -EAGAIN, -EMFILE, -EIO: other failures of our own.
 * Source: ptrace(2), execve(2), credentials(7); glibc's elf/rtld.c, dl_main().
 */
int dp_launch_start(struct dp_launch **ret, char *const *argv,
		    const struct dp_launch_signals *signals, struct dp_error *err);

/*
 * What a front end exits with when dp_launch_start() returned the negative @error: 127 (not found),
 * 126 (cannot be executed), 125 (a failure of our own).
 */
int dp_launch_failure_code(int error);

/* The command's process id; valid until its end has been waited for. */
pid_t dp_launch_pid(const struct dp_launch *launch);

/*
 * Whether constructors of its libraries have run before it was stopped: its loader does not say
 * when it has mapped them, so it was stopped only at its entry point.
 */
bool dp_launch_is_late(const struct dp_launch *launch);

/*
 * Lets the stopped command run, untraced. Done twice, or after the command has ended, it does
 * nothing.
 * Returns 0 (also when it was killed meanwhile), or -EIO with a sentence in @err: it is still
 * stopped.
 */
int dp_launch_release(struct dp_launch *launch, struct dp_error *err);

/*
 * Waits for the command's end; its status, as waitpid(2) gives it, goes to *@ret_status, again with
 * every further call. Blocks; goes on when a signal handler interrupts it.
 * Returns 0, -EBUSY (not released, so it would not end), or -ECHILD (somebody else waited for it).
 */
int dp_launch_wait(struct dp_launch *launch, int *ret_status);

/*
 * The same without blocking, also before the release.
 * Returns 1: has ended, *@ret_status is set; 0: not yet; -ECHILD.
 */
int dp_launch_poll(struct dp_launch *launch, int *ret_status);

/*
 * Kills the command if it was never released, and waits for that; else leaves it as it is. NULL is
 * allowed. (If the caller dies before the release the kernel kills the command.)
 */
void dp_launch_free(struct dp_launch *launch);

/* The exit code that a shell gives @status, as from waitpid(2): the program's own, or 128 + n for
 * signal n. */
int dp_launch_exit_code(int status);

/*
 * Ends the calling process as @status, as from waitpid(2), says the command ended: by the same
 * signal (without a core dump of ours) and so never returning; or returns the exit code for main()
 * to return. Also returns one, 128 + n, if the signal does not kill us: the first process of a
 * container.
 */
int dp_launch_mirror(int status);

#endif
