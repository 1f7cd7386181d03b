/* SPDX-License-Identifier: MIT */
#include <elf.h>
#include <errno.h>
#include <sys/ptrace.h>
#include <sys/user.h>

#include "src/launch_trace.h"

/* int3. Source: Intel SDM volume 2, INT n/INTO/INT3/INT1. */
const struct dp_trap dp_trap = {
	.code = {0xcc}, .n_bytes = 1, .pc_after_bytes = 1, .elf_machine = EM_X86_64};

int dp_trace_get_pc(pid_t pid, uint64_t *ret)
{
	struct user_regs_struct regs;

	if (ptrace(PTRACE_GETREGS, pid, NULL, &regs) < 0)
		return -errno;
	*ret = regs.rip;
	return 0;
}

int dp_trace_set_pc(pid_t pid, uint64_t avma)
{
	struct user_regs_struct regs;

	if (ptrace(PTRACE_GETREGS, pid, NULL, &regs) < 0)
		return -errno;
	regs.rip = avma;
	return ptrace(PTRACE_SETREGS, pid, NULL, &regs) < 0 ? -errno : 0;
}
