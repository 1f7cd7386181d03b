/* SPDX-License-Identifier: MIT */
#include "symbolize/go_binary.h"

#include <gelf.h>
#include <libelf.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/*
 * The one hard idea: strip and packers take sections away, never what is loaded. Go's linker puts
 * the build information into the writable data, on a multiple of 16 bytes, and Go's own tools look
 * for it there in the same way.
 */

#define MAGIC "\xff Go buildinf:"
#define MAGIC_BYTES (sizeof(MAGIC) - 1)
#define MAGIC_ALIGN 16
/* As much of each segment as is looked at: relocated read-only data lies before it at times. */
#define MAX_SEARCH_BYTES (1u << 20)
#define MAX_SECTIONS 4096
#define MAX_SEGMENTS 64

static bool is_go_section(const char *name)
{
	static const char *const names[] = {".go.buildinfo", ".gopclntab",
					    ".data.rel.ro.gopclntab"};

	for (size_t i = 0; name && i < sizeof(names) / sizeof(*names); i++) {
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

static bool has_go_section(Elf *elf)
{
	Elf_Scn *section = NULL;
	size_t i_names, n = 0;
	GElf_Shdr shdr;

	if (elf_getshdrstrndx(elf, &i_names) != 0)
		return false;
	while (n++ < MAX_SECTIONS && (section = elf_nextscn(elf, section))) {
		if (gelf_getshdr(section, &shdr) &&
		    is_go_section(elf_strptr(elf, i_names, shdr.sh_name)))
			return true;
	}
	return false;
}

static bool begins_with_magic(Elf *elf, const GElf_Phdr *phdr)
{
	size_t n_bytes = phdr->p_filesz < MAX_SEARCH_BYTES ? phdr->p_filesz : MAX_SEARCH_BYTES;
	Elf_Data *data = elf_getdata_rawchunk(elf, (int64_t)phdr->p_offset, n_bytes, ELF_T_BYTE);

	if (!data || !data->d_buf)
		return false;
	for (size_t i = 0; i + MAGIC_BYTES <= data->d_size; i += MAGIC_ALIGN) {
		if (memcmp((const char *)data->d_buf + i, MAGIC, MAGIC_BYTES) == 0)
			return true;
	}
	return false;
}

static bool has_magic(Elf *elf)
{
	size_t n_phdrs;
	GElf_Phdr phdr;

	if (elf_getphdrnum(elf, &n_phdrs) != 0)
		return false;
	for (size_t i = 0; i < n_phdrs && i < MAX_SEGMENTS; i++) {
		/* A program that only knows the magic, as this one does, has it where it reads. */
		if (gelf_getphdr(elf, (int)i, &phdr) && phdr.p_type == PT_LOAD &&
		    (phdr.p_flags & (PF_X | PF_W)) == PF_W && begins_with_magic(elf, &phdr))
			return true;
	}
	return false;
}

bool dp_file_is_go(int fd)
{
	Elf *elf;
	bool is_go;

	if (elf_version(EV_CURRENT) == EV_NONE)
		return false;
	elf = elf_begin(fd, ELF_C_READ, NULL);
	is_go = elf && elf_kind(elf) == ELF_K_ELF && (has_go_section(elf) || has_magic(elf));
	elf_end(elf);
	return is_go;
}
