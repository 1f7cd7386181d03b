/* SPDX-License-Identifier: MIT */
/*
 * x86-64. The kernel emulates a probed instruction only if it is one of a few and else runs a copy
 * of it under the single-step trap, which is 4 to 13 times dearer. So a probe goes on the first
 * instruction that is emulated, as far as everything that is read there is still as at the entry.
 */
#include "perf/arch.h"

#include <Zydis/Zydis.h>
#include <asm/perf_regs.h>
#include <elf.h>
#include <errno.h>
#include <x86intrin.h>

const struct dp_arch dp_arch = {
	.alloc_entry = {.definition = "a0=%di:u64 a1=%si:u64 a2=%dx:u64 sp=%sp:u64 ra=$stack0:u64",
			.fields = {"a0", "a1", "a2", "sp", "ra"}},
	.alloc_return = {.definition = "ret=$retval:u64 dx=%dx:u64 sp=%sp:u64",
			 .fields = {"ret", "dx", "sp"}},
	.free_entry = {.definition = "a0=%di:u64 sp=%sp:u64", .fields = {[0] = "a0", [3] = "sp"}},
	.go_park = {.definition = "g=%r14:u64 reason=%cx:u8 ra=$stack0:u64",
		    .fields = {"g", "reason", "ra"}},
	.go_acquire = {.definition = "g=%r14:u64", .fields = {"g"}},
	.go_ready = {.definition = "g=%ax:u64", .fields = {"g"}},
	.return_sp_delta_bytes = 8,
	/* ax bx cx dx si di bp sp ip, then r8 … r15: the order of enum perf_event_x86_regs. */
	.user_regs_mask = 0x1ffULL | 0xffULL << PERF_REG_X86_R8,
	.user_regs_dwarf = {0, 3, 2, 1, 4, 5, 6, 7, 16, 8, 9, 10, 11, 12, 13, 14, 15},
	.elf_machine = EM_X86_64,
};

uint64_t dp_arch_ticks(void)
{
	_mm_lfence();
	return __rdtsc();
}

static const ZydisRegister argument_registers[DP_MAX_ARGS] = {
	ZYDIS_REGISTER_RDI, ZYDIS_REGISTER_RSI, ZYDIS_REGISTER_RDX,
	ZYDIS_REGISTER_RCX, ZYDIS_REGISTER_R8,	ZYDIS_REGISTER_R9,
};

/* A function's code and the instruction at an offset of it. */
struct reader {
	ZydisDecoder decoder;
	const uint8_t *code;
	size_t n_bytes;
	size_t offset_bytes;
	ZydisDecodedInstruction instruction;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

static bool decode_at(struct reader *r, size_t offset_bytes)
{
	r->offset_bytes = offset_bytes;
	return offset_bytes < r->n_bytes &&
	       ZYAN_SUCCESS(ZydisDecoderDecodeFull(&r->decoder, r->code + offset_bytes,
						   r->n_bytes - offset_bytes, &r->instruction,
						   r->operands));
}

static bool has_operand_size_prefix(const ZydisDecodedInstruction *instruction)
{
	for (size_t i = 0; i < instruction->raw.prefix_count; i++) {
		if (instruction->raw.prefixes[i].value == 0x66)
			return true;
	}
	return false;
}

/*
 * Whether every kernel emulates the instruction. Newer ones also do it for some longer nops.
 * Source: arch/x86/kernel/uprobes.c, branch_setup_xol_ops() and push_setup_xol_ops().
 */
static bool is_emulated(const struct reader *r)
{
	const ZydisDecodedInstruction *instruction = &r->instruction;
	uint8_t opcode = instruction->opcode;

	if (instruction->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return false;
	if (instruction->opcode_map == ZYDIS_OPCODE_MAP_0F) /* jcc rel32 */
		return opcode >= 0x80 && opcode <= 0x8f && !has_operand_size_prefix(instruction);
	if (instruction->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
		return false;
	if (opcode >= 0x50 && opcode <= 0x57) /* push of a register, alone or with REX.B */
		return instruction->length == 1 ||
		       (instruction->length == 2 && r->code[r->offset_bytes] == 0x41);
	if (opcode == 0x90)
		return instruction->mnemonic == ZYDIS_MNEMONIC_NOP;
	/* call, jmp rel32, jmp rel8, jcc rel8 */
	return (opcode == 0xe8 || opcode == 0xe9 || opcode == 0xeb || (opcode & 0xf0) == 0x70) &&
	       !has_operand_size_prefix(instruction);
}

/* Whether the operand is a register whose value at the entry is still needed. */
static bool is_watched(const ZydisDecodedOperand *operand, unsigned arg_mask)
{
	ZydisRegister whole;

	if (operand->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return false;
	whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, operand->reg.value);
	if (whole == ZYDIS_REGISTER_RSP)
		return true;
	for (unsigned i = 0; i < DP_MAX_ARGS; i++) {
		if ((arg_mask & DP_ARG(i)) && whole == argument_registers[i])
			return true;
	}
	return false;
}

/* Whether the operand is memory at the stack pointer or above, where the return address lies. */
static bool is_stack(const ZydisDecodedOperand *operand)
{
	return operand->type == ZYDIS_OPERAND_TYPE_MEMORY &&
	       operand->mem.base == ZYDIS_REGISTER_RSP &&
	       operand->mem.disp.value + operand->size / 8 > 0;
}

static bool overwrites(const struct reader *r, unsigned arg_mask)
{
	for (size_t i = 0; i < r->instruction.operand_count; i++) {
		const ZydisDecodedOperand *operand = &r->operands[i];

		if ((operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
		    (is_watched(operand, arg_mask) || is_stack(operand)))
			return true;
	}
	return false;
}

/* Whether something else than the next instruction may run after this one. */
static bool leaves_the_line(const struct reader *r)
{
	switch (r->instruction.meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_SYSTEM: /* hlt */
		return true;
	default:
		return r->instruction.mnemonic == ZYDIS_MNEMONIC_UD0 ||
		       r->instruction.mnemonic == ZYDIS_MNEMONIC_UD1 ||
		       r->instruction.mnemonic == ZYDIS_MNEMONIC_UD2;
	}
}

/* Whether a branch leads to a place after the entry, up to @last. */
static bool is_jumped_to(struct reader *r, size_t last)
{
	size_t step;

	for (size_t at = 0; at < r->n_bytes; at += step) {
		ZyanU64 target;

		step = 1; /* what is no instruction is padding or data */
		if (!decode_at(r, at))
			continue;
		step = r->instruction.length;
		if (r->instruction.operand_count_visible > 0 &&
		    r->operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
		    r->operands[0].imm.is_relative &&
		    ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&r->instruction, &r->operands[0], at,
							  &target)) &&
		    target > 0 && target <= last)
			return true;
	}
	return false;
}

static struct dp_placement at_entry(const char *why)
{
	return (struct dp_placement){.why = why};
}

static struct dp_placement at_emulated(struct reader *r, size_t offset_bytes)
{
	if (offset_bytes > 0 && is_jumped_to(r, offset_bytes))
		return at_entry("entry: a branch of the function leads back before the first "
				"emulated instruction");
	return (struct dp_placement){.offset_bytes = (uint32_t)offset_bytes,
				     .emulated = true,
				     .why = offset_bytes > 0 ? "first emulated instruction"
							     : "entry: emulated"};
}

static struct dp_placement walk(struct reader *r, unsigned arg_mask)
{
	for (size_t at = 0; decode_at(r, at); at += r->instruction.length) {
		if (is_emulated(r))
			return at_emulated(r, at);
		if (overwrites(r, arg_mask))
			return at_entry("entry: the stack pointer or an argument is overwritten "
					"before the first emulated instruction");
		if (leaves_the_line(r))
			return at_entry("entry: no emulated instruction before the first branch");
	}
	return at_entry("entry: no emulated instruction in the code given");
}

int dp_arch_place(const uint8_t *code, size_t n_bytes, unsigned arg_mask, struct dp_placement *ret)
{
	struct reader r = {.code = code, .n_bytes = n_bytes};

	if (n_bytes == 0 || arg_mask >= DP_ARG(DP_MAX_ARGS))
		return -EINVAL;
	if (ZYAN_FAILED(
		    ZydisDecoderInit(&r.decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)))
		return -ENOEXEC;
	if (!decode_at(&r, 0))
		return -ENOEXEC;
	*ret = walk(&r, arg_mask);
	return 0;
}

/* Whether the instruction is of the stack check: it compares the stack pointer, or what it makes of
 * that in r12, with what g (r14) says. Source: Go, src/cmd/internal/obj/x86/obj6.go, stacksplit().
 */
static bool is_of_stack_check(const struct reader *r)
{
	const ZydisDecodedOperand *first = &r->operands[0], *second = &r->operands[1];

	if (r->instruction.mnemonic == ZYDIS_MNEMONIC_CMP)
		return (first->type == ZYDIS_OPERAND_TYPE_MEMORY &&
			first->mem.base == ZYDIS_REGISTER_R14) ||
		       (second->type == ZYDIS_OPERAND_TYPE_MEMORY &&
			second->mem.base == ZYDIS_REGISTER_R14);
	return (r->instruction.mnemonic == ZYDIS_MNEMONIC_LEA ||
		r->instruction.mnemonic == ZYDIS_MNEMONIC_MOV) &&
	       first->type == ZYDIS_OPERAND_TYPE_REGISTER && first->reg.value == ZYDIS_REGISTER_R12;
}

/* Finds the instruction behind the stack check; there may be none. Leaves it decoded. */
static bool skip_stack_check(struct reader *r, size_t *ret_at)
{
	size_t at = 0;

	if (!decode_at(r, at))
		return false;
	while (is_of_stack_check(r)) {
		at += r->instruction.length;
		if (!decode_at(r, at))
			return false;
	}
	if (at > 0 && r->instruction.mnemonic != ZYDIS_MNEMONIC_JBE)
		return false;
	if (at > 0)
		at += r->instruction.length;
	*ret_at = at;
	return decode_at(r, at);
}

static bool is_push_of_frame_pointer(const struct reader *r)
{
	return r->instruction.mnemonic == ZYDIS_MNEMONIC_PUSH && r->instruction.length == 1 &&
	       r->operands[0].reg.value == ZYDIS_REGISTER_RBP;
}

static bool writes(const struct reader *r, ZydisRegister whole)
{
	for (size_t i = 0; i < r->instruction.operand_count; i++) {
		const ZydisDecodedOperand *operand = &r->operands[i];

		if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    (operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
		    ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64,
						     operand->reg.value) == whole)
			return true;
	}
	return false;
}

static bool writes_go_register(const struct reader *r)
{
	return writes(r, ZYDIS_REGISTER_R14) || writes(r, ZYDIS_REGISTER_RCX) ||
	       writes(r, ZYDIS_REGISTER_RAX);
}

/* Moves past `sub $N,%rsp; mov %rbp,M(%rsp); lea M(%rsp),%rbp`, the frame's set-up before Go 1.21.
 */
static bool skip_frame(struct reader *r, size_t *at)
{
	static const ZydisMnemonic steps[] = {ZYDIS_MNEMONIC_SUB, ZYDIS_MNEMONIC_MOV,
					      ZYDIS_MNEMONIC_LEA};

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		if (!decode_at(r, *at) || r->instruction.mnemonic != steps[i] ||
		    writes_go_register(r))
			return false;
		*at += r->instruction.length;
	}
	return writes(r, ZYDIS_REGISTER_RBP) && decode_at(r, *at);
}

/* The first emulated instruction from @at on, up to the first branch; else @at itself. */
static struct dp_placement behind_frame(struct reader *r, size_t at)
{
	struct dp_placement place = {.offset_bytes = (uint32_t)at, .why = "behind the frame"};

	for (; decode_at(r, at); at += r->instruction.length) {
		if (is_emulated(r))
			return (struct dp_placement){
				.offset_bytes = (uint32_t)at,
				.emulated = true,
				.why = "first emulated instruction behind the frame"};
		if (writes_go_register(r) || leaves_the_line(r))
			break;
	}
	return place;
}

int dp_arch_place_go(const uint8_t *code, size_t n_bytes, struct dp_go_placement *ret)
{
	struct reader r = {.code = code, .n_bytes = n_bytes};
	struct dp_go_placement found = {.has_frame = false};
	size_t at;

	if (n_bytes == 0)
		return -EINVAL;
	if (ZYAN_FAILED(ZydisDecoderInit(&r.decoder, ZYDIS_MACHINE_MODE_LONG_64,
					 ZYDIS_STACK_WIDTH_64)) ||
	    !skip_stack_check(&r, &at))
		return -ENOEXEC;
	if (is_push_of_frame_pointer(&r)) {
		found.place = (struct dp_placement){.offset_bytes = (uint32_t)at,
						    .emulated = true,
						    .why = "behind the stack check"};
	} else if (skip_frame(&r, &at)) {
		found.place = behind_frame(&r, at);
		found.has_frame = true;
	} else {
		return -ENOEXEC;
	}
	if (is_jumped_to(&r, found.place.offset_bytes))
		return -ENOEXEC;
	*ret = found;
	return 0;
}
