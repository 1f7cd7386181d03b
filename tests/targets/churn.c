// SPDX-License-Identifier: MIT
/*
 * churn: threads that are created, allocate as the first thing they do, and end.
 *
 *   go N     create and join N threads, four at a time; answers with the totals so far
 *   quit     exit
 *
 * Each thread makes 10 objects of 100 bytes along leaf_churn < churn_main and frees 6 of them; the
 * other 4 are kept. A profiler that learns of a thread late misses some of the ten.
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

KEEP void *churn_main(void *arg);
KEEP void *churn_main(void *arg)
{
	void *objects[N_MADE];

	for (unsigned i = 0; i < N_MADE; i++)
		objects[i] = leaf_churn(SIZE);
	for (unsigned i = N_KEPT; i < N_MADE; i++)
		free(objects[i]);
	STAY();
	return arg;
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

int main(void)
{
	char line[TARGET_LINE_MAX];
	unsigned long long n_threads = 0;

	target_ready();
	while (target_command(line) && strncmp(line, "go ", 3) == 0) {
		unsigned long long n = strtoull(line + 3, NULL, 10);

		churn(n);
		n_threads += n;
		target_say("{\"stacks\":[{\"stack\":[\"leaf_churn\",\"churn_main\"],"
			   "\"values\":[%llu,%llu,%llu,%llu]}],\"threads\":%llu}",
			   n_threads * N_MADE, n_threads * N_MADE * SIZE, n_threads * N_KEPT,
			   n_threads * N_KEPT * SIZE, n_threads);
	}
	return 0;
}
