/* SPDX-License-Identifier: MIT */
/* Profiles itself: cc self_profile.c $(pkg-config --cflags --libs deltaprof); ./a.out >heap.pb.gz
 */
#include <deltaprof.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int write_to(void *file, const void *data, size_t n_bytes, char *error)
{
	return fwrite(data, n_bytes, 1, file) == 1 ? 0 : -snprintf(error, 64, "cannot write");
}

void leak(void)
{
	for (int i = 0; i < 1000; i++)
		*(volatile char *)malloc(100) = 0;
}

int main(void)
{
	struct deltaprof_options options = {.size = sizeof(options), .heap_rate_bytes = 1};
	struct deltaprof_heap_profiler *heap;
	struct deltaprof *self;
	char error[DELTAPROF_ERROR_BYTES] = "out of memory";

	if (deltaprof_attach(&self, getpid(), &options, error) < 0 ||
	    deltaprof_heap_profiler_new(&heap, self) < 0)
		return fprintf(stderr, "%s\n", error), 1;
	leak();
	if (deltaprof_heap_profiler_profile(heap, write_to, stdout, error) < 0)
		return fprintf(stderr, "%s\n", error), 1;
	deltaprof_heap_profiler_free(heap);
	deltaprof_detach(self);
}
