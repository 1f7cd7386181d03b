/* SPDX-License-Identifier: MIT */
#include "symbolize/go_file.h"

#include <errno.h>
#include <gelf.h>
#include <libelf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * The one hard idea: in a position-independent program the words that point somewhere are only
 * said by the relocations, whose addends are the values; the words themselves may be 0. An
 * addend is an svma as everything else here.
 */

#define MAX_SECTIONS 4096
#define MAX_DYNAMIC 1024
#define MAX_RELA_BYTES (UINT64_C(1) << 30)
#define BUFFER_BYTES (1u << 18)

static bool add_segment(struct dp_go_file *file, const GElf_Phdr *phdr, uint64_t file_bytes)
{
	uint64_t n_bytes = phdr->p_filesz;
	uint64_t end;

	if (phdr->p_offset >= file_bytes || file->n_segments == DP_GO_MAX_SEGMENTS)
		return true;
	if (n_bytes > file_bytes - phdr->p_offset)
		n_bytes = file_bytes - phdr->p_offset;
	if (__builtin_add_overflow(phdr->p_vaddr, n_bytes, &end))
		return false;
	file->segments[file->n_segments++] = (struct dp_go_segment){
		.svma = phdr->p_vaddr,
		.file_off = phdr->p_offset,
		.n_bytes = n_bytes,
		.is_writable = phdr->p_flags & PF_W,
		.is_code = phdr->p_flags & PF_X,
	};
	return true;
}

static void read_dynamic(struct dp_go_file *file, uint64_t svma, uint64_t n_bytes)
{
	Elf64_Dyn dynamic;

	for (uint64_t i = 0; i < MAX_DYNAMIC && i < n_bytes / sizeof(dynamic); i++) {
		if (!dp_go_file_copy(file, svma + i * sizeof(dynamic), &dynamic, sizeof(dynamic)) ||
		    dynamic.d_tag == DT_NULL)
			return;
		if (dynamic.d_tag == DT_RELA)
			file->rela = dynamic.d_un.d_ptr;
		if (dynamic.d_tag == DT_RELASZ && dynamic.d_un.d_val <= MAX_RELA_BYTES)
			file->n_rela_bytes = dynamic.d_un.d_val;
	}
}

static int read_headers(struct dp_go_file *file, Elf *elf, uint64_t file_bytes)
{
	uint64_t dynamic = 0, n_dynamic_bytes = 0;
	size_t n_phdrs;
	GElf_Ehdr ehdr;

	if (!elf || elf_kind(elf) != ELF_K_ELF || !gelf_getehdr(elf, &ehdr) ||
	    ehdr.e_ident[EI_CLASS] != ELFCLASS64 || ehdr.e_ident[EI_DATA] != ELFDATA2LSB ||
	    elf_getphdrnum(elf, &n_phdrs) != 0)
		return -ENOEXEC;
	file->relative = ehdr.e_machine == EM_AARCH64 ? R_AARCH64_RELATIVE : R_X86_64_RELATIVE;
	for (size_t i = 0; i < n_phdrs; i++) {
		GElf_Phdr phdr;

		if (!gelf_getphdr(elf, (int)i, &phdr))
			return -ENOEXEC;
		if (phdr.p_type == PT_LOAD && !add_segment(file, &phdr, file_bytes))
			return -ENOEXEC;
		if (phdr.p_type == PT_DYNAMIC) {
			dynamic = phdr.p_vaddr;
			n_dynamic_bytes = phdr.p_filesz;
		}
	}
	read_dynamic(file, dynamic, n_dynamic_bytes);
	return 0;
}

int dp_go_file_read(struct dp_go_file *ret, int fd)
{
	struct dp_go_file file = {.fd = fd};
	struct stat st;
	Elf *elf;
	int r;

	if (elf_version(EV_CURRENT) == EV_NONE || fstat(fd, &st) < 0 || st.st_size <= 0)
		return -ENOEXEC;
	elf = elf_begin(fd, ELF_C_READ, NULL);
	r = read_headers(&file, elf, (uint64_t)st.st_size);
	elf_end(elf);
	if (r == 0)
		*ret = file;
	return r;
}

static bool is_one_of(const char *const *names, const char *name)
{
	for (; name && *names; names++) {
		if (strcmp(*names, name) == 0)
			return true;
	}
	return false;
}

static bool find_section(Elf *elf, const char *const *names, GElf_Shdr *ret)
{
	Elf_Scn *section = NULL;
	size_t i_names, n = 0;

	if (!elf || elf_getshdrstrndx(elf, &i_names) != 0)
		return false;
	while (n++ < MAX_SECTIONS && (section = elf_nextscn(elf, section))) {
		if (gelf_getshdr(section, ret) && (ret->sh_flags & SHF_ALLOC) &&
		    ret->sh_type != SHT_NOBITS &&
		    is_one_of(names, elf_strptr(elf, i_names, ret->sh_name)))
			return true;
	}
	return false;
}

bool dp_go_file_section(const struct dp_go_file *file, const char *const *names, uint64_t *ret_svma,
			uint64_t *ret_bytes)
{
	Elf *elf = elf_begin(file->fd, ELF_C_READ, NULL);
	GElf_Shdr shdr;
	bool found = find_section(elf, names, &shdr);

	elf_end(elf);
	if (!found)
		return false;
	*ret_svma = shdr.sh_addr;
	*ret_bytes = shdr.sh_size;
	return true;
}

static const struct dp_go_segment *segment_of(const struct dp_go_file *file, uint64_t svma)
{
	for (size_t i = 0; i < file->n_segments; i++) {
		const struct dp_go_segment *s = &file->segments[i];

		if (svma >= s->svma && svma - s->svma < s->n_bytes)
			return s;
	}
	return NULL;
}

uint64_t dp_go_file_bytes_from(const struct dp_go_file *file, uint64_t svma)
{
	const struct dp_go_segment *s = segment_of(file, svma);

	return s ? s->n_bytes - (svma - s->svma) : 0;
}

static bool read_at(int fd, uint64_t file_off, uint8_t *ret, size_t n_bytes)
{
	while (n_bytes > 0) {
		ssize_t n = pread(fd, ret, n_bytes, (off_t)file_off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		ret += n;
		file_off += (uint64_t)n;
		n_bytes -= (size_t)n;
	}
	return true;
}

bool dp_go_file_copy(const struct dp_go_file *file, uint64_t svma, void *ret, size_t n_bytes)
{
	const struct dp_go_segment *s = segment_of(file, svma);

	return s && n_bytes <= s->n_bytes - (svma - s->svma) &&
	       read_at(file->fd, s->file_off + (svma - s->svma), ret, n_bytes);
}

static void relocate(void *data, uint64_t svma, uint64_t value)
{
	struct dp_go_chunk *chunk = data;

	if (svma >= chunk->svma && chunk->n_bytes >= sizeof(value) &&
	    svma - chunk->svma <= chunk->n_bytes - sizeof(value))
		memcpy(chunk->bytes + (svma - chunk->svma), &value, sizeof(value));
}

int dp_go_file_chunk(const struct dp_go_file *file, uint64_t svma, size_t n_bytes,
		     struct dp_go_chunk *ret)
{
	struct dp_go_chunk chunk = {.svma = svma, .n_bytes = n_bytes};
	int r = -ENOEXEC;

	if (n_bytes == 0 || n_bytes > dp_go_file_bytes_from(file, svma))
		return r;
	chunk.bytes = malloc(n_bytes + 1);
	if (!chunk.bytes)
		return -ENOMEM;
	chunk.bytes[n_bytes] = 0;
	if (dp_go_file_copy(file, svma, chunk.bytes, n_bytes))
		r = dp_go_file_relocations(file, relocate, &chunk);
	if (r < 0)
		dp_go_chunk_clear(&chunk);
	else
		*ret = chunk;
	return r;
}

void dp_go_chunk_clear(struct dp_go_chunk *chunk)
{
	free(chunk->bytes);
	*chunk = (struct dp_go_chunk){0};
}

/* dp_go_file_words() of one segment, through @buffer. */
static bool words_of(const struct dp_go_file *file, const struct dp_go_segment *s, uint8_t *buffer,
		     size_t n_more,
		     bool (*visit)(void *data, uint64_t svma, const uint8_t *bytes, size_t n_bytes),
		     void *data)
{
	uint64_t at = -s->svma & 7;

	while (at < s->n_bytes) {
		uint64_t left = s->n_bytes - at;
		size_t n = left < BUFFER_BYTES ? (size_t)left : BUFFER_BYTES;
		size_t n_visit = left <= BUFFER_BYTES ? n : n - n_more;

		if (!read_at(file->fd, s->file_off + at, buffer, n))
			return false;
		for (size_t i = 0; i < n_visit && n - i >= sizeof(uint64_t);
		     i += sizeof(uint64_t)) {
			if (visit(data, s->svma + at + i, buffer + i, n - i))
				return true;
		}
		at += (n_visit + 7) & ~(size_t)7;
	}
	return false;
}

int dp_go_file_words(const struct dp_go_file *file, bool writable_only, size_t n_more,
		     bool (*visit)(void *data, uint64_t svma, const uint8_t *bytes, size_t n_bytes),
		     void *data)
{
	uint8_t *buffer = malloc(BUFFER_BYTES);
	bool found = false;

	if (!buffer)
		return -ENOMEM;
	for (size_t i = 0; i < file->n_segments && !found; i++) {
		const struct dp_go_segment *s = &file->segments[i];

		if (!s->is_code && (s->is_writable || !writable_only))
			found = words_of(file, s, buffer, (n_more + 7) & ~(size_t)7, visit, data);
	}
	free(buffer);
	return found;
}

int dp_go_file_relocations(const struct dp_go_file *file,
			   void (*visit)(void *data, uint64_t svma, uint64_t value), void *data)
{
	const size_t n_buffer = BUFFER_BYTES / sizeof(Elf64_Rela);
	uint64_t n_left = file->n_rela_bytes / sizeof(Elf64_Rela);
	uint64_t svma = file->rela;
	Elf64_Rela *buffer;

	if (n_left == 0)
		return 0;
	buffer = malloc(n_buffer * sizeof(*buffer));
	if (!buffer)
		return -ENOMEM;
	while (n_left > 0) {
		size_t n = n_left < n_buffer ? (size_t)n_left : n_buffer;

		if (!dp_go_file_copy(file, svma, buffer, n * sizeof(*buffer)))
			break;
		for (size_t i = 0; i < n; i++) {
			if (ELF64_R_TYPE(buffer[i].r_info) == file->relative)
				visit(data, buffer[i].r_offset, (uint64_t)buffer[i].r_addend);
		}
		svma += n * sizeof(*buffer);
		n_left -= n;
	}
	free(buffer);
	return 0;
}
