/* SPDX-License-Identifier: MIT */
#include "tests/alloc_fail.h"

static unsigned long countdown;
static int happened;

void *__real_malloc(size_t n_bytes);
void *__real_calloc(size_t n, size_t n_bytes);
void *__real_realloc(void *old, size_t n_bytes);
void *__wrap_malloc(size_t n_bytes);
void *__wrap_calloc(size_t n, size_t n_bytes);
void *__wrap_realloc(void *old, size_t n_bytes);

void alloc_fail_at(unsigned long k)
{
	countdown = k;
	happened = 0;
}

int alloc_fail_happened(void)
{
	return happened;
}

static int fails_now(void)
{
	if (countdown == 0 || --countdown > 0)
		return 0;
	happened = 1;
	return 1;
}

void *__wrap_malloc(size_t n_bytes)
{
	return fails_now() ? NULL : __real_malloc(n_bytes);
}

void *__wrap_calloc(size_t n, size_t n_bytes)
{
	return fails_now() ? NULL : __real_calloc(n, n_bytes);
}

void *__wrap_realloc(void *old, size_t n_bytes)
{
	return fails_now() ? NULL : __real_realloc(old, n_bytes);
}
