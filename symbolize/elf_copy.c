/* SPDX-License-Identifier: MIT */
#include "symbolize/elf_copy.h"

#include <errno.h>
#include <gelf.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * The one hard idea: libdw 0.188 checks where a string begins but not that it ends within its
 * section (dwarf_formstring()), so each section must be followed by readable memory with a zero in
 * it: the rest of the file's image, of which only the pages that were read take memory. A mapping
 * of the file would do, but for SIGBUS when the file is cut short.
 */

#define MAX_READ_BYTES (UINT64_C(4) << 30)
#define MAX_SECTIONLESS (UINT64_C(64) << 20)
#define MAX_FILE_BYTES (UINT64_C(1) << 40)
#define BYTES_OF_ZEROS 4096u
#define MAX_HEADERS_BYTES (64u << 10) /* the ELF header, the program headers and more */

struct reader {
	struct dp_elf_copy *copy;
	struct dp_modules *modules;
	uint32_t module;
	uint64_t n_read;
};

void dp_elf_copy_clear(struct dp_elf_copy *copy)
{
	if (copy->bytes)
		munmap(copy->bytes, copy->n_mapped);
	*copy = (struct dp_elf_copy){0};
}

/* Reads what there is of @n_bytes at @offset to its place. */
static int read_part(struct reader *reader, uint64_t offset, uint64_t n_bytes)
{
	const struct dp_elf_copy *copy = reader->copy;
	ptrdiff_t n;

	if (offset >= copy->n_bytes)
		return 0;
	if (n_bytes > copy->n_bytes - offset)
		n_bytes = copy->n_bytes - offset;
	if (n_bytes > MAX_READ_BYTES - reader->n_read)
		return -EFBIG;
	reader->n_read += n_bytes;
	n = dp_module_read(reader->modules, reader->module, offset, copy->bytes + offset, n_bytes);
	return n < 0 ? -ENOEXEC : 0;
}

/* Where variables are, macros, and indexes of names: much, and no address is named by them. */
static bool is_other_debug_information(const char *name)
{
	static const char *const prefixes[] = {".debug_loc", ".debug_mac",   ".debug_pub",
					       ".debug_gnu", ".debug_names", ".gdb_index"};

	for (size_t i = 0; name && i < sizeof(prefixes) / sizeof(*prefixes); i++) {
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	}
	return false;
}

/* Code, data and what is not in the file are not needed to name an address. */
static bool is_needed(Elf *elf, size_t i_names, const GElf_Shdr *shdr)
{
	if (shdr->sh_type == SHT_NOBITS || shdr->sh_type == SHT_NULL)
		return false;
	if (shdr->sh_flags & SHF_ALLOC)
		return shdr->sh_type != SHT_PROGBITS;
	return !is_other_debug_information(elf_strptr(elf, i_names, shdr->sh_name));
}

static int read_sections(struct reader *reader, Elf *elf)
{
	Elf_Scn *section = NULL;
	size_t n_sections, i_names = SHN_UNDEF;
	GElf_Ehdr ehdr;
	GElf_Shdr shdr;
	int r;

	if (!gelf_getehdr(elf, &ehdr) || elf_getshdrnum(elf, &n_sections) != 0)
		return -ENOEXEC;
	if (n_sections == 0)
		return read_part(reader, 0, MAX_SECTIONLESS);
	elf_getshdrstrndx(elf, &i_names);
	r = read_part(reader, ehdr.e_phoff, MAX_HEADERS_BYTES);
	if (r == 0)
		r = read_part(reader, ehdr.e_shoff, n_sections * ehdr.e_shentsize);
	while (r == 0 && (section = elf_nextscn(elf, section))) {
		if (gelf_getshdr(section, &shdr) && is_needed(elf, i_names, &shdr))
			r = read_part(reader, shdr.sh_offset, shdr.sh_size);
	}
	return r;
}

static int file_size(const struct dp_modules *modules, uint32_t id, uint64_t *ret)
{
	int fd = dp_module_fd(modules, id);
	struct stat st;

	if (fd < 0) {
		*ret = dp_module_vdso_bytes(modules, id);
		return 0;
	}
	if (fstat(fd, &st) < 0)
		return -ENOEXEC;
	*ret = (uint64_t)st.st_size;
	return 0;
}

int dp_elf_copy_read(struct dp_elf_copy *ret, struct dp_modules *modules, uint32_t id)
{
	struct dp_elf_copy copy = {0};
	struct reader reader = {.copy = &copy, .modules = modules, .module = id};
	Elf *elf = dp_module_elf_begin(modules, id);
	uint64_t n_bytes;
	int r;

	if (!elf)
		return -ENOEXEC;
	r = file_size(modules, id, &n_bytes);
	if (r < 0)
		goto out;
	if (n_bytes > MAX_FILE_BYTES) {
		r = -EFBIG;
		goto out;
	}
	copy.n_bytes = n_bytes;
	copy.n_mapped = n_bytes + BYTES_OF_ZEROS;
	copy.bytes = mmap(NULL, copy.n_mapped, PROT_READ | PROT_WRITE,
			  /* cppcheck-suppress invalidFunctionArg ; anonymous: no descriptor */
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (copy.bytes == MAP_FAILED) {
		copy.bytes = NULL;
		r = -EFBIG;
		goto out;
	}
	/* A fault for every 4 KiB costs more than the reading; where it is refused, it does. */
	madvise(copy.bytes, copy.n_mapped, MADV_HUGEPAGE);
	r = read_part(&reader, 0, MAX_HEADERS_BYTES);
	if (r == 0)
		r = read_sections(&reader, elf);
	if (r == 0) {
		*ret = copy;
		copy = (struct dp_elf_copy){0};
	}
out:
	dp_elf_copy_clear(&copy);
	elf_end(elf);
	return r;
}
