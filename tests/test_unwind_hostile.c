/* SPDX-License-Identifier: MIT */
/*
 * Call frame information that lies. Each file has one CIE and one FDE over its code; the stack that
 * is unwound is hostile.h's: at its top three return addresses into that code, then a word that is
 * none; at its frame pointer one more frame, which is what is left where no CFI can be used.
 */
#include <dwarf.h>
#include <elf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/hostile.h"

#define TABLE_AT 0x180u
#define FRAMES_AT 0x200u
#define CODE_AT 0x1000u
#define CODE_BYTES 0x100u
#define NAMES_AT 0x1100u
#define HEADERS_AT 0x1180u
#define FILE_BYTES 0x1400u

static const char section_names[] = "\0.eh_frame\0.eh_frame_hdr\0.names";

struct file {
	uint8_t bytes[FILE_BYTES];
	size_t at;	 /* where the next byte of .eh_frame goes */
	size_t entry_at; /* the entry that is being written */
	bool has_table;
};

static void put(struct file *file, const void *bytes, size_t n_bytes)
{
	assert_true(file->at + n_bytes <= CODE_AT);
	memcpy(file->bytes + file->at, bytes, n_bytes);
	file->at += n_bytes;
}

static void put_u32(struct file *file, uint32_t value)
{
	put(file, &value, sizeof(value));
}

static void begin_entry(struct file *file, uint32_t id)
{
	file->entry_at = file->at;
	put_u32(file, 0);
	put_u32(file, id);
}

static void set_length(struct file *file, size_t entry_at, uint32_t length)
{
	memcpy(file->bytes + entry_at, &length, sizeof(length));
}

/* Fills up with DW_CFA_nop. */
static void end_entry(struct file *file)
{
	while (file->at % 8 != 0)
		put(file, "", 1);
	set_length(file, file->entry_at, (uint32_t)(file->at - file->entry_at - 4));
}

#define BYTES(...) ((const uint8_t[]){__VA_ARGS__}), sizeof((const uint8_t[]){__VA_ARGS__})

/* Alignments 1 and -8, the return address in register 16, addresses as "pcrel sdata4". */
static void put_cie(struct file *file, const char *augmentation, const uint8_t *program,
		    size_t n_bytes)
{
	begin_entry(file, 0);
	put(file, "\1", 1);
	put(file, augmentation, strlen(augmentation) + 1);
	put(file, BYTES(1, 0x78, 16, 1, DW_EH_PE_pcrel | DW_EH_PE_sdata4));
	put(file, program, n_bytes);
	end_entry(file);
}

static void put_fde(struct file *file, uint32_t cie_distance, const uint8_t *program,
		    size_t n_bytes)
{
	begin_entry(file, cie_distance);
	put_u32(file, CODE_AT - (uint32_t)file->at);
	put_u32(file, CODE_BYTES);
	put(file, "", 1);
	put(file, program, n_bytes);
	end_entry(file);
}

/* CFA = rsp + 8, the return address at CFA - 8: as at every function's first instruction. */
#define USUAL DW_CFA_def_cfa, 7, 8, DW_CFA_offset | 16, 1

static void put_usual_cie(struct file *file)
{
	put_cie(file, "zR", BYTES(USUAL));
}

/* The FDE's program decides. */
static struct file make(const char *augmentation, const uint8_t *program, size_t n_bytes)
{
	struct file file = {.at = FRAMES_AT};

	put_cie(&file, augmentation, BYTES(USUAL));
	put_fde(&file, (uint32_t)(file.at + 4 - FRAMES_AT), program, n_bytes);
	return file;
}

static void add_section(struct file *file, size_t i, uint32_t name, uint64_t at, uint64_t n_bytes)
{
	const Elf64_Shdr shdr = {
		.sh_name = name,
		.sh_type = i == 3 ? SHT_STRTAB : SHT_PROGBITS,
		.sh_flags = i == 3 ? 0 : SHF_ALLOC,
		.sh_addr = i == 3 ? 0 : at,
		.sh_offset = at,
		.sh_size = n_bytes,
		.sh_addralign = 1,
	};

	memcpy(file->bytes + HEADERS_AT + i * sizeof(shdr), &shdr, sizeof(shdr));
}

static void finish(struct file *file)
{
	const Elf64_Ehdr ehdr = {
		.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
			    EV_CURRENT},
		.e_type = ET_DYN,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof(ehdr),
		.e_shoff = HEADERS_AT,
		.e_ehsize = sizeof(ehdr),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 1,
		.e_shentsize = sizeof(Elf64_Shdr),
		.e_shnum = 4,
		.e_shstrndx = 3,
	};
	const Elf64_Phdr phdr = {.p_type = PT_LOAD,
				 .p_flags = PF_R | PF_X,
				 .p_filesz = FILE_BYTES,
				 .p_memsz = FILE_BYTES,
				 .p_align = 0x1000};

	memcpy(file->bytes, &ehdr, sizeof(ehdr));
	memcpy(file->bytes + sizeof(ehdr), &phdr, sizeof(phdr));
	memcpy(file->bytes + NAMES_AT, section_names, sizeof(section_names));
	add_section(file, 1, 1, FRAMES_AT, file->at - FRAMES_AT);
	if (file->has_table)
		add_section(file, 2, 11, TABLE_AT, 20);
	add_section(file, 3, 25, NAMES_AT, sizeof(section_names));
}

static struct hostile_result look(struct file *file)
{
	static const uint64_t file_off[] = {CODE_AT + 0x10};
	struct hostile_result result;

	finish(file);
	file->bytes[CODE_AT + 0x10 - 5] = 0xe8; /* a call that returns there */
	hostile_look_at_bytes(file->bytes, sizeof(file->bytes), file_off, 1, &result);
	assert_int_equal(result.unwinder.counts.n_stacks, 1);
	return result;
}

static void expect_whole(struct file *file, uint64_t n_bad)
{
	struct hostile_result result = look(file);

	assert_int_equal(result.n_unwound, 3);
	assert_int_equal(result.unwinder.counts.n_fp_steps, 0);
	assert_int_equal(result.unwinder.n_cfi_bad, n_bad);
}

/* The CFI is not used, and that is counted. */
static void expect_refused(struct file *file)
{
	struct hostile_result result = look(file);

	assert_int_equal(result.n_unwound, 1);
	assert_int_equal(result.unwinder.counts.n_fp_steps, 1);
	assert_int_equal(result.unwinder.counts.n_ends[DP_UNWIND_NO_CFI], 1);
	assert_true(result.unwinder.n_cfi_bad >= 1);
}

/* The CFI is well formed, and the stack ends at its first step. */
static void expect_end(struct file *file, enum dp_unwind_end end)
{
	struct hostile_result result = look(file);

	assert_int_equal(result.n_unwound, 0);
	assert_int_equal(result.unwinder.counts.n_ends[end], 1);
	assert_int_equal(result.unwinder.n_cfi_bad, 0);
}

static void expect_program_refused(const uint8_t *program, size_t n_bytes)
{
	struct file file = make("zR", program, n_bytes);

	expect_refused(&file);
}

static void expect_program_ends(const uint8_t *program, size_t n_bytes, enum dp_unwind_end end)
{
	struct file file = make("zR", program, n_bytes);

	expect_end(&file, end);
}

static void hostile_cfi_is_used_when_it_is_whole(void **state)
{
	struct file file = make("zR", BYTES(DW_CFA_nop));

	(void)state;
	expect_whole(&file, 0);
}

static void hostile_cie_pointers_are_refused(void **state)
{
	(void)state;
	for (uint32_t distance = 1; distance < 0x80; distance++) {
		struct file file = {.at = FRAMES_AT};

		put_usual_cie(&file);
		if (distance == file.at + 4 - FRAMES_AT)
			continue;
		put_fde(&file, distance, BYTES(DW_CFA_nop));
		expect_refused(&file);
	}
	for (uint32_t i = 0; i < 32; i++) {
		struct file file = {.at = FRAMES_AT};

		put_usual_cie(&file);
		put_fde(&file, UINT32_MAX >> i << i, BYTES(DW_CFA_nop));
		expect_refused(&file);
	}
}

static void hostile_lengths_are_refused(void **state)
{
	static const uint32_t lengths[] = {1,	       4,	   0x1000,     0x7fffffff,
					   0x80000000, 0xfffffff0, 0xfffffffe, 0xffffffff};

	(void)state;
	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		struct file file = make("zR", BYTES(DW_CFA_nop));

		set_length(&file, file.entry_at, lengths[i]);
		expect_refused(&file);
		file = make("zR", BYTES(DW_CFA_nop));
		set_length(&file, FRAMES_AT, lengths[i]);
		expect_refused(&file);
	}
}

static void hostile_augmentations_are_refused(void **state)
{
	static const char *const augmentations[] = {"zX", "z\xff\xfe", "eh", "R", "zRRRRRRRRRRRR",
						    "zP", "zRL"};

	(void)state;
	for (size_t i = 0; i < sizeof(augmentations) / sizeof(*augmentations); i++) {
		struct file file = make(augmentations[i], BYTES(DW_CFA_nop));

		expect_refused(&file);
	}
}

static void hostile_augmentation_without_an_end_is_refused(void **state)
{
	struct file file = make("zR", BYTES(DW_CFA_nop));
	size_t n_bytes = file.entry_at - FRAMES_AT;

	(void)state;
	memset(file.bytes + FRAMES_AT + 9, 'z', n_bytes - 9);
	expect_refused(&file);
}

static void hostile_registers_are_refused(void **state)
{
	(void)state;
	/* Register 2^28 - 1: libdw would make room for as many. */
	expect_program_refused(BYTES(DW_CFA_offset_extended, 0xff, 0xff, 0xff, 0x7f, 1));
	expect_program_refused(BYTES(DW_CFA_undefined, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01));
	expect_program_refused(BYTES(DW_CFA_val_expression, 0xff, 0xff, 0x03, 1, DW_OP_lit0));
}

static void hostile_remembered_states_are_refused(void **state)
{
	uint8_t program[200];

	(void)state;
	memset(program, DW_CFA_remember_state, sizeof(program));
	expect_program_refused(program, sizeof(program));
}

static void hostile_programs_that_break_off_are_refused(void **state)
{
	struct file file = make("zR", BYTES(DW_CFA_nop));

	(void)state;
	/* The entry ends with an operation whose operand is missing. */
	file.bytes[file.at - 1] = DW_CFA_advance_loc4;
	expect_refused(&file);
	file.bytes[file.at - 1] = DW_CFA_def_cfa;
	expect_refused(&file);
	expect_program_refused(BYTES(0x3f));
	expect_program_refused(BYTES(DW_CFA_def_cfa_expression, 0xff, 0x7f, DW_OP_lit0));
}

static void hostile_state_that_was_never_remembered_gives_no_rule(void **state)
{
	struct file file = make("zR", BYTES(DW_CFA_restore_state));
	struct hostile_result result = look(&file);

	(void)state;
	assert_int_equal(result.unwinder.counts.n_ends[DP_UNWIND_NO_CFI], 1);
}

static void hostile_expressions_end_the_stack(void **state)
{
	uint8_t deep[3 + 100] = {DW_CFA_def_cfa_expression, 100};

	(void)state;
	memset(deep + 2, DW_OP_lit0, 100);
	expect_program_ends(deep, 102, DP_UNWIND_BROKEN);
	/* Nothing on the stack. */
	expect_program_ends(BYTES(DW_CFA_def_cfa_expression, 1, DW_OP_plus), DP_UNWIND_BROKEN);
	expect_program_ends(BYTES(DW_CFA_def_cfa_expression, 2, DW_OP_lit0, DW_OP_drop),
			    DP_UNWIND_BROKEN);
	/* A loop: back to the beginning. */
	expect_program_ends(BYTES(DW_CFA_def_cfa_expression, 4, DW_OP_lit1, DW_OP_skip, 0xfc, 0xff),
			    DP_UNWIND_BROKEN);
	/* Memory that was not copied. */
	expect_program_ends(BYTES(DW_CFA_def_cfa_expression, 2, DW_OP_lit0, DW_OP_deref),
			    DP_UNWIND_STACK_CUT);
}

static void hostile_expression_of_the_cfa_by_itself_gives_no_rule(void **state)
{
	struct file file = make("zR", BYTES(DW_CFA_def_cfa_expression, 1, DW_OP_call_frame_cfa));
	struct hostile_result result = look(&file);

	(void)state;
	assert_int_equal(result.unwinder.counts.n_ends[DP_UNWIND_NO_CFI], 1);
}

static void hostile_cfa_that_does_not_grow_ends_the_stack(void **state)
{
	struct file file =
		make("zR", BYTES(DW_CFA_def_cfa_offset, 0, DW_CFA_offset_extended_sf, 16, 0));
	struct hostile_result result = look(&file);

	(void)state;
	/* Of the leaf it is believed: it may have taken its return address off the stack already.
	 */
	assert_int_equal(result.n_unwound, 1);
	assert_int_equal(result.unwinder.counts.n_ends[DP_UNWIND_BROKEN], 1);
	/* 2 × -8. */
	expect_program_ends(BYTES(DW_CFA_def_cfa_sf, 7, 2, DW_CFA_offset_extended_sf, 16, 0x7e),
			    DP_UNWIND_BROKEN);
}

static void hostile_return_address_in_itself_ends_the_stack(void **state)
{
	struct file file = make("zR", BYTES(DW_CFA_register, 16, 16));
	struct hostile_result result = look(&file);

	(void)state;
	assert_true(result.n_unwound <= 127);
	assert_int_equal(result.unwinder.counts.n_ends[DP_UNWIND_OUTERMOST], 0);
}

/* The leaf may have taken its return address off the stack already, no other frame. */
static void hostile_cycle_of_signal_frames_ends_the_stack(void **state)
{
	struct file file =
		make("zRS", BYTES(DW_CFA_def_cfa_offset, 0, DW_CFA_offset_extended_sf, 16, 0));
	struct hostile_result result = look(&file);

	(void)state;
	assert_int_equal(result.n_unwound, 1);
	assert_int_equal(result.unwinder.counts.n_ends[DP_UNWIND_BROKEN], 1);
}

static void put_table(struct file *file, uint32_t n, uint32_t fde_at)
{
	const uint32_t rest[] = {FRAMES_AT - (TABLE_AT + 4), n, CODE_AT - TABLE_AT,
				 fde_at - TABLE_AT};

	memcpy(file->bytes + TABLE_AT,
	       ((const uint8_t[]){1, DW_EH_PE_pcrel | DW_EH_PE_sdata4, DW_EH_PE_udata4,
				  DW_EH_PE_datarel | DW_EH_PE_sdata4}),
	       4);
	memcpy(file->bytes + TABLE_AT + 4, rest, sizeof(rest));
	file->has_table = true;
}

static void hostile_search_table_is_done_without(void **state)
{
	struct file file = make("zR", BYTES(DW_CFA_nop));
	uint32_t fde_at = (uint32_t)file.entry_at;

	(void)state;
	put_table(&file, 1, fde_at);
	expect_whole(&file, 0);
	put_table(&file, 1, fde_at + 4);
	expect_whole(&file, 1);
	put_table(&file, 1, 0xf0000000);
	expect_whole(&file, 1);
	put_table(&file, 0x7fffffff, fde_at);
	expect_whole(&file, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hostile_cfi_is_used_when_it_is_whole),
		cmocka_unit_test(hostile_cie_pointers_are_refused),
		cmocka_unit_test(hostile_lengths_are_refused),
		cmocka_unit_test(hostile_augmentations_are_refused),
		cmocka_unit_test(hostile_augmentation_without_an_end_is_refused),
		cmocka_unit_test(hostile_registers_are_refused),
		cmocka_unit_test(hostile_remembered_states_are_refused),
		cmocka_unit_test(hostile_programs_that_break_off_are_refused),
		cmocka_unit_test(hostile_state_that_was_never_remembered_gives_no_rule),
		cmocka_unit_test(hostile_expressions_end_the_stack),
		cmocka_unit_test(hostile_expression_of_the_cfa_by_itself_gives_no_rule),
		cmocka_unit_test(hostile_cfa_that_does_not_grow_ends_the_stack),
		cmocka_unit_test(hostile_return_address_in_itself_ends_the_stack),
		cmocka_unit_test(hostile_cycle_of_signal_frames_ends_the_stack),
		cmocka_unit_test(hostile_search_table_is_done_without),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
