/* SPDX-License-Identifier: MIT */
#include "src/run.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "encode/sink.h"
#include "perf/sampler.h"
#include "src/base/frame.h"
#include "src/session.h"

/* A ring that fills slowly wakes nobody, so we look this often. */
#define MAX_SLEEP_NS ((uint64_t)100 * 1000 * 1000)
#define NS_PER_SECOND ((uint64_t)1000 * 1000 * 1000)

struct run {
	const struct dp_options *options;
	struct dp_session *session;
	struct pollfd *pollfds; /* the session's, and last the signals */
	size_t n_pollfds;
	int signal_fd;
	bool stopped; /* by a signal */
	bool status_line;
	bool write_failed;	/* the last one */
	uint64_t started_ns;	/* CLOCK_MONOTONIC */
	uint64_t covered_ns;	/* profiles written so far reach up to here, CLOCK_MONOTONIC */
	int64_t unix_offset_ns; /* CLOCK_REALTIME minus CLOCK_MONOTONIC at the start */
	uint64_t cpu_ns;	/* our own, at the last status line */
	struct dp_session_stats shown; /* as of the last status line */
};

/* One write, so that lines of several processes do not mix. */
static void say(const char *text)
{
	char line[1024];
	int n = snprintf(line, sizeof(line), "deltaprof-perf: %s\n", text);

	if (n > 0 &&
	    write(STDERR_FILENO, line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1) < 0)
		return;
}

static int64_t to_ns(const struct timespec *time)
{
	return (int64_t)time->tv_sec * (int64_t)NS_PER_SECOND + time->tv_nsec;
}

/*
 * Between the two clocks' readings we may be descheduled: of several tries the one that took the
 * shortest is the truest.
 */
static int64_t unix_offset_ns(void)
{
	int64_t offset_ns = 0, shortest_ns = INT64_MAX;

	for (int i = 0; i < 16; i++) {
		struct timespec before, real, after;
		int64_t before_ns, took_ns;

		clock_gettime(CLOCK_MONOTONIC, &before);
		clock_gettime(CLOCK_REALTIME, &real);
		clock_gettime(CLOCK_MONOTONIC, &after);
		before_ns = to_ns(&before);
		took_ns = to_ns(&after) - before_ns;
		if (took_ns >= shortest_ns)
			continue;
		shortest_ns = took_ns;
		offset_ns = to_ns(&real) - (before_ns + took_ns / 2);
	}
	return offset_ns;
}

static uint64_t own_cpu_ns(void)
{
	struct timespec cpu;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	return (uint64_t)cpu.tv_sec * NS_PER_SECOND + (uint64_t)cpu.tv_nsec;
}

static uint64_t random_seed(void)
{
	uint64_t seed;

	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		seed = dp_sampler_now_ns() ^ (uint64_t)getpid();
	return seed;
}

static int open_signals(struct run *run, struct dp_error *err)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	/* A full disk must be an error of the write, not our death. */
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	run->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (run->signal_fd < 0)
		return dp_error_set(err, -errno, "signalfd: %s", strerror(errno));
	return 0;
}

static int open_pollfds(struct run *run, struct dp_error *err)
{
	size_t n;
	const struct pollfd *session = dp_session_pollfds(run->session, &n);

	run->pollfds = calloc(n + 1, sizeof(*run->pollfds));
	if (!run->pollfds)
		return dp_error_set(err, -ENOMEM, "out of memory");
	memcpy(run->pollfds, session, n * sizeof(*session));
	run->pollfds[n] = (struct pollfd){.fd = run->signal_fd, .events = POLLIN};
	run->n_pollfds = n + 1;
	return 0;
}

static void say_attached(const struct run *run)
{
	const struct dp_target *target = dp_session_target(run->session);
	size_t n_probes, n_threads, n_fds;
	const struct dp_probe *probes = dp_probes_list(dp_session_probes(run->session), &n_probes);
	char text[768];

	if (run->options->verbosity < 1)
		return;
	for (size_t i = 0; i < n_probes; i++) {
		struct dp_module_info info = {.path = "?"};

		dp_module_get(dp_session_modules(run->session), dp_frame_module(probes[i].frame),
			      &info);
		snprintf(text, sizeof(text), "%d: probe on %s+%u, file offset 0x%llx of %s%s",
			 target->pid, probes[i].function->name, probes[i].offset_bytes,
			 (unsigned long long)dp_frame_offset(probes[i].frame), info.path,
			 probes[i].emulated ? "" : " (single-stepped)");
		say(text);
	}
	dp_session_get_size(run->session, &n_threads, &n_fds);
	snprintf(text, sizeof(text), "%d: %zu threads, %zu file descriptors", target->pid,
		 n_threads, n_fds);
	say(text);
	snprintf(text, sizeof(text), "%d (%s): attached", target->pid, target->comm);
	say(text);
}

struct file {
	const char *dir;
	char name[DP_SINK_NAME_MAX];
};

/* dp_session_writer */
static int write_file(void *context, const void *data, size_t n_bytes, struct dp_error *err)
{
	const struct file *file = context;

	return dp_sink_write(file->dir, file->name, data, n_bytes, err);
}

static void show_status(struct run *run, uint64_t cut_ns, const struct file *file, size_t n_bytes)
{
	const struct dp_target *target = dp_session_target(run->session);
	uint64_t cpu_ns = own_cpu_ns();
	uint64_t interval_ns = cut_ns - run->covered_ns;
	struct dp_session_stats now;
	char text[768];

	dp_session_get_stats(run->session, &now);
	snprintf(text, sizeof(text),
		 "%d (%s): %llu events, %llu of %llu allocations sampled, %llu records lost, own "
		 "CPU %.1f %%, "
		 "%s (%zu bytes)",
		 target->pid, target->comm,
		 (unsigned long long)(now.sampler.n_delivered - run->shown.sampler.n_delivered),
		 (unsigned long long)(now.heap.n_sampled - run->shown.heap.n_sampled),
		 (unsigned long long)(now.heap.n_seen - run->shown.heap.n_seen),
		 (unsigned long long)(now.sampler.n_lost - run->shown.sampler.n_lost),
		 interval_ns ? 100.0 * (double)(cpu_ns - run->cpu_ns) / (double)interval_ns : 0.0,
		 file->name, n_bytes);
	say(text);
	run->shown = now;
	run->cpu_ns = cpu_ns;
}

/* Writes the profiles of everything up to @cut_ns that no file covers yet. A failed write is said
 * and made good by the next. */
static int write_interval(struct run *run, uint64_t cut_ns, struct dp_error *err)
{
	const struct dp_target *target = dp_session_target(run->session);
	int64_t start_unix_ns = (int64_t)run->covered_ns + run->unix_offset_ns;
	struct file file = {.dir = run->options->output_dir};
	size_t n_bytes = 0;
	int r;

	dp_sink_name(file.name, target->comm, target->pid, "heap", start_unix_ns);
	r = dp_session_write_heap(run->session, start_unix_ns, cut_ns - run->covered_ns, write_file,
				  &file, &n_bytes, err);
	run->write_failed = r < 0;
	if (r < 0)
		return r;
	if (run->status_line)
		show_status(run, cut_ns, &file, n_bytes);
	run->covered_ns = cut_ns;
	return 0;
}

static void read_signals(struct run *run)
{
	struct signalfd_siginfo info;

	while (read(run->signal_fd, &info, sizeof(info)) == sizeof(info))
		run->stopped = true;
}

/* Takes events in until @deadline_ns, a signal, or the process's end. */
static int pump_until(struct run *run, uint64_t deadline_ns)
{
	int r = 0;

	while (r == 0 && !run->stopped && dp_session_state(run->session) == DP_SESSION_RUNNING) {
		uint64_t now_ns = dp_sampler_now_ns();
		uint64_t sleep_ns;

		if (now_ns >= deadline_ns)
			break;
		sleep_ns =
			deadline_ns - now_ns < MAX_SLEEP_NS ? deadline_ns - now_ns : MAX_SLEEP_NS;
		if (poll(run->pollfds, run->n_pollfds, (int)(sleep_ns / 1000000) + 1) < 0 &&
		    errno != EINTR)
			return -errno;
		read_signals(run);
		r = dp_session_pump(run->session, deadline_ns);
	}
	return r;
}

static int loop(struct run *run, struct dp_error *err)
{
	uint64_t end_ns = run->options->duration_ns ? run->started_ns + run->options->duration_ns
						    : UINT64_MAX;
	uint64_t due_ns = run->started_ns;
	int r;

	for (;;) {
		due_ns += run->options->interval_ns;
		if (due_ns > end_ns)
			due_ns = end_ns;
		r = pump_until(run, due_ns);
		if (r < 0)
			return dp_error_set(err, r, "taking in events: %s", strerror(-r));
		if (run->stopped || due_ns == end_ns ||
		    dp_session_state(run->session) != DP_SESSION_RUNNING)
			return 0;
		r = dp_session_cut(run->session, due_ns);
		if (r < 0)
			return dp_error_set(err, r, "taking in events: %s", strerror(-r));
		if (write_interval(run, due_ns, err) < 0)
			say(err->text);
	}
}

/* The last interval, however it came to its end. */
static int finish(struct run *run, struct dp_error *err)
{
	const struct dp_target *target = dp_session_target(run->session);
	char text[256];
	int r;

	r = dp_session_stop(run->session);
	if (r < 0)
		return dp_error_set(err, r, "taking in events: %s", strerror(-r));
	r = write_interval(run, dp_sampler_now_ns(), err);
	if (run->options->verbosity < 0)
		return r;
	if (dp_session_state(run->session) == DP_SESSION_EXECED) {
		snprintf(text, sizeof(text),
			 "%d (%s): has executed another program; its profile ends here, attach "
			 "again for "
			 "the new one",
			 target->pid, target->comm);
		say(text);
	} else if (dp_session_state(run->session) == DP_SESSION_ENDED &&
		   run->options->verbosity > 0) {
		snprintf(text, sizeof(text), "%d (%s): has ended", target->pid, target->comm);
		say(text);
	}
	return r;
}

int dp_run(const struct dp_options *options, struct dp_error *err)
{
	const struct dp_session_options session = {.pid = options->pids[0],
						   .heap_rate_bytes = options->heap_rate_bytes,
						   .seed = random_seed()};
	struct run run = {.options = options, .signal_fd = -1};
	int r;

	r = dp_sink_check(options->output_dir, err);
	if (r == 0)
		r = open_signals(&run, err);
	if (r == 0)
		r = dp_session_open(&run.session, &session, err);
	if (r == 0)
		r = open_pollfds(&run, err);
	if (r < 0)
		goto out;
	run.status_line = options->verbosity >= 0 && isatty(STDERR_FILENO);
	run.unix_offset_ns = unix_offset_ns();
	run.started_ns = dp_sampler_now_ns();
	run.covered_ns = run.started_ns;
	run.cpu_ns = own_cpu_ns();
	say_attached(&run);
	r = loop(&run, err);
	if (r == 0)
		r = finish(&run, err);
out:
	dp_session_close(run.session);
	free(run.pollfds);
	if (run.signal_fd >= 0)
		close(run.signal_fd);
	return r;
}
