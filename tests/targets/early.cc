// SPDX-License-Identifier: MIT
/*
 * early: allocates a known number of objects in a static constructor, before main, and some in main. Copies its standard input to its
 * standard output, and exits with the number in its argument.
 */
#include <cstdio>
#include <cstdlib>

extern "C" {
__attribute__((noinline)) void *leaf_early(size_t size)
{
	void *object = malloc(size);

	asm volatile("" : : "r"(object) : "memory");
	return object;
}

__attribute__((noinline)) void *leaf_main(size_t size)
{
	void *object = malloc(size);

	asm volatile("" : : "r"(object) : "memory");
	return object;
}
}

struct Early {
	Early()
	{
		for (int i = 0; i < 700; i++)
			leaf_early(33);
	}
};

static Early early;

int main(int argc, char **argv)
{
	for (int i = 0; i < 300; i++)
		leaf_main(77);
	for (int c = getchar(); c != EOF; c = getchar())
		putchar(c);
	return argc > 1 ? atoi(argv[1]) : 0;
}
