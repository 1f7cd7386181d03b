/* SPDX-License-Identifier: MIT */
#include "tests/framed.h"

#include <stddef.h>
#include <stdlib.h>

__attribute__((noinline)) static void take_here(void (*take)(const ucontext_t *context))
{
	ucontext_t context;

	if (getcontext(&context) != 0)
		abort();
	take(&context);
}

__attribute__((noinline)) static void call(unsigned depth, void (*take)(const ucontext_t *context))
{
	if (depth == 0)
		take_here(take);
	else
		call(depth - 1, take);
	__asm__ volatile(""); /* it is no tail call */
}

void *framed_thread(void *context)
{
	const struct framed *framed = context;

	call(framed->depth, framed->take);
	return NULL;
}
