/* SPDX-License-Identifier: MIT */
#include "symbolize/expression.h"

#include <dwarf.h>
#include <errno.h>
#include <string.h>

/*
 * The one hard idea: everything that an expression touches may be missing (a register that no one
 * saved, memory beyond the copy), and missing must end the stack: a guess would go on to a wrong
 * frame.
 */

#define MAX_DEPTH 64

struct machine {
	const struct dp_expression_context *context;
	uint64_t stack[MAX_DEPTH];
	size_t depth;
};

bool dp_stack_read(const struct dp_unwind_sample *sample, uint64_t avma, size_t n_bytes,
		   uint64_t *ret)
{
	uint64_t at = avma - sample->regs[DP_UNWIND_REG_SP], value = 0;

	if (n_bytes > sizeof(value) || sample->stack_bytes < n_bytes ||
	    at > sample->stack_bytes - n_bytes)
		return false;
	memcpy(&value, sample->stack + at, n_bytes);
	*ret = value;
	return true;
}

static int push(struct machine *machine, uint64_t value)
{
	if (machine->depth == MAX_DEPTH)
		return -ENOEXEC;
	machine->stack[machine->depth++] = value;
	return 0;
}

static int push_register(struct machine *machine, uint64_t i, uint64_t offset)
{
	if (!dp_registers_know(machine->context->registers, i))
		return -ENOEXEC;
	return push(machine, machine->context->registers->value[i] + offset);
}

static int push_cfa(struct machine *machine)
{
	return machine->context->cfa ? push(machine, *machine->context->cfa) : -ENOEXEC;
}

/* What pushes a value and needs none. Returns 1 for any other operation. */
static int run_push(struct machine *machine, const Dwarf_Op *op)
{
	uint8_t atom = op->atom;

	if (atom >= DW_OP_lit0 && atom <= DW_OP_lit31)
		return push(machine, atom - DW_OP_lit0);
	if (atom >= DW_OP_breg0 && atom <= DW_OP_breg31)
		return push_register(machine, atom - DW_OP_breg0, op->number);
	switch (atom) {
	case DW_OP_bregx:
		return push_register(machine, op->number, op->number2);
	case DW_OP_call_frame_cfa:
		return push_cfa(machine);
	case DW_OP_const1u:
	case DW_OP_const1s:
	case DW_OP_const2u:
	case DW_OP_const2s:
	case DW_OP_const4u:
	case DW_OP_const4s:
	case DW_OP_const8u:
	case DW_OP_const8s:
	case DW_OP_constu:
	case DW_OP_consts:
		return push(machine, op->number);
	case DW_OP_nop:
		return 0;
	default:
		return 1;
	}
}

static int dereference(const struct machine *machine, uint64_t n_bytes, uint64_t *top)
{
	if (n_bytes < 1 || n_bytes > sizeof(*top))
		return -ENOEXEC;
	return dp_stack_read(machine->context->sample, *top, n_bytes, top) ? 0 : -ENODATA;
}

/* What changes the topmost value. Returns 1 for any other operation. */
static int run_unary(const struct machine *machine, const Dwarf_Op *op, uint64_t *top)
{
	switch (op->atom) {
	case DW_OP_plus_uconst:
		*top += op->number;
		return 0;
	case DW_OP_neg:
		*top = -*top;
		return 0;
	case DW_OP_abs:
		*top = (int64_t)*top < 0 ? -*top : *top;
		return 0;
	case DW_OP_not:
		*top = ~*top;
		return 0;
	case DW_OP_deref:
		return dereference(machine, sizeof(*top), top);
	case DW_OP_deref_size:
		return dereference(machine, op->number, top);
	default:
		return 1;
	}
}

/* What moves values about. There is one at least. Returns 1 for any other operation. */
static int run_shuffle(struct machine *machine, const Dwarf_Op *op)
{
	uint64_t *top = &machine->stack[machine->depth - 1];
	uint64_t value = *top;

	switch (op->atom) {
	case DW_OP_dup:
		return push(machine, value);
	case DW_OP_drop:
		machine->depth--;
		return 0;
	case DW_OP_over:
		return machine->depth < 2 ? -ENOEXEC : push(machine, top[-1]);
	case DW_OP_pick:
		return op->number < machine->depth ? push(machine, *(top - op->number)) : -ENOEXEC;
	case DW_OP_swap:
		if (machine->depth < 2)
			return -ENOEXEC;
		*top = top[-1];
		top[-1] = value;
		return 0;
	case DW_OP_rot:
		if (machine->depth < 3)
			return -ENOEXEC;
		*top = top[-1];
		top[-1] = top[-2];
		top[-2] = value;
		return 0;
	default:
		return 1;
	}
}

/* Shifts @a right by @n bits, filling up with its sign. */
static uint64_t shift_arithmetic(uint64_t a, uint64_t n)
{
	uint64_t sign = a >> 63 ? UINT64_MAX : 0;

	if (n == 0)
		return a;
	return n < 64 ? a >> n | sign << (64 - n) : sign;
}

/* What makes one value of two. Returns 1 for any other operation. */
static int run_binary(uint8_t atom, uint64_t a, uint64_t b, uint64_t *ret)
{
	switch (atom) {
	case DW_OP_and:
		*ret = a & b;
		return 0;
	case DW_OP_or:
		*ret = a | b;
		return 0;
	case DW_OP_xor:
		*ret = a ^ b;
		return 0;
	case DW_OP_plus:
		*ret = a + b;
		return 0;
	case DW_OP_minus:
		*ret = a - b;
		return 0;
	case DW_OP_mul:
		*ret = a * b;
		return 0;
	case DW_OP_shl:
		*ret = b < 64 ? a << b : 0;
		return 0;
	case DW_OP_shr:
		*ret = b < 64 ? a >> b : 0;
		return 0;
	case DW_OP_shra:
		*ret = shift_arithmetic(a, b);
		return 0;
	default:
		return 1;
	}
}

/* Comparisons are signed. Source: DWARF 5, section 2.5.1.5. */
static int run_comparison(uint8_t atom, int64_t a, int64_t b, uint64_t *ret)
{
	switch (atom) {
	case DW_OP_eq:
		*ret = a == b;
		return 0;
	case DW_OP_ne:
		*ret = a != b;
		return 0;
	case DW_OP_lt:
		*ret = a < b;
		return 0;
	case DW_OP_le:
		*ret = a <= b;
		return 0;
	case DW_OP_gt:
		*ret = a > b;
		return 0;
	case DW_OP_ge:
		*ret = a >= b;
		return 0;
	default:
		return -ENOEXEC;
	}
}

static int run(struct machine *machine, const Dwarf_Op *op)
{
	uint64_t *top;
	int r = run_push(machine, op);

	if (r <= 0)
		return r;
	if (machine->depth == 0)
		return -ENOEXEC;
	top = &machine->stack[machine->depth - 1];
	r = run_unary(machine, op, top);
	if (r > 0)
		r = run_shuffle(machine, op);
	if (r <= 0)
		return r;
	if (machine->depth < 2)
		return -ENOEXEC;
	machine->depth--;
	r = run_binary(op->atom, top[-1], *top, &top[-1]);
	if (r > 0)
		r = run_comparison(op->atom, (int64_t)top[-1], (int64_t)*top, &top[-1]);
	return r;
}

int dp_expression_evaluate(const struct dp_expression_context *context, const Dwarf_Op *operations,
			   size_t n, uint64_t *ret)
{
	struct machine machine = {.context = context};

	for (size_t i = 0; i < n; i++) {
		int r = run(&machine, &operations[i]);

		if (r < 0)
			return r;
	}
	if (machine.depth == 0)
		return -ENOEXEC;
	*ret = machine.stack[machine.depth - 1];
	return 0;
}
