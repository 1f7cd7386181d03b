/* SPDX-License-Identifier: MIT */
/*
 * What reads mapped files, fed any bytes. An input that begins as an ELF file is the file. Any
 * other is a list of changes to a real one, of which most survive the outer layers and so reach
 * what lies inside: a byte that says which file, then for each change the section (or the headers),
 * the offset in it (two bytes), the number of bytes and the bytes.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/hostile.h"

#define MAX_BASES 8
#define MAX_REGIONS 64
#define MAX_BYTES (1u << 18)
#define MAX_ADDRESSES 12
#define MAX_CHANGE_BYTES 31

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);
const char *__lsan_default_suppressions(void);

/* libelf 0.188 loses some hundred bytes a file on its own error paths. */
const char *__lsan_default_suppressions(void)
{
	return "leak:libelf.so\nleak:libdw.so\n";
}

struct region {
	size_t at, n_bytes;
};

struct base {
	uint8_t bytes[MAX_BYTES];
	size_t n_bytes;
	struct region regions[MAX_REGIONS];
	size_t n_regions;
	uint64_t file_off[MAX_ADDRESSES]; /* of code */
	size_t n_addresses;
};

static struct base bases[MAX_BASES];
static size_t n_bases;

static void add_region(struct base *base, uint64_t at, uint64_t n_bytes)
{
	if (n_bytes == 0 || base->n_regions == MAX_REGIONS)
		return;
	assert(at + n_bytes <= base->n_bytes);
	base->regions[base->n_regions++] = (struct region){at, n_bytes};
}

/* The code lies in the file where it is linked: no section of these files is moved. */
static void add_code(struct base *base, const GElf_Shdr *shdr)
{
	for (size_t i = 0; i < 4 && base->n_addresses < MAX_ADDRESSES; i++)
		base->file_off[base->n_addresses++] = shdr->sh_offset + i * shdr->sh_size / 4 + 2;
}

static void find_regions(struct base *base)
{
	Elf *elf = elf_memory((char *)base->bytes, base->n_bytes);
	Elf_Scn *section = NULL;
	GElf_Ehdr ehdr;
	GElf_Shdr shdr;

	assert(elf && gelf_getehdr(elf, &ehdr));
	add_region(base, 0, ehdr.e_ehsize);
	add_region(base, ehdr.e_phoff, (uint64_t)ehdr.e_phnum * ehdr.e_phentsize);
	add_region(base, ehdr.e_shoff, (uint64_t)ehdr.e_shnum * ehdr.e_shentsize);
	while ((section = elf_nextscn(elf, section))) {
		assert(gelf_getshdr(section, &shdr));
		if (shdr.sh_flags & SHF_EXECINSTR)
			add_code(base, &shdr);
		else if (shdr.sh_type != SHT_NOBITS)
			add_region(base, shdr.sh_offset, shdr.sh_size);
	}
	elf_end(elf);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const char *const names[] = {DP_FUZZ_BASES};

	(void)argc;
	(void)argv;
	elf_version(EV_CURRENT);
	for (; n_bases < sizeof(names) / sizeof(*names); n_bases++) {
		struct base *base = &bases[n_bases];
		int fd = open(names[n_bases], O_RDONLY | O_CLOEXEC);
		ssize_t n = read(fd, base->bytes, sizeof(base->bytes));

		assert(n > 0 && (size_t)n < sizeof(base->bytes));
		base->n_bytes = (size_t)n;
		close(fd);
		find_regions(base);
	}
	return 0;
}

static void look_at_file(const uint8_t *data, size_t n_bytes)
{
	static const uint64_t file_off[] = {0x1002, 0x1010, 0x1080, 0x10ff, 0x110f, 0x1120, 0x40};
	struct hostile_result result;

	hostile_look_at_bytes(data, n_bytes, file_off, sizeof(file_off) / sizeof(*file_off),
			      &result);
}

static void look_at_changed(const uint8_t *data, const uint8_t *end)
{
	static uint8_t bytes[MAX_BYTES];
	const struct base *base = &bases[*data++ % n_bases];
	struct hostile_result result;

	memcpy(bytes, base->bytes, base->n_bytes);
	while (end - data >= 5) {
		const struct region *region = &base->regions[data[0] % base->n_regions];
		size_t at = (data[1] | (size_t)data[2] << 8) % region->n_bytes;
		size_t n = data[3] % MAX_CHANGE_BYTES + 1;

		data += 4;
		if (n > (size_t)(end - data))
			n = (size_t)(end - data);
		if (n > region->n_bytes - at)
			n = region->n_bytes - at;
		memcpy(bytes + region->at + at, data, n);
		data += n;
	}
	hostile_look_at_bytes(bytes, base->n_bytes, base->file_off, base->n_addresses, &result);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	if (n_bytes >= SELFMAG && memcmp(data, ELFMAG, SELFMAG) == 0)
		look_at_file(data, n_bytes);
	else if (n_bytes > 0)
		look_at_changed(data, data + n_bytes);
	return 0;
}
