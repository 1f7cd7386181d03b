/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_UNWIND_H
#define DP_SYMBOLIZE_UNWIND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "symbolize/module.h"
#include "symbolize/space.h"

/*
 * Unwinds a stack from a sample: the user registers and a copy of the stack's top, with the call
 * frame information (CFI) of the mapped files, outside the target and without touching it.
 */

struct dp_unwinder;

/* Registers by DWARF number. Source: System V ABI, AMD64 supplement, figure 3.36: 0 rax … 6 rbp, 7
 * rsp, 8-15 r8-r15, 16 rip. */
#define DP_UNWIND_REGS 17
#define DP_UNWIND_REG_BP 6
#define DP_UNWIND_REG_SP 7
#define DP_UNWIND_REG_PC 16

/*
 * The return address that was at @avma on the stack before the kernel put a return probe's
 * trampoline there; 0 if it is not known.
 */
typedef uint64_t dp_unwind_pending_fn(void *context, uint64_t avma);

struct dp_unwind_sample {
	uint64_t regs[DP_UNWIND_REGS];
	const uint8_t *stack; /* copy of memory from regs[DP_UNWIND_REG_SP] up */
	size_t stack_bytes;
	bool leaf_is_call; /* the pc lies behind a call or system call, not at an instruction that
			    * is still to run */
	bool at_entry;	   /* the return address is at the stack pointer: no CFI is needed for it */
	dp_unwind_pending_fn *pending; /* NULL: no return probes */
	void *context;		       /* of pending */
	const uint64_t *callchain; /* the kernel's, of the same moment, its markers included; goes
				    * on where the copy ends; NULL: none */
	size_t n_callchain;
};

enum dp_unwind_end {
	DP_UNWIND_OUTERMOST, /* the thread's start or the program's entry: the CFI says that there
			      * is no caller, or the return address is 0 */
	DP_UNWIND_STACK_CUT, /* the next frame lies beyond the copy */
	DP_UNWIND_NO_CFI,    /* code without CFI, and no frame pointer to go by */
	DP_UNWIND_LIMIT,     /* as many frames as there was room for */
	DP_UNWIND_BROKEN,    /* the next frame makes no sense: corrupt CFI or stack, or a return
			      * address that a return probe of another's has replaced */
};

/* What became of one stack. */
struct dp_unwind_result {
	enum dp_unwind_end end;
	uint32_t n_fp_steps;	/* frames found through the frame pointer, for want of CFI */
	uint32_t n_chain_steps; /* frames taken from the kernel's callchain */
	uint64_t n_bytes; /* from the stack pointer to where the last frame begins; larger than any
			   * copy where that is on another stack */
};

/* What became of many. */
struct dp_unwind_counts {
	uint64_t n_stacks;
	uint64_t n_ends[DP_UNWIND_BROKEN + 1]; /* how they ended */
	uint64_t n_fp_steps, n_chain_steps;
};

struct dp_unwind_stats {
	struct dp_unwind_counts counts;
	uint64_t n_trampolines;	  /* of pending return probes, seen through */
	uint64_t n_no_room;	  /* how often all rules were forgotten to make room for new ones */
	uint64_t n_files_no_room; /* files whose CFI was not read for its size */
	uint64_t n_cfi_bad; /* entries, ends of sections and tables of CFI refused as corrupt */
};

/* Adds one stack to @counts. */
void dp_unwind_count(struct dp_unwind_counts *counts, const struct dp_unwind_result *result);

/* @modules: borrowed, must outlive it. Returns 0 or -ENOMEM. */
int dp_unwinder_new(struct dp_unwinder **ret, struct dp_modules *modules);

/* Frees it. NULL is allowed. */
void dp_unwinder_free(struct dp_unwinder *unwinder);

/*
 * Unwinds @sample in @space into frames (src/base/frame.h), leaf first. Return addresses are looked
 * up at address - 1; as they are: the sample's own pc unless it lies behind a call, what a signal
 * interrupted, and the trampoline that a signal handler returns to, which no call leads to.
 *
 * @sample: its stack is all of the target's memory that is looked at.
 * @ret_frames: room for @max_frames, at least 1. @ret: how it ended; what lies beyond is not known,
 * and what is given is the innermost part of the stack.
 * Where the copy ends in code that keeps frame pointers, as its CFI confirms address by address,
 * the callchain goes on.
 * Files' CFI is read at the first address in them, and each address's rule once; corrupt CFI ends
 * the stack, never the caller. A frame found without CFI, by its frame pointer, may be wrong: it is
 * counted. The memory that is kept is bounded: 512 MiB for files' CFI, 16 MiB for rules, and what
 * libdw notes for each function that was looked up.
 * One caller at a time. Returns the number of frames, at least 1, or -ENOMEM.
 */
ptrdiff_t dp_unwind(struct dp_unwinder *unwinder, const struct dp_space *space,
		    const struct dp_unwind_sample *sample, uint64_t *ret_frames, size_t max_frames,
		    struct dp_unwind_result *ret);

/*
 * Reads the CFI of every module that there is, so that the first stack does not wait for it: some
 * 0.1 s for a large program. Returns 0 or -ENOMEM.
 */
int dp_unwinder_prepare(struct dp_unwinder *unwinder);

/*
 * Whether the code of module @id keeps frame pointers: at most of the places spread over it
 * that have CFI, the caller's frame is found through the frame pointer. Reads the file's CFI.
 * Returns 1, 0 (it does not, or has no CFI to tell), or -ENOMEM.
 */
int dp_unwinder_keeps_frame_pointers(struct dp_unwinder *unwinder, uint32_t id);

/* Fills @ret: everything since dp_unwinder_new(). */
void dp_unwinder_get_stats(const struct dp_unwinder *unwinder, struct dp_unwind_stats *ret);

#endif
