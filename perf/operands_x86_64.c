/* SPDX-License-Identifier: MIT */
/*
 * x86-64: a variable's address is the next instruction's plus 32 bits of the instruction.
 */
#include "perf/operands.h"

#include <Zydis/Zydis.h>
#include <stdbool.h>

static bool operand_of(const ZydisDecodedInstruction *instruction,
		       const ZydisDecodedOperand *operand, uint64_t at, struct dp_operand *ret)
{
	ZyanU64 address;

	if (operand->type != ZYDIS_OPERAND_TYPE_MEMORY || operand->mem.base != ZYDIS_REGISTER_RIP ||
	    ZYAN_FAILED(ZydisCalcAbsoluteAddress(instruction, operand, at, &address)))
		return false;
	ret->address = address;
	ret->bits = operand->size;
	if (operand->mem.type == ZYDIS_MEMOP_TYPE_AGEN) {
		ret->kind = DP_OPERAND_ADDRESS;
		ret->bits = 64;
	} else if (operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) {
		ret->kind = DP_OPERAND_STORE;
	} else {
		ret->kind = DP_OPERAND_LOAD;
	}
	return true;
}

size_t dp_arch_operands(const uint8_t *code, size_t n_bytes, uint64_t address,
			struct dp_operand *ret, size_t max)
{
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction instruction;
	ZydisDecoder decoder;
	size_t n = 0, at = 0;

	if (ZYAN_FAILED(
		    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)))
		return 0;
	while (at < n_bytes) {
		if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, code + at, n_bytes - at,
						       &instruction, operands))) {
			at++;
			continue;
		}
		for (size_t i = 0; i < instruction.operand_count_visible && n < max; i++) {
			if (operand_of(&instruction, &operands[i], address + at, &ret[n]))
				ret[n++].offset_bytes = (uint32_t)at;
		}
		at += instruction.length;
	}
	return n;
}
