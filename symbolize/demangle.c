/* SPDX-License-Identifier: MIT */
#include "symbolize/demangle.h"

#include <libiberty/demangle.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/*
 * The one hard idea: a mangled name comes from a file that anyone may have written, and a few dozen
 * bytes of back references can stand for terabytes of text. libiberty bounds neither its time nor
 * its output, so the callback that collects the text leaves by longjmp() once there is too much of
 * it. That is sound because the callback variants keep their state on the stack; only an identifier
 * in punycode that is being printed at that very moment loses its small buffer.
 */

/* libiberty takes about 100 bytes of stack per byte of a C++ name. */
#define MAX_CXX_BYTES (8u << 10)
#define MAX_NAME_BYTES (64u << 10)
#define MAX_TEXT_BYTES (64u << 10)

struct text {
	char *bytes;
	size_t n_bytes, capacity;
	jmp_buf too_much;
};

static void collect(const char *piece, size_t n_bytes, void *opaque)
{
	struct text *text = opaque;
	size_t capacity = text->capacity;
	char *grown;

	if (n_bytes > MAX_TEXT_BYTES - text->n_bytes)
		longjmp(text->too_much, 1);
	while (capacity < text->n_bytes + n_bytes + 1)
		capacity = capacity ? capacity * 2 : 128;
	if (capacity != text->capacity) {
		grown = realloc(text->bytes, capacity);
		if (!grown)
			longjmp(text->too_much, 1);
		text->bytes = grown;
		text->capacity = capacity;
	}
	memcpy(text->bytes + text->n_bytes, piece, n_bytes);
	text->n_bytes += n_bytes;
	text->bytes[text->n_bytes] = '\0';
}

/* Rust first: its legacy names are C++ names too, with a hash for a last part. */
static bool demangle_into(const char *name, size_t name_bytes, struct text *text)
{
	int options = DMGL_PARAMS | DMGL_ANSI;

	if (setjmp(text->too_much))
		return false;
	if (rust_demangle_callback(name, options, collect, text))
		return text->n_bytes > 0;
	text->n_bytes = 0;
	if (name_bytes > MAX_CXX_BYTES)
		return false;
	return cplus_demangle_v3_callback(name, options | DMGL_NO_RECURSE_LIMIT, collect, text) &&
	       text->n_bytes > 0;
}

char *dp_demangle(const char *name)
{
	size_t name_bytes = strnlen(name, MAX_NAME_BYTES + 1);
	struct text text = {.bytes = NULL};

	if (name[0] != '_' || name_bytes > MAX_NAME_BYTES)
		return NULL;
	if (demangle_into(name, name_bytes, &text))
		return text.bytes;
	free(text.bytes);
	return NULL;
}
