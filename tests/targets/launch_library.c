/* SPDX-License-Identifier: MIT */
/* A library whose constructor allocates and says so. */
#include <stdlib.h>
#include <unistd.h>

extern void *volatile launch_library_memory;
int launch_library_function(void);

void *volatile launch_library_memory;

__attribute__((constructor)) static void construct(void)
{
	launch_library_memory = malloc(100);
	if (write(STDOUT_FILENO, "library\n", 8) != 8)
		_exit(3);
}

int launch_library_function(void)
{
	return 0;
}
