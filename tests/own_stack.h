/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_OWN_STACK_H
#define DP_TESTS_OWN_STACK_H

#include <stdint.h>
#include <ucontext.h>

#include "symbolize/space.h"
#include "symbolize/unwind.h"

/* What tests that unwind stacks of their own process share. */

struct own_process {
	struct dp_modules *modules;
	struct dp_space *space;
	struct dp_unwinder *unwinder;
};

/* Opens an unwinder on the process as it is mapped now. Fails the test if that fails. */
void own_process_open(struct own_process *process);
void own_process_close(struct own_process *process);

/* The registers of a sample. @ret: room for DP_UNWIND_REGS, by DWARF number. */
void own_registers(const ucontext_t *context, uint64_t *ret);

/* Where the calling thread's stack ends. */
uintptr_t own_stack_end(void);

#endif
