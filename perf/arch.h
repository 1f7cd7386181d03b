/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_ARCH_H
#define DP_PERF_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "perf/record.h"

/*
 * Everything in perf/ that depends on the processor. There is one implementation per architecture,
 * perf/arch_NAME.c, and the build picks the machine's own.
 */

/*
 * What one kind of probe fetches: the arguments of its tracefs definition, and the name that each
 * field of dp_raw_layout.fields has in the tracepoint's format file (NULL: not fetched). The names
 * are the same on every architecture.
 * Source: the kernel's Documentation/trace/uprobetracer.rst, "Synopsis of uprobe_tracer".
 */
struct dp_arch_fetch {
	const char *definition; /* e.g. "a0=%di:u64 sp=%sp:u64" */
	const char *fields[DP_N_RAW_FIELDS];
};

struct dp_arch {
	struct dp_arch_fetch alloc_entry;  /* three arguments, stack pointer, return address */
	struct dp_arch_fetch alloc_return; /* return value, third argument register, stack pointer
					    */
	struct dp_arch_fetch free_entry;   /* first argument, stack pointer */
	struct dp_arch_fetch go_park;	   /* g, reason, return address: of runtime.gopark */
	struct dp_arch_fetch go_ready;	   /* g: of runtime.ready */
	struct dp_arch_fetch go_acquire;   /* g: of runtime.semacquire1 */
	unsigned return_sp_delta_bytes;	   /* stack pointer after a return minus at its entry */
	uint64_t user_regs_mask; /* perf's numbers of the registers of struct dp_user_state */
	uint8_t user_regs_dwarf[DP_USER_REGS]; /* for each bit of it, ascending, the DWARF number */
	uint16_t elf_machine;		       /* e_machine of the programs that can be probed */
};

/* The architecture that this build is for. */
extern const struct dp_arch dp_arch;

/*
 * The counter that Go's runtime measures waits with, as it is now on this processor, where it runs
 * equally on all; nanoseconds of the monotonic clock on a machine where Go has no such counter.
 * Source: Go's src/runtime/asm_amd64.s, cputicks().
 */
uint64_t dp_arch_ticks(void);

/* Where in a function a probe goes. */
struct dp_placement {
	uint32_t offset_bytes; /* from the function's entry */
	bool emulated;	       /* the kernel emulates the instruction: no single step */
	const char *why;       /* static text, for logs and tests */
};

/* dp_arch_place()'s mask bit for integer argument @i (from 0). */
#define DP_ARG(i) (1u << (i))
#define DP_MAX_ARGS 6

/*
 * Chooses the instruction of a function that a probe (entry and return) goes on: the first one on
 * the straight line from the entry that the kernel emulates instead of single-stepping it, so long
 * as nothing before it has written the stack pointer or an argument that is read; else the entry.
 * At the chosen instruction, which runs exactly as often as the entry does, the stack pointer,
 * the word it points at and the arguments of @arg_mask are still those of the entry. Nothing beyond
 * the first branch is chosen, nor anything that a later branch of the function jumps back to.
 *
 * @code: the function's first @n_bytes, best all of them: a branch back from what is not given is
 * not seen, nor one through a register or a jump table.
 * @arg_mask: DP_ARG() of the arguments that are read at the probe; others may be overwritten.
 * @ret: filled on success.
 * Neither blocks nor allocates; any thread.
 *
 * Returns 0; -EINVAL if @n_bytes is 0 or @arg_mask names an argument from DP_MAX_ARGS on; -ENOEXEC
 * if there is no whole instruction at the entry.
 *
 * Source: what x86 emulates is in the kernel's arch/x86/kernel/uprobes.c, branch_setup_xol_ops()
 * and push_setup_xol_ops().
 */
int dp_arch_place(const uint8_t *code, size_t n_bytes, unsigned arg_mask, struct dp_placement *ret);

/* Where in one of a Go runtime's functions a probe goes. */
struct dp_go_placement {
	struct dp_placement place;
	bool has_frame; /* the function's frame is set up there: its caller is found by it, and the
			 * word at the stack pointer is no return address */
};

/*
 * The same for Go's runtime.gopark, runtime.ready and runtime.semacquire1 (register ABI, Go 1.17
 * and newer): behind the check of the stack, which begins the function again when it has made the
 * stack larger, and where the registers of g, of the reason (gopark) and of the goroutine (ready)
 * are those of the entry. It is the `push %rbp` that sets up the frame (Go 1.21 and newer), else
 * the first emulated instruction behind that.
 *
 * Returns 0; -EINVAL if @n_bytes is 0; -ENOEXEC if the function does not begin so.
 */
int dp_arch_place_go(const uint8_t *code, size_t n_bytes, struct dp_go_placement *ret);

#endif
