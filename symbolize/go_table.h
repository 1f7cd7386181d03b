/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_GO_TABLE_H
#define DP_SYMBOLIZE_GO_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The function table that Go's linker puts into every program and that no strip takes away
 * (.gopclntab): names, files, lines and inlined calls of Go code, Go 1.16 to 1.27. Addresses are
 * the file's own (svma).
 */

struct dp_go_table;

struct dp_go_function {
	uint64_t entry, end; /* svma, end exclusive */
	const char *name;    /* full, with a generic function's type arguments */
	int64_t start_line;  /* 0 if unknown (before Go 1.20) */
	uint8_t func_id;     /* of the runtime's funcID; its meaning depends on the version */
};

/* One logical call at an address. */
struct dp_go_line {
	const char *function;
	const char *file; /* "" if unknown */
	int64_t line;	  /* 0 if unknown */
	int64_t start_line;
	uint8_t func_id;
	/*
	 * The svma that stands for the call of this line's function in its caller's body, and where
	 * the caller's line is looked up; what the runtime records is this plus 1. 0 for the last
	 * line, the function that is really there.
	 */
	uint64_t parent;
};

/* Inlined calls deeper than this are cut at the outer end, the real function being kept. */
#define DP_GO_MAX_LINES 64

/*
 * Reads the table of the ELF file that is open at @fd, and where the program's module data lie in
 * it; nothing in the file is trusted.
 *
 * *@ret: owned by the caller. Reads the whole table into memory (tens of MiB in a large program).
 * Returns 0, -ENOENT (no Go code in it), -ENOTSUP (a table older than Go 1.16's, or newer than
 * known), -ENOEXEC (corrupt), -EFBIG (more than 512 MiB), or -ENOMEM. Source: Go's
 * src/runtime/symtab.go, src/internal/abi/symtab.go, src/cmd/link/internal/ld/pcln.go.
 */
int dp_go_table_open(struct dp_go_table **ret, int fd);

/* NULL is allowed. */
void dp_go_table_free(struct dp_go_table *table);

/* Any thread from here on; strings live as long as @table. */

/* The function that holds @svma. Returns false where there is no Go code. */
bool dp_go_table_function(const struct dp_go_table *table, uint64_t svma,
			  struct dp_go_function *ret);

/*
 * The function of exactly that name (a pass over the whole table). Returns false if there is none.
 */
bool dp_go_table_find(const struct dp_go_table *table, const char *name,
		      struct dp_go_function *ret);

/*
 * The logical calls at @svma (a lookup address: 1 already subtracted from return addresses),
 * innermost first, at most DP_GO_MAX_LINES at @ret. Returns their number; 0 where there is no Go
 * code.
 */
size_t dp_go_table_lines(const struct dp_go_table *table, uint64_t svma, struct dp_go_line *ret);

/*
 * Where the program's first module data lie (svma), as found in the file or by its relocations;
 * false if they were not found.
 */
bool dp_go_table_module_data(const struct dp_go_table *table, uint64_t *ret_svma);

#endif
