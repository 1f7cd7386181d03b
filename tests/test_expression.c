/* SPDX-License-Identifier: MIT */
#include <dwarf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "symbolize/expression.h"

#define STACK 0x1000u

static bool read_word(const void *memory, uint64_t avma, uint64_t *ret)
{
	if (avma < STACK || avma > STACK + 8)
		return false;
	*ret = ((const uint64_t *)memory)[(avma - STACK) / 8];
	return true;
}

static int evaluate(const Dwarf_Op *operations, size_t n, uint64_t *ret)
{
	static const uint64_t regs[DP_UNWIND_REGS] = {[6] = 600, [7] = STACK, [16] = 0x40100b};
	static const uint64_t memory[2] = {111, 222};
	const struct dp_expression_context context = {
		.regs = regs, .cfa = 5000, .read = read_word, .memory = memory};

	return dp_expression_evaluate(&context, operations, n, ret);
}

#define EXPECT(value, ...)                                                                \
	do {                                                                              \
		const Dwarf_Op ops_[] = {__VA_ARGS__};                                    \
		uint64_t got_ = 0;                                                        \
		assert_int_equal(evaluate(ops_, sizeof(ops_) / sizeof(*ops_), &got_), 0); \
		assert_int_equal(got_, (uint64_t)(value));                                \
	} while (0)

#define EXPECT_FAILURE(code, ...)                                                            \
	do {                                                                                 \
		const Dwarf_Op ops_[] = {__VA_ARGS__};                                       \
		uint64_t got_ = 77;                                                          \
		assert_int_equal(evaluate(ops_, sizeof(ops_) / sizeof(*ops_), &got_), code); \
		assert_int_equal(got_, 77);                                                  \
	} while (0)

#define LIT(n)                                      \
	{                                           \
		.atom = (uint8_t)(DW_OP_lit0 + (n)) \
	}
#define OP(name)                     \
	{                            \
		.atom = DW_OP_##name \
	}

static void the_linkers_rule_for_procedure_linkage_tables_is_understood(void **state)
{
	/* breg7 8, breg16 0, lit15, and, lit11, ge, lit3, shl, plus: 8 more once the push is done.
	 */
	(void)state;
	EXPECT(STACK + 8 + 8, {.atom = DW_OP_breg7, .number = 8},
	       {.atom = DW_OP_breg16, .number = 0}, LIT(15), OP(and), LIT(11), OP(ge), LIT(3),
	       OP(shl), OP(plus));
}

static void arithmetic_is_that_of_the_dwarf_standard(void **state)
{
	(void)state;
	EXPECT(5, LIT(9), LIT(4), OP(minus));
	EXPECT(-5, LIT(4), LIT(9), OP(minus));
	EXPECT(36, LIT(9), LIT(4), OP(mul));
	EXPECT(13, LIT(9), LIT(4), OP(or));
	EXPECT(13, LIT(9), LIT(4), OP(xor));
	EXPECT(2, LIT(9), LIT(2), OP(shr));
	EXPECT(-1, LIT(1), OP(neg), LIT(2), OP(shra));
	EXPECT(2, LIT(9), LIT(2), OP(shra));
	EXPECT(-1, LIT(1), OP(neg), {.atom = DW_OP_const1u, .number = 200}, OP(shra));
	EXPECT(1, LIT(1), OP(neg), LIT(0), OP(lt));
	EXPECT(0, LIT(1), LIT(1), OP(ne));
	EXPECT(~UINT64_C(3), LIT(3), OP(not ));
	EXPECT(0, LIT(1), {.atom = DW_OP_const1u, .number = 64}, OP(shl));
	EXPECT(605, {.atom = DW_OP_bregx, .number = 6, .number2 = 5});
	EXPECT(5016, OP(call_frame_cfa), {.atom = DW_OP_plus_uconst, .number = 16});
}

static void the_stack_can_be_shuffled(void **state)
{
	(void)state;
	EXPECT(18, LIT(9), OP(dup), OP(plus));
	EXPECT(-5, LIT(9), LIT(4), OP(swap), OP(minus));
	EXPECT(9, LIT(9), LIT(4), OP(drop));
	EXPECT(9, LIT(9), LIT(4), OP(over));
}

static void memory_is_read_from_the_copy_alone(void **state)
{
	(void)state;
	EXPECT(222, {.atom = DW_OP_breg7, .number = 8}, OP(deref));
	EXPECT_FAILURE(-ENODATA, {.atom = DW_OP_breg7, .number = 16}, OP(deref));
}

static void what_makes_no_sense_is_refused(void **state)
{
	Dwarf_Op many[1001];
	uint64_t got;

	(void)state;
	EXPECT_FAILURE(-ENOEXEC, OP(plus));
	EXPECT_FAILURE(-ENOEXEC, LIT(1), OP(plus));
	EXPECT_FAILURE(-ENOEXEC, LIT(1), OP(swap));
	EXPECT_FAILURE(-ENOEXEC, LIT(1), OP(drop));
	EXPECT_FAILURE(-ENOEXEC, OP(dup));
	EXPECT_FAILURE(-ENOEXEC, {.atom = DW_OP_breg31, .number = 0});
	EXPECT_FAILURE(-ENOEXEC, LIT(1), OP(skip));
	EXPECT_FAILURE(-ENOEXEC, LIT(1), LIT(1), {.atom = 0xff});
	for (size_t i = 0; i < 1001; i++)
		many[i] = (Dwarf_Op)LIT(1);
	assert_int_equal(evaluate(many, 65, &got), -ENOEXEC); /* deeper than the stack */
	assert_int_equal(evaluate(many, 1001, &got), -ENOEXEC);
	assert_int_equal(evaluate(many, 0, &got), -ENOEXEC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_linkers_rule_for_procedure_linkage_tables_is_understood),
		cmocka_unit_test(arithmetic_is_that_of_the_dwarf_standard),
		cmocka_unit_test(the_stack_can_be_shuffled),
		cmocka_unit_test(memory_is_read_from_the_copy_alone),
		cmocka_unit_test(what_makes_no_sense_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
