// SPDX-License-Identifier: MIT
/*
 * lifecycle: processes that end, change or multiply while they are watched.
 *
 *   lifecycle MODE
 *   go       do it; what was allocated is told before the process goes away
 *
 * Modes
 *   exit      allocate and exit at once
 *   wait      allocate, then wait for `quit` (or to be killed)
 *   exec      allocate, then execute this program again as `executed`, which allocates and waits
 * for `quit` exec-true allocate, then execute /bin/true fork      children allocate and exit, the
 * parent allocates too and waits for `quit` fork-wait a child allocates and waits; after `quit` it
 * allocates again, exits, and its status is told spawn     as fork with vfork() and posix_spawn()
 * mainexit  on `leave` the main thread alone ends; three others allocate on the first and second
 * `go` and wait for `quit`
 */
#include <pthread.h>
#include <spawn.h>
#include <sys/wait.h>

#include "target.h"

#define N_OBJECTS 1000
#define SIZE 72
#define N_CHILDREN 20
#define N_ORPHANS 3

/* Each its own stack: LEAF < life_run. Everything stays allocated. */
#define LEAF(name)                                    \
	KEEP void *leaf_##name(size_t size);          \
	KEEP void *leaf_##name(size_t size)           \
	{                                             \
		unsigned char *object = malloc(size); \
                                                      \
		if (!object)                          \
			_exit(4);                     \
		object[0] = 1;                        \
		return object;                        \
	}

LEAF(before)
LEAF(after)
LEAF(child)
LEAF(orphan)

static void *volatile last_object;

KEEP void life_run(void *(*leaf)(size_t));
KEEP void life_run(void *(*leaf)(size_t))
{
	for (unsigned i = 0; i < N_OBJECTS; i++)
		last_object = leaf(SIZE);
	STAY();
}

static void say_made(const char *leaf, unsigned long long n)
{
	target_say("{\"stacks\":[{\"stack\":[\"%s\",\"life_run\"],"
		   "\"values\":[%llu,%llu,%llu,%llu]}]}",
		   leaf, n, n * SIZE, n, n * SIZE);
}

static void run_before(void)
{
	target_expect("go");
	life_run(leaf_before);
	say_made("leaf_before", N_OBJECTS);
}

static void run_exec(char *program, char *mode)
{
	char *self[] = {program, mode, NULL};
	char *none[] = {(char *)"/bin/true", NULL};

	run_before();
	if (mode)
		execv("/proc/self/exe", self);
	else
		execv(none[0], none);
	_exit(5);
}

static void check_child(pid_t pid)
{
	int status;

	if (pid <= 0 || waitpid(pid, &status, 0) != pid || status != 0) {
		target_say("{\"error\":\"a child ended badly\"}");
		_exit(6);
	}
}

static void run_fork(void)
{
	pid_t pids[N_CHILDREN];

	target_expect("go");
	for (unsigned i = 0; i < N_CHILDREN; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			life_run(leaf_child);
			_exit(0);
		}
	}
	life_run(leaf_before);
	for (unsigned i = 0; i < N_CHILDREN; i++)
		check_child(pids[i]);
	say_made("leaf_before", N_OBJECTS);
	target_expect("quit");
}

/* A child that goes on when the profiler has gone. */
static void run_fork_wait(void)
{
	int to_child[2], from_child[2], status;
	char byte = 0;
	pid_t pid;

	target_expect("go");
	if (pipe(to_child) || pipe(from_child))
		_exit(4);
	pid = fork();
	if (pid == 0) {
		life_run(leaf_child);
		if (write(from_child[1], &byte, 1) != 1 || read(to_child[0], &byte, 1) != 1)
			_exit(5);
		life_run(leaf_child);
		_exit(0);
	}
	if (pid < 0 || read(from_child[0], &byte, 1) != 1)
		_exit(6);
	target_say("{\"child\":%d}", (int)pid);
	target_expect("quit");
	if (write(to_child[1], &byte, 1) != 1 || waitpid(pid, &status, 0) != pid)
		_exit(6);
	target_say("{\"child_status\":%d}", status);
}

static void run_spawn(char **environment)
{
	char *none[] = {(char *)"/bin/true", NULL};

	target_expect("go");
	for (unsigned i = 0; i < N_CHILDREN; i++) {
		pid_t pid = -1;

		if (i % 2 == 0) {
			if (posix_spawn(&pid, none[0], NULL, NULL, none, environment))
				_exit(6);
		} else {
			pid = vfork();
			if (pid == 0) {
				execve(none[0], none, environment);
				_exit(5);
			}
		}
		check_child(pid);
	}
	life_run(leaf_before);
	say_made("leaf_before", N_OBJECTS);
	target_expect("quit");
}

static pthread_t main_thread;
static pthread_barrier_t main_may_leave, orphans_begin, orphans_rest;

/* The orphan that leads reads the commands in the main thread's place. */
static void lead(const char *command, unsigned long long n_rounds)
{
	if (n_rounds > 0)
		say_made("leaf_orphan", n_rounds * N_ORPHANS * N_OBJECTS);
	target_expect(command);
}

static void *orphan_main(void *arg)
{
	const bool *leads = arg;

	if (*leads) {
		lead("leave", 0);
		pthread_barrier_wait(&main_may_leave);
		pthread_join(main_thread, NULL);
		target_say("{\"left\":true}");
		lead("go", 0);
	}
	for (unsigned long long i = 1; i <= 2; i++) {
		pthread_barrier_wait(&orphans_begin);
		life_run(leaf_orphan);
		pthread_barrier_wait(&orphans_rest);
		if (*leads)
			lead(i == 1 ? "go" : "quit", i);
	}
	if (*leads)
		_exit(0);
	return NULL;
}

static void run_mainexit(void)
{
	static bool leads[N_ORPHANS] = {true};
	pthread_t thread;

	main_thread = pthread_self();
	pthread_barrier_init(&main_may_leave, NULL, 2);
	pthread_barrier_init(&orphans_begin, NULL, N_ORPHANS);
	pthread_barrier_init(&orphans_rest, NULL, N_ORPHANS);
	target_ready();
	for (unsigned i = 0; i < N_ORPHANS; i++)
		if (pthread_create(&thread, NULL, orphan_main, &leads[i]))
			_exit(4);
	pthread_barrier_wait(&main_may_leave);
	pthread_exit(NULL);
}

int main(int argc, char **argv, char **environment)
{
	const char *mode = argc > 1 ? argv[1] : "";

	if (strcmp(mode, "executed") == 0) {
		life_run(leaf_after);
		say_made("leaf_after", N_OBJECTS);
		target_expect("quit");
		return 0;
	}
	if (strcmp(mode, "mainexit") == 0)
		run_mainexit();
	target_ready();
	if (strcmp(mode, "exit") == 0) {
		run_before();
	} else if (strcmp(mode, "wait") == 0) {
		run_before();
		target_expect("quit");
	} else if (strcmp(mode, "exec") == 0) {
		run_exec(argv[0], (char *)"executed");
	} else if (strcmp(mode, "exec-true") == 0) {
		run_exec(argv[0], NULL);
	} else if (strcmp(mode, "fork") == 0) {
		run_fork();
	} else if (strcmp(mode, "fork-wait") == 0) {
		run_fork_wait();
	} else if (strcmp(mode, "spawn") == 0) {
		run_spawn(environment);
	} else {
		return 2;
	}
	return 0;
}
