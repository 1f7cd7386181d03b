/* SPDX-License-Identifier: MIT */
/*
 * A program that says how far it has come, and then does what its first argument says:
 *   exit N    exits with N
 *   kill N    raises signal N, with its default action
 *   cat       copies stdin to stdout
 *   signals   prints the lines of /proc/self/status on blocked and ignored signals
 *   args      prints its arguments, one a line
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *volatile memory;

__attribute__((constructor)) static void construct(void)
{
	memory = malloc(100);
	if (write(STDOUT_FILENO, "constructor\n", 12) != 12)
		_exit(3);
}

static int show_signals(void)
{
	char line[256];
	FILE *file = fopen("/proc/self/status", "r");

	while (file && fgets(line, sizeof(line), file)) {
		if (strncmp(line, "SigBlk:", 7) == 0 || strncmp(line, "SigIgn:", 7) == 0)
			fputs(line, stdout);
	}
	return file ? 0 : 3;
}

static int copy(void)
{
	char bytes[256];
	ssize_t n;

	while ((n = read(STDIN_FILENO, bytes, sizeof(bytes))) > 0) {
		if (write(STDOUT_FILENO, bytes, (size_t)n) != n)
			return 3;
	}
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	int number = argc > 2 ? atoi(argv[2]) : 0;

	if (write(STDOUT_FILENO, "main\n", 5) != 5)
		return 3;
	if (strcmp(what, "exit") == 0)
		return number;
	if (strcmp(what, "kill") == 0) {
		signal(number, SIG_DFL);
		return raise(number);
	}
	if (strcmp(what, "cat") == 0)
		return copy();
	if (strcmp(what, "signals") == 0)
		return show_signals();
	for (int i = 0; strcmp(what, "args") == 0 && i < argc; i++)
		puts(argv[i]);
	return 0;
}
