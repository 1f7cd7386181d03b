// SPDX-License-Identifier: MIT
/*
 * sampling: two threads that do the same again and again, for what is estimated from samples.
 *
 *   go    everything of tests/targets/sampling.h once
 *   drop  free what is left of it
 *   quit  exit
 *
 * What one thread has allocated the other one frees. The threads tell one another through pipes,
 * and the released waits by spinning: no futex call is made but those that are meant.
 */
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "sampling.h"
#include "target.h"

#define N_THREADS 2
#define N_ROUNDS 4 /* addresses come again from round to round */
#define MAX_OBJECTS 4000

static int to_thread[N_THREADS][2], from_thread[N_THREADS][2];
static void *objects[SAMPLING_N_MIXES][MAX_OBJECTS];
static void *volatile nothing;
static atomic_uint n_waiting;
static _Atomic uint32_t word;

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void make_pipe(int ends[2])
{
	if (pipe(ends) < 0)
		_exit(4);
}

static void tell(const int ends[2], char what)
{
	if (write(ends[1], &what, 1) != 1)
		_exit(3);
}

static char hear(const int ends[2])
{
	char what;

	if (read(ends[0], &what, 1) != 1)
		_exit(3);
	return what;
}

/* ---- allocations ---- */

#define LEAF(number) LEAF_BY(number, malloc(size))
#define LEAF_BY(number, call)                  \
	KEEP void *leaf_##number(size_t size); \
	KEEP void *leaf_##number(size_t size)  \
	{                                      \
		void *object = call;           \
                                               \
		if (!object)                   \
			_exit(4);              \
		STAY();                        \
		return object;                 \
	}

LEAF(0)
LEAF(1)
LEAF(2)
LEAF(3)
LEAF(4)
LEAF(5)
LEAF(6)
LEAF(7)
LEAF(8)
LEAF(9)
LEAF(10)
LEAF(11)
/* glibc's reallocarray jumps to realloc, and that of nothing to malloc. */
LEAF_BY(12, reallocarray(nothing, 1, size))
LEAF_BY(13, realloc(nothing, size))
LEAF(14)

static void *(*const leaves[SAMPLING_N_STACKS])(size_t size) = {
	leaf_0, leaf_1, leaf_2,	 leaf_3,  leaf_4,  leaf_5,  leaf_6,  leaf_7,
	leaf_8, leaf_9, leaf_10, leaf_11, leaf_12, leaf_13, leaf_14,
};

/* Object @i of a mix belongs to this round, and to this thread. */
static bool is_ours(const struct sampling_mix *mix, unsigned i, unsigned round, unsigned thread)
{
	return i < mix->n && i * N_ROUNDS / mix->n == round && i % N_THREADS == thread;
}

/* The mixes interleaved, so that each call finds what another one has left. */
static void allocate(unsigned round, unsigned thread)
{
	for (unsigned i = 0; i < MAX_OBJECTS; i++) {
		for (size_t m = 0; m < SAMPLING_N_MIXES; m++) {
			const struct sampling_mix *mix = &sampling_mixes[m];
			unsigned first = (round * mix->n + N_ROUNDS - 1) / N_ROUNDS;

			if (is_ours(mix, first + i, round, thread))
				objects[m][first + i] = leaves[mix->stack](mix->size);
		}
	}
}

static void release(unsigned round, unsigned thread)
{
	for (size_t m = 0; m < SAMPLING_N_MIXES; m++) {
		for (unsigned i = 0; i < sampling_mixes[m].n_freed; i++) {
			if (!is_ours(&sampling_mixes[m], i, round, thread))
				continue;
			free(objects[m][i]);
			objects[m][i] = NULL;
		}
	}
}

static void drop(void)
{
	for (size_t m = 0; m < SAMPLING_N_MIXES; m++) {
		for (unsigned i = 0; i < sampling_mixes[m].n; i++) {
			free(objects[m][i]);
			objects[m][i] = NULL;
		}
	}
}

/* ---- waits ---- */

/* As the C library calls where it waits for a lock, and where it lets one go. */
KEEP long lock_call(long us) __asm__("__lll_lock_wait") __attribute__((visibility("hidden")));
KEEP long lock_call(long us)
{
	struct timespec time = {.tv_nsec = us * 1000};
	long r = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, us ? &time : NULL, NULL, 0);

	STAY();
	return r;
}

KEEP long unlock_call(void) __asm__("__lll_lock_wake") __attribute__((visibility("hidden")));
KEEP long unlock_call(void)
{
	long r = syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);

	STAY();
	return r;
}

#define WAIT(number)                      \
	KEEP void wait_##number(long us); \
	KEEP void wait_##number(long us)  \
	{                                 \
		lock_call(us);            \
		STAY();                   \
	}

WAIT(0)
WAIT(1)
WAIT(2)
WAIT(3)
WAIT(4)
WAIT(5)

static void (*const waits[SAMPLING_N_WAITS])(long us) = {wait_0, wait_1, wait_2,
							 wait_3, wait_4, wait_5};

static void wait_all(void)
{
	for (size_t k = 0; k < SAMPLING_N_WAITS; k++) {
		for (unsigned i = 0; i < sampling_waits[k].n; i++) {
			bool is_released = k == SAMPLING_RELEASED;

			atomic_fetch_add(&n_waiting, is_released);
			waits[k](is_released ? 0 : sampling_waits[k].us);
		}
	}
}

/* Tries until it has woken somebody: each of the waits sleeps once. */
KEEP void release_5(void);
KEEP void release_5(void)
{
	while (unlock_call() == 0)
		;
	STAY();
}

static void release_all(void)
{
	const struct sampling_wait *kind = &sampling_waits[SAMPLING_RELEASED];

	for (unsigned i = 1; i <= kind->n; i++) {
		uint64_t start_ns;

		while (atomic_load(&n_waiting) < i)
			;
		start_ns = now_ns();
		while (now_ns() < start_ns + kind->us * UINT64_C(1000))
			;
		release_5();
	}
	atomic_store(&n_waiting, 0);
}

/* ---- the driver ---- */

static void *thread_main(void *arg)
{
	const unsigned thread = (unsigned)(uintptr_t)arg;

	/* Waits are to be as short as they are meant to be. */
	prctl(PR_SET_TIMERSLACK, 1);
	for (;;) {
		char what = hear(to_thread[thread]);

		if (what == 'w' && thread == 0)
			wait_all();
		else if (what == 'w')
			release_all();
		else if (what >= 'a')
			allocate((unsigned)(what - 'a'), thread);
		else
			release((unsigned)(what - 'A'), !thread);
		tell(from_thread[thread], what);
	}
	return NULL;
}

static void both(char what)
{
	for (unsigned i = 0; i < N_THREADS; i++)
		tell(to_thread[i], what);
	for (unsigned i = 0; i < N_THREADS; i++)
		hear(from_thread[i]);
}

static void go(void)
{
	for (unsigned round = 0; round < N_ROUNDS; round++) {
		both((char)('a' + round));
		both((char)('A' + round));
	}
	both('w');
	target_say("{}");
}

int main(void)
{
	char line[TARGET_LINE_MAX];
	pthread_t thread;

	for (unsigned i = 0; i < N_THREADS; i++) {
		make_pipe(to_thread[i]);
		make_pipe(from_thread[i]);
		if (pthread_create(&thread, NULL, thread_main, (void *)(uintptr_t)i))
			return 4;
	}
	target_ready();
	while (target_command(line) && strcmp(line, "quit") != 0) {
		if (strcmp(line, "go") == 0) {
			go();
		} else if (strcmp(line, "drop") == 0) {
			drop();
			target_say("{}");
		} else {
			_exit(2);
		}
	}
	return 0;
}
