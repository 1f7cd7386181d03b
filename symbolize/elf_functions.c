/* SPDX-License-Identifier: MIT */
#include "symbolize/elf_image.h"

#include <errno.h>
#include <gelf.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/array.h"

/*
 * The one hard idea: many names are looked for in one pass over tables that may hold a million
 * symbols, so the names are sorted once and each symbol costs one binary search. A library's
 * .symtab writes a version into the name ("malloc@@GLIBC_2.2.5"), .dynsym does not.
 */

/* More found functions than any real file has of a few dozen names. */
#define MAX_FOUND (1u << 16)

struct wanted {
	const char *name;
	size_t i_name;
};

struct search {
	const struct dp_elf_image *image;
	struct wanted *wanted; /* sorted by name */
	size_t n_wanted;
	struct dp_found_symbol *found;
	size_t n_found, capacity;
};

static int compare_wanted(const void *a, const void *b)
{
	return strcmp(((const struct wanted *)a)->name, ((const struct wanted *)b)->name);
}

/* Compares @symbol up to its version with @name as strcmp() does. */
static int compare_unversioned(const char *symbol, const char *name)
{
	while (*symbol == *name && *symbol && *symbol != '@') {
		symbol++;
		name++;
	}
	return (*symbol == '@' ? 0 : (unsigned char)*symbol) - (unsigned char)*name;
}

/* The first of the wanted names that @symbol is, or n_wanted. */
static size_t find_wanted(const struct search *search, const char *symbol)
{
	size_t low = 0, high = search->n_wanted;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (compare_unversioned(symbol, search->wanted[middle].name) > 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < search->n_wanted && compare_unversioned(symbol, search->wanted[low].name) == 0)
		return low;
	return search->n_wanted;
}

static int add_found(struct search *search, const char *name, const GElf_Sym *symbol)
{
	uint64_t file_off;
	int r;

	if (!dp_elf_file_off_of(search->image, symbol->st_value, &file_off))
		return 0;
	for (size_t i = find_wanted(search, name);
	     i < search->n_wanted && compare_unversioned(name, search->wanted[i].name) == 0; i++) {
		if (search->n_found == MAX_FOUND)
			return 0;
		r = dp_array_reserve((void **)&search->found, &search->capacity,
				     search->n_found + 1, sizeof(*search->found));
		if (r < 0)
			return -ENOMEM;
		search->found[search->n_found++] = (struct dp_found_symbol){
			search->wanted[i].i_name, file_off, symbol->st_size};
	}
	return 0;
}

static int search_table(Elf *elf, Elf_Scn *section, const GElf_Shdr *shdr, struct search *search)
{
	Elf_Data *data = elf_getdata(section, NULL);
	size_t n_symbols = data && shdr->sh_entsize ? data->d_size / shdr->sh_entsize : 0;

	for (size_t i = 0; i < n_symbols && i <= INT32_MAX; i++) {
		const char *name;
		GElf_Sym symbol;
		int r;

		if (!gelf_getsym(data, (int)i, &symbol))
			break;
		if (GELF_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_shndx == SHN_UNDEF)
			continue;
		name = elf_strptr(elf, shdr->sh_link, symbol.st_name);
		r = name ? add_found(search, name, &symbol) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

static int search_all(Elf *elf, struct search *search)
{
	Elf_Scn *section = NULL;
	GElf_Shdr shdr;
	int r;

	while ((section = elf_nextscn(elf, section))) {
		if (!gelf_getshdr(section, &shdr) ||
		    (shdr.sh_type != SHT_DYNSYM && shdr.sh_type != SHT_SYMTAB))
			continue;
		r = search_table(elf, section, &shdr, search);
		if (r < 0)
			return r;
	}
	return 0;
}

static int compare_found(const void *a, const void *b)
{
	const struct dp_found_symbol *x = a, *y = b;

	if (x->i_name != y->i_name)
		return x->i_name < y->i_name ? -1 : 1;
	if (x->file_off != y->file_off)
		return x->file_off < y->file_off ? -1 : 1;
	/* The larger size first, so that it is the one that stays. */
	return x->size_bytes > y->size_bytes ? -1 : x->size_bytes < y->size_bytes;
}

static size_t sort_and_unite(struct dp_found_symbol *found, size_t n)
{
	size_t n_kept = 0;

	if (n > 1)
		qsort(found, n, sizeof(*found), compare_found);
	for (size_t i = 0; i < n; i++) {
		if (n_kept > 0 && found[n_kept - 1].i_name == found[i].i_name &&
		    found[n_kept - 1].file_off == found[i].file_off)
			continue;
		found[n_kept++] = found[i];
	}
	return n_kept;
}

int dp_elf_find_functions(Elf *elf, const struct dp_elf_image *image, const char *const *names,
			  size_t n_names, struct dp_found_symbol **ret, size_t *ret_n)
{
	struct search search = {.image = image, .n_wanted = n_names};
	int r = 0;

	search.wanted = calloc(n_names ? n_names : 1, sizeof(*search.wanted));
	if (!search.wanted)
		return -ENOMEM;
	for (size_t i = 0; i < n_names; i++)
		search.wanted[i] = (struct wanted){names[i], i};
	qsort(search.wanted, n_names, sizeof(*search.wanted), compare_wanted);
	r = search_all(elf, &search);
	free(search.wanted);
	if (r < 0) {
		free(search.found);
		return r;
	}
	*ret_n = sort_and_unite(search.found, search.n_found);
	*ret = search.found;
	return 0;
}
