/* SPDX-License-Identifier: MIT */
#include "tests/own_stack.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static const int greg_by_dwarf[DP_UNWIND_REGS] = {
	REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI, REG_RBP, REG_RSP, REG_R8,
	REG_R9,	 REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP};

void own_process_open(struct own_process *process)
{
	struct dp_error err;

	assert_int_equal(dp_modules_new(&process->modules), 0);
	assert_int_equal(dp_space_new(&process->space, process->modules, getpid()), 0);
	assert_int_equal(dp_space_load(process->space, &err), 0);
	assert_int_equal(dp_unwinder_new(&process->unwinder, process->modules), 0);
}

void own_process_close(struct own_process *process)
{
	dp_unwinder_free(process->unwinder);
	dp_space_free(process->space);
	dp_modules_free(process->modules);
}

void own_registers(const ucontext_t *context, uint64_t *ret)
{
	for (int i = 0; i < DP_UNWIND_REGS; i++)
		ret[i] = (uint64_t)context->uc_mcontext.gregs[greg_by_dwarf[i]];
}

uintptr_t own_stack_end(void)
{
	pthread_attr_t attr;
	size_t n_bytes;
	void *low;

	if (pthread_getattr_np(pthread_self(), &attr) != 0 ||
	    pthread_attr_getstack(&attr, &low, &n_bytes) != 0)
		abort();
	pthread_attr_destroy(&attr);
	return (uintptr_t)low + n_bytes;
}
