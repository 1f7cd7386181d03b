/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_SYM_ORACLE_H
#define DP_TESTS_SYM_ORACLE_H

#include <stddef.h>
#include <stdint.h>

#include "symbolize/module.h"

/*
 * What other people's tools say of an ELF file: nm, readelf, addr2line, eu-addr2line as child
 * processes. A tool that fails fails the test.
 */

/* The output of a shell command, to be freed; its exit status must be 0. */
char *oracle_run(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Where the samples were built (tests/sym_samples.cmake): DIRECTORY/@name. Valid until the next
 * but seven calls. */
const char *oracle_sample(const char *name);

struct oracle_function {
	uint64_t svma, size_bytes;
	const char *name;
};

/* The functions that nm finds (@options: "" for .symtab, "-D" for .dynsym), versions cut off; to be
 * freed as a whole. */
struct oracle_function *oracle_functions(const char *path, const char *options, size_t *ret_n);

/* The one of that name; it must be there. */
const struct oracle_function *oracle_function(const struct oracle_function *functions, size_t n,
					      const char *name);

/* The file offset of @svma by the executable LOAD segments that readelf shows; must be there. */
uint64_t oracle_file_off(const char *path, uint64_t svma);

#define ORACLE_MAX_CALLS 64

struct oracle_calls {
	size_t n;
	struct oracle_call {
		char *function;	   /* "??" if unknown */
		const char *file;  /* "??" if unknown */
		long line;	   /* 0 if unknown */
	} calls[ORACLE_MAX_CALLS]; /* innermost first */
};

/*
 * What @tool (an addr2line, with its options if need be) says of each address. The calls are to be
 * freed, and
 * *@ret_text, which they borrow from.
 */
struct oracle_calls *oracle_addr2line(const char *tool, const char *path, const uint64_t *svma,
				      size_t n, char **ret_text);

/* Adds the file at @path to @modules and gives its id. */
uint32_t oracle_add_module(struct dp_modules *modules, const char *path);

#endif
