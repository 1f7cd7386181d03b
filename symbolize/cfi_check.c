/* SPDX-License-Identifier: MIT */
#include "symbolize/cfi_check.h"

#include <dwarf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/array.h"

/*
 * The one hard idea: libdw 0.188 takes much in call frame information on trust. It walks an
 * augmentation string without a look at the section's end, makes room for register 2^28, copies
 * that room at each remembered state, and asserts that no expression is read in two ways, which is
 * so only if entries do not overlap. So each entry is read once, field by field, by the same rules
 * and with bounds; one that breaks them is broken for good, by a version or a pointer that libdw
 * checks first.
 */

#define MAX_CIES ((size_t)1 << 20)
#define MAX_PROGRAM_BYTES ((size_t)1 << 20)
#define MAX_EXPRESSION_BYTES 256
#define MAX_REGISTER 255
#define MAX_REMEMBERED 32
#define MAX_AUGMENTATION 8
#define MAX_LEB128_BYTES 10

struct reader {
	const uint8_t *at, *end;
};

struct cie {
	size_t offset;
	size_t address_bytes; /* of each address in its FDEs */
	bool sized;	      /* its FDEs say how long their augmentation is */
};

struct checker {
	struct dp_cfi_section *frames;
	bool is_eh;
	struct cie *cies; /* the good ones, by offset */
	size_t n_cies, capacity;
	uint64_t n_bad;
	uint8_t *entries; /* one bit a byte: an FDE begins here */
};

/* One CIE or FDE, whose length makes sense. */
struct entry {
	size_t offset;
	bool is_cie;
	size_t cie_offset;    /* of an FDE; SIZE_MAX if before the section */
	struct reader reader; /* behind the CIE's id or pointer */
};

static bool skip(struct reader *reader, uint64_t n)
{
	if (n > (uint64_t)(reader->end - reader->at))
		return false;
	reader->at += n;
	return true;
}

static bool read_u8(struct reader *reader, uint8_t *ret)
{
	if (reader->at == reader->end)
		return false;
	*ret = *reader->at++;
	return true;
}

static uint32_t get_u32(const uint8_t *bytes)
{
	uint32_t value;

	memcpy(&value, bytes, sizeof(value));
	return value;
}

/* A signed one is as long as an unsigned one. */
static bool read_leb128(struct reader *reader, uint64_t *ret)
{
	uint64_t value = 0;

	for (unsigned int i = 0; i < MAX_LEB128_BYTES; i++) {
		uint8_t byte;

		if (!read_u8(reader, &byte))
			return false;
		value |= (uint64_t)(byte & 0x7f) << (7 * i);
		if (!(byte & 0x80)) {
			*ret = value;
			return true;
		}
	}
	return false;
}

static bool skip_leb128s(struct reader *reader, unsigned int n)
{
	uint64_t value;

	while (n > 0 && read_leb128(reader, &value))
		n--;
	return n == 0;
}

static bool skip_register(struct reader *reader)
{
	uint64_t value;

	return read_leb128(reader, &value) && value <= MAX_REGISTER;
}

static bool skip_expression(struct reader *reader)
{
	uint64_t n;

	return read_leb128(reader, &n) && n <= MAX_EXPRESSION_BYTES && skip(reader, n);
}

/* The operands of an instruction whose operands do not lie in its own byte. */
static bool skip_operands(struct reader *reader, uint8_t instruction)
{
	switch (instruction) {
	case DW_CFA_nop:
	case DW_CFA_remember_state:
	case DW_CFA_restore_state:
		return true;
	case DW_CFA_advance_loc1:
		return skip(reader, 1);
	case DW_CFA_advance_loc2:
		return skip(reader, 2);
	case DW_CFA_advance_loc4:
		return skip(reader, 4);
	case DW_CFA_def_cfa_register:
	case DW_CFA_def_cfa_offset:
	case DW_CFA_def_cfa_offset_sf:
	case DW_CFA_GNU_args_size:
		return skip_leb128s(reader, 1);
	case DW_CFA_def_cfa:
	case DW_CFA_def_cfa_sf:
		return skip_leb128s(reader, 2);
	case DW_CFA_undefined:
	case DW_CFA_same_value:
	case DW_CFA_restore_extended:
		return skip_register(reader);
	case DW_CFA_offset_extended:
	case DW_CFA_offset_extended_sf:
	case DW_CFA_val_offset:
	case DW_CFA_val_offset_sf:
	case DW_CFA_register:
	case DW_CFA_GNU_negative_offset_extended:
		return skip_register(reader) && skip_leb128s(reader, 1);
	case DW_CFA_def_cfa_expression:
		return skip_expression(reader);
	case DW_CFA_expression:
	case DW_CFA_val_expression:
		return skip_register(reader) && skip_expression(reader);
	default:
		return false;
	}
}

static bool check_program(struct reader reader)
{
	unsigned int n_remembered = 0;
	uint8_t byte;

	if (reader.end - reader.at > (ptrdiff_t)MAX_PROGRAM_BYTES)
		return false;
	while (read_u8(&reader, &byte)) {
		bool good = true;

		if ((byte & 0xc0) == DW_CFA_offset)
			good = skip_leb128s(&reader, 1);
		else if ((byte & 0xc0) == 0)
			good = skip_operands(&reader, byte);
		n_remembered += byte == DW_CFA_remember_state;
		n_remembered -= byte == DW_CFA_restore_state && n_remembered > 0;
		if (!good || n_remembered > MAX_REMEMBERED)
			return false;
	}
	return true;
}

/* The size of a pointer in @encoding, 0 if it is none of fixed size. */
static size_t encoded_bytes(uint8_t encoding)
{
	switch (encoding & 0x0f) {
	case DW_EH_PE_udata2:
	case DW_EH_PE_sdata2:
		return 2;
	case DW_EH_PE_udata4:
	case DW_EH_PE_sdata4:
		return 4;
	case DW_EH_PE_absptr:
	case DW_EH_PE_udata8:
	case DW_EH_PE_sdata8:
		return 8;
	default:
		return 0;
	}
}

static bool read_address_encoding(struct reader *data, struct cie *cie)
{
	uint8_t encoding;

	if (!read_u8(data, &encoding))
		return false;
	cie->address_bytes = encoded_bytes(encoding);
	encoding &= 0xf0;
	return cie->address_bytes && (encoding == DW_EH_PE_absptr || encoding == DW_EH_PE_pcrel);
}

static bool skip_personality(struct reader *data)
{
	uint8_t encoding;
	size_t n;

	if (!read_u8(data, &encoding))
		return false;
	n = encoded_bytes(encoding);
	return n && (encoding & 0x70) != DW_EH_PE_aligned && skip(data, n);
}

/* The data of the augmentation @letters, which begin behind the 'z'. */
static bool check_augmentation_data(const char *letters, struct reader data, struct cie *cie)
{
	for (; *letters; letters++) {
		bool good;

		switch (*letters) {
		case 'L':
			good = skip(&data, 1);
			break;
		case 'R':
			good = read_address_encoding(&data, cie);
			break;
		case 'P':
			good = skip_personality(&data);
			break;
		case 'S':
			good = true;
			break;
		default:
			good = false;
		}
		if (!good)
			return false;
	}
	return true;
}

/* Behind the augmentation string: the numbers that each CIE has. */
static bool skip_numbers(struct reader *reader, uint8_t version)
{
	uint8_t address_bytes, segment_bytes;

	if (version == 4 &&
	    (!read_u8(reader, &address_bytes) || address_bytes != sizeof(uint64_t) ||
	     !read_u8(reader, &segment_bytes) || segment_bytes != 0))
		return false;
	if (!skip_leb128s(reader, 2))
		return false;
	return version == 1 ? skip(reader, 1) : skip_leb128s(reader, 1);
}

static bool check_cie(struct reader reader, struct cie *cie)
{
	const char *augmentation;
	uint64_t n;
	uint8_t version;
	size_t length;

	if (!read_u8(&reader, &version) || (version != 1 && version != 3 && version != 4))
		return false;
	augmentation = (const char *)reader.at;
	length = strnlen(augmentation, (size_t)(reader.end - reader.at));
	if (length > MAX_AUGMENTATION || !skip(&reader, length + 1) ||
	    !skip_numbers(&reader, version))
		return false;
	cie->address_bytes = sizeof(uint64_t);
	cie->sized = augmentation[0] == 'z';
	if (cie->sized) {
		struct reader data;

		if (!read_leb128(&reader, &n))
			return false;
		data.at = reader.at;
		if (!skip(&reader, n))
			return false;
		data.end = reader.at;
		if (!check_augmentation_data(augmentation + 1, data, cie))
			return false;
	} else if (strcmp(augmentation, "") != 0 && strcmp(augmentation, "S") != 0) {
		return false;
	}
	return check_program(reader);
}

static int compare_cies(const void *a, const void *b)
{
	const struct cie *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static bool check_fde(const struct checker *checker, const struct entry *entry)
{
	const struct cie key = {.offset = entry->cie_offset};
	const struct cie *cie = checker->n_cies == 0
					? NULL
					: bsearch(&key, checker->cies, checker->n_cies,
						  sizeof(*checker->cies), compare_cies);
	struct reader reader = entry->reader;
	uint64_t n;

	if (!cie || !skip(&reader, 2 * cie->address_bytes))
		return false;
	if (cie->sized && (!read_leb128(&reader, &n) || !skip(&reader, n)))
		return false;
	return check_program(reader);
}

/*
 * The entry at *@offset, which is moved behind it. Returns false at the end of the section, which
 * is made to lie where no more entries can be read.
 */
static bool next_entry(struct checker *checker, size_t *offset, struct entry *ret)
{
	struct dp_cfi_section *frames = checker->frames;
	uint8_t *bytes;
	uint32_t length, id;

	for (length = 0; length == 0; *offset += sizeof(length)) {
		if (frames->n_bytes - *offset < 2 * sizeof(length))
			return false;
		length = get_u32(frames->bytes + *offset);
	}
	bytes = frames->bytes + *offset;
	/* 0xffffffff, the 64-bit format, is among what is too long; libdw reads no shorter one. */
	if (length <= sizeof(id) || length > frames->n_bytes - *offset) {
		frames->n_bytes = *offset - sizeof(length);
		checker->n_bad++;
		return false;
	}
	id = get_u32(bytes);
	ret->offset = *offset - sizeof(length);
	ret->is_cie = id == (checker->is_eh ? 0 : UINT32_MAX);
	if (checker->is_eh)
		ret->cie_offset = id <= *offset ? *offset - id : SIZE_MAX;
	else
		ret->cie_offset = id;
	ret->reader = (struct reader){bytes + sizeof(id), bytes + length};
	*offset += length;
	return true;
}

/* Makes libdw refuse a CIE for its version, an FDE for a CIE that lies outside. */
static void spoil(struct checker *checker, const struct entry *entry)
{
	uint8_t *id = checker->frames->bytes + entry->offset + sizeof(uint32_t);

	checker->n_bad++;
	if (entry->is_cie)
		id[sizeof(uint32_t)] = UINT8_MAX;
	else
		memset(id, checker->is_eh ? 0xff : 0xfe, sizeof(uint32_t));
}

static int check_cies(struct checker *checker)
{
	struct entry entry;
	size_t offset = 0;

	while (next_entry(checker, &offset, &entry)) {
		struct cie cie = {.offset = entry.offset};

		if (!entry.is_cie)
			continue;
		if (checker->n_cies == MAX_CIES || !check_cie(entry.reader, &cie)) {
			spoil(checker, &entry);
			continue;
		}
		if (dp_array_reserve((void **)&checker->cies, &checker->capacity,
				     checker->n_cies + 1, sizeof(*checker->cies)) < 0)
			return -ENOMEM;
		checker->cies[checker->n_cies++] = cie;
	}
	return 0;
}

static void check_fdes(struct checker *checker)
{
	struct entry entry;
	size_t offset = 0;

	while (next_entry(checker, &offset, &entry)) {
		if (entry.is_cie)
			continue;
		checker->entries[entry.offset / 8] |= (uint8_t)(1u << entry.offset % 8);
		if (!check_fde(checker, &entry))
			spoil(checker, &entry);
	}
}

static bool is_entry(const struct checker *checker, uint64_t offset)
{
	return offset < checker->frames->n_bytes &&
	       (checker->entries[offset / 8] >> offset % 8 & 1);
}

/*
 * Whether the table is in the form that linkers write and leads to entries only: version 1, a
 * pointer to .eh_frame, the number of pairs (address, FDE), the pairs, each relative to the table.
 */
static bool check_table(const struct checker *checker, const struct dp_cfi_section *table)
{
	static const uint8_t form[] = {1, DW_EH_PE_pcrel | DW_EH_PE_sdata4, DW_EH_PE_udata4,
				       DW_EH_PE_datarel | DW_EH_PE_sdata4};
	const size_t pairs_at = sizeof(form) + 2 * sizeof(uint32_t);
	uint32_t n;

	if (table->n_bytes < pairs_at || memcmp(table->bytes, form, sizeof(form)) != 0)
		return false;
	n = get_u32(table->bytes + sizeof(form) + sizeof(uint32_t));
	if (n > (table->n_bytes - pairs_at) / (2 * sizeof(uint32_t)))
		return false;
	for (uint32_t i = 0; i < n; i++) {
		const uint8_t *pair = table->bytes + pairs_at + i * 2 * sizeof(uint32_t);
		int64_t fde = (int32_t)get_u32(pair + sizeof(uint32_t));

		if (!is_entry(checker, table->svma + (uint64_t)fde - checker->frames->svma))
			return false;
	}
	return true;
}

int dp_cfi_check(struct dp_cfi_section *frames, bool is_eh, struct dp_cfi_section *table,
		 uint64_t *n_bad)
{
	struct checker checker = {.frames = frames, .is_eh = is_eh};
	int r = -ENOMEM;

	checker.entries = calloc(frames->n_bytes / 8 + 1, 1);
	if (!checker.entries)
		goto out;
	r = check_cies(&checker);
	if (r < 0)
		goto out;
	check_fdes(&checker);
	if (table && !check_table(&checker, table)) {
		table->n_bytes = 0;
		checker.n_bad++;
	}
	*n_bad += checker.n_bad;
out:
	free(checker.cies);
	free(checker.entries);
	return r;
}
