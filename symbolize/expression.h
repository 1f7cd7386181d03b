/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_EXPRESSION_H
#define DP_SYMBOLIZE_EXPRESSION_H

#include <elfutils/libdw.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "symbolize/unwind.h"

/* What a DWARF expression of CFI may look at. */
struct dp_expression_context {
	const uint64_t *regs; /* DP_UNWIND_REGS of the frame */
	uint64_t cfa;	      /* for DW_OP_call_frame_cfa */
	bool (*read)(const void *memory, uint64_t avma, uint64_t *ret); /* one word of the target */
	const void *memory;						/* for @read */
};

/*
 * Evaluates @n operations at @operations: the arithmetic and stack operations of DWARF 5,
 * section 2.5.1, that make sense in CFI. Neither blocks nor allocates; a loop in it ends after a
 * bounded number of steps. Returns 0; -ENODATA where memory that it needs was not copied; -ENOEXEC
 * for an operation that is unknown or impossible.
 */
int dp_expression_evaluate(const struct dp_expression_context *context, const Dwarf_Op *operations,
			   size_t n, uint64_t *ret);

#endif
