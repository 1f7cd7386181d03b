/* SPDX-License-Identifier: MIT */
#ifndef DP_ENCODE_RESERVE_H
#define DP_ENCODE_RESERVE_H

#include "src/base/array.h"

/*
 * dp_array_reserve() for a typed array: @array is an lvalue of any object pointer type, @capacity
 * one of type size_t. Same results. (The address of a typed pointer may not be passed as void **.)
 */
#define DP_RESERVE(array, capacity, need)                                                 \
	({                                                                                \
		void *grown_ = (array);                                                   \
		size_t each_ = sizeof(*(array)); /* NOLINT(bugprone-sizeof-expression) */ \
		int reserved_ = dp_array_reserve(&grown_, &(capacity), (need), each_);    \
		(array) = grown_;                                                         \
		reserved_;                                                                \
	})

#endif
