/* SPDX-License-Identifier: MIT */
#include "src/base/array.h"

#include <errno.h>
#include <stdlib.h>

int dp_array_reserve(void **array, size_t *capacity, size_t need, size_t element_bytes)
{
	size_t wanted = *capacity ? *capacity : 16;
	size_t bytes;
	void *grown;

	if (need <= *capacity)
		return 0;
	while (wanted < need) {
		if (__builtin_mul_overflow(wanted, (size_t)2, &wanted))
			return -EOVERFLOW;
	}
	if (__builtin_mul_overflow(wanted, element_bytes, &bytes))
		return -EOVERFLOW;
	grown = realloc(*array, bytes);
	if (!grown)
		return -ENOMEM;
	*array = grown;
	*capacity = wanted;
	return 0;
}
