/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_PERF_FIXTURE_H
#define DP_TESTS_PERF_FIXTURE_H

#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * What the tests with real perf events share: a target process whose functions can be probed and
 * which counts its own calls, and a look at what a profiler may leave behind.
 */

/* Exit status for main(): 0 to go on; 77 if this machine does not let us use perf and tracefs; 1
 * for that with DP_REQUIRE_PERF=1 in the environment. Says why on stderr. */
int perf_must_skip(void);

#define TARGET_MAX_THREADS 4096

/* Memory that a target and its test share. */
struct shared {
	/* Each is raised by one side and awaited by the other; what for is the test's affair. */
	sem_t ready, create, go, done, leave, end;
	atomic_bool stop;
	atomic_uint n_due, n_settled;		 /* for a test to count by */
	atomic_uint n_threads;			 /* numbers given out by target_thread_number() */
	atomic_ullong calls[TARGET_MAX_THREADS]; /* of probed_alloc(), and as many of _free() */
	atomic_int tids[TARGET_MAX_THREADS];	 /* 0: not there */
	uintptr_t words[8];			 /* addresses, or what a test likes */
};

struct target {
	pid_t pid;
	struct shared *shared;
};

/* Forks a target that runs @body and then ends with status 0. Fails the test if it cannot. */
void target_start(struct target *target, void (*body)(struct shared *shared));

/* Waits for a target to end by itself and requires that it ended well. */
void target_join(struct target *target);

/* Kills it. A target that has ended, or a zeroed struct, is allowed. */
void target_kill(struct target *target);

/* Waits for @sem; ends the program after a minute. @times: that often. */
void await(sem_t *sem);
void await_times(sem_t *sem, unsigned times);
void raise_times(sem_t *sem, unsigned times);

/* To be called once in a thread of a target: its index in calls[] and tids[]. */
unsigned target_thread_number(struct shared *shared);

/* Makes @n calls of probed_alloc(), each followed by probed_free(), and counts them. */
void target_calls(struct shared *shared, unsigned number, unsigned n);

unsigned long long total_calls(const struct shared *shared);

/*
 * The functions that are probed. probed_alloc()'s result is probed_result() of its arguments.
 * target_calls() gives the thread's number as @thread and the calls before it as @n_bytes.
 */
void *probed_alloc(size_t n_bytes, size_t thread);
void probed_free(void *object);

static inline uint64_t probed_result(uint64_t n_bytes, uint64_t thread)
{
	return (thread << 32 | n_bytes) * 16;
}

/* This program's file, and where in it the code at @address lies. Fails the test if nowhere. */
int program_fd(void);
uint64_t program_file_off(const void *address);

/* Whether the main thread of @pid has ended, be there others or not. */
bool main_thread_has_ended(pid_t pid);

/* Whether a byte of @pid's code at @address differs from our own there: a breakpoint. */
bool has_breakpoint(pid_t pid, const void *address);

/* Waits until @pid has none; fails the test after a minute. */
void await_no_breakpoint(pid_t pid, const void *address);

/* Lines of uprobe_events that are of group @prefix…, as many as there are. */
unsigned count_definitions(const char *prefix);

/* Those of this process, live handles included. */
unsigned count_own_definitions(void);

/* Writes one command to uprobe_events; returns 0 or a negative errno. */
int define_by_hand(const char *command);

/* Entries of /proc/self/fd. */
unsigned count_fds(void);

#endif
