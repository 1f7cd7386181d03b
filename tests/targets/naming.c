// SPDX-License-Identifier: MIT
/*
 * naming: stacks whose names are the test: inlined calls, and C++ and Rust names as compilers make
 * them. Built twice, with debug information and without (there the symbol table must do).
 *
 *   go N     N objects along each stack
 *   quit     exit
 */
#include "target.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* engine::pistons::Rod::forge(int), Rust legacy and v0 mangling of their like. */
KEEP void cxx_forge(void **slot) __asm__("_ZN6engine7pistons3Rod5forgeEi");
KEEP void rust_legacy(void **slot) __asm__("_ZN6engine7pistons5weigh17h0123456789abcdefE");
KEEP void rust_v0(void **slot) __asm__("_RNvNtCs1234_6engine7pistons4melt");
KEEP void inline_caller(void **slot);

KEEP void cxx_forge(void **slot)
{
	*slot = malloc(10);
	STAY();
}

KEEP void rust_legacy(void **slot)
{
	*slot = malloc(20);
	STAY();
}

KEEP void rust_v0(void **slot)
{
	*slot = malloc(30);
	STAY();
}

ALWAYS_INLINE void inline_inner(void **slot)
{
	*slot = malloc(40); /* line: inner */
	STAY();
}

ALWAYS_INLINE void inline_middle(void **slot)
{
	inline_inner(slot); /* line: middle */
	STAY();
}

KEEP void inline_caller(void **slot)
{
	inline_middle(slot); /* line: caller */
	STAY();
}

int main(void)
{
	char line[TARGET_LINE_MAX];
	void *object;

	target_ready();
	while (target_command(line) && strncmp(line, "go ", 3) == 0) {
		unsigned long long n = strtoull(line + 3, NULL, 10);

		for (unsigned long long i = 0; i < n; i++) {
			cxx_forge(&object);
			rust_legacy(&object);
			rust_v0(&object);
			inline_caller(&object);
		}
		target_say("{\"done\":%llu}", n);
	}
	return 0;
}
