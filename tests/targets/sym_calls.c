/* SPDX-License-Identifier: MIT */
/*
 * Functions whose addresses the symbolizer must name as addr2line does: inlined calls of several
 * depths and files, static and nested functions, cold parts, a function made of assembler, and
 * names that another language's compiler would have written.
 */
#include <stdio.h>
#include <stdlib.h>

#include "sym_calls.h"

static volatile int sink;

static inline __attribute__((always_inline)) int level3(int x)
{
	return sym_header_outer(x, &sink) + 3;
}

static inline __attribute__((always_inline)) int level2(int x)
{
	int sum = 0;

	for (int i = 0; i < x; i++) {
		int part = level3(i);

		if (part > sink)
			sum += part;
	}
	return sum;
}

static inline __attribute__((always_inline)) int level1(int x)
{
	return level2(x) ^ level2(x + 1);
}

__attribute__((noinline)) int sym_plain(int x)
{
	sink = x;
	return sink + 1;
}

__attribute__((noinline)) int sym_nested_inlines(int x)
{
	int y = level1(x);

	sink = y;
	return y + level3(y);
}

__attribute__((noinline)) static int static_function(int x)
{
	for (int i = 0; i < x; i++)
		sink += sym_header_inner(i, &sink);
	return sink;
}

/* The unlikely branch becomes a part of its own (.cold), away from the rest. */
__attribute__((noinline)) int sym_with_cold_part(int x)
{
	if (__builtin_expect(x < 0, 0)) {
		fprintf(stderr, "negative: %d\n", level3(x));
		abort();
	}
	return level3(x) + 1;
}

__attribute__((noinline, section(".text.sym_elsewhere"))) int sym_in_own_section(int x)
{
	return sym_plain(x) + level3(x);
}

#ifdef __GNUC__
#ifndef __clang__
__attribute__((noinline)) int sym_with_nested_function(int x)
{
	int base = x;

	__attribute__((noinline)) int nested(int y)
	{
		sink = y;
		return base + sink + level3(y);
	}
	return nested(x) + nested(x + 1);
}
#else
__attribute__((noinline)) int sym_with_nested_function(int x)
{
	return x + sink;
}
#endif
#endif

#define LONG_NAME \
	sym_long_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
__attribute__((noinline)) int LONG_NAME(int x)
{
	return sink - x;
}

/*
 * Thrown away by --gc-sections, while its DWARF stays, with an address of 0: it would cover the
 * beginning of the code.
 */
#ifdef SYM_UNUSED
void unused_function(void);

void unused_function(void)
{
	__asm__ volatile(".skip 0x3000, 0x90");
}
#endif

int sym_sized_asm(int x);
int sym_label_asm(int x);
int sym_rust_legacy(int x) __asm__("_ZN8my_crate6module4work17h0123456789abcdefE");
int sym_rust_v0(int x) __asm__("_RNvNtCs1234_8my_crate6module4work");

__asm__(".text\n"
	".globl sym_sized_asm\n"
	".type sym_sized_asm, @function\n"
	"sym_sized_asm:\n"
	"	mov %edi, %eax\n"
	"	add $1, %eax\n"
	"	ret\n"
	".size sym_sized_asm, . - sym_sized_asm\n"
	"	nop\n"
	"	nop\n"
	".globl sym_label_asm\n"
	"sym_label_asm:\n"
	"	mov %edi, %eax\n"
	"	add $2, %eax\n"
	"	ret\n"
	"	nop\n"
	".globl _ZN8my_crate6module4work17h0123456789abcdefE\n"
	".type _ZN8my_crate6module4work17h0123456789abcdefE, @function\n"
	"_ZN8my_crate6module4work17h0123456789abcdefE:\n"
	"	mov %edi, %eax\n"
	"	ret\n"
	".size _ZN8my_crate6module4work17h0123456789abcdefE, . - "
	"_ZN8my_crate6module4work17h0123456789abcdefE\n"
	".globl _RNvNtCs1234_8my_crate6module4work\n"
	".type _RNvNtCs1234_8my_crate6module4work, @function\n"
	"_RNvNtCs1234_8my_crate6module4work:\n"
	"	mov %edi, %eax\n"
	"	ret\n"
	".size _RNvNtCs1234_8my_crate6module4work, . - _RNvNtCs1234_8my_crate6module4work\n");

int main(int argc, char **argv)
{
	(void)argv;
	sink = sym_plain(argc) + sym_nested_inlines(argc) + static_function(argc) +
	       sym_with_cold_part(argc) + sym_in_own_section(argc) +
	       sym_with_nested_function(argc) + LONG_NAME(argc) + sym_sized_asm(argc) +
	       sym_label_asm(argc) + sym_rust_legacy(argc) + sym_rust_v0(argc);
	printf("%d\n", sink);
	return 0;
}
