/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_GO_FORMAT_H
#define DP_SYMBOLIZE_GO_FORMAT_H

#include <string.h>

#include "symbolize/go_file.h"
#include "symbolize/go_table.h"

/*
 * The parts of go_table.h's implementation among themselves: go_table.c opens, go_lines.c looks up.
 * Everything that is read out of the table is bounded here, by dp_go_u32() and its like.
 */

/* By the magic number. */
enum dp_go_format {
	DP_GO_FORMAT_1_16, /* addresses are pointers */
	DP_GO_FORMAT_1_18, /* offsets from the text */
	DP_GO_FORMAT_1_20, /* start lines; smaller inline trees */
};

struct dp_go_table {
	struct dp_go_chunk table;
	struct dp_go_chunk trees; /* what the functions' inline trees lie in; may be none */
	enum dp_go_format format;
	uint32_t quantum;			      /* minimal bytes of an instruction */
	uint32_t n_functions;			      /* at least 1 */
	uint64_t names, units, files, pcs, functions; /* offsets in the table, all in it */
	uint64_t text;				      /* svma that entries are relative to */
	uint64_t tree_base;			      /* svma that trees are relative to */
	uint64_t module_data;			      /* svma; 0: not found */
	/* funcIDs of this version; -1: not known. */
	int wrapper, gopanic, sigpanic, panicwrap;
};

/* One entry of the function table, read. */
struct dp_go_record {
	uint64_t entry, end;
	uint32_t name, pc_file, pc_line, n_pcdata, unit;
	int32_t start_line;
	uint8_t func_id, n_funcdata;
	uint64_t pcdata; /* offset in the table */
};

/* An inline tree's entry. */
struct dp_go_inlined {
	uint32_t name;
	uint32_t parent_pc; /* from the function's entry */
	int32_t start_line;
	uint8_t func_id;
};

static inline bool dp_go_bytes(const struct dp_go_chunk *chunk, uint64_t at, void *ret,
			       size_t n_bytes)
{
	if (at > chunk->n_bytes || n_bytes > chunk->n_bytes - at)
		return false;
	memcpy(ret, chunk->bytes + at, n_bytes);
	return true;
}

static inline bool dp_go_u32(const struct dp_go_chunk *chunk, uint64_t at, uint32_t *ret)
{
	return dp_go_bytes(chunk, at, ret, sizeof(*ret));
}

static inline bool dp_go_u64(const struct dp_go_chunk *chunk, uint64_t at, uint64_t *ret)
{
	return dp_go_bytes(chunk, at, ret, sizeof(*ret));
}

/* The svma where function @i begins; for @i = n_functions, where the last one ends. */
bool dp_go_entry(const struct dp_go_table *table, uint32_t i, uint64_t *ret);

/* Function @i, below n_functions. Returns false if its record makes no sense. */
bool dp_go_record(const struct dp_go_table *table, uint32_t i, struct dp_go_record *ret);

/*
 * The function's reference to its inline tree: relative to tree_base (from 1.18 on), or an svma.
 * Returns false if it has none.
 */
bool dp_go_tree(const struct dp_go_table *table, const struct dp_go_record *record, uint64_t *ret);

/* Decodes a tree's entry, whose size dp_go_inlined_bytes() says, at @bytes. Returns false if it
 * cannot be one of @record. */
size_t dp_go_inlined_bytes(const struct dp_go_table *table);
bool dp_go_inlined(const struct dp_go_table *table, const struct dp_go_record *record,
		   const uint8_t *bytes, struct dp_go_inlined *ret);

/* The name at @offset of the names, or NULL: none, or longer than names are. */
const char *dp_go_name(const struct dp_go_table *table, uint32_t offset);

#endif
