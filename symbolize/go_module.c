/* SPDX-License-Identifier: MIT */
#include "symbolize/go_module.h"

#include <errno.h>

/*
 * The one hard idea: the module data are known by their first word, the table's address, and by the
 * words that must agree with the table. Where in them the base of the inline trees stands has
 * changed twice while the format stayed; the right word is the one from which the first functions'
 * trees make sense.
 */

#define N_WORDS 50
#define MAX_CANDIDATES 32
#define N_SAMPLES 64
/* Words that did not move from Go 1.16 to 1.27. */
#define W_TABLE 0
#define W_NAMES 1
#define W_MIN_PC 20
#define W_MAX_PC 21
#define W_TEXT 22
/* Where the base of the trees may be. */
#define W_TREES_BEGIN 34
#define W_TREES_END 48

struct search {
	uint64_t table;
	uint64_t candidates[MAX_CANDIDATES];
	size_t n;
};

static void add_candidate(struct search *search, uint64_t svma)
{
	if (search->n < MAX_CANDIDATES)
		search->candidates[search->n++] = svma;
}

static void visit_relocation(void *data, uint64_t svma, uint64_t value)
{
	struct search *search = data;

	if (value == search->table)
		add_candidate(search, svma);
}

static bool visit_word(void *data, uint64_t svma, const uint8_t *bytes, size_t n_bytes)
{
	struct search *search = data;

	(void)n_bytes;
	if (memcmp(bytes, &search->table, sizeof(search->table)) == 0)
		add_candidate(search, svma);
	return false;
}

/* Reads the candidate. Returns 0, -ENOEXEC if it is none, or -ENOMEM. */
static int read_words(const struct dp_go_table *table, const struct dp_go_file *file, uint64_t svma,
		      uint64_t *ret)
{
	struct dp_go_table moved = *table;
	struct dp_go_chunk chunk;
	uint64_t first, last;
	int r = dp_go_file_chunk(file, svma, N_WORDS * sizeof(*ret), &chunk);

	if (r < 0)
		return r;
	memcpy(ret, chunk.bytes, N_WORDS * sizeof(*ret));
	dp_go_chunk_clear(&chunk);
	if (table->format != DP_GO_FORMAT_1_16)
		moved.text = ret[W_TEXT];
	if (ret[W_TABLE] != table->table.svma || ret[W_NAMES] != table->table.svma + table->names ||
	    !dp_go_entry(&moved, 0, &first) || !dp_go_entry(&moved, table->n_functions, &last) ||
	    ret[W_MIN_PC] != first || ret[W_MAX_PC] != last || ret[W_TEXT] > first)
		return -ENOEXEC;
	return 0;
}

/* Whether the first functions' trees make sense if @base is what they are relative to. */
static bool is_tree_base(const struct dp_go_table *table, const struct dp_go_file *file,
			 uint64_t base)
{
	struct dp_go_record record;
	size_t n = 0;

	for (uint32_t i = 0; i < table->n_functions && n < N_SAMPLES; i++) {
		struct dp_go_inlined inlined;
		uint8_t bytes[20];
		uint64_t tree;

		if (!dp_go_record(table, i, &record) || !dp_go_tree(table, &record, &tree))
			continue;
		if (!dp_go_file_copy(file, base + tree, bytes, dp_go_inlined_bytes(table)) ||
		    !dp_go_inlined(table, &record, bytes, &inlined) ||
		    (inlined.name > 0 && table->table.bytes[table->names + inlined.name - 1] != 0))
			return false;
		n++;
	}
	return n > 0;
}

static void use_words(struct dp_go_table *table, const struct dp_go_file *file, uint64_t svma,
		      const uint64_t *words, bool *ret_has_trees)
{
	table->module_data = svma;
	if (table->format == DP_GO_FORMAT_1_16)
		return;
	table->text = words[W_TEXT];
	for (size_t i = W_TREES_BEGIN; i < W_TREES_END; i++) {
		if (words[i] == 0 || !is_tree_base(table, file, words[i]))
			continue;
		table->tree_base = words[i];
		*ret_has_trees = true;
		return;
	}
}

int dp_go_module_find(struct dp_go_table *table, const struct dp_go_file *file, bool *ret_has_trees)
{
	struct search search = {.table = table->table.svma};
	uint64_t words[N_WORDS];
	int r = dp_go_file_relocations(file, visit_relocation, &search);

	if (r == 0)
		r = dp_go_file_words(file, true, 0, visit_word, &search);
	for (size_t i = 0; r == 0 && i < search.n; i++) {
		r = read_words(table, file, search.candidates[i], words);
		if (r == 0) {
			use_words(table, file, search.candidates[i], words, ret_has_trees);
			return 0;
		}
		r = r == -ENOMEM ? r : 0;
	}
	return r;
}
