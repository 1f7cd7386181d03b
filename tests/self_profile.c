/* SPDX-License-Identifier: MIT */
/* A program that profiles its own heap: writes to the file named by its argument what it allocated.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "src/deltaprof.h"

static int write_to(void *file, const void *data, size_t n_bytes, char error[DELTAPROF_ERROR_BYTES])
{
	(void)error;
	return fwrite(data, 1, n_bytes, file) == n_bytes && fflush(file) == 0 ? 0 : -EIO;
}

__attribute__((noinline)) void leak(void *keep[1000])
{
	for (int i = 0; i < 1000; i++)
		keep[i] = malloc(100);
}

int main(int argc, char **argv)
{
	const struct deltaprof_options options = {
		.size = sizeof(options), .profiles = DELTAPROF_HEAP, .heap_rate_bytes = 1};
	FILE *file = argc == 2 ? fopen(argv[1], "wb") : NULL;
	struct deltaprof_heap_profiler *heap = NULL;
	struct deltaprof *process = NULL;
	char error[DELTAPROF_ERROR_BYTES] = "usage: self_profile FILE";
	static void *keep[1000];
	int r = file ? deltaprof_attach(&process, getpid(), &options, error) : -EINVAL;

	if (r == 0)
		r = deltaprof_heap_profiler_new(&heap, process);
	leak(keep);
	if (r == 0)
		r = deltaprof_heap_profiler_profile(heap, write_to, file, error);
	deltaprof_heap_profiler_free(heap);
	deltaprof_detach(process);
	if (r < 0)
		fprintf(stderr, "self_profile: %s\n", error);
	return r < 0;
}
