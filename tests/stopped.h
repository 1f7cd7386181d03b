/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_STOPPED_H
#define DP_TESTS_STOPPED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "symbolize/space.h"
#include "symbolize/unwind.h"

/*
 * A process of tests/targets/unw_program.c under ptrace, stopped, with what the unwinder is given
 * and what others say of its stack. Whatever goes wrong fails the test.
 */

#define STOPPED_MAX_FRAMES 1024
#define STOPPED_MAX_STACK_BYTES ((size_t)1 << 17)

struct stopped {
	pid_t pid, tid; /* the process; the thread that is looked at */
	int report_fd, memory_fd;
	struct user_regs_struct regs; /* of the thread, as of the last stop */
	struct dp_modules *modules;
	struct dp_space *space;
	struct dp_unwinder *unwinder;
	uint8_t *stack;
	struct dp_unwind_sample sample;
	uint64_t frames[STOPPED_MAX_FRAMES]; /* of stopped_unwind() */
	size_t n_frames;
	struct dp_unwind_result result;
};

/* What another unwinder says: addresses, leaf first. */
struct stopped_oracle {
	size_t n;
	uint64_t addresses[STOPPED_MAX_FRAMES];
	uint64_t trampoline; /* where a signal handler returns to; 0: none is on the stack */
};

/* Starts sample @name (oracle_sample()) in @situation; stopped at its first instruction. */
struct stopped *stopped_start(const char *name, const char *situation);
void stopped_end(struct stopped *s);

/* Lets all threads go on until one meets its breakpoint, or enters system call @number outside the
 * main thread (@in_thread) or in it. */
void stopped_run_to_breakpoint(struct stopped *s);
void stopped_run_to_syscall(struct stopped *s, uint64_t number, bool in_thread);

/* Executes one instruction of the thread. */
void stopped_step(struct stopped *s);

/* A word of the process's memory. */
uint64_t stopped_word(const struct stopped *s, uint64_t avma);

/* Reads the memory map. */
void stopped_load(struct stopped *s);

/* Takes registers and up to @max_bytes of the stack into the sample, and unwinds it. */
void stopped_take(struct stopped *s, size_t max_bytes, bool leaf_is_call);
void stopped_unwind(struct stopped *s);

/* What the program wrote of itself on its way to the breakpoint. */
void stopped_read_report(struct stopped *s, struct stopped_oracle *ret);

/* What eu-stack says. The process cannot go on afterwards. */
void stopped_run_eu_stack(struct stopped *s, struct stopped_oracle *ret);

/*
 * The unwound frames must be the oracle's, all @n of them: the first is looked at only if
 * @with_leaf; the others are return addresses but for the signal trampoline and what it
 * interrupted.
 */
void stopped_expect(const struct stopped *s, const struct stopped_oracle *oracle, size_t n,
		    bool with_leaf);

#endif
