/* SPDX-License-Identifier: MIT */
#ifndef DP_LAUNCH_TRACE_H
#define DP_LAUNCH_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "src/base/error.h"

/*
 * A child process under ptrace, from before its execve() to the moment when its libraries are
 * mapped.
 */

/* How dp_trace_until_mapped() came to its end. */
enum dp_trace_end {
	DP_TRACE_STOPPED, /* no code but the loader's has run */
	DP_TRACE_LATE,	  /* stopped at its entry point: its libraries' constructors have run */
	DP_TRACE_ENDED,
};

/*
 * Makes the calling thread the tracer of its child @pid, which goes on running and is killed should
 * the tracer die.
 * @command: its name, for the sentence.
 * Returns 0 or -EPERM with a sentence in @err.
 */
int dp_trace_seize(pid_t pid, const char *command, struct dp_error *err);

/*
 * Follows @pid, which was seized, through its execve() and lets it run up to its first consistent
 * link map, or its entry point. On return it is stopped there, and its code is as in its files.
 *
 * Blocks. Returns an enum dp_trace_end, with *@ret_status set at DP_TRACE_ENDED; or -EPERM,
 * -ENOMEM, -EMFILE or -EIO with a sentence in @err, and then @pid is in any state and to be killed.
 */
int dp_trace_until_mapped(pid_t pid, const char *command, int *ret_status, struct dp_error *err);

/* Blocks until @pid, a child that is traced or not, has ended. Returns 0 or -ECHILD. */
int dp_trace_wait_end(pid_t pid, int *ret_status);

/*
 * What depends on the processor. One implementation per architecture, src/launch_NAME.c.
 */

#define DP_TRAP_MAX_BYTES 4

struct dp_trap {
	uint8_t code[DP_TRAP_MAX_BYTES]; /* an instruction that stops with SIGTRAP */
	size_t n_bytes;
	size_t pc_after_bytes; /* how far behind its beginning the program counter is then */
	int elf_machine;       /* e_machine of the programs that can be stopped so */
};

extern const struct dp_trap dp_trap;

/* Reads or sets the program counter of a stopped tracee. Return 0 or a negative errno. */
int dp_trace_get_pc(pid_t pid, uint64_t *ret);
int dp_trace_set_pc(pid_t pid, uint64_t avma);

#endif
