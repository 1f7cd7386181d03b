/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "perf/arch.h"

#define FIRST DP_ARG(0)
#define TWO (DP_ARG(0) | DP_ARG(1))
#define THREE (DP_ARG(0) | DP_ARG(1) | DP_ARG(2))

static void expect(const uint8_t *code, size_t n_bytes, unsigned arg_mask, uint32_t offset_bytes,
		   bool emulated)
{
	struct dp_placement place = {.offset_bytes = 99};
	uint8_t *exact = malloc(n_bytes); /* a sanitizer sees a read past it */

	assert_non_null(exact);
	memcpy(exact, code, n_bytes);
	assert_int_equal(dp_arch_place(exact, n_bytes, arg_mask, &place), 0);
	assert_int_equal(place.offset_bytes, offset_bytes);
	assert_int_equal(place.emulated, emulated);
	assert_non_null(place.why);
	free(exact);
}

/* The placement in the code that is the last arguments. */
#define EXPECT_EMULATED_AT(offset, mask, ...)                                                \
	expect((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), mask, \
	       offset, true)
#define EXPECT_ENTRY(mask, ...)                                                                 \
	expect((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), mask, 0, \
	       false)

#define ENDBR64 0xf3, 0x0f, 0x1e, 0xfa
#define TEST_RDI_RDI 0x48, 0x85, 0xff
#define PUSH_RBP 0x55
#define RET 0xc3

/* Functions as distributions ship them. */

static void glibc_malloc_is_probed_at_its_push(void **state)
{
	(void)state;
	/* push %r12; push %rbp; push %rbx; mov %rdi,%rbx */
	EXPECT_EMULATED_AT(0, FIRST, 0x41, 0x54, 0x55, 0x53, 0x48, 0x89, 0xfb);
}

static void glibc_free_is_probed_at_the_jump_after_its_test(void **state)
{
	(void)state;
	/* test %rdi,%rdi; je +0xbf; push %rbp; lea -0x10(%rdi),%rsi */
	EXPECT_EMULATED_AT(3, FIRST, TEST_RDI_RDI, 0x0f, 0x84, 0xbf, 0, 0, 0, PUSH_RBP, 0x48, 0x8d,
			   0x77, 0xf0);
}

static void glibc_reallocarray_overwrites_an_argument_by_its_multiplication(void **state)
{
	(void)state;
	/* mov %rsi,%rax; mul %rdx; mov %rax,%rsi; jo +5; jmp realloc */
	EXPECT_ENTRY(THREE, 0x48, 0x89, 0xf0, 0x48, 0xf7, 0xe2, 0x48, 0x89, 0xc6, 0x70, 0x05, 0xe9,
		     0x40, 0xb8, 0xf8, 0xff);
}

static void glibc_memalign_is_probed_at_the_jump_after_its_flag(void **state)
{
	(void)state;
	/* cmpb $0,0x140e71(%rip); je +7; jmp */
	EXPECT_EMULATED_AT(7, TWO, 0x80, 0x3d, 0x71, 0x0e, 0x14, 0, 0, 0x74, 0x07, 0xe9, 0x32, 0xf6,
			   0xff, 0xff);
}

static void jemalloc_malloc_is_probed_at_its_size_check(void **state)
{
	(void)state;
	/* cmp $0x1000,%rdi; ja; lea 0x2c7f5c(%rip),%rdx */
	EXPECT_EMULATED_AT(7, FIRST, 0x48, 0x81, 0xff, 0, 0x10, 0, 0, 0x0f, 0x87, 0x93, 0, 0, 0,
			   0x48, 0x8d, 0x15, 0x5c, 0x7f, 0x2c, 0);
}

static void jemalloc_free_is_probed_far_from_its_entry(void **state)
{
	(void)state;
	/* mov %rdi,%rax; mov (%rip),%rdx; mov %rdi,%rcx; shr; and; and; add %fs:0,%rax; add; cmp;
	 * jne: registers that hold no argument of free change */
	EXPECT_EMULATED_AT(0x30, FIRST, 0x48, 0x89, 0xf8, 0x48, 0x8b, 0x15, 0x0e, 0x53, 0x0a, 0,
			   0x48, 0x89, 0xf9, 0x48, 0xc1, 0xe8, 0x1a, 0x48, 0x81, 0xe1, 0, 0, 0,
			   0xc0, 0x25, 0xf0, 0, 0, 0, 0x64, 0x48, 0x03, 0x04, 0x25, 0, 0, 0, 0,
			   0x48, 0x01, 0xd0, 0x48, 0x3b, 0x88, 0xb0, 0x01, 0, 0, 0x0f, 0x85, 0x8a,
			   0, 0, 0);
}

static void mimalloc_realloc_overwrites_its_arguments_before_its_jump(void **state)
{
	static const uint8_t code[] = {0x48, 0x8b, 0x05, 0x49, 0xa9, 0,	   0,	 0x48, 0x89,
				       0xf2, 0x48, 0x89, 0xfe, 0x64, 0x48, 0x8b, 0,    0x48,
				       0x89, 0xc7, 0xe9, 0xf7, 0x4e, 0xff, 0xff};

	(void)state;
	/* mov (%rip),%rax; mov %rsi,%rdx; mov %rdi,%rsi; mov %fs:(%rax),%rax; mov %rax,%rdi; jmp */
	expect(code, sizeof(code), TWO, 0, false);
	expect(code, sizeof(code), FIRST, 0, false);
	expect(code, sizeof(code), 0, 20, true); /* were none of them read */
}

static void operator_new_nothrow_moves_the_stack_before_its_call(void **state)
{
	(void)state;
	/* _ZnamRKSt9nothrow_t: endbr64; sub $8,%rsp; call */
	EXPECT_ENTRY(FIRST, ENDBR64, 0x48, 0x83, 0xec, 0x08, 0xe8, 0x4b, 0x3b, 0xff, 0xff);
}

static void operator_delete_is_probed_at_its_tail_jump(void **state)
{
	(void)state;
	/* _ZdlPv: endbr64; jmp free */
	EXPECT_EMULATED_AT(4, FIRST, ENDBR64, 0xe9, 0x87, 0x2f, 0xff, 0xff);
}

/* What is emulated. */

static void pushes_are_emulated_with_and_without_rex_b(void **state)
{
	(void)state;
	for (uint8_t i = 0; i < 8; i++) {
		EXPECT_EMULATED_AT(0, THREE, 0x50 + i);
		EXPECT_EMULATED_AT(0, THREE, 0x41, 0x50 + i);
		EXPECT_ENTRY(THREE, 0x48, 0x50 + i); /* REX.W */
		EXPECT_ENTRY(THREE, 0x66, 0x50 + i); /* 16 bits */
	}
	EXPECT_ENTRY(THREE, 0x6a, 0x01, 0xeb, 0x00);			/* push $1 */
	EXPECT_ENTRY(THREE, 0xff, 0x30, 0xeb, 0x00);			/* push (%rax) */
	EXPECT_EMULATED_AT(4, THREE, 0x48, 0x83, 0xc0, 0x01, PUSH_RBP); /* add $1,%rax first */
}

static void all_conditional_jumps_are_emulated_but_those_that_count(void **state)
{
	(void)state;
	for (uint8_t i = 0; i < 16; i++) {
		EXPECT_EMULATED_AT(3, FIRST, TEST_RDI_RDI, 0x70 + i, 0x10);
		EXPECT_EMULATED_AT(3, FIRST, TEST_RDI_RDI, 0x0f, 0x80 + i, 0x10, 0, 0, 0);
		EXPECT_ENTRY(FIRST, TEST_RDI_RDI, 0x66, 0x70 + i, 0x10);
	}
	for (uint8_t i = 0; i < 4; i++) /* loopne loope loop jrcxz; what follows is not reached */
		EXPECT_ENTRY(FIRST, TEST_RDI_RDI, 0xe0 + i, 0x10, PUSH_RBP);
}

static void jumps_and_calls_are_emulated_unless_indirect(void **state)
{
	(void)state;
	EXPECT_EMULATED_AT(3, FIRST, TEST_RDI_RDI, 0xe9, 0, 1, 0, 0);
	EXPECT_EMULATED_AT(3, FIRST, TEST_RDI_RDI, 0xeb, 0x10);
	EXPECT_EMULATED_AT(3, FIRST, TEST_RDI_RDI, 0xe8, 0, 1, 0, 0);
	EXPECT_ENTRY(FIRST, TEST_RDI_RDI, 0x66, 0xe8, 0, 1, 0, 0, PUSH_RBP);
	EXPECT_ENTRY(FIRST, TEST_RDI_RDI, 0xff, 0xe0, PUSH_RBP); /* jmp *%rax */
	EXPECT_ENTRY(FIRST, TEST_RDI_RDI, 0xff, 0xd0, PUSH_RBP); /* call *%rax */
}

static void short_nops_are_emulated_and_longer_ones_passed_over(void **state)
{
	(void)state;
	EXPECT_EMULATED_AT(0, FIRST, 0x90);
	EXPECT_EMULATED_AT(0, FIRST, 0x66, 0x90);
	EXPECT_EMULATED_AT(4, FIRST, 0x0f, 0x1f, 0x40, 0, PUSH_RBP);
	EXPECT_EMULATED_AT(4, FIRST, ENDBR64, PUSH_RBP);
	EXPECT_EMULATED_AT(2, FIRST, 0xf3, 0x90, PUSH_RBP); /* pause */
	EXPECT_EMULATED_AT(2, FIRST, 0x49, 0x90, PUSH_RBP); /* xchg %r8,%rax */
}

static void a_vector_instruction_with_an_emulated_opcode_byte_is_not_emulated(void **state)
{
	(void)state;
	/* vpshufd $0,%xmm0,%xmm0 has opcode 0x70, vpcmpeqb 0x74, vpdpbusd 0x50 */
	EXPECT_EMULATED_AT(5, FIRST, 0xc5, 0xf9, 0x70, 0xc0, 0x00, PUSH_RBP);
	EXPECT_EMULATED_AT(4, FIRST, 0xc5, 0xf9, 0x74, 0xc0, PUSH_RBP);
	EXPECT_EMULATED_AT(5, FIRST, 0xc4, 0xe2, 0x79, 0x50, 0xc0, PUSH_RBP);
	EXPECT_EMULATED_AT(4, FIRST, 0x66, 0x0f, 0x74, 0xc0, PUSH_RBP); /* pcmpeqb */
}

/* What ends the walk. */

static void writing_part_of_an_argument_is_writing_it(void **state)
{
	(void)state;
	EXPECT_ENTRY(FIRST, 0x31, 0xff, PUSH_RBP);	       /* xor %edi,%edi */
	EXPECT_ENTRY(FIRST, 0x66, 0x31, 0xff, PUSH_RBP);       /* xor %di,%di */
	EXPECT_ENTRY(FIRST, 0x40, 0xb7, 0x01, PUSH_RBP);       /* mov $1,%dil */
	EXPECT_ENTRY(THREE, 0xb6, 0x01, PUSH_RBP);	       /* mov $1,%dh */
	EXPECT_ENTRY(FIRST, 0x48, 0x0f, 0x44, 0xf8, PUSH_RBP); /* cmove %rax,%rdi */
	EXPECT_ENTRY(FIRST, 0x48, 0x97, PUSH_RBP);	       /* xchg %rdi,%rax */
	EXPECT_ENTRY(FIRST, 0x48, 0x87, 0xf8, PUSH_RBP);       /* xchg %rdi,%rax */
}

static void hidden_writes_count(void **state)
{
	(void)state;
	EXPECT_ENTRY(THREE, 0x48, 0x99, PUSH_RBP);			/* cqto writes %rdx */
	EXPECT_ENTRY(THREE, 0x48, 0xf7, 0xf1, PUSH_RBP);		/* div %rcx */
	EXPECT_ENTRY(TWO, 0xf3, 0x48, 0xa5, PUSH_RBP);			/* rep movsq */
	EXPECT_EMULATED_AT(2, TWO, 0x48, 0x99, PUSH_RBP);		/* %rdx is not read */
	EXPECT_EMULATED_AT(4, THREE, 0x48, 0x0f, 0xaf, 0xc2, PUSH_RBP); /* imul %rdx,%rax */
}

static void every_argument_of_the_mask_is_watched(void **state)
{
	/* mov $1 into each of the six argument registers, 32 bits wide */
	static const uint8_t writes[DP_MAX_ARGS][7] = {
		{0xbf, 1, 0, 0, 0, PUSH_RBP, RET},  {0xbe, 1, 0, 0, 0, PUSH_RBP, RET},
		{0xba, 1, 0, 0, 0, PUSH_RBP, RET},  {0xb9, 1, 0, 0, 0, PUSH_RBP, RET},
		{0x41, 0xb8, 1, 0, 0, 0, PUSH_RBP}, {0x41, 0xb9, 1, 0, 0, 0, PUSH_RBP},
	};

	(void)state;
	for (unsigned written = 0; written < DP_MAX_ARGS; written++) {
		for (unsigned read = 0; read < DP_MAX_ARGS; read++) {
			if (written == read)
				expect(writes[written], 7, DP_ARG(read), 0, false);
			else
				expect(writes[written], 7, DP_ARG(read), written < 4 ? 5 : 6, true);
		}
	}
}

static void whatever_moves_the_stack_pointer_ends_the_walk(void **state)
{
	(void)state;
	EXPECT_ENTRY(0, 0x48, 0x83, 0xec, 0x08, PUSH_RBP);		  /* sub $8,%rsp */
	EXPECT_ENTRY(0, 0x48, 0x83, 0xe4, 0xf0, PUSH_RBP);		  /* and $-16,%rsp */
	EXPECT_ENTRY(0, 0x48, 0x8d, 0x64, 0x24, 0xf8, PUSH_RBP);	  /* lea -8(%rsp),%rsp */
	EXPECT_ENTRY(0, 0x58, 0xeb, 0x00);				  /* pop %rax */
	EXPECT_ENTRY(0, 0xc9, 0xeb, 0x00);				  /* leave */
	EXPECT_EMULATED_AT(5, 0, 0x4c, 0x8d, 0x54, 0x24, 0x08, PUSH_RBP); /* lea 8(%rsp),%r10 */
}

static void writing_the_return_address_ends_the_walk(void **state)
{
	(void)state;
	EXPECT_ENTRY(0, 0x48, 0x89, 0x04, 0x24, PUSH_RBP);		  /* mov %rax,(%rsp) */
	EXPECT_ENTRY(0, 0x48, 0x89, 0x44, 0x24, 0xfc, PUSH_RBP);	  /* mov %rax,-4(%rsp) */
	EXPECT_EMULATED_AT(5, 0, 0x48, 0x89, 0x44, 0x24, 0xf8, PUSH_RBP); /* mov %rax,-8(%rsp) */
	EXPECT_EMULATED_AT(4, 0, 0x48, 0x8b, 0x04, 0x24, PUSH_RBP);	  /* mov (%rsp),%rax */
}

static void nothing_after_an_end_of_the_function_is_taken(void **state)
{
	(void)state;
	EXPECT_ENTRY(FIRST, RET, PUSH_RBP);
	EXPECT_ENTRY(FIRST, TEST_RDI_RDI, RET, PUSH_RBP);
	EXPECT_ENTRY(FIRST, TEST_RDI_RDI, 0x0f, 0x0b, PUSH_RBP); /* ud2 */
	EXPECT_ENTRY(FIRST, TEST_RDI_RDI, 0xf4, PUSH_RBP);	 /* hlt */
	EXPECT_ENTRY(FIRST, TEST_RDI_RDI, 0xcc, PUSH_RBP);	 /* int3 */
	EXPECT_ENTRY(FIRST, TEST_RDI_RDI, 0x0f, 0x05, PUSH_RBP); /* syscall */
	EXPECT_ENTRY(FIRST, TEST_RDI_RDI);
}

/* Loops. */

static void a_loop_through_the_entry_block_leaves_only_the_entry(void **state)
{
	(void)state;
	/* mov %rdi,%rax; 3: test %rdi,%rdi; je 3 */
	EXPECT_ENTRY(FIRST, 0x48, 0x89, 0xf8, TEST_RDI_RDI, 0x74, 0xfb);
	/* mov %rdi,%rax; 3: test %rdi,%rdi; je; nop; jmp 3 */
	EXPECT_ENTRY(FIRST, 0x48, 0x89, 0xf8, TEST_RDI_RDI, 0x74, 0x03, 0x90, 0xeb, 0xf8);
	/* test; 3: push %rbp; call 3 */
	EXPECT_ENTRY(FIRST, TEST_RDI_RDI, PUSH_RBP, 0xe8, 0xfa, 0xff, 0xff, 0xff);
	/* the same behind a byte that is no instruction */
	EXPECT_ENTRY(FIRST, TEST_RDI_RDI, PUSH_RBP, RET, 0x06, 0xe8, 0xf8, 0xff, 0xff, 0xff);
}

static void a_loop_behind_the_probe_does_not_matter(void **state)
{
	(void)state;
	/* test; je; 5: nop; jmp 5 */
	EXPECT_EMULATED_AT(3, FIRST, TEST_RDI_RDI, 0x74, 0x03, 0x90, 0xeb, 0xfd);
}

static void a_jump_to_the_entry_is_another_call(void **state)
{
	(void)state;
	/* 0: test; je; jmp 0: the entry is hit as often as the je */
	EXPECT_EMULATED_AT(3, FIRST, TEST_RDI_RDI, 0x74, 0x10, 0xeb, 0xf9);
}

/* Arguments. */

static void code_that_is_none_is_refused(void **state)
{
	static const uint8_t push[] = {PUSH_RBP};
	static const uint8_t invalid[] = {0x06, PUSH_RBP};
	static const uint8_t cut[] = {0x48, 0x81, 0xff, 0x00};
	struct dp_placement place = {.offset_bytes = 99};

	(void)state;
	assert_int_equal(dp_arch_place(push, 0, FIRST, &place), -EINVAL);
	assert_int_equal(dp_arch_place(push, 1, DP_ARG(DP_MAX_ARGS), &place), -EINVAL);
	assert_int_equal(dp_arch_place(invalid, sizeof(invalid), FIRST, &place), -ENOEXEC);
	assert_int_equal(dp_arch_place(cut, sizeof(cut), FIRST, &place), -ENOEXEC);
	assert_int_equal(place.offset_bytes, 99);
}

static void every_prefix_of_a_function_is_safe(void **state)
{
	static const uint8_t code[] = {ENDBR64, TEST_RDI_RDI, 0x48, 0x81, 0xff, 0, 0x10, 0,
				       0,	0x0f,	      0x87, 0x93, 0,	0, 0,	 PUSH_RBP};

	(void)state;
	for (size_t n = 4; n <= sizeof(code); n++)
		expect(code, n, FIRST, n < 20 ? 0 : 14, n >= 20);
}

static void fetch_arguments_name_the_fields_they_are_read_by(void **state)
{
	const struct dp_arch_fetch *all[] = {&dp_arch.alloc_entry, &dp_arch.alloc_return,
					     &dp_arch.free_entry};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		size_t n_fields = 0, n_words = 1;

		for (size_t j = 0; j < DP_N_RAW_FIELDS; j++) {
			char start[16];

			if (!all[i]->fields[j])
				continue;
			n_fields++;
			snprintf(start, sizeof(start), "%s=", all[i]->fields[j]);
			assert_non_null(strstr(all[i]->definition, start));
		}
		for (const char *c = all[i]->definition; *c; c++)
			n_words += *c == ' ';
		assert_int_equal(n_words, n_fields);
	}
	assert_int_equal(dp_arch.return_sp_delta_bytes, 8);
	assert_int_equal(dp_arch.elf_machine, 62);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(glibc_malloc_is_probed_at_its_push),
		cmocka_unit_test(glibc_free_is_probed_at_the_jump_after_its_test),
		cmocka_unit_test(glibc_reallocarray_overwrites_an_argument_by_its_multiplication),
		cmocka_unit_test(glibc_memalign_is_probed_at_the_jump_after_its_flag),
		cmocka_unit_test(jemalloc_malloc_is_probed_at_its_size_check),
		cmocka_unit_test(jemalloc_free_is_probed_far_from_its_entry),
		cmocka_unit_test(mimalloc_realloc_overwrites_its_arguments_before_its_jump),
		cmocka_unit_test(operator_new_nothrow_moves_the_stack_before_its_call),
		cmocka_unit_test(operator_delete_is_probed_at_its_tail_jump),
		cmocka_unit_test(pushes_are_emulated_with_and_without_rex_b),
		cmocka_unit_test(all_conditional_jumps_are_emulated_but_those_that_count),
		cmocka_unit_test(jumps_and_calls_are_emulated_unless_indirect),
		cmocka_unit_test(short_nops_are_emulated_and_longer_ones_passed_over),
		cmocka_unit_test(a_vector_instruction_with_an_emulated_opcode_byte_is_not_emulated),
		cmocka_unit_test(writing_part_of_an_argument_is_writing_it),
		cmocka_unit_test(hidden_writes_count),
		cmocka_unit_test(every_argument_of_the_mask_is_watched),
		cmocka_unit_test(whatever_moves_the_stack_pointer_ends_the_walk),
		cmocka_unit_test(writing_the_return_address_ends_the_walk),
		cmocka_unit_test(nothing_after_an_end_of_the_function_is_taken),
		cmocka_unit_test(a_loop_through_the_entry_block_leaves_only_the_entry),
		cmocka_unit_test(a_loop_behind_the_probe_does_not_matter),
		cmocka_unit_test(a_jump_to_the_entry_is_another_call),
		cmocka_unit_test(code_that_is_none_is_refused),
		cmocka_unit_test(every_prefix_of_a_function_is_safe),
		cmocka_unit_test(fetch_arguments_name_the_fields_they_are_read_by),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
