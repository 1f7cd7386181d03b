/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_TRACEE_H
#define DP_TESTS_TRACEE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

/*
 * A program under ptrace, stopped where its libraries are ready for use, in which any function can
 * be called one instruction at a time.
 */
struct tracee {
	pid_t pid;
	uint64_t base;		      /* where the library is mapped */
	struct user_regs_struct idle; /* registers where it was stopped */
};

/*
 * Starts a program that does nothing but sleep, with @library (its real path) preloaded if it does
 * not have it anyway, and stops it there; with @is_program starts the library itself (a dynamic
 * loader that is its own C library) and stops it at the first thing it prints.
 *
 * Returns whether that worked; ends with tracee_end() in any case.
 */
bool tracee_start(struct tracee *tracee, const char *library, bool is_program);
void tracee_end(struct tracee *tracee);

/* An address on its stack, below which calls work, that holds 0: an argument for results. */
uint64_t tracee_slot(const struct tracee *tracee);

/* A word of its memory; UINT64_MAX if there is none. */
uint64_t tracee_word(const struct tracee *tracee, uint64_t address);

/*
 * Sets up a call of the function at offset @function of the library with three arguments, and
 * stops it before the first instruction. @ret: its registers there.
 */
void tracee_call(struct tracee *tracee, uint64_t function, const uint64_t *args,
		 struct user_regs_struct *ret);

/* Executes one instruction. Returns false if that raised a signal or ended the program. */
bool tracee_step(struct tracee *tracee, struct user_regs_struct *ret);

/* Whether the call has returned; its result is in rax. */
bool tracee_returned(const struct tracee *tracee, const struct user_regs_struct *regs);

#endif
