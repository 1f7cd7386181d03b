/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_FRAMED_H
#define DP_TESTS_FRAMED_H

#include <ucontext.h>

/* Code that is built to keep frame pointers, whatever the rest of the tests is built with. */

struct framed {
	unsigned depth;
	/* Gets the registers as they are behind a call of getcontext() in its caller. */
	void (*take)(const ucontext_t *context);
};

/* For pthread_create(): calls a function that calls itself @framed->depth times and then take. */
void *framed_thread(void *framed);

#endif
