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
#include <time.h>
#include <unistd.h>

#include "encode/sink.h"
#include "src/deltaprof.h"

#define NS_PER_SECOND ((uint64_t)1000 * 1000 * 1000)
#define NS_PER_MS ((uint64_t)1000 * 1000)
#define MAX_INTERVALS_BEHIND 16

/* One process that is profiled. */
struct tracked {
	struct deltaprof *process; /* NULL once it is done with */
	struct deltaprof_heap_profiler *heap;
	struct deltaprof_block_profiler *block, *mutex;
	struct deltaprof_stats shown; /* as of the last status line */
	uint64_t shown_ns;
};

struct run {
	const struct dp_options *options;
	struct tracked *tracked;
	size_t n_tracked;
	struct pollfd *pollfds; /* of each tracked process, and last the signals */
	int signal_fd;
	bool stopped; /* by a signal */
	bool status_line;
	int last_r;		  /* how the last writes of processes that are done with went */
	struct dp_error last_err; /* what there is to say of it */
};

/* What a writer needs to know. */
struct file {
	const char *dir;
	char name[DP_SINK_NAME_MAX];
	size_t n_bytes; /* written */
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

/* One write, so that lines of several processes do not mix. */
static void say(const char *text)
{
	char line[1280];
	int n = snprintf(line, sizeof(line), "deltaprof-perf: %s\n", text);
	size_t n_bytes = n < (int)sizeof(line) ? (size_t)n : sizeof(line) - 1;

	/* Nothing can be done about a stderr that is gone. */
	if (n > 0 && write(STDERR_FILENO, line, n_bytes) < 0)
		return;
}

static void say_of(const struct tracked *tracked, const char *text)
{
	char line[1200];

	snprintf(line, sizeof(line), "%d (%s): %s", deltaprof_pid(tracked->process),
		 deltaprof_comm(tracked->process), text);
	say(line);
}

/* For deltaprof_describe(). */
static void say_description(void *context, const char *text)
{
	say_of(context, text);
}

static int open_signals(struct run *run, struct dp_error *err)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
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

static void close_tracked(struct tracked *tracked)
{
	deltaprof_heap_profiler_free(tracked->heap);
	deltaprof_block_profiler_free(tracked->block);
	deltaprof_block_profiler_free(tracked->mutex);
	deltaprof_detach(tracked->process);
	*tracked = (struct tracked){0};
}

static int open_tracked(struct run *run, struct tracked *tracked, pid_t pid, struct dp_error *err)
{
	const struct dp_options *options = run->options;
	const bool waits = options->profiles & (DP_PROFILE_BLOCK | DP_PROFILE_MUTEX);
	const bool heap = options->profiles & DP_PROFILE_HEAP;
	const struct deltaprof_options attach = {.size = sizeof(attach),
						 .profiles = (heap ? DELTAPROF_HEAP : 0u) |
							     (waits ? DELTAPROF_CONTENTION : 0u),
						 .heap_rate_bytes = options->heap_rate_bytes,
						 .block_rate_ns = options->block_rate_ns};
	int r = deltaprof_attach(&tracked->process, pid, &attach, err->text);

	if (r < 0)
		return r;
	if (r == 0 && heap)
		r = deltaprof_heap_profiler_new(&tracked->heap, tracked->process);
	if (r == 0 && options->profiles & DP_PROFILE_BLOCK)
		r = deltaprof_block_profiler_new(&tracked->block, tracked->process);
	if (r == 0 && options->profiles & DP_PROFILE_MUTEX)
		r = deltaprof_mutex_profiler_new(&tracked->mutex, tracked->process);
	if (r < 0)
		return dp_error_set(err, r, "pid %d: %s", pid, strerror(-r));
	tracked->shown.size = sizeof(tracked->shown);
	deltaprof_get_stats(tracked->process, &tracked->shown);
	tracked->shown_ns = now_ns();
	return 0;
}

static int open_all(struct run *run, struct dp_error *err)
{
	int r = 0;

	run->tracked = calloc(run->options->n_pids, sizeof(*run->tracked));
	run->pollfds = calloc(run->options->n_pids + 1, sizeof(*run->pollfds));
	if (!run->tracked || !run->pollfds)
		return dp_error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; r == 0 && i < run->options->n_pids; i++) {
		r = open_tracked(run, &run->tracked[i], run->options->pids[i], err);
		run->n_tracked = i + 1;
	}
	for (size_t i = 0; r == 0 && run->options->verbosity > 0 && i < run->n_tracked; i++) {
		deltaprof_describe(run->tracked[i].process, say_description, &run->tracked[i]);
		say_of(&run->tracked[i], "attached");
	}
	return r;
}

/* deltaprof_writer */
static int write_file(void *context, const void *data, size_t n_bytes,
		      char error[DELTAPROF_ERROR_BYTES])
{
	struct file *file = context;
	struct dp_error err;
	int r = dp_sink_write(file->dir, file->name, data, n_bytes, &err);

	if (r < 0)
		memcpy(error, err.text, DELTAPROF_ERROR_BYTES);
	else
		file->n_bytes += n_bytes;
	return r;
}

/* Writes one profile of a process. Returns 1; 0 if it is not wanted; or a negative errno. */
static int write_one(const struct run *run, const struct tracked *tracked, const char *profile,
		     struct file *file, struct dp_error *err)
{
	bool heap = strcmp(profile, "heap") == 0;
	struct deltaprof_block_profiler *block =
		strcmp(profile, "mutex") == 0 ? tracked->mutex : tracked->block;
	int64_t start_ns;
	int r;

	if (heap ? !tracked->heap : !block)
		return 0;
	start_ns = heap ? deltaprof_heap_profiler_start(tracked->heap)
			: deltaprof_block_profiler_start(block);
	file->dir = run->options->output_dir;
	dp_sink_name(file->name, deltaprof_comm(tracked->process), deltaprof_pid(tracked->process),
		     profile, start_ns);
	if (heap)
		r = deltaprof_heap_profiler_profile(tracked->heap, write_file, file, err->text);
	else
		r = deltaprof_block_profiler_profile(block, write_file, file, err->text);
	return r < 0 ? r : 1;
}

/* What of it changed since the last status line: "N KIND sampled of M, ". */
static size_t show_sampled(char *ret, size_t n_bytes, const char *kind, uint64_t sampled,
			   uint64_t of)
{
	int n = snprintf(ret, n_bytes, "%llu %s sampled of %llu, ", (unsigned long long)sampled,
			 kind, (unsigned long long)of);

	return n > 0 && (size_t)n < n_bytes ? (size_t)n : 0;
}

static void show_status(struct tracked *tracked, const char *names, size_t n_bytes)
{
	struct deltaprof_stats now = {.size = sizeof(now)};
	const struct deltaprof_stats *before = &tracked->shown;
	uint64_t at_ns = now_ns();
	char sampled[256] = "";
	char text[1024];
	size_t n = 0;

	deltaprof_get_stats(tracked->process, &now);
	if (tracked->heap)
		n += show_sampled(sampled, sizeof(sampled), "allocations",
				  now.n_allocations_sampled - before->n_allocations_sampled,
				  now.n_allocations - before->n_allocations);
	if (tracked->block || tracked->mutex)
		show_sampled(sampled + n, sizeof(sampled) - n, "waits",
			     now.n_waits_sampled - before->n_waits_sampled,
			     now.n_waits - before->n_waits);
	snprintf(text, sizeof(text),
		 "%llu events, %s%llu records lost, own CPU %.1f %%, %s(%zu bytes)",
		 (unsigned long long)(now.n_events - before->n_events), sampled,
		 (unsigned long long)(now.n_lost - before->n_lost),
		 100.0 * (double)(now.cpu_ns - before->cpu_ns) /
			 (double)(at_ns - tracked->shown_ns + 1),
		 names, n_bytes);
	say_of(tracked, text);
	tracked->shown = now;
	tracked->shown_ns = at_ns;
}

/*
 * Writes all of a process's profiles up to now; one that fails is made good by the next.
 * Returns 0, or the last failure, with its sentence in @err; those before it are said.
 */
static int write_interval(const struct run *run, struct tracked *tracked, struct dp_error *err)
{
	static const char *const profiles[] = {"heap", "block", "mutex"};
	char names[3 * (DP_SINK_NAME_MAX + 1) + 1] = "";
	struct file file = {0};
	int failure = 0;
	size_t n = 0;

	for (size_t i = 0; i < sizeof(profiles) / sizeof(*profiles); i++) {
		struct dp_error one;
		int r = write_one(run, tracked, profiles[i], &file, &one);

		if (r < 0) {
			if (failure < 0)
				say(err->text);
			*err = one;
			failure = r;
		} else if (r > 0) {
			n += (size_t)snprintf(names + n, sizeof(names) - n, "%s ", file.name);
		}
	}
	if (run->status_line)
		show_status(tracked, names, file.n_bytes);
	return failure;
}

/* Something failed at the end of a process's profile: it becomes our own failure. */
static void fail_at_last(struct run *run, int r, const struct dp_error *err)
{
	if (run->last_r < 0)
		say(run->last_err.text);
	run->last_r = r;
	run->last_err = *err;
}

/* The last interval of a process, however it came to its end. */
static void finish(struct run *run, struct tracked *tracked)
{
	enum deltaprof_state state = deltaprof_state(tracked->process);
	struct dp_error err;
	int r;

	deltaprof_stop(tracked->process);
	r = write_interval(run, tracked, &err);
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
		say_of(tracked,
		       "has executed another program; its profile ends here, attach again for "
		       "the new one");
	if (state == DELTAPROF_ENDED && run->options->verbosity > 0)
		say_of(tracked, "has ended");
	close_tracked(tracked);
}

static void read_signals(struct run *run)
{
	struct signalfd_siginfo info;

	while (read(run->signal_fd, &info, sizeof(info)) == sizeof(info))
		run->stopped = true;
}

/* Waits until @deadline_ns, a signal, or the end of a process. Returns 0 or a negative errno. */
static int wait_until(struct run *run, uint64_t deadline_ns)
{
	uint64_t at_ns = now_ns();
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

static void cut_all_at(struct run *run, uint64_t at_ns)
{
	for (size_t i = 0; i < run->n_tracked; i++) {
		if (run->tracked[i].process)
			deltaprof_cut_at(run->tracked[i].process, at_ns);
	}
}

/*
 * Where the interval after the one that ended at @due_ns ends. When naming or a slow disk has held
 * us up, intervals are made good one by one, each of its own length, from what waited in the
 * queues; only a long way behind are they thrown together.
 */
static uint64_t next_due(uint64_t due_ns, uint64_t interval_ns)
{
	uint64_t at_ns = now_ns();

	if (at_ns > due_ns && (at_ns - due_ns) / interval_ns > MAX_INTERVALS_BEHIND)
		due_ns += (at_ns - due_ns) / interval_ns * interval_ns;
	return due_ns + interval_ns;
}

static int loop(struct run *run, struct dp_error *err)
{
	const struct dp_options *options = run->options;
	uint64_t start_ns = now_ns();
	uint64_t end_ns = options->duration_ns ? start_ns + options->duration_ns : UINT64_MAX;
	uint64_t due_ns = start_ns + options->interval_ns;

	cut_all_at(run, due_ns);
	while (!run->stopped && reap(run) > 0) {
		int r = wait_until(run, due_ns < end_ns ? due_ns : end_ns);

		if (r < 0)
			return dp_error_set(err, r, "poll: %s", strerror(-r));
		if (due_ns >= end_ns && now_ns() >= end_ns)
			break;
		if (run->stopped || now_ns() < due_ns || due_ns >= end_ns)
			continue;
		for (size_t i = 0; i < run->n_tracked; i++) {
			struct dp_error failed;

			if (run->tracked[i].process &&
			    write_interval(run, &run->tracked[i], &failed) < 0)
				say(failed.text);
		}
		due_ns = next_due(due_ns, options->interval_ns);
		cut_all_at(run, due_ns);
	}
	return 0;
}

int dp_run(const struct dp_options *options, struct dp_error *err)
{
	struct run run = {.options = options, .signal_fd = -1};
	int r;

	run.status_line = options->verbosity >= 0 && isatty(STDERR_FILENO);
	r = dp_sink_check(options->output_dir, err);
	if (r == 0)
		r = open_signals(&run, err);
	if (r == 0)
		r = open_all(&run, err);
	if (r == 0)
		r = loop(&run, err);
	for (size_t i = 0; i < run.n_tracked; i++) {
		if (r == 0 && run.tracked[i].process)
			finish(&run, &run.tracked[i]);
		close_tracked(&run.tracked[i]);
	}
	if (r == 0 && run.last_r < 0) {
		r = run.last_r;
		*err = run.last_err;
	}
	free(run.tracked);
	free(run.pollfds);
	if (run.signal_fd >= 0)
		close(run.signal_fd);
	return r;
}
