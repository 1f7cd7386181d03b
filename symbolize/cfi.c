/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: what libdw works out of a file's CFI for an address, always the same, is boiled
 * down to one small rule and kept by frame, so a warm step is one look into a hash table. Only the
 * rare location expressions stay as libdw gives them.
 */
#include "symbolize/cfi.h"

#include <dwarf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/array.h"
#include "src/base/frame.h"
#include "src/base/map.h"
#include "symbolize/module_registry.h"

#define MAX_RULES ((size_t)1 << 17)
#define MAX_EXPRESSIONS ((size_t)1 << 14)
#define MAX_OPERATIONS 256
#define RETURN_ADDRESS 16

/* A file's CFI. Opened at the first address in it. */
struct module_cfi {
	bool opened;
	Elf *elf;
	Dwarf *dwarf; /* for .debug_frame */
	Dwarf_CFI *eh_frame, *debug_frame;
};

struct expression {
	Dwarf_Op *operations;
	size_t n;
};

struct dp_cfi {
	struct dp_modules *modules;
	struct module_cfi *files; /* by module id */
	size_t n_files, files_capacity;
	struct dp_cfi_rule *rules;
	size_t n_rules, rules_capacity;
	struct dp_map by_frame; /* frame → index + 1; 0: there is none */
	struct expression *expressions;
	size_t n_expressions, expressions_capacity;
	struct dp_cfi_rule spare; /* for what is not remembered */
	uint64_t n_no_room;
};

int dp_cfi_new(struct dp_cfi **ret, struct dp_modules *modules)
{
	struct dp_cfi *cfi = calloc(1, sizeof(*cfi));

	if (!cfi)
		return -ENOMEM;
	elf_version(EV_CURRENT);
	cfi->modules = modules;
	*ret = cfi;
	return 0;
}

void dp_cfi_free(struct dp_cfi *cfi)
{
	if (!cfi)
		return;
	for (size_t i = 0; i < cfi->n_files; i++) {
		struct module_cfi *file = &cfi->files[i];

		if (file->eh_frame)
			dwarf_cfi_end(file->eh_frame);
		if (file->dwarf)
			dwarf_end(file->dwarf); /* and .debug_frame's with it */
		elf_end(file->elf);
	}
	for (size_t i = 0; i < cfi->n_expressions; i++)
		free(cfi->expressions[i].operations);
	free(cfi->files);
	free(cfi->rules);
	free(cfi->expressions);
	dp_map_clear(&cfi->by_frame);
	free(cfi);
}

/* The file of module @id; *@ret_file is valid until the next call. Returns 0 or -ENOMEM. */
static int open_file(struct dp_cfi *cfi, uint32_t id, struct module_cfi **ret_file)
{
	struct module_cfi *file;
	int r = dp_array_reserve((void **)&cfi->files, &cfi->files_capacity, id + 1,
				 sizeof(*cfi->files));

	if (r < 0)
		return r;
	while (cfi->n_files <= id)
		cfi->files[cfi->n_files++] = (struct module_cfi){0};
	file = &cfi->files[id];
	if (!file->opened) {
		file->opened = true;
		file->elf = dp_module_elf_begin(cfi->modules, id);
		if (file->elf)
			file->eh_frame = dwarf_getcfi_elf(file->elf);
		if (file->elf)
			file->dwarf = dwarf_begin_elf(file->elf, DWARF_C_READ, NULL);
		if (file->dwarf)
			file->debug_frame = dwarf_getcfi(file->dwarf);
	}
	*ret_file = file;
	return 0;
}

/* Keeps a copy of an expression. Returns its index, -ENOMEM, or -ENOENT for one that is too much.
 */
static int keep_expression(struct dp_cfi *cfi, const Dwarf_Op *operations, size_t n)
{
	Dwarf_Op *copy;
	int r;

	if (n == 0 || n > MAX_OPERATIONS || cfi->n_expressions >= MAX_EXPRESSIONS)
		return -ENOENT;
	r = dp_array_reserve((void **)&cfi->expressions, &cfi->expressions_capacity,
			     cfi->n_expressions + 1, sizeof(*cfi->expressions));
	if (r < 0)
		return r;
	copy = malloc(n * sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	memcpy(copy, operations, n * sizeof(*copy));
	cfi->expressions[cfi->n_expressions] = (struct expression){.operations = copy, .n = n};
	return (int)cfi->n_expressions++;
}

static bool fits(Dwarf_Word word)
{
	return (int64_t)word >= INT32_MIN && (int64_t)word <= INT32_MAX;
}

static int make_cfa(struct dp_cfi *cfi, Dwarf_Frame *frame, struct dp_cfi_rule *rule)
{
	Dwarf_Op *operations;
	size_t n;
	int r;

	if (dwarf_frame_cfa(frame, &operations, &n) != 0 || n == 0)
		return -ENOENT;
	if (n == 1 && operations[0].atom == DW_OP_bregx && operations[0].number < DP_UNWIND_REGS &&
	    fits(operations[0].number2)) {
		rule->cfa_register = (uint8_t)operations[0].number;
		rule->cfa_offset = (int32_t)operations[0].number2;
		return 0;
	}
	r = keep_expression(cfi, operations, n);
	if (r < 0)
		return r;
	rule->cfa_is_expression = true;
	rule->cfa_offset = r;
	return 0;
}

/*
 * libdw gives each register as an expression. Source: elfutils/libdw.h, dwarf_frame_register(): no
 * operations and the caller's own memory mean undefined, no operations and no memory mean
 * unchanged, a last DW_OP_stack_value means that it is the value and not its place.
 */
static int make_register(struct dp_cfi *cfi, Dwarf_Frame *frame, int i, struct dp_cfi_rule *rule)
{
	Dwarf_Op memory[3];
	Dwarf_Op *operations;
	bool is_value;
	size_t n;
	int r;

	if (dwarf_frame_register(frame, i, memory, &operations, &n) != 0)
		return -ENOENT;
	if (n == 0) {
		rule->where[i] = operations ? DP_CFI_UNDEFINED : DP_CFI_SAME;
		return 0;
	}
	is_value = operations[n - 1].atom == DW_OP_stack_value;
	if (is_value)
		n--;
	if (n >= 1 && n <= 2 && operations[0].atom == DW_OP_call_frame_cfa &&
	    (n == 1 || (operations[1].atom == DW_OP_plus_uconst && fits(operations[1].number)))) {
		rule->where[i] = is_value ? DP_CFI_IS_CFA : DP_CFI_AT_CFA;
		rule->offset[i] = n == 1 ? 0 : (int32_t)operations[1].number;
		return 0;
	}
	r = keep_expression(cfi, operations, n);
	if (r < 0)
		return r;
	rule->where[i] = is_value ? DP_CFI_IS_EXPRESSION : DP_CFI_AT_EXPRESSION;
	rule->offset[i] = r;
	return 0;
}

static int make_rule(struct dp_cfi *cfi, Dwarf_Frame *frame, struct dp_cfi_rule *ret)
{
	struct dp_cfi_rule rule = {0};
	int r;

	if (dwarf_frame_info(frame, NULL, NULL, &rule.is_signal) != RETURN_ADDRESS)
		return -ENOENT;
	r = make_cfa(cfi, frame, &rule);
	for (int i = 0; r == 0 && i < DP_UNWIND_REGS; i++)
		r = make_register(cfi, frame, i, &rule);
	if (r == 0)
		*ret = rule;
	return r;
}

/* Works the rule for @frame out. */
static int look_up(struct dp_cfi *cfi, uint64_t frame, struct dp_cfi_rule *ret)
{
	const struct dp_elf_image *image = dp_module_image(cfi->modules, dp_frame_module(frame));
	struct module_cfi *file;
	Dwarf_Frame *found = NULL;
	uint64_t svma;
	int r;

	if (!image || !dp_elf_svma_of(image, dp_frame_offset(frame), &svma))
		return -ENOENT;
	r = open_file(cfi, dp_frame_module(frame), &file);
	if (r < 0)
		return r;
	if (!file->eh_frame || dwarf_cfi_addrframe(file->eh_frame, svma, &found) != 0) {
		if (!file->debug_frame || dwarf_cfi_addrframe(file->debug_frame, svma, &found) != 0)
			return -ENOENT;
	}
	r = make_rule(cfi, found, ret);
	free(found);
	return r;
}

/* Remembers @rule, or that there is none (NULL), for @frame. Not remembering is no failure. */
static void keep_rule(struct dp_cfi *cfi, uint64_t frame, const struct dp_cfi_rule *rule)
{
	if (cfi->by_frame.n >= MAX_RULES ||
	    (rule && dp_array_reserve((void **)&cfi->rules, &cfi->rules_capacity, cfi->n_rules + 1,
				      sizeof(*cfi->rules)) < 0) ||
	    dp_map_set(&cfi->by_frame, frame, rule ? cfi->n_rules + 1 : 0) < 0) {
		cfi->n_no_room++;
		return;
	}
	if (rule)
		cfi->rules[cfi->n_rules++] = *rule;
}

int dp_cfi_find(struct dp_cfi *cfi, uint64_t frame, const struct dp_cfi_rule **ret)
{
	uint64_t i;
	int r;

	if (dp_map_get(&cfi->by_frame, frame, &i)) {
		if (i == 0)
			return -ENOENT;
		*ret = &cfi->rules[i - 1];
		return 0;
	}
	r = look_up(cfi, frame, &cfi->spare);
	if (r == -ENOMEM)
		return r;
	keep_rule(cfi, frame, r == 0 ? &cfi->spare : NULL);
	if (r == 0)
		*ret = &cfi->spare;
	return r;
}

const Dwarf_Op *dp_cfi_expression(const struct dp_cfi *cfi, int32_t i, size_t *ret_n)
{
	*ret_n = cfi->expressions[i].n;
	return cfi->expressions[i].operations;
}

uint64_t dp_cfi_no_room(const struct dp_cfi *cfi)
{
	return cfi->n_no_room;
}
