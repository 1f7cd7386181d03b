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

static int evaluate_with(uint32_t known, const uint64_t *cfa, const Dwarf_Op *operations, size_t n,
			 uint64_t *ret)
{
	static const uint64_t memory[2] = {111, 0x1122334455667788};
	const struct dp_unwind_sample sample = {.regs = {[DP_UNWIND_REG_SP] = STACK},
						.stack = (const uint8_t *)memory,
						.stack_bytes = sizeof(memory)};
	const struct dp_registers registers = {.value = {[DP_UNWIND_REG_BP] = 600,
							 [DP_UNWIND_REG_SP] = STACK,
							 [DP_UNWIND_REG_PC] = 0x40100b},
					       .known = known};
	const struct dp_expression_context context = {
		.sample = &sample, .registers = &registers, .cfa = cfa};

	return dp_expression_evaluate(&context, operations, n, ret);
}

static int evaluate(const Dwarf_Op *operations, size_t n, uint64_t *ret)
{
	static const uint64_t cfa = 5000;

	return evaluate_with(UINT32_MAX, &cfa, operations, n, ret);
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
	EXPECT(1, LIT(1), OP(neg), LIT(0), OP(lt));
	EXPECT(0, LIT(1), LIT(1), OP(ne));
	EXPECT(~UINT64_C(3), LIT(3), OP(not ));
	EXPECT(3, LIT(3), OP(neg), OP(abs));
	EXPECT(4, LIT(3), OP(nop), LIT(1), OP(plus));
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
	EXPECT(9, LIT(9), LIT(4), LIT(1), {.atom = DW_OP_pick, .number = 2});
	EXPECT(-8, LIT(9), LIT(4), LIT(1), OP(rot), OP(drop), OP(minus));
}

static void memory_is_read_from_the_copy_alone(void **state)
{
	(void)state;
	EXPECT(0x1122334455667788, {.atom = DW_OP_breg7, .number = 8}, OP(deref));
	EXPECT(0x7788, {.atom = DW_OP_breg7, .number = 8}, {.atom = DW_OP_deref_size, .number = 2});
	EXPECT(0x11, {.atom = DW_OP_breg7, .number = 15}, {.atom = DW_OP_deref_size, .number = 1});
	EXPECT_FAILURE(-ENODATA, {.atom = DW_OP_breg7, .number = 9}, OP(deref));
	EXPECT_FAILURE(-ENODATA, {.atom = DW_OP_breg7, .number = 16}, OP(deref));
	EXPECT_FAILURE(-ENODATA, {.atom = DW_OP_breg7, .number = (Dwarf_Word)-1}, OP(deref));
	EXPECT_FAILURE(-ENOEXEC, {.atom = DW_OP_breg7}, {.atom = DW_OP_deref_size, .number = 0});
	EXPECT_FAILURE(-ENOEXEC, {.atom = DW_OP_breg7}, {.atom = DW_OP_deref_size, .number = 9});
}

static void what_is_not_known_is_not_guessed(void **state)
{
	const Dwarf_Op frame_pointer = {.atom = DW_OP_breg6}, cfa = OP(call_frame_cfa);
	const uint64_t value = 5000;
	uint64_t got;

	(void)state;
	assert_int_equal(evaluate_with(1u << 6, &value, &frame_pointer, 1, &got), 0);
	assert_int_equal(evaluate_with(~(1u << 6), &value, &frame_pointer, 1, &got), -ENOEXEC);
	assert_int_equal(evaluate_with(UINT32_MAX, &value, &cfa, 1, &got), 0);
	assert_int_equal(evaluate_with(UINT32_MAX, NULL, &cfa, 1, &got), -ENOEXEC);
}

static void what_makes_no_sense_is_refused(void **state)
{
	Dwarf_Op many[66];
	uint64_t got;

	(void)state;
	EXPECT_FAILURE(-ENOEXEC, OP(plus));
	EXPECT_FAILURE(-ENOEXEC, LIT(1), OP(plus));
	EXPECT_FAILURE(-ENOEXEC, LIT(1), OP(swap));
	EXPECT_FAILURE(-ENOEXEC, LIT(1), OP(over));
	EXPECT_FAILURE(-ENOEXEC, LIT(1), LIT(1), OP(rot));
	EXPECT_FAILURE(-ENOEXEC, LIT(1), {.atom = DW_OP_pick, .number = 1});
	EXPECT_FAILURE(-ENOEXEC, LIT(1), OP(drop));
	EXPECT_FAILURE(-ENOEXEC, OP(dup));
	EXPECT_FAILURE(-ENOEXEC, {.atom = DW_OP_breg31, .number = 0});
	EXPECT_FAILURE(-ENOEXEC, LIT(1), OP(skip));
	EXPECT_FAILURE(-ENOEXEC, LIT(1), LIT(1), {.atom = 0xff});
	for (size_t i = 0; i < 66; i++)
		many[i] = (Dwarf_Op)LIT(1);
	assert_int_equal(evaluate(many, 64, &got), 0);
	assert_int_equal(evaluate(many, 65, &got), -ENOEXEC); /* deeper than the stack */
	assert_int_equal(evaluate(many, 0, &got), -ENOEXEC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_linkers_rule_for_procedure_linkage_tables_is_understood),
		cmocka_unit_test(arithmetic_is_that_of_the_dwarf_standard),
		cmocka_unit_test(the_stack_can_be_shuffled),
		cmocka_unit_test(memory_is_read_from_the_copy_alone),
		cmocka_unit_test(what_is_not_known_is_not_guessed),
		cmocka_unit_test(what_makes_no_sense_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
