// SPDX-License-Identifier: MIT
/*
 * waits: threads that wait for one another in every way that there is, and measure it themselves.
 *
 *   waits [--crowd N]
 *   go KIND[,KIND...] ROUNDS HOLD_US   each of these kinds at the same time; answers when done
 *   report                             every wait so far, by kind
 *   quit                               exit
 *
 * Of each kind there is one pair of threads: the releaser takes hold, tells the waiter so, holds on
 * for HOLD_US give or take a half, and lets go. "crowd" is N threads that all want one mutex. The
 * threads tell one another through pipes: no futex call is made but those that are measured.
 *
 * A wait is measured twice, in nanoseconds from just before the waiter's call: to its return
 * ("waits"), and to just before the call that ends it ("released"; 0 where no call of a thread
 * does).
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>

#include "target.h"

/* Source: linux/futex.h, which a C library other than the system's does not find. */
#define FUTEX_WAIT_PRIVATE 128
#define FUTEX_WAKE_PRIVATE 129

#define MAX_ROUNDS 8192
#define MAX_CROWD 8

struct pair;

struct kind {
	const char *name;
	void (*hold)(struct pair *pair);
	void (*wait)(struct pair *pair);
	void (*release)(struct pair *pair);
	void (*after)(struct pair *pair);
	bool ends_itself; /* the releaser does not end the wait */
};

/* How often a thread waited and for how long. */
struct record {
	unsigned n;
	uint64_t waits[MAX_ROUNDS], released[MAX_ROUNDS];
};

struct pair {
	const struct kind *kind;
	int start[2][2], to_waiter[2], to_releaser[2]; /* pipes */
	unsigned rounds;
	unsigned hold_us;
	uint64_t random;
	_Atomic uint64_t release_ns;
	struct record record;

	pthread_mutex_t mutex, priority_mutex;
	pthread_rwlock_t rwlock;
	pthread_cond_t changed;
	sem_t semaphore;
	pthread_barrier_t barrier;
	pthread_t thread;
	_Atomic uint32_t word; /* the raw futex; the condition too */
};

/* A thread of the crowd. */
struct member {
	int start[2];
	unsigned rounds;
	unsigned hold_us;
	struct record record;
};

static pthread_mutex_t crowd_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct member crowd[MAX_CROWD];
static unsigned n_crowd = 3;
static int done[2]; /* a pipe: a byte of each thread that is done */

static void fail(const char *what)
{
	target_say("{\"error\":\"%s\"}", what);
	_exit(4);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void make_pipe(int ends[2])
{
	if (pipe(ends) < 0)
		fail("pipe");
}

static void tell(const int ends[2])
{
	if (write(ends[1], "x", 1) != 1)
		_exit(3);
}

static void hear(const int ends[2])
{
	char byte;

	if (read(ends[0], &byte, 1) != 1)
		_exit(3);
}

static struct timespec after_us(clockid_t clock, unsigned us)
{
	struct timespec time;

	clock_gettime(clock, &time);
	time.tv_nsec += (long)us * 1000;
	time.tv_sec += time.tv_nsec / 1000000000;
	time.tv_nsec %= 1000000000;
	return time;
}

static void nothing(struct pair *pair)
{
	(void)pair;
}

/* Each kind: hold_KIND, then wait_KIND by the other, then release_KIND, then after_KIND. */
#define STEP(name)                         \
	KEEP void name(struct pair *pair); \
	KEEP void name(struct pair *pair)

/* A step that is nothing but this call. */
#define ONE_CALL(name, call) \
	STEP(name)           \
	{                    \
		call;        \
		STAY();      \
	}

ONE_CALL(hold_mutex, pthread_mutex_lock(&pair->mutex))
ONE_CALL(wait_mutex, pthread_mutex_lock(&pair->mutex))
ONE_CALL(release_mutex, pthread_mutex_unlock(&pair->mutex))

STEP(hold_priority)
{
	if (pthread_mutex_lock(&pair->priority_mutex))
		fail("priority mutex");
	STAY();
}

ONE_CALL(wait_priority, pthread_mutex_lock(&pair->priority_mutex))
ONE_CALL(release_priority, pthread_mutex_unlock(&pair->priority_mutex))
ONE_CALL(hold_writing, pthread_rwlock_wrlock(&pair->rwlock))
ONE_CALL(wait_reader, pthread_rwlock_rdlock(&pair->rwlock))
ONE_CALL(release_writing, pthread_rwlock_unlock(&pair->rwlock))
ONE_CALL(hold_reading, pthread_rwlock_rdlock(&pair->rwlock))
ONE_CALL(wait_writer, pthread_rwlock_wrlock(&pair->rwlock))
ONE_CALL(release_reading, pthread_rwlock_unlock(&pair->rwlock))

STEP(hold_condvar)
{
	atomic_store(&pair->word, 0);
}

STEP(wait_condvar)
{
	pthread_mutex_lock(&pair->mutex);
	while (!atomic_load(&pair->word))
		pthread_cond_wait(&pair->changed, &pair->mutex);
	pthread_mutex_unlock(&pair->mutex);
	STAY();
}

/* The mutex must not be waited for, neither here nor by the waiter on its way out. */
STEP(release_condvar)
{
	while (pthread_mutex_trylock(&pair->mutex) != 0)
		usleep(200);
	atomic_store(&pair->word, 1);
	pthread_mutex_unlock(&pair->mutex);
	pthread_cond_signal(&pair->changed);
	STAY();
}

ONE_CALL(wait_semaphore, sem_wait(&pair->semaphore))
ONE_CALL(release_semaphore, sem_post(&pair->semaphore))
ONE_CALL(wait_barrier, pthread_barrier_wait(&pair->barrier))
ONE_CALL(release_barrier, pthread_barrier_wait(&pair->barrier))

static void *short_main(void *arg)
{
	struct pair *pair = arg;

	usleep(pair->hold_us);
	return NULL;
}

STEP(hold_join)
{
	if (pthread_create(&pair->thread, NULL, short_main, pair))
		fail("pthread_create");
}

ONE_CALL(wait_join, pthread_join(pair->thread, NULL))

STEP(hold_futex)
{
	atomic_store(&pair->word, 0);
}

STEP(wait_futex)
{
	while (!atomic_load(&pair->word))
		syscall(SYS_futex, &pair->word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
	STAY();
}

STEP(release_futex)
{
	atomic_store(&pair->word, 1);
	syscall(SYS_futex, &pair->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	STAY();
}

STEP(wait_lock_timeout)
{
	struct timespec end = after_us(CLOCK_REALTIME, pair->hold_us);

	if (pthread_mutex_timedlock(&pair->mutex, &end) != ETIMEDOUT)
		fail("the lock did not time out");
	STAY();
}

STEP(wait_condvar_timeout)
{
	struct timespec end = after_us(CLOCK_REALTIME, pair->hold_us);

	pthread_mutex_lock(&pair->mutex);
	while (pthread_cond_timedwait(&pair->changed, &pair->mutex, &end) != ETIMEDOUT)
		continue;
	pthread_mutex_unlock(&pair->mutex);
	STAY();
}

/* What the waiter took is given back before the next round. */
ONE_CALL(after_rwlock, pthread_rwlock_unlock(&pair->rwlock))

static const struct kind kinds[] = {
	{"mutex", hold_mutex, wait_mutex, release_mutex, release_mutex, false},
	{"priority", hold_priority, wait_priority, release_priority, release_priority, false},
	{"reader", hold_writing, wait_reader, release_writing, after_rwlock, false},
	{"writer", hold_reading, wait_writer, release_reading, after_rwlock, false},
	{"condvar", hold_condvar, wait_condvar, release_condvar, nothing, false},
	{"semaphore", nothing, wait_semaphore, release_semaphore, nothing, false},
	{"barrier", nothing, wait_barrier, release_barrier, nothing, false},
	{"join", hold_join, wait_join, nothing, nothing, true},
	{"futex", hold_futex, wait_futex, release_futex, nothing, false},
	{"lock_timeout", hold_mutex, wait_lock_timeout, release_mutex, nothing, true},
	{"condvar_timeout", nothing, wait_condvar_timeout, nothing, nothing, true},
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static struct pair pairs[N_KINDS];

static void put(struct record *record, uint64_t wait_ns, uint64_t released_ns)
{
	if (record->n == MAX_ROUNDS)
		fail("too many rounds");
	record->waits[record->n] = wait_ns;
	record->released[record->n++] = released_ns;
}

KEEP void *waiter_main(void *arg);
KEEP void *waiter_main(void *arg)
{
	struct pair *pair = arg;

	for (;;) {
		hear(pair->start[0]);
		for (unsigned i = 0; i < pair->rounds; i++) {
			uint64_t start, end, release;

			hear(pair->to_waiter);
			start = now_ns();
			pair->kind->wait(pair);
			end = now_ns();
			release = atomic_load(&pair->release_ns);
			pair->kind->after(pair);
			put(&pair->record, end - start, release > start ? release - start : 0);
			tell(pair->to_releaser);
		}
		tell(done);
	}
	return NULL;
}

KEEP void *releaser_main(void *arg);
KEEP void *releaser_main(void *arg)
{
	struct pair *pair = arg;

	for (;;) {
		hear(pair->start[1]);
		for (unsigned i = 0; i < pair->rounds; i++) {
			pair->kind->hold(pair);
			tell(pair->to_waiter);
			if (pair->kind->ends_itself) {
				hear(pair->to_releaser);
				pair->kind->release(pair);
				continue;
			}
			usleep((useconds_t)(pair->hold_us / 2 +
					    target_random(&pair->random) % (pair->hold_us + 1)));
			atomic_store(&pair->release_ns, now_ns());
			pair->kind->release(pair);
			hear(pair->to_releaser);
		}
		tell(done);
	}
	return NULL;
}

KEEP void take_crowd(void);
KEEP void take_crowd(void)
{
	pthread_mutex_lock(&crowd_mutex);
	STAY();
}

KEEP void release_crowd(void);
KEEP void release_crowd(void)
{
	pthread_mutex_unlock(&crowd_mutex);
	STAY();
}

KEEP void *crowd_main(void *arg);
KEEP void *crowd_main(void *arg)
{
	struct member *member = arg;

	for (;;) {
		hear(member->start);
		for (unsigned i = 0; i < member->rounds; i++) {
			uint64_t start = now_ns();

			take_crowd();
			put(&member->record, now_ns() - start, 0);
			usleep(member->hold_us);
			release_crowd();
		}
		tell(done);
	}
	return NULL;
}

static void start_thread(void *(*body)(void *), void *arg)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, body, arg))
		fail("pthread_create");
}

static void make_pair(struct pair *pair, const struct kind *kind)
{
	pthread_mutexattr_t inherit;

	pair->kind = kind;
	pair->random = (uint64_t)(pair - pairs) + 1;
	make_pipe(pair->start[0]);
	make_pipe(pair->start[1]);
	make_pipe(pair->to_waiter);
	make_pipe(pair->to_releaser);
	pthread_mutexattr_init(&inherit);
	pthread_mutexattr_setprotocol(&inherit, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&pair->priority_mutex, &inherit);
	pthread_mutex_init(&pair->mutex, NULL);
	pthread_rwlock_init(&pair->rwlock, NULL);
	pthread_cond_init(&pair->changed, NULL);
	sem_init(&pair->semaphore, 0, 0);
	pthread_barrier_init(&pair->barrier, NULL, 2);
	start_thread(waiter_main, pair);
	start_thread(releaser_main, pair);
}

/* Starts the threads of the kind of this name; returns how many. */
static unsigned start_kind(const char *name, unsigned rounds, unsigned hold_us)
{
	for (unsigned i = 0; i < n_crowd && strcmp(name, "crowd") == 0; i++) {
		crowd[i].rounds = rounds;
		crowd[i].hold_us = hold_us;
		tell(crowd[i].start);
	}
	if (strcmp(name, "crowd") == 0)
		return n_crowd;
	for (size_t i = 0; i < N_KINDS; i++) {
		if (strcmp(name, kinds[i].name) != 0)
			continue;
		pairs[i].rounds = rounds;
		pairs[i].hold_us = hold_us;
		tell(pairs[i].start[0]);
		tell(pairs[i].start[1]);
		return 2;
	}
	fail("no such kind");
	return 0;
}

static void go(char *arguments)
{
	char *list = strtok(arguments, " "), *rounds = strtok(NULL, " "), *hold = strtok(NULL, " ");
	unsigned n_started = 0;

	if (!list || !rounds || !hold)
		fail("go KIND[,KIND...] ROUNDS HOLD_US");
	for (char *name = strtok(list, ","); name; name = strtok(NULL, ","))
		n_started += start_kind(name, (unsigned)atoi(rounds), (unsigned)atoi(hold));
	while (n_started-- > 0)
		hear(done);
	target_say("{}");
}

__attribute__((format(printf, 1, 2))) static void say_part(const char *format, ...)
{
	char text[128];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	target_write(text, (size_t)n);
}

static void say_record(const char *name, const struct record *record)
{
	say_part("\"%s\":{\"waits\":[", name);
	for (unsigned i = 0; i < record->n; i++)
		say_part("%s%llu", i ? "," : "", (unsigned long long)record->waits[i]);
	say_part("],\"released\":[");
	for (unsigned i = 0; i < record->n; i++)
		say_part("%s%llu", i ? "," : "", (unsigned long long)record->released[i]);
	say_part("]},");
}

static void report(void)
{
	char name[16];

	say_part("{");
	for (size_t i = 0; i < N_KINDS; i++)
		say_record(kinds[i].name, &pairs[i].record);
	for (unsigned i = 0; i < n_crowd; i++) {
		snprintf(name, sizeof(name), "crowd%u", i);
		say_record(name, &crowd[i].record);
	}
	say_part("\"pid\":%d}\n", (int)getpid());
}

int main(int argc, char **argv)
{
	char line[TARGET_LINE_MAX];

	if (argc == 3 && strcmp(argv[1], "--crowd") == 0)
		n_crowd = (unsigned)atoi(argv[2]);
	if (n_crowd > MAX_CROWD || (argc != 1 && argc != 3))
		return 2;
	make_pipe(done);
	for (size_t i = 0; i < N_KINDS; i++)
		make_pair(&pairs[i], &kinds[i]);
	for (unsigned i = 0; i < n_crowd; i++) {
		make_pipe(crowd[i].start);
		start_thread(crowd_main, &crowd[i]);
	}
	target_ready();
	while (target_command(line) && strcmp(line, "quit") != 0) {
		if (strncmp(line, "go ", 3) == 0)
			go(line + 3);
		else if (strcmp(line, "report") == 0)
			report();
		else
			target_say("{\"error\":\"unknown command\"}");
	}
	return 0;
}
