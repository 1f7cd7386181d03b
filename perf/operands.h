/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_OPERANDS_H
#define DP_PERF_OPERANDS_H

#include <stddef.h>
#include <stdint.h>

/*
 * The memory that code names by itself: operands whose address is in the instruction, relative to
 * it. That is how a program without symbols still tells where its variables are. One
 * implementation per architecture, perf/operands_NAME.c.
 */

enum dp_operand_kind {
	DP_OPERAND_LOAD,    /* read, or compared with */
	DP_OPERAND_STORE,   /* written, also when read before */
	DP_OPERAND_ADDRESS, /* only its address is taken */
};

struct dp_operand {
	uint64_t address;
	uint32_t offset_bytes; /* of the instruction, from the code's beginning */
	uint16_t bits;	       /* read or written; those of a pointer where the address is taken */
	enum dp_operand_kind kind;
};

/*
 * Lists the operands of @n_bytes of code at @code, which runs at @address, in the order of the
 * instructions, at most @max at @ret. What is no instruction is stepped over.
 *
 * Returns how many. Neither blocks nor allocates; any thread.
 */
size_t dp_arch_operands(const uint8_t *code, size_t n_bytes, uint64_t address,
			struct dp_operand *ret, size_t max);

#endif
