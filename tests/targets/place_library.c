// SPDX-License-Identifier: MIT
/*
 * A library to be opened and closed by `places`, built once for each PLACE (a, b, ...): the same
 * code at the same offsets, under different names, so that an address looked up in the wrong one
 * shows. place_run() is the only function that a stripped build has a name for.
 */
#include <stddef.h>
#include <stdlib.h>

#include "target.h"

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define TEXT2(a) #a
#define TEXT(a) TEXT2(a)
#define LEAF JOIN(leaf_, PLACE)
#define MIDDLE JOIN(middle_, PLACE)

#define SIZE 40

static void *volatile last_object;

KEEP __attribute__((visibility("hidden"))) void LEAF(void);
void LEAF(void)
{
	last_object = malloc(SIZE);
	STAY();
}

KEEP __attribute__((visibility("hidden"))) void MIDDLE(unsigned long n);
void MIDDLE(unsigned long n)
{
	for (unsigned long i = 0; i < n; i++)
		LEAF();
	STAY();
}

/* Allocates @n objects, for good. Returns what this build is called. */
const char *place_run(unsigned long n, size_t *ret_size);
const char *place_run(unsigned long n, size_t *ret_size)
{
	MIDDLE(n);
	*ret_size = SIZE;
	return TEXT(PLACE);
}
