/* SPDX-License-Identifier: MIT */
#include <stdbool.h>

#include "symbolize/go_format.h"

/*
 * The one hard idea: an inlined call has an address of its own in its caller's body, the "virtual
 * pc" of its parent; line, file and the next inline tree entry are looked up there as at any other
 * address. So one rule serves every level and every version, and it is the one by which
 * runtime.CallersFrames goes.
 */

#define MAX_NAME_BYTES (1u << 16)
#define MAX_STEPS (1u << 18) /* of one pc-value table */
#define MAX_DEPTH 256	     /* of inlining; the compiler's own is far below */
#define PCDATA_INL_TREE 2
#define FUNCDATA_INL_TREE 3
#define NO_VALUE UINT32_MAX

bool dp_go_entry(const struct dp_go_table *table, uint32_t i, uint64_t *ret)
{
	uint32_t offset;

	if (table->format == DP_GO_FORMAT_1_16)
		return dp_go_u64(&table->table, table->functions + (uint64_t)i * 16, ret);
	if (!dp_go_u32(&table->table, table->functions + (uint64_t)i * 8, &offset))
		return false;
	*ret = table->text + offset;
	return true;
}

static bool record_at(const struct dp_go_table *table, uint32_t i, uint64_t *ret)
{
	uint64_t offset = 0;
	uint32_t word = 0;
	bool ok;

	if (table->format == DP_GO_FORMAT_1_16) {
		ok = dp_go_u64(&table->table, table->functions + (uint64_t)i * 16 + 8, &offset);
	} else {
		ok = dp_go_u32(&table->table, table->functions + (uint64_t)i * 8 + 4, &word);
		offset = word;
	}
	*ret = table->functions + offset;
	return ok && offset <= table->table.n_bytes;
}

bool dp_go_record(const struct dp_go_table *table, uint32_t i, struct dp_go_record *ret)
{
	struct dp_go_record record = {0};
	uint32_t words[9]; /* name, args, deferreturn, pcsp, pcfile, pcln, npcdata, unit, start */
	size_t n_words = table->format == DP_GO_FORMAT_1_20 ? 9 : 8;
	uint8_t ids[4];
	uint64_t at;

	if (!dp_go_entry(table, i, &record.entry) || !dp_go_entry(table, i + 1, &record.end) ||
	    record.end <= record.entry || !record_at(table, i, &at))
		return false;
	at += table->format == DP_GO_FORMAT_1_16 ? sizeof(uint64_t) : sizeof(uint32_t);
	if (!dp_go_bytes(&table->table, at, words, n_words * sizeof(*words)) ||
	    !dp_go_bytes(&table->table, at + n_words * sizeof(*words), ids, sizeof(ids)))
		return false;
	record.name = words[0];
	record.pc_file = words[4];
	record.pc_line = words[5];
	record.n_pcdata = words[6];
	record.unit = words[7];
	record.start_line = n_words == 9 ? (int32_t)words[8] : 0;
	record.func_id = ids[0];
	record.n_funcdata = ids[3];
	record.pcdata = at + n_words * sizeof(*words) + sizeof(ids);
	*ret = record;
	return true;
}

bool dp_go_tree(const struct dp_go_table *table, const struct dp_go_record *record, uint64_t *ret)
{
	uint64_t at = record->pcdata + (uint64_t)record->n_pcdata * sizeof(uint32_t);
	uint32_t offset;

	if (record->n_funcdata <= FUNCDATA_INL_TREE || record->n_pcdata <= PCDATA_INL_TREE)
		return false;
	if (table->format == DP_GO_FORMAT_1_16) {
		at += -(table->table.svma + at) & 7;
		return dp_go_u64(&table->table, at + FUNCDATA_INL_TREE * sizeof(uint64_t), ret) &&
		       *ret != 0;
	}
	if (!dp_go_u32(&table->table, at + FUNCDATA_INL_TREE * sizeof(uint32_t), &offset) ||
	    offset == UINT32_MAX)
		return false;
	*ret = offset;
	return true;
}

size_t dp_go_inlined_bytes(const struct dp_go_table *table)
{
	return table->format == DP_GO_FORMAT_1_20 ? 16 : 20;
}

bool dp_go_inlined(const struct dp_go_table *table, const struct dp_go_record *record,
		   const uint8_t *bytes, struct dp_go_inlined *ret)
{
	struct dp_go_inlined inlined = {0};

	if (table->format == DP_GO_FORMAT_1_20) {
		inlined.func_id = bytes[0];
		memcpy(&inlined.name, bytes + 4, 4);
		memcpy(&inlined.parent_pc, bytes + 8, 4);
		memcpy(&inlined.start_line, bytes + 12, 4);
	} else {
		inlined.func_id = bytes[2];
		memcpy(&inlined.name, bytes + 12, 4);
		memcpy(&inlined.parent_pc, bytes + 16, 4);
	}
	if (inlined.parent_pc >= record->end - record->entry || !dp_go_name(table, inlined.name))
		return false;
	*ret = inlined;
	return true;
}

const char *dp_go_name(const struct dp_go_table *table, uint32_t offset)
{
	uint64_t at = table->names + offset;
	const char *name;
	size_t n_max;

	if (at >= table->table.n_bytes)
		return NULL;
	name = (const char *)table->table.bytes + at;
	n_max = table->table.n_bytes - at + 1;
	if (n_max > MAX_NAME_BYTES)
		n_max = MAX_NAME_BYTES;
	return name[0] && memchr(name, 0, n_max) ? name : NULL;
}

static bool read_varint(const struct dp_go_chunk *chunk, uint64_t *at, uint32_t *ret)
{
	uint32_t value = 0;

	for (unsigned shift = 0; shift < 35; shift += 7) {
		uint8_t byte;

		if (*at >= chunk->n_bytes)
			return false;
		byte = chunk->bytes[(*at)++];
		value |= (uint32_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			*ret = value;
			return true;
		}
	}
	return false;
}

/* The value that the pc-value table at @offset has at @svma; NO_VALUE: none. */
static uint32_t value_at(const struct dp_go_table *table, const struct dp_go_record *record,
			 uint32_t offset, uint64_t svma)
{
	uint64_t at = table->pcs + offset;
	uint64_t pc = record->entry;
	uint32_t value = NO_VALUE;

	if (offset == 0)
		return NO_VALUE;
	for (uint32_t i = 0; i < MAX_STEPS; i++) {
		uint32_t change, n_quanta;

		if (!read_varint(&table->table, &at, &change) || (change == 0 && i > 0) ||
		    !read_varint(&table->table, &at, &n_quanta))
			return NO_VALUE;
		value += change & 1 ? ~(change >> 1) : change >> 1;
		pc += (uint64_t)n_quanta * table->quantum;
		if (svma < pc)
			return value;
	}
	return NO_VALUE;
}

static const char *file_of(const struct dp_go_table *table, const struct dp_go_record *record,
			   uint32_t i)
{
	uint64_t at = table->units + ((uint64_t)record->unit + i) * sizeof(uint32_t);
	uint32_t offset;

	if (!dp_go_u32(&table->table, at, &offset) || offset == UINT32_MAX)
		return NULL;
	at = table->files + offset;
	if (at >= table->table.n_bytes ||
	    strnlen((const char *)table->table.bytes + at, MAX_NAME_BYTES) == MAX_NAME_BYTES)
		return NULL;
	return (const char *)table->table.bytes + at;
}

static void find_place(const struct dp_go_table *table, const struct dp_go_record *record,
		       uint64_t svma, struct dp_go_line *line)
{
	uint32_t i_file = value_at(table, record, record->pc_file, svma);
	uint32_t n = value_at(table, record, record->pc_line, svma);
	const char *file;

	line->file = "";
	line->line = 0;
	if (i_file == NO_VALUE || n == NO_VALUE)
		return;
	file = file_of(table, record, i_file);
	if (file)
		line->file = file;
	line->line = (int32_t)n > 0 ? (int32_t)n : 0;
}

/* The call that was inlined at @svma. Returns false if there is none. */
static bool find_inlined(const struct dp_go_table *table, const struct dp_go_record *record,
			 uint64_t svma, struct dp_go_inlined *ret)
{
	size_t n_entry = dp_go_inlined_bytes(table);
	uint8_t bytes[20];
	uint64_t tree;
	uint32_t offset, i;

	if (!table->trees.bytes || !dp_go_tree(table, record, &tree) ||
	    !dp_go_u32(&table->table, record->pcdata + PCDATA_INL_TREE * sizeof(uint32_t), &offset))
		return false;
	i = value_at(table, record, offset, svma);
	tree += table->tree_base;
	return (int32_t)i >= 0 && tree >= table->trees.svma &&
	       dp_go_bytes(&table->trees, tree - table->trees.svma + (uint64_t)i * n_entry, bytes,
			   n_entry) &&
	       dp_go_inlined(table, record, bytes, ret);
}

static bool find_record(const struct dp_go_table *table, uint64_t svma, struct dp_go_record *ret)
{
	uint32_t low = 0, high = table->n_functions;
	uint64_t entry;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (!dp_go_entry(table, middle, &entry))
			return false;
		if (entry <= svma)
			low = middle + 1;
		else
			high = middle;
	}
	return low > 0 && dp_go_record(table, low - 1, ret) && svma >= ret->entry &&
	       svma < ret->end && dp_go_name(table, ret->name);
}

static void fill_function(const struct dp_go_table *table, const struct dp_go_record *record,
			  struct dp_go_function *ret)
{
	*ret = (struct dp_go_function){
		.entry = record->entry,
		.end = record->end,
		.name = dp_go_name(table, record->name),
		.start_line = record->start_line > 0 ? record->start_line : 0,
		.func_id = record->func_id,
	};
}

bool dp_go_table_function(const struct dp_go_table *table, uint64_t svma,
			  struct dp_go_function *ret)
{
	struct dp_go_record record;

	if (!find_record(table, svma, &record))
		return false;
	fill_function(table, &record, ret);
	return true;
}

bool dp_go_table_find(const struct dp_go_table *table, const char *name, struct dp_go_function *ret)
{
	struct dp_go_record record;

	for (uint32_t i = 0; i < table->n_functions; i++) {
		const char *found;

		if (!dp_go_record(table, i, &record))
			continue;
		found = dp_go_name(table, record.name);
		if (found && strcmp(found, name) == 0) {
			fill_function(table, &record, ret);
			return true;
		}
	}
	return false;
}

/*
 * Whether the tracebackers leave out function @func_id, which called @callee_id. A wrapper that
 * called a panic function instead of what it wraps is shown. Source: runtime.elideWrapperCalling.
 */
static bool is_hidden(const struct dp_go_table *table, int func_id, int callee_id)
{
	return func_id == table->wrapper && callee_id != table->gopanic &&
	       callee_id != table->sigpanic && callee_id != table->panicwrap;
}

size_t dp_go_table_lines(const struct dp_go_table *table, uint64_t svma, struct dp_go_line *ret)
{
	struct dp_go_record record;
	uint64_t pc = svma;
	int callee_id = -1;
	size_t n = 0;

	if (!find_record(table, svma, &record))
		return 0;
	for (size_t depth = 0;; depth++) {
		struct dp_go_line line = {.func_id = record.func_id};
		struct dp_go_inlined inlined;
		bool is_last = depth == MAX_DEPTH || !find_inlined(table, &record, pc, &inlined);

		if (is_last) {
			line.function = dp_go_name(table, record.name);
			line.start_line = record.start_line > 0 ? record.start_line : 0;
		} else {
			line.function = dp_go_name(table, inlined.name);
			line.start_line = inlined.start_line > 0 ? inlined.start_line : 0;
			line.func_id = inlined.func_id;
		}
		/* What is there itself is shown, whatever it is; only callers are left out. */
		if ((n == 0 || !is_hidden(table, line.func_id, callee_id)) &&
		    (is_last || n < DP_GO_MAX_LINES - 1)) {
			find_place(table, &record, pc, &line);
			if (n > 0)
				ret[n - 1].parent = pc;
			ret[n++] = line;
		}
		callee_id = line.func_id;
		if (is_last)
			return n;
		pc = record.entry + inlined.parent_pc;
	}
}
