/* SPDX-License-Identifier: MIT */
#include "symbolize/symbol_table.h"

#include <errno.h>
#include <gelf.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/array.h"

/*
 * The one hard idea: libdwfl's own search walks the whole table for each address and falls back on
 * the nearest symbol; sorted once, a lookup is a binary search, and an address between two symbols
 * belongs to nobody, unless the one before it has no size (assembler code). That one says nothing
 * of where it ends: what follows musl's memset is clone(), of which .dynsym knows nothing.
 */

#define RANK_LOCAL 1024 /* and above */

struct builder {
	struct dp_symbol_table *table;
	Dwfl_Module *module;
	const struct dp_elf_image *image;
	uint64_t bias; /* svma + bias = address */
};

void dp_symbol_table_clear(struct dp_symbol_table *table)
{
	free(table->names);
	dp_range_index_clear(&table->sized);
	dp_range_index_clear(&table->labels);
	*table = (struct dp_symbol_table){0};
}

static uint32_t rank_of(const char *name, const GElf_Sym *symbol)
{
	size_t n_underscores = strspn(name, "_");
	uint32_t rank = n_underscores < 256 ? 2 * (uint32_t)n_underscores : 512;

	if (GELF_ST_BIND(symbol->st_info) == STB_LOCAL)
		rank += RANK_LOCAL;
	if (GELF_ST_BIND(symbol->st_info) == STB_WEAK)
		rank += 1;
	return rank;
}

/* The address behind the section @i_section of @elf; 0 if there is none or it is no code. */
static uint64_t code_section_end(Elf *elf, GElf_Word i_section, uint64_t elf_bias)
{
	Elf_Scn *section = elf_getscn(elf, i_section);
	GElf_Shdr shdr;

	if (!section || !gelf_getshdr(section, &shdr) || !(shdr.sh_flags & SHF_EXECINSTR))
		return 0;
	return shdr.sh_addr + shdr.sh_size + elf_bias;
}

static bool is_code(const GElf_Sym *symbol)
{
	int type = GELF_ST_TYPE(symbol->st_info);

	return symbol->st_shndx != SHN_UNDEF && symbol->st_shndx != SHN_ABS &&
	       (type == STT_FUNC || type == STT_GNU_IFUNC || type == STT_NOTYPE);
}

static int add_symbol(struct builder *builder, int i_symbol)
{
	struct dp_symbol_table *table = builder->table;
	struct dp_range range = {.value = (uint32_t)table->n};
	uint64_t file_off;
	const char *name;
	GElf_Word i_section;
	Dwarf_Addr elf_bias;
	GElf_Sym symbol;
	GElf_Addr address;
	Elf *elf;

	name = dwfl_module_getsym_info(builder->module, i_symbol, &symbol, &address, &i_section,
				       &elf, &elf_bias);
	if (!name || !name[0] || !is_code(&symbol) ||
	    !dp_elf_file_off_of(builder->image, address - builder->bias, &file_off))
		return 0;
	if (dp_array_reserve((void **)&table->names, &table->capacity, table->n + 1,
			     sizeof(*table->names)) < 0)
		return -ENOMEM;
	table->names[table->n++] = name;
	table->has_locals |= GELF_ST_BIND(symbol.st_info) == STB_LOCAL;
	range.low = address;
	range.rank = rank_of(name, &symbol);
	if (symbol.st_size) {
		range.high = address + symbol.st_size;
		return dp_range_index_add(&table->sized, &range);
	}
	range.high = code_section_end(elf, i_section, elf_bias);
	return dp_range_index_add(&table->labels, &range);
}

/* Cuts the labels, which are sorted and reach to the end of their section, at the next symbol. */
static void cut_labels(struct dp_symbol_table *table)
{
	struct dp_range_index *labels = &table->labels;
	size_t i_sized = 0;
	uint64_t next = UINT64_MAX;

	for (size_t i = 0; i < labels->n; i++) {
		struct dp_range *label = &labels->ranges[i];

		while (i_sized < table->sized.n && table->sized.ranges[i_sized].low <= label->low)
			i_sized++;
		if (i_sized < table->sized.n && table->sized.ranges[i_sized].low < label->high)
			label->high = table->sized.ranges[i_sized].low;
	}
	for (size_t i = labels->n; i-- > 0;) {
		struct dp_range *label = &labels->ranges[i];

		if (i + 1 < labels->n && labels->ranges[i + 1].low != label->low)
			next = labels->ranges[i + 1].low;
		if (next < label->high)
			label->high = next;
		if (!table->has_locals && label->high > label->low)
			label->high = label->low + 1;
	}
}

int dp_symbol_table_build(struct dp_symbol_table *table, Dwfl_Module *module,
			  const struct dp_elf_image *image)
{
	struct builder builder = {.table = table, .module = module, .image = image};
	int n_symbols = dwfl_module_getsymtab(module);
	int r = 0;

	if (!dwfl_module_getelf(module, &builder.bias))
		return 0;
	for (int i = 1; i < n_symbols && r == 0; i++)
		r = add_symbol(&builder, i);
	if (r == 0)
		r = dp_range_index_sort(&table->sized);
	if (r == 0)
		r = dp_range_index_sort(&table->labels);
	if (r == 0) {
		cut_labels(table);
		r = dp_range_index_sort(&table->labels);
	}
	return r;
}

const char *dp_symbol_table_find(const struct dp_symbol_table *table, uint64_t address,
				 bool *ret_is_global)
{
	const struct dp_range *range = dp_range_index_find(&table->sized, address);

	if (!range)
		range = dp_range_index_find(&table->labels, address);
	if (!range)
		return NULL;
	*ret_is_global = range->rank < RANK_LOCAL;
	return table->names[range->value];
}
