/* SPDX-License-Identifier: MIT */
#include "tests/stopped.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/sym_oracle.h"

#define REPORT_FD 3

static _Noreturn void become(const char *path, const char *situation, int report_fd)
{
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	if (report_fd != REPORT_FD)
		dup2(report_fd, REPORT_FD);
	/* Functions are bound at their first call. */
	unsetenv("LD_BIND_NOW");
	execl(path, path, situation, NULL);
	_exit(127);
}

struct stopped *stopped_start(const char *name, const char *situation)
{
	struct stopped *s = calloc(1, sizeof(*s));
	const char *path = oracle_sample(name);
	char memory[64];
	int fds[2], status;

	assert_non_null(s);
	s->stack = malloc(STOPPED_MAX_STACK_BYTES);
	assert_non_null(s->stack);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	s->pid = s->tid = fork();
	assert_true(s->pid >= 0);
	if (s->pid == 0)
		become(path, situation, fds[1]);
	close(fds[1]);
	s->report_fd = fds[0];
	assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
	assert_true(WIFSTOPPED(status));
	assert_int_equal(ptrace(PTRACE_SETOPTIONS, s->pid, NULL,
				PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE),
			 0);
	snprintf(memory, sizeof(memory), "/proc/%d/mem", s->pid);
	s->memory_fd = open(memory, O_RDONLY | O_CLOEXEC);
	assert_true(s->memory_fd >= 0);
	assert_int_equal(dp_modules_new(&s->modules), 0);
	assert_int_equal(dp_space_new(&s->space, s->modules, s->pid), 0);
	assert_int_equal(dp_unwinder_new(&s->unwinder, s->modules), 0);
	return s;
}

void stopped_end(struct stopped *s)
{
	kill(s->pid, SIGKILL);
	while (waitpid(-1, NULL, __WALL) > 0 || errno == EINTR)
		;
	close(s->report_fd);
	close(s->memory_fd);
	dp_unwinder_free(s->unwinder);
	dp_space_free(s->space);
	dp_modules_free(s->modules);
	free(s->stack);
	free(s);
}

static void take_registers(struct stopped *s)
{
	assert_int_equal(ptrace(PTRACE_GETREGS, s->tid, NULL, &s->regs), 0);
}

/* Waits for any thread to stop. Returns its signal, SIGTRAP | 0x80 at system calls, 0 at events. */
static int await_stop(struct stopped *s)
{
	int status;

	s->tid = waitpid(-1, &status, __WALL);
	assert_true(s->tid > 0);
	if (!WIFSTOPPED(status))
		fail_msg("the program ended with status 0x%x", status);
	take_registers(s);
	return status >> 16 ? 0 : WSTOPSIG(status);
}

/* Lets the stopped thread go on; @signal is what it was stopped by. */
static void resume(const struct stopped *s, int request, int signal)
{
	/* SIGSTOP is how a new thread begins. */
	if (signal == (SIGTRAP | 0x80) || signal == SIGSTOP || signal == SIGTRAP)
		signal = 0;
	assert_int_equal(ptrace(request, s->tid, NULL, (void *)(intptr_t)signal), 0);
}

void stopped_run_to_breakpoint(struct stopped *s)
{
	int signal = 0;

	do {
		resume(s, PTRACE_CONT, signal);
		signal = await_stop(s);
	} while (signal != SIGTRAP);
}

void stopped_run_to_syscall(struct stopped *s, uint64_t number, bool in_thread)
{
	int signal = 0;

	do {
		resume(s, PTRACE_SYSCALL, signal);
		signal = await_stop(s);
	} while (signal != (SIGTRAP | 0x80) || s->regs.orig_rax != number ||
		 s->regs.rax != (uint64_t)-ENOSYS || (s->tid != s->pid) != in_thread);
}

void stopped_step(struct stopped *s)
{
	resume(s, PTRACE_SINGLESTEP, 0);
	assert_int_equal(await_stop(s), SIGTRAP);
}

uint64_t stopped_word(const struct stopped *s, uint64_t avma)
{
	uint64_t word;

	assert_int_equal(pread(s->memory_fd, &word, sizeof(word), (off_t)avma), sizeof(word));
	return word;
}

void stopped_load(struct stopped *s)
{
	struct dp_error err;

	if (dp_space_load(s->space, &err) < 0)
		fail_msg("%s", err.text);
}

void stopped_take(struct stopped *s, size_t max_bytes, bool leaf_is_call)
{
	const struct user_regs_struct *r = &s->regs;
	const uint64_t regs[DP_UNWIND_REGS] = {r->rax, r->rdx, r->rcx, r->rbx, r->rsi, r->rdi,
					       r->rbp, r->rsp, r->r8,  r->r9,  r->r10, r->r11,
					       r->r12, r->r13, r->r14, r->r15, r->rip};
	ssize_t n;

	assert_true(max_bytes <= STOPPED_MAX_STACK_BYTES);
	n = pread(s->memory_fd, s->stack, max_bytes, (off_t)r->rsp);
	assert_true(n > 0);
	memcpy(s->sample.regs, regs, sizeof(regs));
	s->sample.stack = s->stack;
	s->sample.stack_bytes = (size_t)n;
	s->sample.leaf_is_call = leaf_is_call;
}

void stopped_unwind(struct stopped *s)
{
	ptrdiff_t n = dp_unwind(s->unwinder, s->space, &s->sample, s->frames, STOPPED_MAX_FRAMES,
				&s->result);

	assert_true(n > 0);
	s->n_frames = (size_t)n;
}

void stopped_read_report(struct stopped *s, struct stopped_oracle *ret)
{
	uint64_t head[2];
	ssize_t n_bytes;

	assert_int_equal(read(s->report_fd, head, sizeof(head)), sizeof(head));
	ret->trampoline = head[0];
	ret->n = head[1];
	assert_true(ret->n > 0 && ret->n <= STOPPED_MAX_FRAMES);
	n_bytes = (ssize_t)(ret->n * sizeof(uint64_t));
	assert_int_equal(read(s->report_fd, ret->addresses, (size_t)n_bytes), n_bytes);
}

static void detach_all(const struct stopped *s)
{
	int status;
	pid_t tid;

	/* The others run: they stop now, as the process does. */
	kill(s->pid, SIGSTOP);
	assert_int_equal(ptrace(PTRACE_DETACH, s->tid, NULL, NULL), 0);
	while ((tid = waitpid(-1, &status, __WALL | WNOHANG)) > 0) {
		if (WIFSTOPPED(status))
			ptrace(PTRACE_DETACH, tid, NULL, NULL);
	}
}

void stopped_run_eu_stack(struct stopped *s, struct stopped_oracle *ret)
{
	char *text, *rest, *line;

	detach_all(s);
	text = rest = oracle_run("eu-stack -1 -n 0 -p %d 2>/dev/null", s->tid);
	*ret = (struct stopped_oracle){0};
	while ((line = strsep(&rest, "\n"))) {
		if (sscanf(line, "#%*u 0x%" SCNx64, &ret->addresses[ret->n]) == 1)
			ret->n++;
		assert_true(ret->n < STOPPED_MAX_FRAMES);
	}
	free(text);
}

void stopped_expect(const struct stopped *s, const struct stopped_oracle *oracle, size_t n,
		    bool with_leaf)
{
	assert_int_equal(s->n_frames, n);
	assert_true(n <= oracle->n);
	for (size_t i = !with_leaf; i < n; i++) {
		uint64_t address = oracle->addresses[i];
		bool is_call = i == 0 ? s->sample.leaf_is_call
				      : !oracle->trampoline ||
						(address != oracle->trampoline &&
						 oracle->addresses[i - 1] != oracle->trampoline);

		if (s->frames[i] != dp_space_frame(s->space, address - is_call))
			fail_msg("frame %zu of %zu is 0x%" PRIx64 ", not that of 0x%" PRIx64, i, n,
				 s->frames[i], address);
	}
}
