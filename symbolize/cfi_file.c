/* SPDX-License-Identifier: MIT */
#include "symbolize/cfi_file.h"

#include <dwarf.h>
#include <errno.h>
#include <gelf.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "symbolize/cfi_check.h"
#include "symbolize/module_registry.h"

/*
 * The one hard idea: libdw takes call frame information out of an ELF file, and opens and
 * decompresses all debug information of the file on the way to .debug_frame. So it is shown a file
 * that we make: the sections that it needs, checked, at the addresses that they have in the real
 * one.
 */

/* What is read into memory of one section, and must fit dp_cfi_check(). */
#define MAX_SECTION_BYTES (UINT64_C(1) << 28)

enum { EH_FRAME_HDR, EH_FRAME, DEBUG_FRAME, N_SECTIONS };

static const char *const names[N_SECTIONS] = {".eh_frame_hdr", ".eh_frame", ".debug_frame"};

/* The sections of the made file: the null section, ours, and the names. */
enum { FIRST_INDEX = 1, NAMES_INDEX = FIRST_INDEX + N_SECTIONS, N_INDICES };

/* Libdw's and our own reading of a number may look at some bytes behind a section. */
#define GAP_BYTES 32

static const char made_names[] = "\0.eh_frame_hdr\0.eh_frame\0.debug_frame\0.names";
static const uint32_t made_name_at[N_SECTIONS] = {1, 15, 25};
#define MADE_NAMES_NAME_AT 38

static struct dp_cfi_section section_of(const Elf_Data *data, uint64_t svma)
{
	if (!data || !data->d_buf || data->d_size > MAX_SECTION_BYTES)
		return (struct dp_cfi_section){0};
	return (struct dp_cfi_section){data->d_buf, data->d_size, svma};
}

/* The content of a section, unpacked; nothing if it is too large. Borrowed from the Elf. */
static struct dp_cfi_section read_section(Elf_Scn *scn, const GElf_Shdr *shdr)
{
	GElf_Chdr chdr;

	if (shdr->sh_type == SHT_NOBITS || shdr->sh_size > MAX_SECTION_BYTES)
		return (struct dp_cfi_section){0};
	if (shdr->sh_flags & SHF_COMPRESSED &&
	    (!gelf_getchdr(scn, &chdr) || chdr.ch_size > MAX_SECTION_BYTES ||
	     elf_compress(scn, 0, 0) < 0))
		return (struct dp_cfi_section){0};
	return section_of(elf_rawdata(scn, NULL), shdr->sh_addr);
}

static void find_sections(Elf *elf, struct dp_cfi_section *sections)
{
	Elf_Scn *scn = NULL;
	size_t i_names;

	if (elf_getshdrstrndx(elf, &i_names) != 0)
		return;
	while ((scn = elf_nextscn(elf, scn))) {
		GElf_Shdr shdr;
		const char *name =
			gelf_getshdr(scn, &shdr) ? elf_strptr(elf, i_names, shdr.sh_name) : NULL;

		for (int i = 0; name && i < N_SECTIONS; i++) {
			if (strcmp(name, names[i]) == 0 && sections[i].n_bytes == 0)
				sections[i] = read_section(scn, &shdr);
		}
	}
}

/* The first program header that @is_it says yes to. */
static bool find_phdr(Elf *elf, bool (*is_it)(const GElf_Phdr *phdr, uint64_t svma), uint64_t svma,
		      GElf_Phdr *ret)
{
	size_t n;

	if (elf_getphdrnum(elf, &n) != 0)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (gelf_getphdr(elf, (int)i, ret) && is_it(ret, svma))
			return true;
	}
	return false;
}

static bool is_table(const GElf_Phdr *phdr, uint64_t svma)
{
	(void)svma;
	return phdr->p_type == PT_GNU_EH_FRAME;
}

static bool holds(const GElf_Phdr *phdr, uint64_t svma)
{
	return phdr->p_type == PT_LOAD && svma >= phdr->p_vaddr &&
	       svma - phdr->p_vaddr < phdr->p_filesz;
}

static struct dp_cfi_section read_chunk(Elf *elf, uint64_t file_off, uint64_t n_bytes,
					uint64_t svma)
{
	if (n_bytes > MAX_SECTION_BYTES || file_off > INT64_MAX)
		return (struct dp_cfi_section){0};
	return section_of(elf_getdata_rawchunk(elf, (int64_t)file_off, n_bytes, ELF_T_BYTE), svma);
}

/*
 * Without section headers: the program header leads to the table, the table to .eh_frame, and that
 * ends before its segment does.
 */
static void find_segments(Elf *elf, struct dp_cfi_section *sections)
{
	static const uint8_t form[] = {1, DW_EH_PE_pcrel | DW_EH_PE_sdata4};
	const size_t pointer_at = 4;
	struct dp_cfi_section table;
	uint64_t svma, at;
	int32_t distance;
	GElf_Phdr phdr;

	if (!find_phdr(elf, is_table, 0, &phdr))
		return;
	table = read_chunk(elf, phdr.p_offset, phdr.p_filesz, phdr.p_vaddr);
	if (table.n_bytes < pointer_at + sizeof(distance) ||
	    memcmp(table.bytes, form, sizeof(form)) != 0)
		return;
	memcpy(&distance, table.bytes + pointer_at, sizeof(distance));
	svma = table.svma + pointer_at + (uint64_t)(int64_t)distance;
	if (!find_phdr(elf, holds, svma, &phdr))
		return;
	at = svma - phdr.p_vaddr;
	sections[EH_FRAME] = read_chunk(elf, phdr.p_offset + at, phdr.p_filesz - at, svma);
	sections[EH_FRAME_HDR] = table;
}

static bool is_for_us(Elf *elf)
{
	GElf_Ehdr ehdr;

	return gelf_getehdr(elf, &ehdr) && ehdr.e_machine == EM_X86_64 &&
	       ehdr.e_ident[EI_CLASS] == ELFCLASS64 && ehdr.e_ident[EI_DATA] == ELFDATA2LSB;
}

/* Writes the headers of the made file, whose sections lie in it already. */
static void write_headers(struct dp_cfi_file *file, const struct dp_cfi_section *sections,
			  size_t headers_at, size_t names_at)
{
	Elf64_Shdr *shdrs = (Elf64_Shdr *)(void *)(file->bytes + headers_at);
	const Elf64_Ehdr ehdr = {
		.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
			    EV_CURRENT},
		.e_type = ET_DYN,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_shoff = headers_at,
		.e_ehsize = sizeof(ehdr),
		.e_shentsize = sizeof(*shdrs),
		.e_shnum = N_INDICES,
		.e_shstrndx = NAMES_INDEX,
	};

	memcpy(file->bytes, &ehdr, sizeof(ehdr));
	for (int i = 0; i < N_SECTIONS; i++) {
		if (sections[i].n_bytes == 0)
			continue;
		shdrs[FIRST_INDEX + i] = (Elf64_Shdr){
			.sh_name = made_name_at[i],
			.sh_type = SHT_PROGBITS,
			.sh_addr = sections[i].svma,
			.sh_offset = (uint64_t)(sections[i].bytes - file->bytes),
			.sh_size = sections[i].n_bytes,
			.sh_addralign = 1,
		};
	}
	shdrs[NAMES_INDEX] = (Elf64_Shdr){
		.sh_name = MADE_NAMES_NAME_AT,
		.sh_type = SHT_STRTAB,
		.sh_offset = names_at,
		.sh_size = sizeof(made_names),
		.sh_addralign = 1,
	};
	memcpy(file->bytes + names_at, made_names, sizeof(made_names));
}

static int check(struct dp_cfi_section *sections, uint64_t *n_bad)
{
	int r = dp_cfi_check(&sections[EH_FRAME], true,
			     sections[EH_FRAME_HDR].n_bytes ? &sections[EH_FRAME_HDR] : NULL,
			     n_bad);

	return r < 0 ? r : dp_cfi_check(&sections[DEBUG_FRAME], false, NULL, n_bad);
}

/* Puts the sections together to an ELF file. They then lie in it. */
static int make_image(struct dp_cfi_file *file, struct dp_cfi_section *sections, size_t max_bytes,
		      uint64_t *n_bad)
{
	const size_t align = sizeof(uint64_t);
	size_t at = sizeof(Elf64_Ehdr) + GAP_BYTES, names_at, headers_at;
	int r;

	names_at = at;
	for (int i = 0; i < N_SECTIONS; i++)
		names_at += sections[i].n_bytes + GAP_BYTES;
	headers_at = (names_at + sizeof(made_names) + align - 1) / align * align;
	file->n_bytes = headers_at + N_INDICES * sizeof(Elf64_Shdr);
	if (file->n_bytes > max_bytes)
		return -EFBIG;
	file->bytes = calloc(1, file->n_bytes);
	if (!file->bytes)
		return -ENOMEM;
	for (int i = 0; i < N_SECTIONS; i++) {
		if (sections[i].n_bytes > 0)
			memcpy(file->bytes + at, sections[i].bytes, sections[i].n_bytes);
		sections[i].bytes = file->bytes + at;
		at += sections[i].n_bytes + GAP_BYTES;
	}
	r = check(sections, n_bad);
	if (r == 0)
		write_headers(file, sections, headers_at, names_at);
	return r;
}

static int open_image(struct dp_cfi_file *file, const struct dp_cfi_section *sections)
{
	file->elf = elf_memory((char *)file->bytes, file->n_bytes);
	if (!file->elf)
		return -ENOENT;
	if (sections[EH_FRAME].n_bytes > 0)
		file->eh_frame = dwarf_getcfi_elf(file->elf);
	if (sections[DEBUG_FRAME].n_bytes > 0)
		file->dwarf = dwarf_begin_elf(file->elf, DWARF_C_READ, NULL);
	if (file->dwarf)
		file->debug_frame = dwarf_getcfi(file->dwarf);
	return file->eh_frame || file->debug_frame ? 0 : -ENOENT;
}

int dp_cfi_file_open(struct dp_cfi_file *ret, const struct dp_modules *modules, uint32_t id,
		     size_t max_bytes, uint64_t *n_bad)
{
	struct dp_cfi_section sections[N_SECTIONS] = {0};
	struct dp_cfi_file file = {0};
	Elf *elf = dp_module_elf_begin(modules, id);
	int r = -ENOENT;

	if (!elf || !is_for_us(elf))
		goto out;
	find_sections(elf, sections);
	if (sections[EH_FRAME].n_bytes == 0)
		find_segments(elf, sections);
	if (sections[EH_FRAME].n_bytes == 0 && sections[DEBUG_FRAME].n_bytes == 0)
		goto out;
	r = make_image(&file, sections, max_bytes, n_bad);
	if (r == 0)
		r = open_image(&file, sections);
	if (r == 0) {
		*ret = file;
		file = (struct dp_cfi_file){0};
	}
out:
	dp_cfi_file_close(&file);
	elf_end(elf);
	return r;
}

void dp_cfi_file_close(struct dp_cfi_file *file)
{
	if (file->eh_frame)
		dwarf_cfi_end(file->eh_frame);
	dwarf_end(file->dwarf); /* and .debug_frame's with it */
	elf_end(file->elf);
	free(file->bytes);
	*file = (struct dp_cfi_file){0};
}
