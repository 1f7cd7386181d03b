/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_TARGET_H
#define DP_TESTS_TARGET_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * What every target shares: the conversation with the test, without any allocation of its own, so
 * that a target's own count is the process's whole count.
 *
 * A target prints `ready PID`, reads one command a line from stdin and answers each with one line
 * of JSON. End of file on stdin means quit. It never sleeps: it waits for a line, a lock or a
 * thread.
 */

/* A function that keeps its own frame and its own name whatever the optimiser thinks of it. */
#if defined(__clang__)
#define KEEP __attribute__((noinline))
#else
#define KEEP __attribute__((noipa))
#endif

/* After a call: the call is not the last thing that the function does. */
#define STAY() __asm__ volatile("" ::: "memory")

#define TARGET_LINE_MAX 256

/* Prints a whole line with one write as far as the pipe takes it; the target ends if nobody reads.
 */
static inline void target_write(const char *text, size_t n_bytes)
{
	while (n_bytes > 0) {
		ssize_t n = write(STDOUT_FILENO, text, n_bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(3);
		text += n;
		n_bytes -= (size_t)n;
	}
}

__attribute__((format(printf, 1, 2))) static inline void target_say(const char *format, ...)
{
	char line[1024];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(line, sizeof(line) - 1, format, args);
	va_end(args);
	if (n < 0 || (size_t)n >= sizeof(line) - 1)
		_exit(3);
	line[n++] = '\n';
	target_write(line, (size_t)n);
}

static inline void target_ready(void)
{
	target_say("ready %d", (int)getpid());
}

/*
 * Reads one command, without its newline. Returns false at the end of the input. Byte by byte:
 * another thread or an executed program may go on where this one stopped.
 */
static inline bool target_command(char ret[TARGET_LINE_MAX])
{
	size_t n = 0;

	for (;;) {
		char byte;
		ssize_t got = read(STDIN_FILENO, &byte, 1);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		if (byte == '\n')
			break;
		if (n < TARGET_LINE_MAX - 1)
			ret[n++] = byte;
	}
	ret[n] = 0;
	return true;
}

/* Waits for exactly @expected; the target ends when the input does or says anything else. */
static inline void target_expect(const char *expected)
{
	char line[TARGET_LINE_MAX];

	if (!target_command(line))
		_exit(0);
	if (strcmp(line, expected) != 0) {
		target_say("{\"error\":\"expected %s\"}", expected);
		_exit(2);
	}
}

/* xorshift64*: the same numbers for the same seed everywhere. @state must not be 0. */
static inline uint64_t target_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * UINT64_C(2685821657736338717);
}

#endif
