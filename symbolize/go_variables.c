/* SPDX-License-Identifier: MIT */
#include "symbolize/go_variables.h"

#include <errno.h>
#include <gelf.h>
#include <libelf.h>
#include <string.h>

#include "symbolize/go_file.h"

/*
 * The one hard idea: Go's linker makes its variables local symbols without versions, so only
 * .symtab has them, and a name says all.
 */

#define MAX_SECTIONS 4096
#define MAX_SYMBOLS (64u << 20)
#define MAGIC "\xff Go buildinf:"
#define MAGIC_BYTES (sizeof(MAGIC) - 1)
#define MAGIC_ALIGN 16

static void look_at(const char *name, uint64_t svma, const char *const *names, size_t n_names,
		    uint64_t *ret, size_t *n_found)
{
	for (size_t i = 0; i < n_names; i++) {
		if (ret[i] == 0 && svma != 0 && strcmp(name, names[i]) == 0) {
			ret[i] = svma;
			(*n_found)++;
		}
	}
}

static size_t search_table(Elf *elf, Elf_Scn *section, const GElf_Shdr *shdr,
			   const char *const *names, size_t n_names, uint64_t *ret)
{
	Elf_Data *data = elf_getdata(section, NULL);
	size_t n = data && shdr->sh_entsize > 0 ? data->d_size / shdr->sh_entsize : 0, n_found = 0;

	for (size_t i = 0; i < n && i < MAX_SYMBOLS && n_found < n_names; i++) {
		const char *name;
		GElf_Sym symbol;

		if (!gelf_getsym(data, (int)i, &symbol) || symbol.st_shndx == SHN_UNDEF)
			continue;
		name = elf_strptr(elf, shdr->sh_link, symbol.st_name);
		if (name)
			look_at(name, symbol.st_value, names, n_names, ret, &n_found);
	}
	return n_found;
}

size_t dp_go_find_variables(int fd, const char *const *names, size_t n_names, uint64_t *ret)
{
	Elf_Scn *section = NULL;
	size_t n_found = 0, n = 0;
	GElf_Shdr shdr;
	Elf *elf;

	memset(ret, 0, n_names * sizeof(*ret));
	if (elf_version(EV_CURRENT) == EV_NONE)
		return 0;
	elf = elf_begin(fd, ELF_C_READ, NULL);
	while (elf && n++ < MAX_SECTIONS && (section = elf_nextscn(elf, section))) {
		if (gelf_getshdr(section, &shdr) && shdr.sh_type == SHT_SYMTAB)
			n_found += search_table(elf, section, &shdr, names, n_names, ret);
	}
	elf_end(elf);
	return n_found;
}

static bool is_magic(void *data, uint64_t svma, const uint8_t *bytes, size_t n_bytes)
{
	uint64_t *ret = data;

	if (svma % MAGIC_ALIGN != 0 || n_bytes < MAGIC_BYTES ||
	    memcmp(bytes, MAGIC, MAGIC_BYTES) != 0)
		return false;
	*ret = svma;
	return true;
}

int dp_go_find_build_info(int fd, uint64_t *ret_svma)
{
	static const char *const names[] = {".go.buildinfo", NULL};
	struct dp_go_file file;
	uint64_t n_bytes, svma;
	int r = dp_go_file_read(&file, fd);

	if (r < 0)
		return r;
	if (!dp_go_file_section(&file, names, &svma, &n_bytes)) {
		r = dp_go_file_words(&file, true, MAGIC_BYTES, is_magic, &svma);
		if (r <= 0)
			return r < 0 ? r : -ENOENT;
	}
	*ret_svma = svma;
	return 0;
}
