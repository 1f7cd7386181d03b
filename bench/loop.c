// SPDX-License-Identifier: MIT
/*
 * The program that is measured: threads that do nothing but malloc and free, so that whatever a
 * profiler adds to a call is all that there is to see. It lives through a whole comparison and does
 * its work in windows that are asked for on stdin, so that the same process, with the same heap and
 * the same addresses, is measured bare and then under each tool in turn.
 *
 * usage: bench_loop [-t THREADS] [-i IDLE] [-s BYTES] [-d DEPTH]
 *
 *     prints  ready PID
 *     reads   run MS [RATE]
 *     prints  pairs N ns N            malloc/free pairs of all threads and the time that they took,
 *                                     summed over threads; RATE: pairs a second in all, 0: no bound
 *     reads   watch, any other line   a window that lasts from the one line to the other
 *     prints  pairs N ns N stall N    and the longest time between two pairs of a thread, in ns
 *     reads   create MS
 *     prints  creates N ns N          pthread_create + pthread_join, one by one
 *     ends at the end of stdin
 *
 * IDLE: further threads, which sleep.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS 64
#define MAX_IDLE 10000
#define MAX_DEPTH 64
#define MAX_WINDOW_MS 60000
#define MAX_SIZE_BYTES (1 << 20)
#define TICK_NS 1000000

struct pool {
	size_t n_threads;
	size_t n_idle;
	size_t size_bytes;
	unsigned depth;
	pthread_barrier_t barrier; /* at the start and at the end of every window */
	atomic_bool stop;	   /* ends a window */
	bool quit;		   /* read between two barriers only */
	bool watched;		   /* stalls are looked for: a clock is read after each pair */
	double pairs_per_ns;	   /* of one thread; 0: no bound */
};

struct worker {
	struct pool *pool;
	pthread_t thread;
	uint64_t n_pairs;
	uint64_t elapsed_ns;
	uint64_t stall_ns;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void sleep_ns(uint64_t ns)
{
	struct timespec rest = {.tv_sec = (time_t)(ns / 1000000000),
				.tv_nsec = (long)(ns % 1000000000)};

	while (nanosleep(&rest, &rest) < 0 && errno == EINTR)
		;
}

static inline void one_pair(size_t size_bytes)
{
	void *p = malloc(size_bytes);

	__asm__ volatile("" : "+r"(p) : : "memory");
	free(p);
}

static __attribute__((noinline)) void hammer(struct worker *worker)
{
	struct pool *pool = worker->pool;
	size_t size_bytes = pool->size_bytes;
	uint64_t n = 0;

	for (; !atomic_load_explicit(&pool->stop, memory_order_relaxed); n++)
		one_pair(size_bytes);
	worker->n_pairs = n;
}

static __attribute__((noinline)) void hammer_watched(struct worker *worker)
{
	struct pool *pool = worker->pool;
	uint64_t last_ns = now_ns(), n = 0;

	worker->stall_ns = 0;
	for (; !atomic_load_explicit(&pool->stop, memory_order_relaxed); n++) {
		uint64_t ns;

		one_pair(pool->size_bytes);
		ns = now_ns();
		if (ns - last_ns > worker->stall_ns)
			worker->stall_ns = ns - last_ns;
		last_ns = ns;
	}
	worker->n_pairs = n;
}

/* Does in every tick what is due by then, so a slow moment is made up for in the next. */
static __attribute__((noinline)) void trickle(struct worker *worker)
{
	struct pool *pool = worker->pool;
	uint64_t start_ns = now_ns(), n = 0;

	while (!atomic_load_explicit(&pool->stop, memory_order_relaxed)) {
		uint64_t due = (uint64_t)((double)(now_ns() - start_ns) * pool->pairs_per_ns);

		for (; n < due && !atomic_load_explicit(&pool->stop, memory_order_relaxed); n++)
			one_pair(pool->size_bytes);
		sleep_ns(TICK_NS);
	}
	worker->n_pairs = n;
}

/* Runs the window @depth calls further down; the asm keeps the compiler from making it a jump. */
static __attribute__((noinline)) void descend(struct worker *worker, unsigned depth)
{
	if (depth > 0)
		descend(worker, depth - 1);
	else if (worker->pool->watched)
		hammer_watched(worker);
	else if (worker->pool->pairs_per_ns > 0)
		trickle(worker);
	else
		hammer(worker);
	__asm__ volatile("" : : : "memory");
}

static void *work(void *context)
{
	struct worker *worker = context;
	struct pool *pool = worker->pool;

	for (;;) {
		uint64_t start_ns;

		pthread_barrier_wait(&pool->barrier);
		if (pool->quit)
			return NULL;
		start_ns = now_ns();
		descend(worker, pool->depth);
		worker->elapsed_ns = now_ns() - start_ns;
		pthread_barrier_wait(&pool->barrier);
	}
}

static void begin_window(struct pool *pool, bool watched, double rate)
{
	atomic_store(&pool->stop, false);
	pool->watched = watched;
	pool->pairs_per_ns = rate / 1e9 / (double)pool->n_threads;
	pthread_barrier_wait(&pool->barrier);
}

static void end_window(struct pool *pool, const struct worker *workers)
{
	uint64_t n_pairs = 0, ns = 0, stall_ns = 0;

	atomic_store(&pool->stop, true);
	pthread_barrier_wait(&pool->barrier);
	for (size_t i = 0; i < pool->n_threads; i++) {
		n_pairs += workers[i].n_pairs;
		ns += workers[i].elapsed_ns;
		if (workers[i].stall_ns > stall_ns)
			stall_ns = workers[i].stall_ns;
	}
	printf("pairs %llu ns %llu", (unsigned long long)n_pairs, (unsigned long long)ns);
	if (pool->watched)
		printf(" stall %llu", (unsigned long long)stall_ns);
	printf("\n");
}

static void *nothing(void *context)
{
	return context;
}

static int create_window(unsigned ms)
{
	uint64_t start_ns = now_ns(), n = 0, ns;

	do {
		pthread_t thread;
		int r = pthread_create(&thread, NULL, nothing, NULL);

		if (r)
			return -r;
		pthread_join(thread, NULL);
		n++;
		ns = now_ns() - start_ns;
	} while (ns < (uint64_t)ms * 1000000);
	printf("creates %llu ns %llu\n", (unsigned long long)n, (unsigned long long)ns);
	return 0;
}

static int obey(struct pool *pool, const struct worker *workers)
{
	char line[128];

	while (fgets(line, sizeof(line), stdin)) {
		unsigned ms;
		double rate = 0;

		if (sscanf(line, "run %u %lf", &ms, &rate) >= 1 && ms <= MAX_WINDOW_MS &&
		    rate >= 0) {
			begin_window(pool, false, rate);
			sleep_ns((uint64_t)ms * 1000000);
			end_window(pool, workers);
		} else if (strcmp(line, "watch\n") == 0) {
			begin_window(pool, true, 0);
			if (!fgets(line, sizeof(line), stdin))
				line[0] = '\0';
			end_window(pool, workers);
		} else if (sscanf(line, "create %u", &ms) == 1 && ms <= MAX_WINDOW_MS) {
			int r = create_window(ms);

			if (r < 0) {
				fprintf(stderr, "bench_loop: pthread_create: %s\n", strerror(-r));
				return 1;
			}
		} else {
			fprintf(stderr, "bench_loop: not a command: %s", line);
			return 2;
		}
		fflush(stdout);
	}
	return 0;
}

static void *idle(void *context)
{
	(void)context;
	for (;;)
		pause();
	return NULL;
}

static int start(struct pool *pool, struct worker *workers)
{
	int r = pthread_barrier_init(&pool->barrier, NULL, (unsigned)pool->n_threads + 1);

	for (size_t i = 0; i < pool->n_idle && !r; i++) {
		pthread_t thread;

		r = pthread_create(&thread, NULL, idle, NULL);
		if (!r)
			pthread_detach(thread);
	}
	for (size_t i = 0; i < pool->n_threads && !r; i++) {
		workers[i].pool = pool;
		r = pthread_create(&workers[i].thread, NULL, work, &workers[i]);
	}
	return -r;
}

static int finish(struct pool *pool, const struct worker *workers)
{
	pool->quit = true;
	pthread_barrier_wait(&pool->barrier);
	for (size_t i = 0; i < pool->n_threads; i++)
		pthread_join(workers[i].thread, NULL);
	return pthread_barrier_destroy(&pool->barrier);
}

int main(int argc, char **argv)
{
	struct pool pool = {.n_threads = 1, .size_bytes = 64, .depth = 4};
	struct worker workers[MAX_THREADS] = {0};
	int option, r;

	while ((option = getopt(argc, argv, "t:i:s:d:")) != -1) {
		unsigned long value = option == '?' ? 0 : strtoul(optarg, NULL, 10);

		if (option == 't' && value >= 1 && value <= MAX_THREADS) {
			pool.n_threads = value;
		} else if (option == 'i' && value <= MAX_IDLE) {
			pool.n_idle = value;
		} else if (option == 's' && value <= MAX_SIZE_BYTES) {
			pool.size_bytes = value;
		} else if (option == 'd' && value <= MAX_DEPTH) {
			pool.depth = (unsigned)value;
		} else {
			fprintf(stderr, "usage: bench_loop [-t THREADS] [-i IDLE] [-s BYTES] "
					"[-d DEPTH] < commands\n");
			return 2;
		}
	}
	r = start(&pool, workers);
	if (r < 0) {
		fprintf(stderr, "bench_loop: cannot start threads: %s\n", strerror(-r));
		return 1;
	}
	printf("ready %d\n", (int)getpid());
	fflush(stdout);
	r = obey(&pool, workers);
	finish(&pool, workers);
	return r;
}
