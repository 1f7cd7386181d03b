/* SPDX-License-Identifier: MIT */
#include "symbolize/go_table.h"

#include <errno.h>
#include <stdlib.h>

#include "symbolize/go_binary.h"
#include "symbolize/go_format.h"
#include "symbolize/go_module.h"

/*
 * The one hard idea: the header alone says where everything is that lies in the table, and it says
 * so in offsets. Only two addresses lie outside, that of the text and that of the inline trees, and
 * these are in the runtime's module data (go_module.h).
 */

#define MAX_TABLE_BYTES (UINT64_C(512) << 20)
#define HEADER_BYTES 72
#define TREE_TAIL_BYTES (1u << 20) /* of the last inline tree */

/* The header, Go 1.16 or later. Source: runtime.pcHeader. */
struct header {
	enum dp_go_format format;
	uint8_t quantum;
	uint64_t n_functions, text; /* text 0: not there */
	uint64_t names, units, files, pcs, functions;
};

static uint64_t word_at(const uint8_t *bytes, size_t i)
{
	uint64_t word;

	memcpy(&word, bytes + 8 * i, sizeof(word));
	return word;
}

/* What every version's header begins with: magic, zeros, quantum, size of a pointer. */
static bool looks_like_header(const uint8_t *bytes)
{
	return bytes[1] == 0xff && bytes[2] == 0xff && bytes[3] == 0xff && bytes[0] >= 0xe0 &&
	       bytes[4] == 0 && bytes[5] == 0 && (bytes[6] == 1 || bytes[6] == 4) && bytes[7] == 8;
}

/* Returns 0, -ENOTSUP (another version) or -ENOEXEC (no header). */
static int read_header(const uint8_t *bytes, struct header *ret)
{
	struct header h = {.quantum = bytes[6], .n_functions = word_at(bytes, 1)};
	size_t i = 3;

	if (!looks_like_header(bytes))
		return -ENOEXEC;
	if (bytes[0] != 0xfa && bytes[0] != 0xf0 && bytes[0] != 0xf1)
		return -ENOTSUP;
	h.format = bytes[0] == 0xfa   ? DP_GO_FORMAT_1_16
		   : bytes[0] == 0xf0 ? DP_GO_FORMAT_1_18
				      : DP_GO_FORMAT_1_20;
	if (h.format != DP_GO_FORMAT_1_16)
		h.text = word_at(bytes, i++);
	h.names = word_at(bytes, i);
	h.units = word_at(bytes, i + 1);
	h.files = word_at(bytes, i + 2);
	h.pcs = word_at(bytes, i + 3);
	h.functions = word_at(bytes, i + 4);
	if (h.n_functions == 0 || h.n_functions > UINT32_MAX / 16 || h.names > h.units ||
	    h.units > h.files || h.files > h.pcs || h.pcs > h.functions)
		return -ENOEXEC;
	*ret = h;
	return 0;
}

struct search {
	uint64_t svma;
	bool is_found, is_unknown; /* a table; what looks as one of another version */
};

static bool visit_word(void *data, uint64_t svma, const uint8_t *bytes, size_t n_bytes)
{
	struct search *search = data;
	struct header header;
	int r;

	if (n_bytes < HEADER_BYTES || !looks_like_header(bytes))
		return false;
	r = read_header(bytes, &header);
	search->is_unknown |= r == -ENOTSUP;
	if (r < 0)
		return false;
	search->svma = svma;
	search->is_found = true;
	return true;
}

/* Where the table begins, and how much of the file may be of it. */
static int find_table(const struct dp_go_file *file, uint64_t *ret_svma, uint64_t *ret_bytes)
{
	static const char *const names[] = {".gopclntab", ".data.rel.ro.gopclntab", NULL};
	struct search search = {0};
	uint64_t n_left;
	int r;

	if (dp_go_file_section(file, names, ret_svma, ret_bytes)) {
		n_left = dp_go_file_bytes_from(file, *ret_svma);
		if (*ret_bytes > n_left)
			*ret_bytes = n_left;
		if (*ret_bytes > 0)
			return 0;
	}
	r = dp_go_file_words(file, false, HEADER_BYTES, visit_word, &search);
	if (r < 0)
		return r;
	if (!search.is_found)
		return search.is_unknown ? -ENOTSUP : -ENOENT;
	*ret_svma = search.svma;
	*ret_bytes = dp_go_file_bytes_from(file, search.svma);
	return 0;
}

static int read_table(struct dp_go_table *table, const struct dp_go_file *file)
{
	uint64_t svma, n_bytes;
	struct header header;
	int r = find_table(file, &svma, &n_bytes);

	if (r < 0)
		return r;
	if (n_bytes < HEADER_BYTES)
		return -ENOEXEC;
	if (n_bytes > MAX_TABLE_BYTES)
		return -EFBIG;
	r = dp_go_file_chunk(file, svma, (size_t)n_bytes, &table->table);
	if (r == 0)
		r = read_header(table->table.bytes, &header);
	if (r != 0)
		return r;
	if (header.functions >= n_bytes ||
	    (n_bytes - header.functions) / (header.format == DP_GO_FORMAT_1_16 ? 16 : 8) <
		    header.n_functions)
		return -ENOEXEC;
	table->format = header.format;
	table->quantum = header.quantum;
	table->n_functions = (uint32_t)header.n_functions;
	table->text = header.text;
	table->names = header.names;
	table->units = header.units;
	table->files = header.files;
	table->pcs = header.pcs;
	table->functions = header.functions;
	return 0;
}

/*
 * The numbers of the functions that wrappers are shown for, and of wrappers, which follow from
 * those: they were renumbered several times, not always with the format.
 * Source: internal/abi/symtab.go, and runtime/symtab.go before Go 1.20.
 */
static void find_ids(struct dp_go_table *table)
{
	struct dp_go_function function;

	table->gopanic =
		dp_go_table_find(table, "runtime.gopanic", &function) ? function.func_id : -1;
	table->panicwrap =
		dp_go_table_find(table, "runtime.panicwrap", &function) ? function.func_id : -1;
	table->wrapper = table->sigpanic = -1;
	if (!dp_go_table_find(table, "runtime.sigpanic", &function))
		return;
	table->sigpanic = function.func_id;
	table->wrapper = table->format == DP_GO_FORMAT_1_16 ? 22 : function.func_id + 3;
}

/* Reads what all the functions' inline trees lie in. */
static int read_trees(struct dp_go_table *table, const struct dp_go_file *file)
{
	uint64_t low = UINT64_MAX, high = 0, n_bytes, tree;
	struct dp_go_record record;
	int r;

	for (uint32_t i = 0; i < table->n_functions; i++) {
		if (!dp_go_record(table, i, &record) || !dp_go_tree(table, &record, &tree))
			continue;
		low = tree < low ? tree : low;
		high = tree > high ? tree : high;
	}
	if (low > high)
		return 0;
	n_bytes = dp_go_file_bytes_from(file, table->tree_base + low);
	if (n_bytes > high - low + TREE_TAIL_BYTES)
		n_bytes = high - low + TREE_TAIL_BYTES;
	if (n_bytes > MAX_TABLE_BYTES)
		n_bytes = MAX_TABLE_BYTES;
	r = dp_go_file_chunk(file, table->tree_base + low, (size_t)n_bytes, &table->trees);
	return r == -ENOMEM ? r : 0;
}

static int read_all(struct dp_go_table *table, const struct dp_go_file *file)
{
	bool has_trees = false;
	int r = read_table(table, file);

	if (r == 0)
		r = dp_go_module_find(table, file, &has_trees);
	if (r < 0)
		return r;
	if (table->format != DP_GO_FORMAT_1_16 && table->text == 0)
		return -ENOEXEC;
	find_ids(table);
	return has_trees || table->format == DP_GO_FORMAT_1_16 ? read_trees(table, file) : 0;
}

int dp_go_table_open(struct dp_go_table **ret, int fd)
{
	struct dp_go_table *table;
	struct dp_go_file file;
	int r;

	if (!dp_file_is_go(fd) || dp_go_file_read(&file, fd) < 0)
		return -ENOENT;
	table = calloc(1, sizeof(*table));
	if (!table)
		return -ENOMEM;
	r = read_all(table, &file);
	if (r < 0)
		dp_go_table_free(table);
	else
		*ret = table;
	return r;
}

void dp_go_table_free(struct dp_go_table *table)
{
	if (!table)
		return;
	dp_go_chunk_clear(&table->table);
	dp_go_chunk_clear(&table->trees);
	free(table);
}

bool dp_go_table_module_data(const struct dp_go_table *table, uint64_t *ret_svma)
{
	if (table->module_data == 0)
		return false;
	*ret_svma = table->module_data;
	return true;
}
