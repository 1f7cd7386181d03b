/* SPDX-License-Identifier: MIT */
/*
 * A program whose stack is taken from outside, stopped at a breakpoint of its own. `unw_program
 * SITUATION` gets there in one of several ways, having written to file descriptor 3 what its own
 * unwinder (or its own bookkeeping) says of the stack, as words:
 *
 *     place of the signal trampoline, 0 if none; number n of addresses; n addresses, leaf first.
 *
 * Of the addresses the first lies in the function with the breakpoint. No descriptor 3: no report.
 */
#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define KEEP __attribute__((noipa))
#define MAX_ADDRESSES 1024
#define BREAKPOINT() __asm__ volatile("int3" ::: "memory")

/* What the C library told the kernel to return to from handlers. */
static uintptr_t trampoline_of(int signal)
{
	struct {
		void *handler;
		unsigned long flags;
		void *restorer;
		unsigned long mask;
	} action;

	if (syscall(SYS_rt_sigaction, signal, NULL, &action, sizeof(action.mask)) != 0 ||
	    !action.handler)
		return 0;
	return (uintptr_t)action.restorer;
}

static uintptr_t trampoline;

static void report(void *const *addresses, size_t n)
{
	uintptr_t words[2 + MAX_ADDRESSES] = {trampoline, n};

	memcpy(words + 2, addresses, n * sizeof(*addresses));
	if (write(3, words, (2 + n) * sizeof(*words)) < 0 && errno != EBADF)
		_exit(3);
}

KEEP static void stop(void)
{
	void *addresses[MAX_ADDRESSES];
	int n = backtrace(addresses, MAX_ADDRESSES);

	report(addresses, (size_t)n);
	BREAKPOINT();
}

KEEP static int recurse(int depth)
{
	volatile int room[5] = {depth};

	if (depth == 0)
		stop();
	else
		room[0] += recurse(depth - 1);
	return room[0];
}

KEEP static int with_alloca(size_t n_bytes)
{
	volatile char *room = __builtin_alloca(n_bytes);

	room[n_bytes - 1] = 1;
	recurse(1);
	return room[n_bytes - 1];
}

KEEP static int with_alignment(int x)
{
	_Alignas(256) volatile char room[512];

	room[0] = (char)x;
	recurse(1);
	return room[0];
}

/* Both: the frame is found by a register that is itself saved in the frame. */
KEEP static int with_both(size_t n_bytes)
{
	_Alignas(64) volatile char room[64];
	volatile char *more = __builtin_alloca(n_bytes);

	more[0] = 1;
	room[0] = 2;
	with_alignment(1);
	return more[0] + room[0];
}

KEEP static int many_arguments(int a, int b, int c, int d, int e, int f, int g, int h, int i)
{
	recurse(1);
	return a + b * c + d * e + f * g + h * i;
}

static int has_stopped;

KEEP static int compare(const void *a, const void *b)
{
	if (!has_stopped++)
		recurse(1);
	return *(const int *)a - *(const int *)b;
}

static void sort(void)
{
	int numbers[] = {5, 3, 1, 2, 4, 9, 8};

	qsort(numbers, sizeof(numbers) / sizeof(*numbers), sizeof(*numbers), compare);
}

static void *thread_main(void *argument)
{
	recurse(*(int *)argument);
	return NULL;
}

static void run_thread(void *(*start)(void *), void *argument)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, start, argument) != 0)
		_exit(3);
	pthread_join(thread, NULL);
}

static void handle(int number)
{
	(void)number;
	recurse(2);
	_exit(0);
}

static void handle_signal(int number, int flags)
{
	struct sigaction action = {.sa_handler = handle, .sa_flags = flags};

	if (sigaction(number, &action, NULL) != 0)
		_exit(3);
	trampoline = trampoline_of(number);
}

/*
 * A function whose very first instruction is interrupted: one byte before it is another function,
 * whose frame is of another size.
 */
__asm__(".text\n"
	"	.type before_trap, @function\n"
	"before_trap:\n"
	"	.cfi_startproc\n"
	"	.cfi_def_cfa_offset 4096\n"
	"	nop\n"
	"	.cfi_endproc\n"
	"	.size before_trap, . - before_trap\n"
	"	.type trap, @function\n"
	"trap:\n"
	"	.cfi_startproc\n"
	"	ud2\n"
	"	ret\n"
	"	.cfi_endproc\n"
	"	.size trap, . - trap\n");
void trap(void);

KEEP static int call_trap(int x)
{
	volatile int room[3] = {x};

	trap();
	return room[0];
}

static void use_signal_stack(void)
{
	static char room[1 << 16];
	stack_t stack = {.ss_sp = room, .ss_size = sizeof(room)};

	if (sigaltstack(&stack, NULL) != 0)
		_exit(3);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

KEEP static int lock_at_depth(int depth)
{
	volatile int room[7] = {depth};

	if (depth == 0) {
		pthread_mutex_lock(&mutex);
		pthread_mutex_unlock(&mutex);
	} else {
		room[0] += lock_at_depth(depth - 1);
	}
	return room[0];
}

static void *wait_for_lock(void *argument)
{
	lock_at_depth(3);
	return argument;
}

KEEP static int fork_at_depth(int depth)
{
	volatile int room[4] = {depth};

	if (depth > 0)
		return room[0] + fork_at_depth(depth - 1);
	if (vfork() == 0)
		_exit(0);
	return room[0];
}

/* The signal arrives in code that is neither ours nor at a call: somewhere in a system call. */
KEEP static int raise_at_depth(int depth)
{
	volatile int room[6] = {depth};

	if (depth == 0)
		raise(SIGUSR1);
	else
		room[0] += raise_at_depth(depth - 1);
	return room[0];
}

/* Everything that a step through code should meet; what it calls is bound at the first call. */
KEEP static void walk(void)
{
	struct timespec now;
	char text[64];

	BREAKPOINT();
	clock_gettime(CLOCK_MONOTONIC, &now);
	has_stopped = 1;
	sort();
	snprintf(text, sizeof(text), "%ld %s %f", (long)now.tv_nsec, "text", (double)now.tv_nsec);
	setenv("UNW_PROGRAM", text, 1);
	free(malloc(100000));
	free(strdup(text));
	pthread_mutex_lock(&mutex);
	pthread_mutex_unlock(&mutex);
	BREAKPOINT();
}

KEEP static int walk_at_depth(int depth)
{
	volatile int room[9] = {depth};
	_Alignas(128) volatile char aligned[128];

	aligned[0] = 1;
	if (depth == 0)
		walk();
	else
		room[0] += walk_at_depth(depth - 1);
	return room[0] + aligned[0];
}

static int run(const char *situation)
{
	int depth = 4;

#define IS(name) (strcmp(situation, name) == 0)
	if (IS("deep"))
		return recurse(300);
	if (IS("alloca"))
		return with_alloca(5000);
	if (IS("alignment"))
		return with_alignment(3);
	if (IS("both"))
		return with_both(300);
	if (IS("arguments"))
		return many_arguments(1, 2, 3, 4, 5, 6, 7, 8, 9);
	if (IS("callback"))
		sort();
	if (IS("thread"))
		run_thread(thread_main, &depth);
	if (IS("signal")) {
		handle_signal(SIGUSR1, 0);
		return raise_at_depth(2);
	}
	if (IS("trap")) {
		handle_signal(SIGILL, 0);
		return call_trap(1);
	}
	if (IS("signal-stack")) {
		use_signal_stack();
		handle_signal(SIGILL, SA_ONSTACK);
		return call_trap(1);
	}
	if (IS("lock")) {
		pthread_mutex_lock(&mutex);
		run_thread(wait_for_lock, NULL);
	}
	if (IS("vfork"))
		return fork_at_depth(3);
	if (IS("walk"))
		return walk_at_depth(2);
#undef IS
	return 0;
}

int main(int argc, char **argv)
{
	void *addresses[1];

	/* The first call loads the unwinder. */
	if (argc != 2 || backtrace(addresses, 1) < 0)
		return 2;
	return run(argv[1]) < 0;
}
