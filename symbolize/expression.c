/* SPDX-License-Identifier: MIT */
#include "symbolize/expression.h"

#include <dwarf.h>
#include <errno.h>

#define MAX_DEPTH 64
#define MAX_STEPS 1000

struct machine {
	const struct dp_expression_context *context;
	uint64_t stack[MAX_DEPTH];
	size_t depth;
};

static int push(struct machine *machine, uint64_t value)
{
	if (machine->depth == MAX_DEPTH)
		return -ENOEXEC;
	machine->stack[machine->depth++] = value;
	return 0;
}

static int push_register(struct machine *machine, uint64_t i, uint64_t offset)
{
	if (i >= DP_UNWIND_REGS)
		return -ENOEXEC;
	return push(machine, machine->context->regs[i] + offset);
}

/* Shifts @a right by @n bits, filling up with its sign. */
static uint64_t shift_arithmetic(uint64_t a, uint64_t n)
{
	uint64_t sign = a >> 63 ? UINT64_MAX : 0;

	if (n == 0)
		return a;
	return n < 64 ? a >> n | sign << (64 - n) : sign;
}

/* The operations on the two topmost values, of which one remains. */
static int binary(uint8_t atom, uint64_t a, uint64_t b, uint64_t *ret)
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
	case DW_OP_eq:
		*ret = a == b;
		return 0;
	case DW_OP_ne:
		*ret = a != b;
		return 0;
	case DW_OP_lt:
		*ret = (int64_t)a < (int64_t)b;
		return 0;
	case DW_OP_le:
		*ret = (int64_t)a <= (int64_t)b;
		return 0;
	case DW_OP_gt:
		*ret = (int64_t)a > (int64_t)b;
		return 0;
	case DW_OP_ge:
		*ret = (int64_t)a >= (int64_t)b;
		return 0;
	default:
		return -ENOEXEC;
	}
}

/* The operations on the topmost value alone. Returns 1 for any other. */
static int unary(const struct machine *machine, const Dwarf_Op *op, uint64_t *top)
{
	switch (op->atom) {
	case DW_OP_plus_uconst:
		*top += op->number;
		return 0;
	case DW_OP_neg:
		*top = -*top;
		return 0;
	case DW_OP_not:
		*top = ~*top;
		return 0;
	case DW_OP_deref:
		return machine->context->read(machine->context->memory, *top, top) ? 0 : -ENODATA;
	default:
		return 1;
	}
}

static int constant(struct machine *machine, const Dwarf_Op *op)
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
		return push(machine, machine->context->cfa);
	case DW_OP_addr:
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
	default:
		return 1;
	}
}

/* dup, drop, swap, over. Returns 1 for any other. */
static int shuffle(struct machine *machine, uint8_t atom)
{
	uint64_t *top = &machine->stack[machine->depth - 1];
	uint64_t value = *top;

	switch (atom) {
	case DW_OP_dup:
		return push(machine, value);
	case DW_OP_drop:
		machine->depth--;
		return 0;
	case DW_OP_over:
		return machine->depth < 2 ? -ENOEXEC : push(machine, top[-1]);
	case DW_OP_swap:
		if (machine->depth < 2)
			return -ENOEXEC;
		*top = top[-1];
		top[-1] = value;
		return 0;
	default:
		return 1;
	}
}

static int step(struct machine *machine, const Dwarf_Op *op)
{
	uint64_t *top;
	int r = constant(machine, op);

	if (r <= 0)
		return r;
	if (machine->depth == 0)
		return -ENOEXEC;
	top = &machine->stack[machine->depth - 1];
	r = unary(machine, op, top);
	if (r > 0)
		r = shuffle(machine, op->atom);
	if (r <= 0)
		return r;
	if (machine->depth < 2)
		return -ENOEXEC;
	machine->depth--;
	return binary(op->atom, top[-1], *top, &top[-1]);
}

int dp_expression_evaluate(const struct dp_expression_context *context, const Dwarf_Op *operations,
			   size_t n, uint64_t *ret)
{
	struct machine machine = {.context = context};

	if (n > MAX_STEPS)
		return -ENOEXEC;
	/* No branches: none occurs in CFI, and without them every expression ends. */
	for (size_t i = 0; i < n; i++) {
		int r = step(&machine, &operations[i]);

		if (r < 0)
			return r;
	}
	if (machine.depth == 0)
		return -ENOEXEC;
	*ret = machine.stack[machine.depth - 1];
	return 0;
}
