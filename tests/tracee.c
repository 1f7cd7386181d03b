/* SPDX-License-Identifier: MIT */
#include "tests/tracee.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STACK_BYTES 65536 /* what calls leave untouched below the program's own frames */

static _Noreturn void become(const char *library, bool is_program)
{
	int null_fd = open("/dev/null", O_RDWR);

	dup2(null_fd, 0);
	dup2(null_fd, 1);
	dup2(null_fd, 2);
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	if (is_program) {
		execl(library, library, NULL);
	} else {
		setenv("LD_PRELOAD", library, 1);
		execl("/usr/bin/sleep", "sleep", "1000", NULL);
	}
	_exit(127);
}

static bool wait_stopped(pid_t pid, int signal)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == signal;
}

static bool goes_on_to_syscall(pid_t pid, struct user_regs_struct *ret)
{
	return ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0 && wait_stopped(pid, SIGTRAP | 0x80) &&
	       ptrace(PTRACE_GETREGS, pid, NULL, ret) == 0;
}

/* Runs up to the entry of the call that shows the program to be ready, and past it undone. */
static bool run_until_ready(struct tracee *tracee, bool is_program)
{
	struct user_regs_struct *regs = &tracee->idle;

	do {
		if (!goes_on_to_syscall(tracee->pid, regs))
			return false;
	} while (is_program ? regs->orig_rax != SYS_write && regs->orig_rax != SYS_writev
			    : regs->orig_rax != SYS_clock_nanosleep);
	regs->orig_rax = UINT64_MAX; /* no system call */
	if (ptrace(PTRACE_SETREGS, tracee->pid, NULL, regs))
		return false;
	return goes_on_to_syscall(tracee->pid, regs);
}

static bool find_base(struct tracee *tracee, const char *library)
{
	char path[64];
	char *line = NULL;
	size_t line_bytes = 0;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", tracee->pid);
	maps = fopen(path, "re");
	if (!maps)
		return false;
	while (tracee->base == 0 && getline(&line, &line_bytes, maps) >= 0) {
		line[strcspn(line, "\n")] = '\0';
		if (strchr(line, '/') && strcmp(strchr(line, '/'), library) == 0)
			tracee->base = strtoull(line, NULL, 16);
	}
	free(line);
	fclose(maps);
	return tracee->base != 0;
}

bool tracee_start(struct tracee *tracee, const char *library, bool is_program)
{
	*tracee = (struct tracee){.pid = fork()};
	if (tracee->pid == 0)
		become(library, is_program);
	return tracee->pid > 0 && wait_stopped(tracee->pid, SIGTRAP) &&
	       ptrace(PTRACE_SETOPTIONS, tracee->pid, NULL,
		      PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD) == 0 &&
	       run_until_ready(tracee, is_program) && find_base(tracee, library);
}

void tracee_end(struct tracee *tracee)
{
	if (tracee->pid <= 0)
		return;
	kill(tracee->pid, SIGKILL);
	waitpid(tracee->pid, NULL, 0);
	tracee->pid = 0;
}

/* The stack from the top: the program's own frames, room, the slot, the place that calls return to
 * (not executable, so never run), and the return address. */
static uint64_t stack_top(const struct tracee *tracee)
{
	return (tracee->idle.rsp - STACK_BYTES) & ~UINT64_C(15);
}

static uint64_t return_place(const struct tracee *tracee)
{
	return stack_top(tracee) + 16;
}

uint64_t tracee_slot(const struct tracee *tracee)
{
	return stack_top(tracee) + 64;
}

uint64_t tracee_word(const struct tracee *tracee, uint64_t address)
{
	long word;

	errno = 0;
	word = ptrace(PTRACE_PEEKDATA, tracee->pid, (void *)address, NULL);
	return errno ? UINT64_MAX : (uint64_t)word;
}

void tracee_call(struct tracee *tracee, uint64_t function, const uint64_t *args,
		 struct user_regs_struct *ret)
{
	struct user_regs_struct regs = tracee->idle;

	regs.rip = tracee->base + function;
	regs.rsp = stack_top(tracee) - 8;
	regs.orig_rax = UINT64_MAX;
	regs.rdi = args[0];
	regs.rsi = args[1];
	regs.rdx = args[2];
	if (ptrace(PTRACE_POKEDATA, tracee->pid, (void *)regs.rsp, (void *)return_place(tracee)) ||
	    ptrace(PTRACE_POKEDATA, tracee->pid, (void *)tracee_slot(tracee), NULL) ||
	    ptrace(PTRACE_SETREGS, tracee->pid, NULL, &regs))
		abort();
	*ret = regs;
}

bool tracee_step(struct tracee *tracee, struct user_regs_struct *ret)
{
	return ptrace(PTRACE_SINGLESTEP, tracee->pid, NULL, NULL) == 0 &&
	       wait_stopped(tracee->pid, SIGTRAP) &&
	       ptrace(PTRACE_GETREGS, tracee->pid, NULL, ret) == 0;
}

bool tracee_returned(const struct tracee *tracee, const struct user_regs_struct *regs)
{
	return regs->rip == return_place(tracee);
}
