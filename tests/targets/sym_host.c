/* SPDX-License-Identifier: MIT */
/*
 * A process to look at. Each line on stdin is a command; each answer is one line on stdout:
 *   open PATH    dlopen()s PATH and answers with the address of its sym_library_function
 *   close        dlclose()s it
 *   jit          maps anonymous code and answers with its address
 *   leave        ends the main thread; another one goes on reading commands
 *   where        answers with the address of sym_host_function
 * The end of stdin ends the process.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int sym_host_function(int x);

__attribute__((noinline)) int sym_host_function(int x)
{
	return x + 1;
}

static void *library;

static void *open_library(const char *path)
{
	library = dlopen(path, RTLD_NOW);
	return library ? dlsym(library, "sym_library_function") : NULL;
}

static void *answer_to(const char *line)
{
	if (strncmp(line, "open ", 5) == 0)
		return open_library(line + 5);
	if (strcmp(line, "close") == 0)
		dlclose(library);
	if (strcmp(line, "jit") == 0)
		return mmap(NULL, 8192, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (strcmp(line, "where") == 0)
		return (void *)sym_host_function;
	return NULL;
}

/* Reads commands until the main thread is to leave. */
static void serve(void)
{
	char line[4200];

	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		if (strcmp(line, "leave") == 0)
			return;
		printf("%p\n", answer_to(line));
		fflush(stdout);
	}
	exit(0);
}

static void *go_on(void *main_thread)
{
	pthread_join(*(pthread_t *)main_thread, NULL);
	serve();
	return NULL;
}

int main(void)
{
	static pthread_t self;
	pthread_t thread;

	serve();
	self = pthread_self();
	if (pthread_create(&thread, NULL, go_on, &self) != 0)
		return 1;
	pthread_exit(NULL);
}
