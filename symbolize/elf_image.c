/* SPDX-License-Identifier: MIT */
#include "symbolize/elf_image.h"

#include <elfutils/libdwelf.h>
#include <errno.h>
#include <gelf.h>
#include <string.h>

/*
 * The one hard idea: program headers, not sections, say what is mapped where, also in a file that
 * was stripped of its sections. Every sum of two numbers of the file is checked before it is used.
 */

/* A note segment holds a few notes; more than this is not read. */
#define MAX_NOTES_BYTES (1u << 20)

static void read_build_id(Elf *elf, const GElf_Phdr *phdr, struct dp_elf_image *image)
{
	size_t n_bytes = phdr->p_filesz < MAX_NOTES_BYTES ? phdr->p_filesz : MAX_NOTES_BYTES;
	Elf_Type type = phdr->p_align == 8 ? ELF_T_NHDR8 : ELF_T_NHDR;
	Elf_Data *data = elf_getdata_rawchunk(elf, (int64_t)phdr->p_offset, n_bytes, type);
	size_t next = 0, name_off, desc_off;
	GElf_Nhdr note;

	while (data && (next = gelf_getnote(data, next, &note, &name_off, &desc_off)) > 0) {
		const char *bytes = data->d_buf;

		if (note.n_type != NT_GNU_BUILD_ID || note.n_namesz != sizeof("GNU") ||
		    memcmp(bytes + name_off, "GNU", sizeof("GNU")) != 0 || note.n_descsz == 0 ||
		    note.n_descsz > DP_MODULE_BUILD_ID_MAX)
			continue;
		memcpy(image->build_id, bytes + desc_off, note.n_descsz);
		image->build_id_bytes = note.n_descsz;
		return;
	}
}

/* Notes a PT_LOAD; false if its numbers make no sense. */
static bool add_load(const GElf_Phdr *phdr, bool first, struct dp_elf_image *image)
{
	uint64_t end, file_end;

	if (__builtin_add_overflow(phdr->p_vaddr, phdr->p_memsz, &end) ||
	    __builtin_add_overflow(phdr->p_offset, phdr->p_filesz, &file_end))
		return false;
	if (first)
		image->base = phdr->p_align ? phdr->p_vaddr & -phdr->p_align : phdr->p_vaddr;
	if (end > image->end)
		image->end = end;
	if (!(phdr->p_flags & PF_X) || phdr->p_filesz == 0)
		return true;
	if (image->n_segments == DP_ELF_MAX_SEGMENTS) {
		image->n_unfit++;
		return true;
	}
	image->segments[image->n_segments++] =
		(struct dp_elf_segment){phdr->p_vaddr, phdr->p_offset, phdr->p_filesz};
	return true;
}

int dp_elf_image_read(Elf *elf, struct dp_elf_image *ret)
{
	struct dp_elf_image image = {0};
	bool first = true;
	size_t n_phdrs;
	GElf_Ehdr ehdr;

	if (elf_kind(elf) != ELF_K_ELF || !gelf_getehdr(elf, &ehdr) ||
	    (ehdr.e_type != ET_EXEC && ehdr.e_type != ET_DYN) || elf_getphdrnum(elf, &n_phdrs) != 0)
		return -ENOEXEC;
	image.machine = ehdr.e_machine;
	for (size_t i = 0; i < n_phdrs; i++) {
		GElf_Phdr phdr;

		if (!gelf_getphdr(elf, (int)i, &phdr))
			return -ENOEXEC;
		if (phdr.p_type == PT_NOTE && image.build_id_bytes == 0)
			read_build_id(elf, &phdr, &image);
		if (phdr.p_type != PT_LOAD)
			continue;
		if (!add_load(&phdr, first, &image))
			return -ENOEXEC;
		first = false;
	}
	if (image.n_segments == 0)
		return -ENOEXEC;
	*ret = image;
	return 0;
}

bool dp_elf_svma_of(const struct dp_elf_image *image, uint64_t file_off, uint64_t *ret_svma)
{
	for (size_t i = 0; i < image->n_segments; i++) {
		const struct dp_elf_segment *s = &image->segments[i];

		if (file_off >= s->file_off && file_off - s->file_off < s->n_bytes) {
			*ret_svma = file_off - s->file_off + s->svma;
			return true;
		}
	}
	return false;
}

bool dp_elf_file_off_of(const struct dp_elf_image *image, uint64_t svma, uint64_t *ret_file_off)
{
	for (size_t i = 0; i < image->n_segments; i++) {
		const struct dp_elf_segment *s = &image->segments[i];

		if (svma >= s->svma && svma - s->svma < s->n_bytes) {
			*ret_file_off = svma - s->svma + s->file_off;
			return true;
		}
	}
	return false;
}

bool dp_elf_has_build_id(Elf *elf, const void *build_id, size_t n_bytes)
{
	const void *found;

	return dwelf_elf_gnu_build_id(elf, &found) == (ssize_t)n_bytes &&
	       memcmp(found, build_id, n_bytes) == 0;
}

bool dp_elf_file_has_build_id(int fd, const void *build_id, size_t n_bytes)
{
	Elf *elf = elf_begin(fd, ELF_C_READ, NULL);
	bool same = elf && dp_elf_has_build_id(elf, build_id, n_bytes);

	elf_end(elf);
	return same;
}
