// SPDX-License-Identifier: MIT
/*
 * churn: threads that are created, allocate as the first thing they do, and end.
 *
 *   go N     create and join N threads, four at a time; answers with the totals so far
 *   spawn N  create N threads that stay and do nothing yet
 *   work     each of these allocates once more; answers with the totals so far
 *   quit     exit
 *
 * Each thread makes 10 objects of 100 bytes along leaf_churn < churn_main (or stay_main) and frees
 * 6 of them; the other 4 are kept. A profiler that learns of a thread late misses some of the ten.
 */
#include <pthread.h>

#include "target.h"

#define N_AT_ONCE 4
#define N_MADE 10
#define N_KEPT 4
#define SIZE 100

KEEP void *leaf_churn(size_t size);
KEEP void *leaf_churn(size_t size)
{
	void *object = malloc(size);

	if (!object)
		_exit(4);
	STAY();
	return object;
}

static inline __attribute__((always_inline)) void make_objects(void)
{
	void *objects[N_MADE];

	for (unsigned i = 0; i < N_MADE; i++)
		objects[i] = leaf_churn(SIZE);
	for (unsigned i = N_KEPT; i < N_MADE; i++)
		free(objects[i]);
}

KEEP void *churn_main(void *arg);
KEEP void *churn_main(void *arg)
{
	make_objects();
	STAY();
	return arg;
}

/* ---- threads that stay ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned long long n_rounds, n_ready;

KEEP void *stay_main(void *arg);
KEEP void *stay_main(void *arg)
{
	unsigned long long n_done = 0;

	for (;;) {
		pthread_mutex_lock(&lock);
		n_ready++;
		pthread_cond_broadcast(&changed);
		while (n_rounds == n_done)
			pthread_cond_wait(&changed, &lock);
		n_done = n_rounds;
		pthread_mutex_unlock(&lock);
		make_objects();
	}
	return arg;
}

static void wait_ready(unsigned long long n)
{
	pthread_mutex_lock(&lock);
	while (n_ready < n)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

static void spawn(unsigned long long n)
{
	pthread_t thread;

	for (unsigned long long i = 0; i < n; i++)
		if (pthread_create(&thread, NULL, stay_main, NULL))
			_exit(4);
}

static void work(unsigned long long n)
{
	pthread_mutex_lock(&lock);
	n_ready = 0;
	n_rounds++;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	wait_ready(n);
}

static void churn(unsigned long long n)
{
	while (n > 0) {
		pthread_t threads[N_AT_ONCE];
		unsigned n_now = n < N_AT_ONCE ? (unsigned)n : N_AT_ONCE;

		for (unsigned i = 0; i < n_now; i++)
			if (pthread_create(&threads[i], NULL, churn_main, NULL))
				_exit(4);
		for (unsigned i = 0; i < n_now; i++)
			pthread_join(threads[i], NULL);
		n -= n_now;
	}
}

static void say_totals(const char *function, unsigned long long n)
{
	target_say("{\"stacks\":[{\"stack\":[\"leaf_churn\",\"%s\"],"
		   "\"values\":[%llu,%llu,%llu,%llu]}]}",
		   function, n * N_MADE, n * N_MADE * SIZE, n * N_KEPT, n * N_KEPT * SIZE);
}

int main(void)
{
	unsigned long long n, n_churned = 0, n_spawned = 0, n_worked = 0;
	char line[TARGET_LINE_MAX];

	target_ready();
	while (target_command(line) && strcmp(line, "quit") != 0) {
		if (sscanf(line, "go %llu", &n) == 1) {
			churn(n);
			n_churned += n;
			say_totals("churn_main", n_churned);
		} else if (sscanf(line, "spawn %llu", &n) == 1) {
			spawn(n);
			n_spawned += n;
			wait_ready(n_spawned);
			target_say("{\"spawned\":%llu}", n_spawned);
		} else if (strcmp(line, "work") == 0) {
			work(n_spawned);
			n_worked += n_spawned;
			say_totals("stay_main", n_worked);
		} else {
			_exit(2);
		}
	}
	_exit(0);
}
