/* SPDX-License-Identifier: MIT */
/*
 * The library's first user: one attach per process, one profiler per sort of profile, one timer for
 * all.
 */
#include "src/run.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "encode/sink.h"
#include "src/base/clock.h"
#include "src/launch.h"
#include "src/tracked.h"

#define NS_PER_MS ((uint64_t)1000 * 1000)
#define MAX_INTERVALS_BEHIND 16
#define COMMAND_POLL_MS 100

#define EXIT_RUN 1
#define EXIT_OURS 125 /* as env, nice and timeout do: not the command's own */

struct run {
	const struct dp_options *options;
	struct dp_tracked *tracked;
	size_t n_tracked;
	struct pollfd *pollfds; /* of each tracked process, and last the signals */
	int signal_fd;
	struct dp_launch *launch; /* the command, if one was given */
	int failure_code;	  /* what a failure makes us exit with */
	bool stopped;		  /* by a signal */
	bool status_line;
	int last_r;		  /* how the last writes of processes that are done with went */
	struct dp_error last_err; /* what there is to say of it */
};

static int open_signals(struct run *run, struct dp_error *err)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	if (run->options->command)
		sigaddset(&signals, SIGQUIT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	/* A file that grows too large, or a reader that is gone, is an error of the write and not
	 * our end. */
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	run->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (run->signal_fd < 0)
		return dp_error_set(err, -errno, "signalfd: %s", strerror(errno));
	return 0;
}

static int open_all(struct run *run, const pid_t *pids, size_t n_pids, struct dp_error *err)
{
	int r = 0;

	run->tracked = calloc(n_pids, sizeof(*run->tracked));
	run->pollfds = calloc(n_pids + 1, sizeof(*run->pollfds));
	if (!run->tracked || !run->pollfds)
		return dp_error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; r == 0 && i < n_pids; i++) {
		r = dp_tracked_open(&run->tracked[i], run->options, pids[i], err);
		run->n_tracked = i + 1;
	}
	for (size_t i = 0; r == 0 && run->options->verbosity > 0 && i < n_pids; i++)
		dp_tracked_describe(&run->tracked[i]);
	return r;
}

/* Attaches to the command, which is stopped, and lets it run. One that has ended already is no
 * error. */
static int open_command(struct run *run, const struct dp_launch_signals *signals,
			struct dp_error *err)
{
	pid_t pid;
	int r = dp_launch_start(&run->launch, run->options->command, signals, err);

	if (r == 1) {
		run->stopped = true;
		return 0;
	}
	if (r < 0) {
		run->failure_code = dp_launch_failure_code(r);
		return r;
	}
	if (dp_launch_is_late(run->launch) && run->options->verbosity >= 0)
		dp_say("the command's loader does not say when it has mapped the libraries: "
		       "what their constructors allocate is missed");
	pid = dp_launch_pid(run->launch);
	r = open_all(run, &pid, 1, err);
	if (r == 0)
		r = dp_launch_release(run->launch, err);
	return r;
}

/* Something failed at the end of a process's profile: it becomes our own failure. */
static void fail_at_last(struct run *run, int r, const struct dp_error *err)
{
	if (run->last_r < 0)
		dp_say(run->last_err.text);
	run->last_r = r;
	run->last_err = *err;
}

/* The last interval of a process, however it came to its end. */
static void finish(struct run *run, struct dp_tracked *tracked)
{
	enum deltaprof_state state = deltaprof_state(tracked->process);
	struct dp_error err;
	int r;

	deltaprof_stop(tracked->process);
	r = dp_tracked_write(tracked, run->status_line, &err);
	if (r < 0)
		fail_at_last(run, r, &err);
	if (state == DELTAPROF_FAILED) {
		r = dp_error_set(
			&err, -ENOMEM,
			"pid %d: out of memory, some events were not taken in, so its profile "
			"ended early; sample less (--heap-rate)",
			deltaprof_pid(tracked->process));
		fail_at_last(run, r, &err);
	}
	if (state == DELTAPROF_EXECED && run->options->verbosity >= 0)
		dp_tracked_say(
			tracked,
			"has executed another program; its profile ends here, attach again for "
			"the new one");
	if (state == DELTAPROF_ENDED && run->options->verbosity > 0)
		dp_tracked_say(tracked, "has ended");
	dp_tracked_close(tracked);
}

/*
 * A signal ends the profile. With a command it is the command's to end: what comes from the
 * terminal has reached it by itself, what was sent to us alone is passed on.
 */
static void read_signals(struct run *run)
{
	struct signalfd_siginfo info;

	while (read(run->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (!run->launch)
			run->stopped = true;
		else if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGHUP)
			kill(dp_launch_pid(run->launch), (int)info.ssi_signo);
	}
}

/* Waits until @deadline_ns, a signal, or the end of a process. Returns 0 or a negative errno. */
static int wait_until(struct run *run, uint64_t deadline_ns)
{
	uint64_t at_ns = dp_monotonic_ns();
	uint64_t sleep_ms = deadline_ns > at_ns ? (deadline_ns - at_ns) / NS_PER_MS + 1 : 0;
	nfds_t n = 0;

	for (size_t i = 0; i < run->n_tracked; i++) {
		if (run->tracked[i].process)
			run->pollfds[n++] =
				(struct pollfd){.fd = deltaprof_state_fd(run->tracked[i].process),
						.events = POLLIN};
	}
	run->pollfds[n++] = (struct pollfd){.fd = run->signal_fd, .events = POLLIN};
	if (poll(run->pollfds, n, sleep_ms < INT32_MAX ? (int)sleep_ms : INT32_MAX) < 0 &&
	    errno != EINTR)
		return -errno;
	read_signals(run);
	return 0;
}

/* Finishes processes that have ended. Returns how many are left. */
static size_t reap(struct run *run)
{
	size_t n_left = 0;

	for (size_t i = 0; i < run->n_tracked; i++) {
		if (run->tracked[i].process &&
		    deltaprof_state(run->tracked[i].process) != DELTAPROF_RUNNING)
			finish(run, &run->tracked[i]);
		n_left += run->tracked[i].process != NULL;
	}
	return n_left;
}

/* Cuts every process's profiles at the same moments. */
static void cut_all(struct run *run, uint64_t first_ns, uint64_t every_ns)
{
	for (size_t i = 0; i < run->n_tracked; i++) {
		if (run->tracked[i].process)
			deltaprof_cut_at(run->tracked[i].process, first_ns, every_ns);
	}
}

/*
 * Where the interval after the one that ended at @due_ns ends. When naming or a slow disk has held
 * us up, intervals are made good one by one, each of its own length, from what was set aside and
 * what waits in the queues; only a long way behind are they thrown together.
 */
static uint64_t next_due(uint64_t due_ns, uint64_t interval_ns)
{
	uint64_t at_ns = dp_monotonic_ns();

	if (at_ns > due_ns && (at_ns - due_ns) / interval_ns > MAX_INTERVALS_BEHIND)
		due_ns += (at_ns - due_ns) / interval_ns * interval_ns;
	return due_ns + interval_ns;
}

static int loop(struct run *run, struct dp_error *err)
{
	const struct dp_options *options = run->options;
	uint64_t start_ns = dp_monotonic_ns();
	uint64_t end_ns = options->duration_ns ? start_ns + options->duration_ns : UINT64_MAX;
	uint64_t due_ns = start_ns + options->interval_ns;

	cut_all(run, due_ns, options->interval_ns);
	while (!run->stopped && reap(run) > 0) {
		int r = wait_until(run, due_ns < end_ns ? due_ns : end_ns);

		if (r < 0)
			return dp_error_set(err, r, "poll: %s", strerror(-r));
		if (due_ns >= end_ns && dp_monotonic_ns() >= end_ns)
			break;
		if (run->stopped || dp_monotonic_ns() < due_ns || due_ns >= end_ns)
			continue;
		due_ns = next_due(due_ns, options->interval_ns);
		for (size_t i = 0; i < run->n_tracked; i++) {
			struct dp_error failed;

			if (run->tracked[i].process &&
			    dp_tracked_write(&run->tracked[i], run->status_line, &failed) < 0)
				dp_say(failed.text);
		}
	}
	return 0;
}

/* Finishes what is still being profiled, or after a failure only detaches. */
static void close_all(struct run *run, bool failed)
{
	for (size_t i = 0; i < run->n_tracked; i++) {
		if (!failed && run->tracked[i].process)
			finish(run, &run->tracked[i]);
		dp_tracked_close(&run->tracked[i]);
	}
	free(run->tracked);
	free(run->pollfds);
}

/* Waits for the command's end, passing signals on, and gives its status. Returns 0 or a negative
 * errno. */
static int wait_for_command(struct run *run, int *ret_status)
{
	struct pollfd signals = {.fd = run->signal_fd, .events = POLLIN};
	int r;

	while ((r = dp_launch_poll(run->launch, ret_status)) == 0) {
		poll(&signals, 1, COMMAND_POLL_MS);
		read_signals(run);
	}
	return r < 0 ? r : 0;
}

/* Attaches and profiles to the end. Returns 0 or a negative errno with a sentence in @err. */
static int profile(struct run *run, const struct dp_launch_signals *signals, struct dp_error *err)
{
	const struct dp_options *options = run->options;
	int r = dp_sink_check(options->output_dir, err);

	if (r == 0)
		r = open_signals(run, err);
	if (r == 0 && options->command)
		r = open_command(run, signals, err);
	else if (r == 0)
		r = open_all(run, options->pids, options->n_pids, err);
	if (r == 0)
		r = loop(run, err);
	close_all(run, r < 0);
	if (r == 0 && run->last_r < 0) {
		r = run->last_r;
		*err = run->last_err;
	}
	return r;
}

int dp_run(const struct dp_options *options, int *ret_status, struct dp_error *err)
{
	struct run run = {.options = options,
			  .signal_fd = -1,
			  .failure_code = options->command ? EXIT_OURS : EXIT_RUN};
	struct dp_launch_signals signals;
	int status = 0;
	int r;

	dp_launch_signals_get(&signals);
	run.status_line = options->verbosity >= 0 && isatty(STDERR_FILENO);
	r = profile(&run, &signals, err);
	/* The command is not to suffer for a profile that could not be written. */
	if (run.launch && (r == 0 || run.last_r < 0)) {
		if (r < 0)
			dp_say(err->text);
		r = wait_for_command(&run, &status);
		if (r < 0)
			dp_error_set(err, r, "waiting for the command: %s", strerror(-r));
	}
	dp_launch_free(run.launch);
	if (run.signal_fd >= 0)
		close(run.signal_fd);
	*ret_status = r == 0 ? status : run.failure_code;
	return r;
}
