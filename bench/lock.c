// SPDX-License-Identifier: MIT
/*
 * The program whose locks are measured: threads that take one mutex in turn, hold it for a moment
 * and let it go. One thread alone never asks the kernel for anything; several on one lock sleep and
 * wake each other as fast as the kernel can. Like bench_loop it lives through a whole comparison.
 *
 * usage: bench_lock [-t THREADS] [-w SPINS] [-y]
 *
 *     prints  ready PID
 *     reads   run MS     prints  locks N ns N sleeps N     lock operations of all threads, how long
 *                                                          the window was, and how often a thread
 *                                                          gave its CPU away to wait
 *     ends at the end of stdin
 *
 * SPINS: turns of an empty loop, once with the lock held and once without. With -y a thread gives
 * its CPU away with the lock held, as if it had been preempted there: the next one that wants the
 * lock finds it taken and sleeps, however the threads happen to fall over the CPUs. Without, a
 * contended mutex has fast and slow phases of seconds, which are no profiler's doing.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS 64
#define MAX_SPINS 1000000
#define MAX_WINDOW_MS 60000

struct pool {
	size_t n_threads;
	unsigned n_spins;
	bool yields;		   /* with the lock held */
	pthread_barrier_t barrier; /* at the start and at the end of every window */
	atomic_bool stop;	   /* ends a window */
	bool quit;		   /* read between two barriers only */
	_Alignas(64) pthread_mutex_t mutex;
	uint64_t n_locks; /* of all threads in this window; the mutex is its own */
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static inline void spin(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		__asm__ volatile("" : : : "memory");
}

static __attribute__((noinline)) void one_hold(struct pool *pool)
{
	pthread_mutex_lock(&pool->mutex);
	pool->n_locks++;
	spin(pool->n_spins);
	if (pool->yields)
		sched_yield();
	pthread_mutex_unlock(&pool->mutex);
}

static __attribute__((noinline)) void hammer(struct pool *pool)
{
	while (!atomic_load_explicit(&pool->stop, memory_order_relaxed)) {
		one_hold(pool);
		spin(pool->n_spins);
	}
}

static void *work(void *context)
{
	struct pool *pool = context;

	for (;;) {
		pthread_barrier_wait(&pool->barrier);
		if (pool->quit)
			return NULL;
		hammer(pool);
		pthread_barrier_wait(&pool->barrier);
	}
}

static uint64_t count_sleeps(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)usage.ru_nvcsw;
}

static void run_window(struct pool *pool, unsigned ms)
{
	struct timespec rest = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
	uint64_t start_ns, n_sleeps;

	atomic_store(&pool->stop, false);
	pool->n_locks = 0;
	n_sleeps = count_sleeps();
	pthread_barrier_wait(&pool->barrier);
	start_ns = now_ns();
	while (nanosleep(&rest, &rest) < 0 && errno == EINTR)
		;
	atomic_store(&pool->stop, true);
	pthread_barrier_wait(&pool->barrier);
	printf("locks %llu ns %llu sleeps %llu\n", (unsigned long long)pool->n_locks,
	       (unsigned long long)(now_ns() - start_ns),
	       (unsigned long long)(count_sleeps() - n_sleeps));
}

static int obey(struct pool *pool)
{
	char line[128];

	while (fgets(line, sizeof(line), stdin)) {
		unsigned ms;

		if (sscanf(line, "run %u", &ms) != 1 || ms > MAX_WINDOW_MS) {
			fprintf(stderr, "bench_lock: not a command: %s", line);
			return 2;
		}
		run_window(pool, ms);
		fflush(stdout);
	}
	return 0;
}

static int start(struct pool *pool, pthread_t *threads)
{
	int r = pthread_mutex_init(&pool->mutex, NULL);

	if (r == 0)
		r = pthread_barrier_init(&pool->barrier, NULL, (unsigned)pool->n_threads + 1);
	for (size_t i = 0; i < pool->n_threads && r == 0; i++)
		r = pthread_create(&threads[i], NULL, work, pool);
	return -r;
}

static void finish(struct pool *pool, const pthread_t *threads)
{
	pool->quit = true;
	pthread_barrier_wait(&pool->barrier);
	for (size_t i = 0; i < pool->n_threads; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&pool->barrier);
	pthread_mutex_destroy(&pool->mutex);
}

int main(int argc, char **argv)
{
	struct pool pool = {.n_threads = 1, .n_spins = 5000};
	pthread_t threads[MAX_THREADS] = {0};
	int option, r;

	while ((option = getopt(argc, argv, "t:w:y")) != -1) {
		unsigned long value = !optarg ? 0 : strtoul(optarg, NULL, 10);

		if (option == 't' && value >= 1 && value <= MAX_THREADS) {
			pool.n_threads = value;
		} else if (option == 'w' && value <= MAX_SPINS) {
			pool.n_spins = (unsigned)value;
		} else if (option == 'y') {
			pool.yields = true;
		} else {
			fprintf(stderr, "usage: bench_lock [-t THREADS] [-w SPINS] [-y] < "
					"commands\n");
			return 2;
		}
	}
	r = start(&pool, threads);
	if (r < 0) {
		fprintf(stderr, "bench_lock: cannot start threads: %s\n", strerror(-r));
		return 1;
	}
	printf("ready %d\n", (int)getpid());
	fflush(stdout);
	r = obey(&pool);
	finish(&pool, threads);
	return r;
}
