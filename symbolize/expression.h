/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_EXPRESSION_H
#define DP_SYMBOLIZE_EXPRESSION_H

#include <elfutils/libdw.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "symbolize/unwind.h"

/*
 * The DWARF expressions of call frame information: what they may look at, and their value.
 */

/* The registers of one frame, as far as they are known there. */
struct dp_registers {
	uint64_t value[DP_UNWIND_REGS];
	uint32_t known; /* one bit a register */
};

static inline bool dp_registers_know(const struct dp_registers *registers, uint64_t i)
{
	return i < DP_UNWIND_REGS && (registers->known >> i & 1);
}

struct dp_expression_context {
	const struct dp_unwind_sample *sample; /* whose copy of the stack is the only memory */
	const struct dp_registers *registers;
	const uint64_t *cfa; /* NULL while it is the CFA that is looked for */
};

/*
 * Reads @n_bytes (1 … 8) at @avma, little endian, from the copy of the stack. Returns false if the
 * copy does not hold them all.
 */
bool dp_stack_read(const struct dp_unwind_sample *sample, uint64_t avma, size_t n_bytes,
		   uint64_t *ret);

/*
 * Evaluates @n operations at @operations: those of DWARF 5, section 2.5.1, that make sense for a
 * frame; a leading DW_OP_call_frame_cfa is how libdw says that the CFA is on the stack at first.
 * There are no branches, so it ends. Neither blocks nor allocates.
 *
 * Returns 0; -ENODATA where memory is needed that was not copied; -ENOEXEC for an operation that is
 * unknown or impossible, or a register that is not known.
 */
int dp_expression_evaluate(const struct dp_expression_context *context, const Dwarf_Op *operations,
			   size_t n, uint64_t *ret);

#endif
