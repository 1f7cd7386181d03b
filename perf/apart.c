/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: as in vfork(2), the calling thread stands still meanwhile, so that the process
 * apart may use everything of its, thread-local memory included. But the waiting can be killed, and
 * the process apart is not.
 */
#include "perf/apart.h"

#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define STACK_BYTES ((size_t)256 << 10)
#define STACK_FLAGS (MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK)

/* It takes a process that shares memory for a fork, and gives up on the threads after it. */
#ifdef __SANITIZE_THREAD__
#define CAN_RUN_APART false
#else
#define CAN_RUN_APART true
#endif

struct job {
	void (*run)(void *context);
	void *context;
};

static int run_job(void *argument)
{
	const struct job *job = argument;

	job->run(job->context);
	return 0;
}

void dp_run_apart(void (*run)(void *context), void *context)
{
	struct job job = {run, context};
	char *stack;
	sigset_t all, old;
	pid_t pid = -1;

	/* cppcheck-suppress invalidFunctionArg ; -1 is what an anonymous mapping takes */
	stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, STACK_FLAGS, -1, 0);
	/* A handler of the application's must not run there. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	if (CAN_RUN_APART && stack != MAP_FAILED)
		pid = clone(run_job, stack + STACK_BYTES,
			    CLONE_VM | CLONE_FILES | CLONE_FS | CLONE_VFORK, &job);
	if (pid < 0)
		run(context);
	else
		waitpid(pid, NULL, __WALL);
	sigprocmask(SIG_SETMASK, &old, NULL);
	if (stack != MAP_FAILED)
		munmap(stack, STACK_BYTES);
}
