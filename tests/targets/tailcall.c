// SPDX-License-Identifier: MIT
/*
 * tailcall: a wrapper that jumps to malloc instead of calling it. When malloc is entered the
 * wrapper is gone from the stack: the caller in the profile must be who called the wrapper.
 *
 *   go N     N objects of 48 bytes through the wrapper, and N of 80 bytes without it
 *   quit     exit
 *
 * Built with -O2 -foptimize-sibling-calls; the test looks into the machine code that the jump is
 * there.
 */
#include "target.h"

#define SIZE_WRAPPED 48
#define SIZE_DIRECT 80

KEEP void *tail_wrapper(size_t size);
KEEP void *tail_wrapper(size_t size)
{
	return malloc(size);
}

KEEP void tail_caller(void **slot);
KEEP void tail_caller(void **slot)
{
	*slot = tail_wrapper(SIZE_WRAPPED);
	STAY();
}

KEEP void direct_caller(void **slot);
KEEP void direct_caller(void **slot)
{
	*slot = malloc(SIZE_DIRECT);
	STAY();
}

KEEP void tail_run(unsigned long long n);
KEEP void tail_run(unsigned long long n)
{
	void *object;

	for (unsigned long long i = 0; i < n; i++) {
		tail_caller(&object);
		free(object);
		direct_caller(&object);
		free(object);
	}
	STAY();
}

int main(void)
{
	char line[TARGET_LINE_MAX];
	unsigned long long n_all = 0;

	target_ready();
	while (target_command(line) && strncmp(line, "go ", 3) == 0) {
		unsigned long long n = strtoull(line + 3, NULL, 10);

		tail_run(n);
		n_all += n;
		target_say("{\"stacks\":["
			   "{\"stack\":[\"tail_caller\",\"tail_run\",\"main\"],\"values\":[%llu,%"
			   "llu,0,0]},"
			   "{\"stack\":[\"direct_caller\",\"tail_run\",\"main\"],\"values\":[%llu,%"
			   "llu,0,0]}]}",
			   n_all, n_all * SIZE_WRAPPED, n_all, n_all * SIZE_DIRECT);
	}
	return 0;
}
