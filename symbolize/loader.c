/* SPDX-License-Identifier: MIT */
#include "symbolize/loader.h"

#include <errno.h>
#include <gelf.h>
#include <string.h>

/*
 * The one hard idea: the same name means a notification in a loader's dynamic symbols and nothing
 * in a static program's, and a loader that is run as a program looks like a static PIE but for one
 * flag.
 */

static size_t n_entries(const Elf_Data *data, const GElf_Shdr *shdr)
{
	size_t n = data && shdr->sh_entsize ? data->d_size / shdr->sh_entsize : 0;

	return n < INT32_MAX ? n : INT32_MAX;
}

static void read_symbols(Elf *elf, Elf_Scn *section, const GElf_Shdr *shdr, struct dp_loader *l)
{
	Elf_Data *data = elf_getdata(section, NULL);
	size_t n = n_entries(data, shdr);

	for (size_t i = 0; i < n; i++) {
		const char *name;
		GElf_Sym symbol;

		if (!gelf_getsym(data, (int)i, &symbol))
			return;
		name = elf_strptr(elf, shdr->sh_link, symbol.st_name);
		if (!name || symbol.st_shndx == SHN_UNDEF)
			continue;
		if (strcmp(name, "_dl_debug_state") == 0)
			l->notify_svma = symbol.st_value;
		else if (strcmp(name, "_r_debug") == 0)
			l->r_debug_svma = symbol.st_value;
	}
}

static void read_flags(Elf_Scn *section, const GElf_Shdr *shdr, struct dp_loader *l)
{
	Elf_Data *data = elf_getdata(section, NULL);
	size_t n = n_entries(data, shdr);

	for (size_t i = 0; i < n; i++) {
		GElf_Dyn entry;

		if (!gelf_getdyn(data, (int)i, &entry) || entry.d_tag == DT_NULL)
			return;
		if (entry.d_tag == DT_FLAGS_1 && (entry.d_un.d_val & DF_1_PIE))
			l->is_library = false;
	}
}

static int read_elf(Elf *elf, struct dp_loader *ret)
{
	struct dp_loader loader = {0};
	Elf_Scn *section = NULL;
	GElf_Ehdr ehdr;
	GElf_Shdr shdr;

	if (elf_kind(elf) != ELF_K_ELF || !gelf_getehdr(elf, &ehdr))
		return -ENOEXEC;
	loader.machine = ehdr.e_machine;
	loader.is_64bit = ehdr.e_ident[EI_CLASS] == ELFCLASS64;
	loader.is_library = ehdr.e_type == ET_DYN;
	loader.entry_svma = ehdr.e_entry;
	while ((section = elf_nextscn(elf, section))) {
		if (!gelf_getshdr(section, &shdr))
			continue;
		if (shdr.sh_type == SHT_DYNSYM)
			read_symbols(elf, section, &shdr, &loader);
		else if (shdr.sh_type == SHT_DYNAMIC)
			read_flags(section, &shdr, &loader);
	}
	*ret = loader;
	return 0;
}

int dp_loader_read(int fd, struct dp_loader *ret)
{
	Elf *elf;
	int r;

	elf_version(EV_CURRENT);
	elf = elf_begin(fd, ELF_C_READ, NULL);
	r = read_elf(elf, ret);
	elf_end(elf);
	return r;
}
