/* SPDX-License-Identifier: MIT */
/* Profiles its own heap: writes what it allocated to the file named by its argument. */
#include <deltaprof.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int write_to(void *file, const void *data, size_t n_bytes, char *error)
{
	(void)error;
	return fwrite(data, 1, n_bytes, file) == n_bytes && fflush(file) == 0 ? 0 : -1;
}

int main(int argc, char **argv)
{
	struct deltaprof_options every_one = {.size = sizeof(every_one), .heap_rate_bytes = 1};
	struct deltaprof_heap_profiler *heap = NULL;
	struct deltaprof *self = NULL;
	char error[DELTAPROF_ERROR_BYTES] = "";
	FILE *file = fopen(argc > 1 ? argv[1] : "", "wb");
	int r = file ? deltaprof_attach(&self, getpid(), &every_one, error) : -1;

	r = r < 0 ? r : deltaprof_heap_profiler_new(&heap, self);
	for (int i = 0; i < 1000; i++)
		argv[0] = malloc(100);
	r = r < 0 ? r : deltaprof_heap_profiler_profile(heap, write_to, file, error);
	deltaprof_heap_profiler_free(heap);
	deltaprof_detach(self);
	return r < 0 ? fprintf(stderr, "self_profile: %d: %s\n", r, error), 1 : 0;
}
