/* SPDX-License-Identifier: MIT */
#ifndef DP_BASE_ARRAY_H
#define DP_BASE_ARRAY_H

#include <stddef.h>

/*
 * Makes room for at least @need elements of @element_bytes each in the heap array at *@array, which
 * holds *@capacity of them now (NULL and 0 at first). Grows by doubling, so that appending is
 * amortised constant.
 *
 * On success *@array and *@capacity are replaced; on failure both are untouched.
 * Returns 0, -ENOMEM, or -EOVERFLOW when the size in bytes does not fit a size_t.
 */
int dp_array_reserve(void **array, size_t *capacity, size_t need, size_t element_bytes);

#endif
