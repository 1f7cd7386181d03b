/* SPDX-License-Identifier: MIT */
/* Opening events on the threads of a process, and what is said where that fails. */
#include "perf/attach.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "perf/cpus.h"
#include "perf/ring.h"
#include "tests/alloc_fail.h"
#include "tests/perf_fixture.h"

#define RING_BYTES (64 * 1024)
#define MAX_CPUS 256

/* A ring for each CPU, and options to attach with. */
struct rings {
	int *cpus;
	size_t n_cpus;
	int fds[MAX_CPUS];
	struct dp_ring rings[MAX_CPUS];
};

static int open_ring(int cpu)
{
	struct perf_event_attr attr = {.size = sizeof(attr),
				       .type = PERF_TYPE_SOFTWARE,
				       .config = PERF_COUNT_SW_DUMMY,
				       .use_clockid = 1,
				       .clockid = CLOCK_MONOTONIC};
	long fd = syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);

	assert_true(fd >= 0);
	return (int)fd;
}

static void open_rings(struct rings *rings)
{
	assert_int_equal(dp_cpus_online(&rings->cpus, &rings->n_cpus), 0);
	assert_true(rings->n_cpus <= MAX_CPUS);
	for (size_t i = 0; i < rings->n_cpus; i++) {
		rings->fds[i] = open_ring(rings->cpus[i]);
		assert_int_equal(dp_ring_map(&rings->rings[i], rings->fds[i], RING_BYTES), 0);
	}
}

static void close_rings(struct rings *rings)
{
	for (size_t i = 0; i < rings->n_cpus; i++) {
		dp_ring_unmap(&rings->rings[i]);
		close(rings->fds[i]);
	}
	free(rings->cpus);
}

/* The sideband, and a tracepoint that a target can hit as often as it likes. */
static struct dp_event_spec specs[2] = {{.sideband = true}};

static uint64_t tracepoint_id(const char *name)
{
	char path[128];
	unsigned id = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/kernel/tracing/events/%s/id", name);
	file = fopen(path, "re");
	assert_non_null(file);
	assert_int_equal(fscanf(file, "%u", &id), 1);
	fclose(file);
	return id;
}

static struct dp_attach_options options_for(const struct rings *rings, pid_t pid)
{
	specs[1].tracepoint_id = tracepoint_id("syscalls/sys_enter_getppid");
	return (struct dp_attach_options){.pid = pid,
					  .specs = specs,
					  .n_specs = 2,
					  .cpus = rings->cpus,
					  .ring_fds = rings->fds,
					  .n_cpus = rings->n_cpus};
}

#define CALLS 100
#define THREADS 5

static void hit(struct shared *shared)
{
	for (int i = 0; i < CALLS; i++)
		syscall(SYS_getppid);
	sem_post(&shared->done);
}

static void *hit_when_told(void *context)
{
	struct shared *shared = context;

	atomic_store(&shared->tids[target_thread_number(shared)], gettid());
	sem_post(&shared->ready);
	await(&shared->go);
	hit(shared);
	return NULL;
}

static void hit_on_threads(struct shared *shared)
{
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++) {
		if (pthread_create(&threads[i], NULL, hit_when_told, shared))
			abort();
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	sem_post(&shared->ready);
	await(&shared->end);
}

static void start_hitters(struct target *target)
{
	target_start(target, hit_on_threads);
	await_times(&target->shared->ready, THREADS);
}

static void let_hit(struct target *target)
{
	raise_times(&target->shared->go, THREADS);
	await_times(&target->shared->done, THREADS);
	await(&target->shared->ready); /* they have ended */
}

static struct dp_attach *attach(const struct dp_attach_options *options)
{
	struct dp_attach *attach = NULL;
	struct dp_error err = {0};

	if (dp_attach_open(&attach, options, &err) < 0)
		fail_msg("%s", err.text);
	return attach;
}

static void expect_refused(const struct dp_attach_options *options, int code, const char *sentence)
{
	unsigned n_fds = count_fds();
	struct dp_attach *attach = NULL;
	struct dp_error err = {0};

	assert_int_equal(dp_attach_open(&attach, options, &err), code);
	assert_null(attach);
	if (!strstr(err.text, sentence))
		fail_msg("'%s' is not in: %s", sentence, err.text);
	assert_int_equal(count_fds(), n_fds);
}

static void what_threads_did_stays_counted_after_their_end(void **state)
{
	struct dp_attach_options options;
	struct dp_attach *attached;
	struct target target;
	struct rings rings;
	uint64_t hits, lost;
	size_t n_late;

	(void)state;
	start_hitters(&target);
	open_rings(&rings);
	options = options_for(&rings, target.pid);
	attached = attach(&options);
	assert_int_equal(dp_attach_n_threads(attached), THREADS + 1);
	assert_int_equal(dp_attach_n_fds(attached), (THREADS + 1) * 2 * rings.n_cpus);
	dp_attach_late_threads(attached, &n_late);
	assert_int_equal(n_late, 0);
	dp_attach_enable(attached, 1);
	let_hit(&target);
	dp_attach_counts(attached, 1, &hits, &lost);
	assert_int_equal(hits, THREADS * CALLS);
	assert_int_equal(lost, 0);
	dp_attach_close(attached);
	close_rings(&rings);
	sem_post(&target.shared->end);
	target_join(&target);
}

static void a_thread_that_is_left_out_has_no_events(void **state)
{
	struct dp_attach_options options;
	struct dp_attach *attached;
	struct target target;
	struct rings rings;
	uint64_t hits, lost;

	(void)state;
	start_hitters(&target);
	open_rings(&rings);
	options = options_for(&rings, target.pid);
	options.except_tid = atomic_load(&target.shared->tids[2]);
	attached = attach(&options);
	assert_int_equal(dp_attach_n_threads(attached), THREADS);
	dp_attach_enable(attached, 1);
	let_hit(&target);
	dp_attach_counts(attached, 1, &hits, &lost);
	assert_int_equal(hits, (THREADS - 1) * CALLS);
	dp_attach_close(attached);
	close_rings(&rings);
	sem_post(&target.shared->end);
	target_join(&target);
}

static void a_sort_is_counted_while_it_is_enabled(void **state)
{
	struct dp_attach_options options;
	struct dp_attach *attached;
	struct target target;
	struct rings rings;
	uint64_t hits, lost;

	(void)state;
	start_hitters(&target);
	open_rings(&rings);
	options = options_for(&rings, target.pid);
	attached = attach(&options);
	dp_attach_enable(attached, 1);
	dp_attach_disable(attached, 1);
	let_hit(&target);
	dp_attach_counts(attached, 1, &hits, &lost);
	assert_int_equal(hits, 0);
	assert_int_equal(dp_attach_late_owner(attached, 1), 0);
	dp_attach_close(attached);
	dp_attach_close(NULL);
	close_rings(&rings);
	sem_post(&target.shared->end);
	target_join(&target);
}

static void do_nothing(struct shared *shared)
{
	sem_post(&shared->ready);
	await(&shared->end);
}

static void a_process_that_is_gone_is_said_to_be(void **state)
{
	struct dp_attach_options options;
	struct target target;
	struct rings rings;
	siginfo_t info;
	pid_t pid;

	(void)state;
	target_start(&target, do_nothing);
	pid = target.pid;
	open_rings(&rings);
	options = options_for(&rings, pid);
	sem_post(&target.shared->end);
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	expect_refused(&options, -ESRCH, "the process is gone"); /* a zombie */
	target_join(&target);
	expect_refused(&options, -ESRCH, "the process is gone");
	close_rings(&rings);
}

static void a_tracepoint_that_does_not_exist_is_refused(void **state)
{
	struct dp_attach_options options;
	struct target target;
	struct rings rings;

	(void)state;
	target_start(&target, do_nothing);
	open_rings(&rings);
	options = options_for(&rings, target.pid);
	specs[1].tracepoint_id = 65535;
	expect_refused(&options, -EINVAL, "perf_event_open");
	close_rings(&rings);
	sem_post(&target.shared->end);
	target_join(&target);
}

static int open_and_close(const struct dp_attach_options *options)
{
	struct dp_attach *attached = NULL;
	int r = dp_attach_open(&attached, options, NULL);

	assert_true(r < 0 ? !attached : !!attached);
	dp_attach_close(attached);
	return r;
}

static void memory_that_runs_out_leaves_nothing_behind(void **state)
{
	struct dp_attach_options options;
	struct target target;
	struct rings rings;
	unsigned n_fds;

	(void)state;
	start_hitters(&target);
	open_rings(&rings);
	options = options_for(&rings, target.pid);
	n_fds = count_fds();
	ALLOC_FAIL_EACH(open_and_close(&options));
	assert_int_equal(count_fds(), n_fds);
	close_rings(&rings);
	target_kill(&target);
}

/* Runs @body in a child of its own, whose failed expectations end it. */
static void run_in_child(void (*body)(const struct dp_attach_options *options))
{
	struct dp_attach_options options;
	struct target target;
	struct rings rings;
	int status = -1;
	pid_t pid;

	start_hitters(&target);
	open_rings(&rings);
	options = options_for(&rings, target.pid);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		body(&options);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	close_rings(&rings);
	target_kill(&target);
}

/* In a child: says what is wrong, and ends it. */
static void require(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "%s\n", what);
	_exit(1);
}

static void limit_fds(rlim_t soft, rlim_t hard)
{
	struct rlimit limit = {.rlim_cur = soft, .rlim_max = hard};

	require(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
}

static bool has_capability(unsigned capability)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	require(syscall(SYS_capget, &header, data) == 0, "capget");
	return data[capability / 32].effective & 1u << capability % 32;
}

static void drop_capability(unsigned capability)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	require(syscall(SYS_capget, &header, data) == 0, "capget");
	data[capability / 32].effective &= ~(1u << capability % 32);
	data[capability / 32].permitted &= ~(1u << capability % 32);
	require(syscall(SYS_capset, &header, data) == 0, "capset");
}

static void try_with_few_fds(const struct dp_attach_options *options)
{
	struct dp_attach *attached = NULL;
	struct dp_error err = {0};
	unsigned n_fds = count_fds();

	limit_fds(n_fds + 4, n_fds + 4);
	drop_capability(CAP_SYS_RESOURCE);
	require(dp_attach_open(&attached, options, &err) == -EMFILE, "no EMFILE");
	require(strstr(err.text, "6 threads") && strstr(err.text, "ulimit -n"), err.text);
	require(!attached && count_fds() == n_fds, "descriptors stay open");
}

static void too_few_descriptors_are_said_to_be(void **state)
{
	(void)state;
	run_in_child(try_with_few_fds);
}

static void raise_the_soft_limit(const struct dp_attach_options *options)
{
	struct dp_attach *attached = NULL;
	struct rlimit limit;
	struct dp_error err = {0};

	require(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
	limit_fds(count_fds() + 4, limit.rlim_max);
	drop_capability(CAP_SYS_RESOURCE);
	require(dp_attach_open(&attached, options, &err) == 0, err.text);
	dp_attach_close(attached);
}

static void a_soft_limit_of_descriptors_is_raised(void **state)
{
	(void)state;
	run_in_child(raise_the_soft_limit);
}

static void raise_the_hard_limit(const struct dp_attach_options *options)
{
	struct dp_attach *attached = NULL;
	struct dp_error err = {0};

	limit_fds(count_fds() + 4, count_fds() + 4);
	if (!has_capability(CAP_SYS_RESOURCE)) /* a container may well be without it */
		return;
	require(dp_attach_open(&attached, options, &err) == 0, err.text);
	dp_attach_close(attached);
}

static void a_hard_limit_of_descriptors_is_raised_where_we_may(void **state)
{
	(void)state;
	run_in_child(raise_the_hard_limit);
}

static void try_as_nobody(const struct dp_attach_options *options)
{
	struct dp_attach *attached = NULL;
	struct dp_error err = {0};
	int r;

	require(setresuid(65534, 65534, 65534) == 0, "setresuid");
	r = dp_attach_open(&attached, options, &err);
	require(r == -EPERM || r == -EACCES, "opened without privilege?");
	require(strstr(err.text, "run as root"), err.text);
}

static void someone_elses_process_is_refused_with_what_is_needed(void **state)
{
	(void)state;
	run_in_child(try_as_nobody);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_threads_did_stays_counted_after_their_end),
		cmocka_unit_test(a_thread_that_is_left_out_has_no_events),
		cmocka_unit_test(a_sort_is_counted_while_it_is_enabled),
		cmocka_unit_test(a_process_that_is_gone_is_said_to_be),
		cmocka_unit_test(a_tracepoint_that_does_not_exist_is_refused),
		cmocka_unit_test(memory_that_runs_out_leaves_nothing_behind),
		cmocka_unit_test(too_few_descriptors_are_said_to_be),
		cmocka_unit_test(a_soft_limit_of_descriptors_is_raised),
		cmocka_unit_test(a_hard_limit_of_descriptors_is_raised_where_we_may),
		cmocka_unit_test(someone_elses_process_is_refused_with_what_is_needed),
	};
	int r = perf_must_skip();

	return r ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
