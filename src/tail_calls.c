/* SPDX-License-Identifier: MIT */
#include "src/tail_calls.h"

#include <elf.h>
#include <string.h>

/*
 * The hard idea: a jump out of a function is found without decoding it. Every byte that may begin a
 * `jmp` is taken for one, and believed only if it leads to exactly where another function begins by
 * the module's table of call frame information, which a stripped file has too. In glibc and
 * libstdc++ that is wrong for about one function in a thousand.
 */

#define MAX_CODE_BYTES 4096	 /* as much of a function as is looked through */
#define MAX_PROGRAM_HEADERS 128	 /* more than any linker writes */
#define LAST_FUNCTION_BYTES 4096 /* the table does not say where its last function ends */

#define JMP_REL8 0xeb
#define JMP_REL8_BYTES 2
#define JMP_REL32 0xe9
#define JMP_REL32_BYTES 5

/* .eh_frame_hdr: 4-byte fields; a sorted table relative to the section's own start. */
#define HDR_VERSION 1
#define ENCODING_FORM_MASK 0x0f
#define ENCODING_UDATA4 0x03
#define ENCODING_SDATA4 0x0b
#define ENCODING_TABLE 0x3b /* DW_EH_PE_datarel | DW_EH_PE_sdata4 */
#define HDR_BYTES 12
#define HDR_ENTRY_BYTES 8

static bool read_exactly(const struct dp_tail_calls *tail_calls, uint64_t file_off, void *ret,
			 size_t n_bytes)
{
	return dp_module_read(tail_calls->modules, tail_calls->module, file_off, ret, n_bytes) ==
	       (ptrdiff_t)n_bytes;
}

static void take_segment(struct dp_tail_calls *tail_calls, const Elf64_Phdr *phdr)
{
	if (phdr->p_type == PT_GNU_EH_FRAME) {
		tail_calls->hdr_svma = phdr->p_vaddr;
		tail_calls->hdr_file_off = phdr->p_offset;
	}
	if (phdr->p_type == PT_LOAD && phdr->p_flags & PF_X &&
	    tail_calls->n_segments < DP_TAIL_MAX_SEGMENTS)
		tail_calls->segments[tail_calls->n_segments++] =
			(struct dp_tail_segment){phdr->p_vaddr, phdr->p_offset, phdr->p_filesz};
}

static bool read_segments(struct dp_tail_calls *tail_calls)
{
	Elf64_Ehdr ehdr;

	if (!read_exactly(tail_calls, 0, &ehdr, sizeof(ehdr)) ||
	    memcmp(ehdr.e_ident, ELFMAG, SELFMAG) != 0 || ehdr.e_ident[EI_CLASS] != ELFCLASS64 ||
	    ehdr.e_machine != EM_X86_64 || ehdr.e_phentsize != sizeof(Elf64_Phdr) ||
	    ehdr.e_phnum > MAX_PROGRAM_HEADERS)
		return false;
	for (uint64_t i = 0; i < ehdr.e_phnum; i++) {
		Elf64_Phdr phdr;

		if (!read_exactly(tail_calls, ehdr.e_phoff + i * sizeof(phdr), &phdr, sizeof(phdr)))
			return false;
		take_segment(tail_calls, &phdr);
	}
	return tail_calls->hdr_file_off != 0;
}

static bool read_table_header(struct dp_tail_calls *tail_calls)
{
	uint8_t hdr[HDR_BYTES];
	unsigned pointer_form;

	if (!read_exactly(tail_calls, tail_calls->hdr_file_off, hdr, sizeof(hdr)))
		return false;
	pointer_form = hdr[1] & ENCODING_FORM_MASK;
	if (hdr[0] != HDR_VERSION || hdr[2] != ENCODING_UDATA4 || hdr[3] != ENCODING_TABLE ||
	    (pointer_form != ENCODING_UDATA4 && pointer_form != ENCODING_SDATA4))
		return false;
	memcpy(&tail_calls->n_functions, hdr + 8, sizeof(tail_calls->n_functions));
	return true;
}

bool dp_tail_calls_open(struct dp_tail_calls *ret, struct dp_modules *modules, uint32_t id)
{
	struct dp_tail_calls tail_calls = {.modules = modules, .module = id};

	if (!read_segments(&tail_calls) || !read_table_header(&tail_calls))
		return false;
	*ret = tail_calls;
	return true;
}

/* Where the table's function @i begins. */
static bool read_start(const struct dp_tail_calls *tail_calls, uint32_t i, uint64_t *ret_svma)
{
	int32_t relative;

	if (!read_exactly(tail_calls,
			  tail_calls->hdr_file_off + HDR_BYTES + (uint64_t)i * HDR_ENTRY_BYTES,
			  &relative, sizeof(relative)))
		return false;
	*ret_svma = tail_calls->hdr_svma + (uint64_t)(int64_t)relative;
	return true;
}

/* Whether a function begins at @svma, and how far it is to the next one. */
static bool find_function(const struct dp_tail_calls *tail_calls, uint64_t svma,
			  uint64_t *ret_size_bytes)
{
	uint32_t low = 0, high = tail_calls->n_functions;
	uint64_t start;

	/* The first function that begins at or behind @svma. */
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (!read_start(tail_calls, middle, &start))
			return false;
		if (start < svma)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == tail_calls->n_functions || !read_start(tail_calls, low, &start) || start != svma)
		return false;
	if (low + 1 == tail_calls->n_functions)
		*ret_size_bytes = LAST_FUNCTION_BYTES;
	else if (read_start(tail_calls, low + 1, &start) && start > svma)
		*ret_size_bytes = start - svma;
	else
		return false;
	return true;
}

static bool svma_of(const struct dp_tail_calls *tail_calls, uint64_t file_off, uint64_t *ret)
{
	for (size_t i = 0; i < tail_calls->n_segments; i++) {
		const struct dp_tail_segment *segment = &tail_calls->segments[i];

		if (file_off - segment->file_off < segment->n_bytes) {
			*ret = file_off - segment->file_off + segment->svma;
			return true;
		}
	}
	return false;
}

static bool file_off_of(const struct dp_tail_calls *tail_calls, uint64_t svma, uint64_t *ret)
{
	for (size_t i = 0; i < tail_calls->n_segments; i++) {
		const struct dp_tail_segment *segment = &tail_calls->segments[i];

		if (svma - segment->svma < segment->n_bytes) {
			*ret = svma - segment->svma + segment->file_off;
			return true;
		}
	}
	return false;
}

/* Where the jump that may be at @code leads, relative to @code; 0 if there is none. */
static int64_t jump_at(const uint8_t *code, size_t n_bytes)
{
	int32_t relative;

	if (code[0] == JMP_REL8 && n_bytes >= JMP_REL8_BYTES)
		return JMP_REL8_BYTES + (int8_t)code[1];
	if (code[0] != JMP_REL32 || n_bytes < JMP_REL32_BYTES)
		return 0;
	memcpy(&relative, code + 1, sizeof(relative));
	return JMP_REL32_BYTES + (int64_t)relative;
}

size_t dp_tail_calls_find(const struct dp_tail_calls *tail_calls, uint64_t file_off,
			  uint64_t size_bytes, struct dp_tail_call *ret, size_t max)
{
	uint8_t code[MAX_CODE_BYTES];
	size_t wanted = size_bytes < sizeof(code) ? (size_t)size_bytes : sizeof(code);
	size_t n_found = 0;
	uint64_t svma;
	ptrdiff_t n;

	if (!svma_of(tail_calls, file_off, &svma))
		return 0;
	n = dp_module_read(tail_calls->modules, tail_calls->module, file_off, code, wanted);
	for (ptrdiff_t i = 0; i < n && n_found < max; i++) {
		int64_t relative = jump_at(&code[i], (size_t)(n - i));
		uint64_t target = svma + (uint64_t)i + (uint64_t)relative;
		struct dp_tail_call found;

		if (target - svma < size_bytes ||
		    !find_function(tail_calls, target, &found.size_bytes) ||
		    !file_off_of(tail_calls, target, &found.file_off))
			continue;
		ret[n_found++] = found;
	}
	return n_found;
}
