/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_ALLOC_FAIL_H
#define DP_TESTS_ALLOC_FAIL_H

#include <stdlib.h>

/*
 * Lets a unit test fail the k-th allocation of the code under test. Linked with
 * -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc (see dp_add_unit_test); libraries that are linked
 * dynamically keep their own allocator.
 */

/* The @k-th allocation from now on (1: the next) fails, once; 0: none. */
void alloc_fail_at(unsigned long k);

/* Whether the failure that alloc_fail_at() asked for has happened. */
int alloc_fail_happened(void);

/*
 * Runs @body (an expression that is zero on success) with the first, second, third … allocation
 * failing until it runs through without meeting the failure; it must have returned -ENOMEM each
 * time before.
 */
#define ALLOC_FAIL_EACH(body)                                  \
	do {                                                   \
		for (unsigned long k_ = 1;; k_++) {            \
			alloc_fail_at(k_);                     \
			int result_ = (body);                  \
			int happened_ = alloc_fail_happened(); \
			alloc_fail_at(0);                      \
			if (!happened_) {                      \
				assert_int_equal(result_, 0);  \
				break;                         \
			}                                      \
			assert_int_equal(result_, -ENOMEM);    \
		}                                              \
	} while (0)

#endif
