/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: one thread per attach owns everything that is not thread-safe. Whoever wants
 * something of it hands it a function to run between two looks at the rings, and waits. So no lock
 * is held while events are taken in, and in a process that profiles itself all of the profiler's
 * own work happens in the one thread that is left out.
 */
#include "src/deltaprof.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/describe.h"
#include "src/process.h"

#define READER_NICE (-10)
#define DEFAULT_HEAP_RATE_BYTES 524288
#define DEFAULT_BLOCK_RATE_NS 10000

_Static_assert(DELTAPROF_ERROR_BYTES == sizeof(((struct dp_error *)0)->text), "one size of error");

void dp_process_set_error(char *error, const struct dp_error *err)
{
	if (error)
		memcpy(error, err->text, DELTAPROF_ERROR_BYTES);
}

static void signal_fd(int fd)
{
	uint64_t one = 1;

	/* It can only fail by being readable already. */
	if (write(fd, &one, sizeof(one)) < 0)
		return;
}

void dp_process_run(struct deltaprof *process,
		    void (*run)(struct deltaprof *process, void *argument), void *argument)
{
	struct call call = {.run = run, .argument = argument};

	pthread_mutex_lock(&process->lock);
	*process->calls_end = &call;
	// cppcheck-suppress autoVariables ; the call is off the list before this function returns
	process->calls_end = &call.next;
	signal_fd(process->wake_fd);
	while (!call.done)
		pthread_cond_wait(&process->changed, &process->lock);
	pthread_mutex_unlock(&process->lock);
}

void dp_process_set_state(struct deltaprof *process, enum deltaprof_state state)
{
	pthread_mutex_lock(&process->lock);
	if (process->state == DELTAPROF_RUNNING && state != DELTAPROF_RUNNING) {
		process->state = state;
		signal_fd(process->state_fd);
	}
	pthread_mutex_unlock(&process->lock);
}

/* Runs every call that waits. Returns whether the thread is to end. */
static bool run_calls(struct deltaprof *process)
{
	struct call *call;
	uint64_t n;
	bool quit;

	/* It only wakes the poll; what is to be done stands in the list. */
	while (read(process->wake_fd, &n, sizeof(n)) > 0)
		continue;
	pthread_mutex_lock(&process->lock);
	while ((call = process->calls)) {
		pthread_mutex_unlock(&process->lock);
		call->run(process, call->argument);
		pthread_mutex_lock(&process->lock);
		process->calls = call->next;
		if (!process->calls)
			process->calls_end = &process->calls;
		call->done = true;
		pthread_cond_broadcast(&process->changed);
	}
	quit = process->quit;
	pthread_mutex_unlock(&process->lock);
	return quit;
}

/* Makes the session's state known. Whatever takes events in may have changed it, calls included. */
static void tell_state(struct deltaprof *process)
{
	static const enum deltaprof_state states[] = {[DP_SESSION_RUNNING] = DELTAPROF_RUNNING,
						      [DP_SESSION_ENDED] = DELTAPROF_ENDED,
						      [DP_SESSION_EXECED] = DELTAPROF_EXECED};

	dp_process_set_state(process, states[dp_session_state(process->session)]);
}

/* Takes events in as they come, until something is to be done or the process is gone. */
static void watch(struct deltaprof *process)
{
	struct pollfd wake = {.fd = process->wake_fd, .events = POLLIN};

	if (process->session)
		tell_state(process);
	if (!process->session || dp_session_state(process->session) != DP_SESSION_RUNNING) {
		poll(&wake, 1, -1);
		return;
	}
	poll(process->pollfds, process->n_pollfds, dp_session_sleep_ms(process->session));
	if (dp_session_pump(process->session, process->cut_ns) < 0)
		dp_process_set_state(process, DELTAPROF_FAILED);
	else if (dp_session_reached(process->session, process->cut_ns))
		dp_cuts_make(process, NULL, dp_cuts_is_late(process));
}

static void *thread_main(void *argument)
{
	struct deltaprof *process = argument;

	/* What waits in the rings is soon lost; names can wait. Without the privilege, as it is. */
	setpriority(PRIO_PROCESS, (id_t)gettid(), READER_NICE);
	while (!run_calls(process))
		watch(process);
	dp_session_close(process->session);
	free(process->pollfds);
	return NULL;
}

struct attach {
	struct dp_session_options options;
	struct dp_error err;
	int r;
};

static int make_pollfds(struct deltaprof *process)
{
	size_t n;
	const struct pollfd *session = dp_session_pollfds(process->session, &n);

	process->pollfds = calloc(n + 1, sizeof(*process->pollfds));
	if (!process->pollfds)
		return -ENOMEM;
	memcpy(process->pollfds, session, n * sizeof(*session));
	process->pollfds[n] = (struct pollfd){.fd = process->wake_fd, .events = POLLIN};
	process->n_pollfds = n + 1;
	return 0;
}

static void run_attach(struct deltaprof *process, void *argument)
{
	struct attach *attach = argument;

	if (attach->options.pid == getpid())
		attach->options.except_tid = gettid();
	attach->r = dp_session_open(&process->session, &attach->options, &attach->err);
	if (attach->r < 0)
		return;
	attach->r = make_pollfds(process);
	if (attach->r < 0) {
		dp_error_set(&attach->err, attach->r, "pid %d: out of memory", process->pid);
		return;
	}
	process->started_ns = dp_monotonic_ns();
	process->last_cut_ns = process->started_ns;
	memcpy(process->comm, dp_session_target(process->session)->comm, sizeof(process->comm));
}

static uint64_t random_seed(void)
{
	uint64_t seed;

	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		seed = dp_monotonic_ns();
	return seed;
}

/* What the first version had. */
#define FIRST_OPTIONS_BYTES (offsetof(struct deltaprof_options, seed) + sizeof(uint64_t))

static struct dp_session_options choose_options(pid_t pid, const struct deltaprof_options *options)
{
	struct deltaprof_options given = {0};

	if (options)
		memcpy(&given, options,
		       options->size < sizeof(given) ? options->size : sizeof(given));
	return (struct dp_session_options){
		.pid = pid,
		.heap = !given.profiles || given.profiles & DELTAPROF_HEAP,
		.cheap = !given.profiles || given.profiles & DELTAPROF_CHEAP,
		.contention = !given.profiles || given.profiles & DELTAPROF_CONTENTION,
		.heap_rate_bytes =
			given.heap_rate_bytes ? given.heap_rate_bytes : DEFAULT_HEAP_RATE_BYTES,
		.block_rate_ns = given.block_rate_ns ? given.block_rate_ns : DEFAULT_BLOCK_RATE_NS,
		.seed = given.seed ? given.seed : random_seed(),
		.heap_unwound = given.stacks != DELTAPROF_STACKS_FP,
		.stacks_go_on = given.stacks == DELTAPROF_STACKS_AUTO,
		.sampler = (enum dp_sampler_mode)given.sampler,
		.go_wishes = {.heap_bytes = given.go_heap_rate_bytes,
			      .block_ns = given.go_block_rate_ns,
			      .mutex_fraction = given.go_mutex_fraction},
		.debuginfod = given.debuginfod != 0};
}

/* What an older caller does not know is zero; what a newer one does must be. */
static int check_options(const struct deltaprof_options *options, struct dp_error *err)
{
	const uint8_t *bytes = (const uint8_t *)options;

	if (!options)
		return 0;
	if (options->size < FIRST_OPTIONS_BYTES)
		return dp_error_set(err, -EINVAL, "options: size is %zu; set it to sizeof, %zu",
				    options->size, sizeof(*options));
	for (size_t i = sizeof(*options); i < options->size; i++) {
		if (bytes[i])
			return dp_error_set(err, -EINVAL,
					    "options: size is %zu and what lies beyond %zu is not "
					    "zero; this library is older than that",
					    options->size, sizeof(*options));
	}
	if (options->profiles &
	    ~(unsigned)(DELTAPROF_HEAP | DELTAPROF_CONTENTION | DELTAPROF_CHEAP))
		return dp_error_set(err, -EINVAL,
				    "options: no such profiles: 0x%x; see "
				    "enum deltaprof_profiles",
				    options->profiles);
	if (options->size >= offsetof(struct deltaprof_options, stacks) + sizeof(options->stacks) &&
	    (unsigned)options->stacks > DELTAPROF_STACKS_DWARF)
		return dp_error_set(err, -EINVAL,
				    "options: no such stacks: %u; see enum deltaprof_stacks",
				    (unsigned)options->stacks);
	if (options->size >=
		    offsetof(struct deltaprof_options, sampler) + sizeof(options->sampler) &&
	    (unsigned)options->sampler > DELTAPROF_SAMPLER_DIRECT)
		return dp_error_set(err, -EINVAL,
				    "options: no such sampler: %u; see enum deltaprof_sampler",
				    (unsigned)options->sampler);
	return 0;
}

/* Starts the thread, with every signal blocked: signals are the application's. */
static int start_thread(struct deltaprof *process)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&process->thread, NULL, thread_main, process);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -r;
}

static void free_process(struct deltaprof *process)
{
	if (process->wake_fd >= 0)
		close(process->wake_fd);
	if (process->state_fd >= 0)
		close(process->state_fd);
	pthread_cond_destroy(&process->changed);
	pthread_mutex_destroy(&process->lock);
	pthread_mutex_destroy(&process->profilers_lock);
	free(process);
}

int deltaprof_attach(struct deltaprof **ret, pid_t pid, const struct deltaprof_options *options,
		     char *error)
{
	struct deltaprof *process = NULL;
	struct attach attach = {.r = 0};
	int r = check_options(options, &attach.err);

	if (r < 0) {
		dp_process_set_error(error, &attach.err);
		return r;
	}
	attach.options = choose_options(pid, options);
	process = calloc(1, sizeof(*process));
	if (!process) {
		r = -ENOMEM;
		dp_error_set(&attach.err, r, "pid %d: out of memory", pid);
		dp_process_set_error(error, &attach.err);
		return r;
	}
	process->pid = pid;
	process->is_own = pid == getpid();
	process->cut_ns = UINT64_MAX;
	process->calls_end = &process->calls;
	pthread_mutex_init(&process->lock, NULL);
	pthread_mutex_init(&process->profilers_lock, NULL);
	pthread_cond_init(&process->changed, NULL);
	process->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	process->state_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = process->wake_fd < 0 || process->state_fd < 0 ? -errno : start_thread(process);
	if (r < 0) {
		dp_error_set(&attach.err, r, "pid %d: starting to profile: %s", pid, strerror(-r));
		dp_process_set_error(error, &attach.err);
		free_process(process);
		return r;
	}
	dp_process_run(process, run_attach, &attach);
	if (attach.r < 0) {
		dp_process_set_error(error, &attach.err);
		deltaprof_detach(process);
		return attach.r;
	}
	*ret = process;
	return 0;
}

void deltaprof_detach(struct deltaprof *process)
{
	if (!process)
		return;
	pthread_mutex_lock(&process->lock);
	process->quit = true;
	signal_fd(process->wake_fd);
	pthread_mutex_unlock(&process->lock);
	pthread_join(process->thread, NULL);
	free_process(process);
}

static void run_stop(struct deltaprof *process, void *argument)
{
	int *r = argument;

	*r = dp_session_stop(process->session);
	/* Here the last profiles end, all of them. */
	process->stopped_ns = dp_monotonic_ns();
	process->every_ns = 0;
	process->cut_ns = process->stopped_ns;
	dp_cuts_make(process, NULL, true);
}

int deltaprof_stop(struct deltaprof *process)
{
	int r = 0;

	dp_process_run(process, run_stop, &r);
	return r;
}

enum deltaprof_state deltaprof_state(struct deltaprof *process)
{
	enum deltaprof_state state;

	pthread_mutex_lock(&process->lock);
	state = process->state;
	pthread_mutex_unlock(&process->lock);
	return state;
}

int deltaprof_state_fd(struct deltaprof *process)
{
	return process->state_fd;
}

pid_t deltaprof_pid(const struct deltaprof *process)
{
	return process->pid;
}

const char *deltaprof_comm(const struct deltaprof *process)
{
	return process->comm;
}

/*
 * The ring says how much was lost when it has room again, the kernel's counter at once, but not of
 * the sideband.
 */
static uint64_t count_lost(const struct dp_sampler_stats *stats)
{
	uint64_t n_lost = stats->n_lost > stats->n_hits_lost ? stats->n_lost : stats->n_hits_lost;

	return n_lost + stats->n_dropped;
}

static void run_get_stats(struct deltaprof *process, void *argument)
{
	struct deltaprof_stats *ret = argument;
	struct dp_session_stats stats;
	struct timespec cpu;
	size_t n_threads, n_fds;

	dp_session_get_stats(process->session, &stats);
	dp_session_get_size(process->session, &n_threads, &n_fds);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
	*ret = (struct deltaprof_stats){
		.n_events = stats.sampler.n_delivered,
		.n_lost = count_lost(&stats.sampler),
		.n_allocations = stats.heap.n_seen,
		.n_allocations_sampled = stats.heap.n_sampled,
		.n_waits = stats.contention.n_waits + stats.go_waits.n_waits,
		.n_waits_sampled = stats.contention.n_kept + stats.go_waits.n_kept,
		.n_threads = n_threads,
		.n_fds = n_fds,
		.cpu_ns = (uint64_t)cpu.tv_sec * 1000000000 + (uint64_t)cpu.tv_nsec};
}

void deltaprof_get_stats(struct deltaprof *process, struct deltaprof_stats *ret)
{
	struct deltaprof_stats stats;
	size_t size = ret->size < sizeof(stats) ? ret->size : sizeof(stats);

	dp_process_run(process, run_get_stats, &stats);
	stats.size = size;
	memcpy(ret, &stats, size);
}

struct describe {
	void (*describe)(struct dp_session *session, dp_describe_line *line, void *context);
	dp_describe_line *line;
	void *context;
};

static void run_describe(struct deltaprof *process, void *argument)
{
	const struct describe *describe = argument;

	describe->describe(process->session, describe->line, describe->context);
}

void deltaprof_describe(struct deltaprof *process, void (*line)(void *context, const char *text),
			void *context)
{
	struct describe describe = {.describe = dp_describe, .line = line, .context = context};

	dp_process_run(process, run_describe, &describe);
}

void deltaprof_describe_limits(struct deltaprof *process,
			       void (*line)(void *context, const char *text), void *context)
{
	struct describe describe = {
		.describe = dp_describe_limits, .line = line, .context = context};

	dp_process_run(process, run_describe, &describe);
}
