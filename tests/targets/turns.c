/* SPDX-License-Identifier: MIT */
/*
 * Does a known number of things for each byte that it reads, and answers each with the same byte:
 *
 *   a: TURNS_THREADS new threads allocate TURNS_BLOCKS blocks each and free every second one.
 *   w: one new thread waits TURNS_WAITS times for a mutex, asleep each time.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* As in tests/library_fixture.h. */
#define TURNS_THREADS 4
#define TURNS_BLOCKS 500
#define TURNS_BLOCK_BYTES 64
#define TURNS_WAITS 10

void *keep_block(void);
void wait_mutex(void);
void release_mutex(void);

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static atomic_int waiter_tid;

__attribute__((noinline)) void *keep_block(void)
{
	void *volatile block = malloc(TURNS_BLOCK_BYTES);

	return block;
}

static void *allocate(void *argument)
{
	for (int i = 0; i < TURNS_BLOCKS; i++) {
		void *block = keep_block();

		if (i % 2)
			free(block);
	}
	return argument;
}

__attribute__((noinline)) void wait_mutex(void)
{
	pthread_mutex_lock(&mutex);
	atomic_signal_fence(memory_order_seq_cst);
}

__attribute__((noinline)) void release_mutex(void)
{
	pthread_mutex_unlock(&mutex);
	atomic_signal_fence(memory_order_seq_cst);
}

static void *wait_once(void *argument)
{
	atomic_store(&waiter_tid, gettid());
	wait_mutex();
	pthread_mutex_unlock(&mutex);
	return argument;
}

static char state_of(int tid)
{
	char path[64], text[256] = "", *end;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		abort();
	close(fd);
	end = strrchr(text, ')');
	return end ? end[2] : '?';
}

/* The C library's lock word is 2 from when a waiter is about to sleep. */
static void await_waiter(void)
{
	while (atomic_load(&waiter_tid) == 0 || *(volatile int *)&mutex != 2 ||
	       state_of(atomic_load(&waiter_tid)) != 'S')
		usleep(200);
}

static void start(pthread_t *thread, void *(*run)(void *))
{
	if (pthread_create(thread, NULL, run, NULL))
		abort();
}

static void do_allocations(void)
{
	pthread_t threads[TURNS_THREADS];

	for (int i = 0; i < TURNS_THREADS; i++)
		start(&threads[i], allocate);
	for (int i = 0; i < TURNS_THREADS; i++)
		pthread_join(threads[i], NULL);
}

static void do_waits(void)
{
	for (int i = 0; i < TURNS_WAITS; i++) {
		pthread_t thread;

		atomic_store(&waiter_tid, 0);
		pthread_mutex_lock(&mutex);
		start(&thread, wait_once);
		await_waiter();
		release_mutex();
		pthread_join(thread, NULL);
	}
}

int main(void)
{
	char turn;

	while (read(STDIN_FILENO, &turn, 1) == 1) {
		if (turn == 'a')
			do_allocations();
		else
			do_waits();
		if (write(STDOUT_FILENO, &turn, 1) != 1)
			return 1;
	}
	return 0;
}
