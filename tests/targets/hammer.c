// SPDX-License-Identifier: MIT
/*
 * hammer: threads that call malloc and free as fast as they can until they are told to stop.
 *
 *   hammer [--threads N] [--idle N] [--size BYTES] [--depth N]
 *   go       start hammering (again)
 *   report   pairs made so far; the threads need not rest
 *   stop     let the threads rest; answers when they do
 *   quit     exit
 *
 * --depth makes each call from so many functions deeper. --idle adds threads that do nothing but
 * wait, for what depends on the number of threads.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "target.h"

#define MAX_THREADS 64
#define MAX_IDLE 1024

/* A cache line each: the threads must not slow one another down. */
static struct counter {
	_Alignas(64) atomic_ullong n_pairs;
} counters[MAX_THREADS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned n_threads = 1, n_idle, n_resting, n_depth, n_bytes = 64;
static atomic_bool running;

KEEP void *leaf_hammer(size_t size);
KEEP void *leaf_hammer(size_t size)
{
	void *object = malloc(size);

	STAY();
	return object;
}

KEEP void *hammer_deep(unsigned depth);
KEEP void *hammer_deep(unsigned depth)
{
	void *object = depth == 1 ? leaf_hammer(n_bytes) : hammer_deep(depth - 1);

	STAY();
	return object;
}

KEEP void hammer_run(struct counter *counter);
KEEP void hammer_run(struct counter *counter)
{
	while (atomic_load_explicit(&running, memory_order_relaxed)) {
		unsigned char *object = n_depth ? hammer_deep(n_depth) : leaf_hammer(n_bytes);

		if (!object)
			_exit(4);
		object[0] = 1;
		free(object);
		atomic_fetch_add_explicit(&counter->n_pairs, 1, memory_order_relaxed);
	}
	STAY();
}

KEEP void *hammer_main(void *arg);
KEEP void *hammer_main(void *arg)
{
	for (;;) {
		pthread_mutex_lock(&lock);
		n_resting++;
		pthread_cond_broadcast(&changed);
		while (!atomic_load(&running))
			pthread_cond_wait(&changed, &lock);
		n_resting--;
		pthread_mutex_unlock(&lock);
		hammer_run(arg);
	}
	return NULL;
}

static void *idle_main(void *arg)
{
	pthread_mutex_t *never = arg;

	pthread_mutex_lock(never);
	return NULL;
}

static void start_thread(void *(*body)(void *), void *arg)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, body, arg)) {
		target_say("{\"error\":\"pthread_create\"}");
		_exit(4);
	}
}

static void say_pairs(void)
{
	unsigned long long sum = 0;

	for (unsigned i = 0; i < n_threads; i++)
		sum += atomic_load(&counters[i].n_pairs);
	target_say("{\"pairs\":%llu}", sum);
}

static void set_running(bool run)
{
	pthread_mutex_lock(&lock);
	atomic_store(&running, run);
	pthread_cond_broadcast(&changed);
	while (!run && n_resting < n_threads)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

int main(int argc, char **argv)
{
	static pthread_mutex_t never = PTHREAD_MUTEX_INITIALIZER;
	char line[TARGET_LINE_MAX];

	for (int i = 1; i + 1 < argc; i += 2) {
		unsigned n = (unsigned)atoi(argv[i + 1]);

		if (strcmp(argv[i], "--threads") == 0 && n <= MAX_THREADS)
			n_threads = n;
		else if (strcmp(argv[i], "--idle") == 0 && n <= MAX_IDLE)
			n_idle = n;
		else if (strcmp(argv[i], "--size") == 0 && n > 0)
			n_bytes = n;
		else if (strcmp(argv[i], "--depth") == 0)
			n_depth = n;
		else
			return 2;
	}
	pthread_mutex_lock(&never);
	for (unsigned i = 0; i < n_threads; i++)
		start_thread(hammer_main, &counters[i]);
	for (unsigned i = 0; i < n_idle; i++)
		start_thread(idle_main, &never);
	set_running(false);
	target_ready();
	while (target_command(line) && strcmp(line, "quit") != 0) {
		if (strcmp(line, "go") == 0)
			set_running(true);
		else if (strcmp(line, "stop") == 0)
			set_running(false);
		else if (strcmp(line, "report") != 0)
			_exit(2);
		say_pairs();
	}
	_exit(0);
}
