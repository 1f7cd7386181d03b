/* SPDX-License-Identifier: MIT */
/*
 * Threads that really wait in every function of the C library that waits, and are told by their
 * real stacks. The stacks come from backtrace() in a signal handler of the waiting thread, that is
 * from gcc's unwinder and not from ours.
 */
#include <errno.h>
#include <execinfo.h>
#include <gnu/libc-version.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/frame.h"
#include "src/locks.h"
#include "symbolize/space.h"
#include "tests/sym_oracle.h"

#define MAX_FRAMES 64

/* What threads wait for; made anew for each case, everything taken by the main thread. */
static struct {
	pthread_mutex_t mutex, pi_mutex, robust_mutex;
	mtx_t c11_mutex;
	pthread_rwlock_t rwlock;
	pthread_mutex_t cond_mutex;
	pthread_cond_t cond;
	mtx_t cnd_mutex;
	cnd_t cnd;
	bool may_go;
	sem_t semaphore;
	pthread_barrier_t barrier;
	pthread_t thread;
	thrd_t c11_thread;
	_Atomic uint32_t futex;
} shared;

static struct {
	void *addresses[MAX_FRAMES];
	int n;
	atomic_bool done;
} captured;

static atomic_int waiter_tid;

static void capture(int signal_number)
{
	(void)signal_number;
	captured.n = backtrace(captured.addresses, MAX_FRAMES);
	atomic_store(&captured.done, true);
}

static const struct timespec *far_away(clockid_t clock)
{
	static struct timespec until;

	clock_gettime(clock, &until);
	until.tv_sec += 1000;
	return &until;
}

static void lock_mutex(void)
{
	pthread_mutex_lock(&shared.mutex);
	pthread_mutex_unlock(&shared.mutex);
}

static void timed_lock_mutex(void)
{
	pthread_mutex_timedlock(&shared.mutex, far_away(CLOCK_REALTIME));
	pthread_mutex_unlock(&shared.mutex);
}

static void clock_lock_mutex(void)
{
	pthread_mutex_clocklock(&shared.mutex, CLOCK_MONOTONIC, far_away(CLOCK_MONOTONIC));
	pthread_mutex_unlock(&shared.mutex);
}

static void lock_pi_mutex(void)
{
	pthread_mutex_lock(&shared.pi_mutex);
	pthread_mutex_unlock(&shared.pi_mutex);
}

static void lock_robust_mutex(void)
{
	pthread_mutex_lock(&shared.robust_mutex);
	pthread_mutex_unlock(&shared.robust_mutex);
}

static void lock_c11_mutex(void)
{
	mtx_lock(&shared.c11_mutex);
	mtx_unlock(&shared.c11_mutex);
}

static void timed_lock_c11_mutex(void)
{
	mtx_timedlock(&shared.c11_mutex, far_away(CLOCK_REALTIME));
	mtx_unlock(&shared.c11_mutex);
}

static void read_lock(void)
{
	pthread_rwlock_rdlock(&shared.rwlock);
	pthread_rwlock_unlock(&shared.rwlock);
}

static void write_lock(void)
{
	pthread_rwlock_wrlock(&shared.rwlock);
	pthread_rwlock_unlock(&shared.rwlock);
}

static void timed_read_lock(void)
{
	pthread_rwlock_timedrdlock(&shared.rwlock, far_away(CLOCK_REALTIME));
	pthread_rwlock_unlock(&shared.rwlock);
}

static void clock_write_lock(void)
{
	pthread_rwlock_clockwrlock(&shared.rwlock, CLOCK_MONOTONIC, far_away(CLOCK_MONOTONIC));
	pthread_rwlock_unlock(&shared.rwlock);
}

static void wait_cond(void)
{
	pthread_mutex_lock(&shared.cond_mutex);
	while (!shared.may_go)
		pthread_cond_wait(&shared.cond, &shared.cond_mutex);
	pthread_mutex_unlock(&shared.cond_mutex);
}

static void timed_wait_cond(void)
{
	pthread_mutex_lock(&shared.cond_mutex);
	while (!shared.may_go)
		pthread_cond_timedwait(&shared.cond, &shared.cond_mutex, far_away(CLOCK_REALTIME));
	pthread_mutex_unlock(&shared.cond_mutex);
}

static void clock_wait_cond(void)
{
	pthread_mutex_lock(&shared.cond_mutex);
	while (!shared.may_go)
		pthread_cond_clockwait(&shared.cond, &shared.cond_mutex, CLOCK_MONOTONIC,
				       far_away(CLOCK_MONOTONIC));
	pthread_mutex_unlock(&shared.cond_mutex);
}

static void wait_cnd(void)
{
	mtx_lock(&shared.cnd_mutex);
	while (!shared.may_go)
		cnd_wait(&shared.cnd, &shared.cnd_mutex);
	mtx_unlock(&shared.cnd_mutex);
}

static void timed_wait_cnd(void)
{
	mtx_lock(&shared.cnd_mutex);
	while (!shared.may_go)
		cnd_timedwait(&shared.cnd, &shared.cnd_mutex, far_away(CLOCK_REALTIME));
	mtx_unlock(&shared.cnd_mutex);
}

/* A handler ends a wait for a semaphore with EINTR. */
static void wait_semaphore(void)
{
	while (sem_wait(&shared.semaphore) < 0)
		;
}

static void timed_wait_semaphore(void)
{
	while (sem_timedwait(&shared.semaphore, far_away(CLOCK_REALTIME)) < 0)
		;
}

static void clock_wait_semaphore(void)
{
	while (sem_clockwait(&shared.semaphore, CLOCK_MONOTONIC, far_away(CLOCK_MONOTONIC)) < 0)
		;
}

static void wait_barrier(void)
{
	pthread_barrier_wait(&shared.barrier);
}

static void join(void)
{
	pthread_join(shared.thread, NULL);
}

static void timed_join(void)
{
	pthread_timedjoin_np(shared.thread, NULL, far_away(CLOCK_REALTIME));
}

static void clock_join(void)
{
	pthread_clockjoin_np(shared.thread, NULL, CLOCK_MONOTONIC, far_away(CLOCK_MONOTONIC));
}

static void join_c11(void)
{
	thrd_join(shared.c11_thread, NULL);
}

static void wait_futex(void)
{
	while (atomic_load(&shared.futex) == 0)
		syscall(SYS_futex, &shared.futex, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

static const struct wait {
	void (*wait)(void);
	enum dp_wait_kind kind;
	const char *entry; /* the function of the stripped glibc that is found on the stack */
} waits[] = {
	{lock_mutex, DP_WAIT_MUTEX, "pthread_mutex_lock"},
	{timed_lock_mutex, DP_WAIT_MUTEX, "pthread_mutex_timedlock"},
	{clock_lock_mutex, DP_WAIT_MUTEX, "pthread_mutex_timedlock"}, /* jump to the same one */
	{lock_pi_mutex, DP_WAIT_MUTEX, "pthread_mutex_lock"},
	{lock_robust_mutex, DP_WAIT_MUTEX, "pthread_mutex_lock"},
	{lock_c11_mutex, DP_WAIT_MUTEX, "pthread_mutex_lock"},
	{timed_lock_c11_mutex, DP_WAIT_MUTEX, "pthread_mutex_timedlock"},
	{read_lock, DP_WAIT_RWLOCK, "pthread_rwlock_rdlock"},
	{write_lock, DP_WAIT_RWLOCK, "pthread_rwlock_wrlock"},
	{timed_read_lock, DP_WAIT_RWLOCK, "pthread_rwlock_timedrdlock"},
	{clock_write_lock, DP_WAIT_RWLOCK, "pthread_rwlock_clockwrlock"},
	{wait_cond, DP_WAIT_CONDVAR, NULL}, /* there are two versions */
	{timed_wait_cond, DP_WAIT_CONDVAR, NULL},
	{clock_wait_cond, DP_WAIT_CONDVAR, "pthread_cond_clockwait"},
	{wait_cnd, DP_WAIT_CONDVAR, NULL},
	{timed_wait_cnd, DP_WAIT_CONDVAR, NULL},
	{wait_semaphore, DP_WAIT_SEMAPHORE, "sem_wait"},
	{timed_wait_semaphore, DP_WAIT_SEMAPHORE, "sem_timedwait"},
	{clock_wait_semaphore, DP_WAIT_SEMAPHORE, "sem_clockwait"},
	{wait_barrier, DP_WAIT_BARRIER, "pthread_barrier_wait"},
	{join, DP_WAIT_JOIN, "pthread_join"},
	{timed_join, DP_WAIT_JOIN, "pthread_join"}, /* jump to the same one */
	{clock_join, DP_WAIT_JOIN, "pthread_join"},
	{join_c11, DP_WAIT_JOIN, "pthread_join"},
	{wait_futex, DP_WAIT_FUTEX, NULL},
};
#define N_WAITS (sizeof(waits) / sizeof(waits[0]))

static void *run_until_told(void *unused)
{
	(void)unused;
	wait_futex();
	return NULL;
}

static int run_until_told_c11(void *unused)
{
	(void)unused;
	wait_futex();
	return 0;
}

static void init_mutex(pthread_mutex_t *mutex, int protocol, int robustness)
{
	pthread_mutexattr_t attributes;

	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setprotocol(&attributes, protocol);
	pthread_mutexattr_setrobust(&attributes, robustness);
	pthread_mutex_init(mutex, &attributes);
	pthread_mutexattr_destroy(&attributes);
}

static void take_everything(void)
{
	memset(&shared, 0, sizeof(shared));
	init_mutex(&shared.mutex, PTHREAD_PRIO_NONE, PTHREAD_MUTEX_STALLED);
	init_mutex(&shared.pi_mutex, PTHREAD_PRIO_INHERIT, PTHREAD_MUTEX_STALLED);
	init_mutex(&shared.robust_mutex, PTHREAD_PRIO_NONE, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&shared.cond_mutex, NULL);
	pthread_cond_init(&shared.cond, NULL);
	mtx_init(&shared.c11_mutex, mtx_timed);
	mtx_init(&shared.cnd_mutex, mtx_plain);
	cnd_init(&shared.cnd);
	pthread_rwlock_init(&shared.rwlock, NULL);
	sem_init(&shared.semaphore, 0, 0);
	pthread_barrier_init(&shared.barrier, NULL, 2);
	pthread_mutex_lock(&shared.mutex);
	pthread_mutex_lock(&shared.pi_mutex);
	pthread_mutex_lock(&shared.robust_mutex);
	mtx_lock(&shared.c11_mutex);
	pthread_rwlock_wrlock(&shared.rwlock);
	pthread_create(&shared.thread, NULL, run_until_told, NULL);
	thrd_create(&shared.c11_thread, run_until_told_c11, NULL);
}

static void let_everything_go(void (*wait)(void))
{
	pthread_mutex_unlock(&shared.mutex);
	pthread_mutex_unlock(&shared.pi_mutex);
	pthread_mutex_unlock(&shared.robust_mutex);
	mtx_unlock(&shared.c11_mutex);
	pthread_rwlock_unlock(&shared.rwlock);
	pthread_mutex_lock(&shared.cond_mutex);
	mtx_lock(&shared.cnd_mutex);
	shared.may_go = true;
	mtx_unlock(&shared.cnd_mutex);
	pthread_mutex_unlock(&shared.cond_mutex);
	pthread_cond_broadcast(&shared.cond);
	cnd_broadcast(&shared.cnd);
	sem_post(&shared.semaphore);
	if (wait == wait_barrier)
		pthread_barrier_wait(&shared.barrier);
	atomic_store(&shared.futex, 1);
	syscall(SYS_futex, &shared.futex, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
	if (wait != join && wait != timed_join && wait != clock_join)
		pthread_join(shared.thread, NULL);
	if (wait != join_c11)
		thrd_join(shared.c11_thread, NULL);
}

static void *run_waiter(void *wait)
{
	atomic_store(&waiter_tid, gettid());
	((const struct wait *)wait)->wait();
	return NULL;
}

/* Until the thread is inside a futex call, and stays there. */
static void await_sleep(pid_t tid)
{
	char path[64], text[64] = "";

	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", tid);
	while (strncmp(text, "202 ", 4) != 0) {
		FILE *file = fopen(path, "re");

		assert_non_null(file);
		assert_non_null(fgets(text, sizeof(text), file));
		fclose(file);
		sched_yield();
	}
}

/* The stack of the waiting thread as frames, leaf first. */
static size_t capture_frames(pthread_t thread, const struct dp_space *space, uint64_t *ret_frames)
{
	atomic_store(&captured.done, false);
	assert_int_equal(pthread_kill(thread, SIGUSR1), 0);
	while (!atomic_load(&captured.done))
		sched_yield();
	for (int i = 0; i < captured.n; i++)
		ret_frames[i] = dp_space_frame(space, (uint64_t)captured.addresses[i] - 1);
	return (size_t)captured.n;
}

struct process {
	struct dp_modules *modules;
	struct dp_space *space;
	struct dp_locks *locks;
	uint32_t libc;
	char libc_path[512];
	struct oracle_function *functions;
	size_t n_functions;
	bool libc_is_stripped;
};

static void look_at_ourselves(struct process *ret)
{
	struct dp_module_info info = {0};
	struct dp_error err = {0};
	char *sections;

	assert_int_equal(dp_modules_new(&ret->modules), 0);
	assert_int_equal(dp_space_new(&ret->space, ret->modules, getpid()), 0);
	if (dp_space_load(ret->space, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(dp_locks_new(&ret->locks, ret->modules), 0);
	assert_int_equal(dp_locks_update(ret->locks), 0);
	ret->libc = dp_frame_module(dp_space_frame(ret->space, (uint64_t)gnu_get_libc_version));
	assert_true(dp_module_get(ret->modules, ret->libc, &info));
	snprintf(ret->libc_path, sizeof(ret->libc_path), "%s", info.path);
	ret->functions = oracle_functions(ret->libc_path, "-D", &ret->n_functions);
	sections = oracle_run("readelf -SW '%s'", ret->libc_path);
	ret->libc_is_stripped = !strstr(sections, ".symtab");
	free(sections);
}

static void look_away(struct process *process)
{
	free(process->functions);
	dp_locks_free(process->locks);
	dp_space_free(process->space);
	dp_modules_free(process->modules);
}

static void check_wait(const struct process *process, size_t i_wait, const uint64_t *frames,
		       size_t n_frames)
{
	const struct wait *wait = &waits[i_wait];
	size_t i_frame;
	enum dp_wait_kind kind = dp_locks_classify(process->locks, frames, n_frames, &i_frame);
	uint64_t entry, file_off;

	if (kind != wait->kind)
		fail_msg("wait %zu is a %s and was taken for a %s", i_wait,
			 dp_wait_kind_name(wait->kind), dp_wait_kind_name(kind));
	if (!wait->entry || !process->libc_is_stripped)
		return;
	entry = dp_locks_entry(process->locks, frames[i_frame]);
	file_off = oracle_file_off(
		process->libc_path,
		oracle_function(process->functions, process->n_functions, wait->entry)->svma);
	if (entry != dp_frame_make(process->libc, file_off))
		fail_msg("wait %zu is not found in %s", i_wait, wait->entry);
}

static void start_capturing(void)
{
	struct sigaction action = {.sa_handler = capture, .sa_flags = SA_RESTART};

	assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
	/* The first call loads the unwinder. */
	captured.n = backtrace(captured.addresses, MAX_FRAMES);
	assert_true(captured.n > 0);
}

static void every_wait_is_told_by_its_real_stack(void **state)
{
	struct process process = {0};
	uint64_t frames[MAX_FRAMES];

	(void)state;
	start_capturing();
	look_at_ourselves(&process);
	for (size_t i = 0; i < N_WAITS; i++) {
		pthread_t thread;
		size_t n;

		take_everything();
		atomic_store(&waiter_tid, 0);
		assert_int_equal(pthread_create(&thread, NULL, run_waiter, (void *)&waits[i]), 0);
		while (!atomic_load(&waiter_tid))
			sched_yield();
		await_sleep(atomic_load(&waiter_tid));
		n = capture_frames(thread, process.space, frames);
		let_everything_go(waits[i].wait);
		pthread_join(thread, NULL);
		check_wait(&process, i, frames, n);
	}
	look_away(&process);
}

/*
 * The condition came, the mutex is still held: where libc is stripped nothing shows that the thread
 * now waits for the mutex.
 */
static void a_condition_that_came_waits_for_its_mutex(void **state)
{
	struct process process = {0};
	uint64_t frames[MAX_FRAMES];
	enum dp_wait_kind kind;
	pthread_t thread;
	size_t n, i_frame;

	(void)state;
	start_capturing();
	look_at_ourselves(&process);
	take_everything();
	atomic_store(&waiter_tid, 0);
	pthread_create(&thread, NULL, run_waiter, (void *)&(const struct wait){.wait = wait_cond});
	while (!atomic_load(&waiter_tid))
		sched_yield();
	await_sleep(atomic_load(&waiter_tid));
	/* Whoever holds the mutex of a condition variable knows that the waiter is in its wait. */
	pthread_mutex_lock(&shared.cond_mutex);
	shared.may_go = true;
	pthread_cond_signal(&shared.cond);
	while (((volatile pthread_mutex_t *)&shared.cond_mutex)->__data.__lock != 2)
		sched_yield();
	await_sleep(atomic_load(&waiter_tid));
	n = capture_frames(thread, process.space, frames);
	kind = dp_locks_classify(process.locks, frames, n, &i_frame);
	pthread_mutex_unlock(&shared.cond_mutex);
	let_everything_go(wait_cond);
	pthread_join(thread, NULL);
	assert_int_equal(kind, process.libc_is_stripped ? DP_WAIT_CONDVAR : DP_WAIT_MUTEX);
	look_away(&process);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_wait_is_told_by_its_real_stack),
		cmocka_unit_test(a_condition_that_came_waits_for_its_mutex),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
