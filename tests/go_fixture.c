/* SPDX-License-Identifier: MIT */
#include "tests/go_fixture.h"

#include <assert.h>
#include <elf.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BASE UINT64_C(0x400000)
#define TEXT UINT64_C(0x401000)
#define N_FUNCTIONS 3
#define NONE UINT32_MAX

/* Offsets in their tables. */
#define NAMES "\0main.f\0main.g[int]\0runtime.sigpanic\0main.inner"
static const uint32_t name_at[N_FUNCTIONS] = {1, 8, 20};
#define INNER_NAME 37
#define FILES "f.go"
/* No table; file 0; lines 10 and 20; inlined call 0 in the middle. */
static const uint8_t pcs[] = {0, 2, 0x80, 2, 0,	   22, 0x40, 20, 0xc0, 1,
			      0, 0, 0x10, 2, 0x10, 1,  0xe0, 1,	 0};
#define PC_FILE 1
#define PC_LINE 5
#define PC_INLINED 11

static void put(uint8_t *at, uint64_t value, size_t n_bytes)
{
	memcpy(at, &value, n_bytes);
}

/* A _func at @at, whose size is returned. */
static size_t put_function(uint8_t *at, enum go_fixture_format format, uint32_t i)
{
	bool is_known = i < 2, has_trees = i == 0;
	uint32_t words[8] = {name_at[i], 0, 0, 0, is_known ? PC_FILE : 0, is_known ? PC_LINE : 0,
			     3,		 0};
	size_t n = format == GO_FIXTURE_1_16 ? 8 : 4;

	put(at, format == GO_FIXTURE_1_16 ? TEXT + i * 0x100 : i * 0x100, n);
	memcpy(at + n, words, sizeof(words));
	n += sizeof(words);
	if (format >= GO_FIXTURE_1_20) {
		put(at + n, is_known ? 7 : 0, 4);
		n += 4;
	}
	at[n] = i == 2 ? 18 : 0;
	at[n + 3] = 4;
	n += 4;
	put(at + n + 8, has_trees ? PC_INLINED : 0, 4);
	n += 12;
	if (format == GO_FIXTURE_1_16) {
		n = (n + 7) & ~(size_t)7;
		put(at + n + 24, has_trees ? BASE + GO_FIXTURE_TREES : 0, 8);
		return n + 32;
	}
	for (size_t k = 0; k < 4; k++)
		put(at + n + 4 * k, k == 3 && has_trees ? 16 : NONE, 4);
	return n + 16;
}

static size_t put_functions(uint8_t *at, enum go_fixture_format format)
{
	size_t word = format == GO_FIXTURE_1_16 ? 8 : 4;
	size_t n = (2 * N_FUNCTIONS + 2) * word;

	for (uint32_t i = 0; i <= N_FUNCTIONS; i++) {
		put(at + 2 * word * i,
		    format == GO_FIXTURE_1_16 ? TEXT + i * 0x100 : i * (uint64_t)0x100, word);
		if (i < N_FUNCTIONS) {
			n = (n + 7) & ~(size_t)7;
			put(at + 2 * word * i + word, n, word);
			n += put_function(at + n, format, i);
		}
	}
	return n;
}

static size_t put_table(uint8_t *at, enum go_fixture_format format)
{
	static const uint8_t magics[] = {0xfa, 0xf0, 0xf1, 0xf1};
	const uint8_t begin[] = {magics[format], 0xff, 0xff, 0xff, 0, 0, 1, 8};
	const uint64_t offsets[] = {0x50, 0x90, 0x98, 0xa0, 0xc0}; /* names … functions */
	size_t n = 24;

	memcpy(at, begin, sizeof(begin));
	put(at + 8, N_FUNCTIONS, 8);
	put(at + 16, 1, 8);
	if (format != GO_FIXTURE_1_16) {
		put(at + n, format == GO_FIXTURE_1_26 ? 0 : TEXT, 8);
		n += 8;
	}
	memcpy(at + n, offsets, sizeof(offsets));
	memcpy(at + 0x50, NAMES, sizeof(NAMES));
	put(at + 0x90, 0, 4);
	memcpy(at + 0x98, FILES, sizeof(FILES));
	memcpy(at + 0xa0, pcs, sizeof(pcs));
	return 0xc0 + put_functions(at + 0xc0, format);
}

/* The second entry is there so that 16 bytes on is one, too. */
static void put_trees(uint8_t *at, enum go_fixture_format format)
{
	size_t n = format == GO_FIXTURE_1_16 ? 0 : 16;

	if (format >= GO_FIXTURE_1_20) {
		put(at + n + 4, INNER_NAME, 4);
		put(at + n + 8, 0x40, 4);
		put(at + n + 12, 5, 4);
		return;
	}
	put(at + n, 0xffff, 2);
	put(at + n + 12, INNER_NAME, 4);
	put(at + n + 16, 0x40, 4);
}

static void put_module(uint8_t *at, enum go_fixture_format format)
{
	size_t i_trees = format == GO_FIXTURE_1_18 ? 38 : 40;

	put(at, BASE + GO_FIXTURE_TABLE, 8);
	put(at + 8, BASE + GO_FIXTURE_TABLE + 0x50, 8);
	put(at + 160, TEXT, 8);
	put(at + 168, TEXT + N_FUNCTIONS * 0x100, 8);
	put(at + 176, TEXT, 8);
	put(at + i_trees * 8, BASE + GO_FIXTURE_TREES, 8);
}

static void put_elf(uint8_t *at)
{
	const Elf64_Phdr phdrs[] = {
		{PT_LOAD, PF_R, 0, BASE, BASE, 0x1000, 0x1000, 0x1000},
		{PT_LOAD, PF_R | PF_X, 0x1000, TEXT, TEXT, 0x300, 0x300, 0x1000},
		{PT_LOAD, PF_R | PF_W, 0x2000, 0x402000, 0x402000, 0x400, 0x400, 0x1000},
	};
	const Elf64_Ehdr ehdr = {
		.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
			    EV_CURRENT},
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof(ehdr),
		.e_ehsize = sizeof(ehdr),
		.e_phentsize = sizeof(*phdrs),
		.e_phnum = sizeof(phdrs) / sizeof(*phdrs),
	};

	memcpy(at, &ehdr, sizeof(ehdr));
	memcpy(at + sizeof(ehdr), phdrs, sizeof(phdrs));
	memcpy(at + 0x2000, "\xff Go buildinf:", 14);
}

void go_fixture_build(struct go_fixture *ret, enum go_fixture_format format)
{
	memset(ret, 0, sizeof(*ret));
	put_elf(ret->bytes);
	ret->n_table_bytes = put_table(ret->bytes + GO_FIXTURE_TABLE, format);
	assert(GO_FIXTURE_TABLE + ret->n_table_bytes <= GO_FIXTURE_TREES);
	put_trees(ret->bytes + GO_FIXTURE_TREES, format);
	put_module(ret->bytes + GO_FIXTURE_MODULE, format);
}

int go_fixture_open(const void *bytes, size_t n_bytes)
{
	int fd = memfd_create("go-fixture", MFD_CLOEXEC);
	ssize_t n;

	assert(fd >= 0);
	n = write(fd, bytes, n_bytes);
	assert(n == (ssize_t)n_bytes);
	(void)n;
	return fd;
}
