/* SPDX-License-Identifier: MIT */
#include "src/allocator.h"

/* Argument positions as in the prototypes. Source: malloc(3), posix_memalign(3). */
static const struct dp_alloc_function functions[] = {
	/* name, kind, then the positions of size, count, pointer, alignment; aligned */
	{"malloc", DP_ALLOC_NEW, 0, -1, -1, -1, false},
	{"calloc", DP_ALLOC_NEW, 1, 0, -1, -1, false},
	{"realloc", DP_ALLOC_RESIZE, 1, -1, 0, -1, false},
	{"reallocarray", DP_ALLOC_RESIZE, 2, 1, 0, -1, false},
	{"free", DP_ALLOC_FREE, -1, -1, 0, -1, false},
	/* Of C23, and jemalloc's own for what malloc gave: a free that is missed stays in use. */
	{"free_sized", DP_ALLOC_FREE, -1, -1, 0, -1, false},
	{"free_aligned_sized", DP_ALLOC_FREE, -1, -1, 0, -1, false},
	{"dallocx", DP_ALLOC_FREE, -1, -1, 0, -1, false},
	{"sdallocx", DP_ALLOC_FREE, -1, -1, 0, -1, false},
	{"memalign", DP_ALLOC_NEW, 1, -1, -1, 0, true},
	{"aligned_alloc", DP_ALLOC_NEW, 1, -1, -1, 0, true},
	{"posix_memalign", DP_ALLOC_OUT, 2, -1, 0, 1, true},
	{"valloc", DP_ALLOC_NEW, 0, -1, -1, -1, true},
	{"pvalloc", DP_ALLOC_NEW, 0, -1, -1, -1, true},
};

const struct dp_alloc_function *dp_alloc_functions(size_t *ret_n)
{
	*ret_n = sizeof(functions) / sizeof(functions[0]);
	return functions;
}

uint64_t dp_alloc_size(const struct dp_alloc_function *function, const uint64_t *args)
{
	uint64_t size;

	if (function->i_size < 0)
		return 0;
	size = args[function->i_size];
	if (function->i_count < 0)
		return size;
	if (__builtin_mul_overflow(size, args[function->i_count], &size))
		return UINT64_MAX;
	return size;
}
