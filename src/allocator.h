/* SPDX-License-Identifier: MIT */
#ifndef DP_ALLOCATOR_H
#define DP_ALLOCATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The allocation functions that are probed, as data: what each is called and where its size and
 * pointers are.
 */

enum dp_alloc_kind {
	DP_ALLOC_NEW,	 /* returns a new object */
	DP_ALLOC_RESIZE, /* frees args[i_pointer] and returns a new object */
	DP_ALLOC_OUT,	 /* stores the new object through a pointer argument, returns 0
			    (posix_memalign) */
	DP_ALLOC_FREE,	 /* frees args[i_pointer] */
};

struct dp_alloc_function {
	const char *name;
	enum dp_alloc_kind kind;
	int i_size;    /* argument that holds the size in bytes; -1 for free */
	int i_count;   /* argument that it is multiplied with; -1 for none */
	int i_pointer; /* argument that holds the pointer; -1 for none */
	int i_align;   /* argument that holds the alignment; -1 for none */
	bool aligned;  /* to more than malloc aligns to, as asked for or to a page */
};

/* The table, ending where i reaches *@ret_n. Static, never changes. */
const struct dp_alloc_function *dp_alloc_functions(size_t *ret_n);

/*
 * Size that a call with arguments @args (3 of them) asked for, in bytes. A product that overflows
 * gives UINT64_MAX: such a call fails. 0 for free.
 */
uint64_t dp_alloc_size(const struct dp_alloc_function *function, const uint64_t *args);

#endif
