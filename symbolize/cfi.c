/* SPDX-License-Identifier: MIT */
#include "symbolize/cfi.h"

#include <dwarf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/array.h"
#include "src/base/frame.h"
#include "src/base/map.h"
#include "symbolize/cfi_file.h"
#include "symbolize/module_registry.h"

/*
 * The one hard idea: what libdw works out for an address is always the same, and nearly always says
 * no more than where the frame begins and which of six registers were pushed where. That fits one
 * word, and a word is what a hash table keeps.
 */

#define MAX_RULES ((size_t)1 << 17)
#define MAX_OTHERS ((size_t)1 << 14)
#define MAX_EXPRESSIONS ((size_t)1 << 16)
#define MAX_OPERATIONS 300
#define MAX_FILE_BYTES ((size_t)512 << 20) /* of all files together */

#define USUAL_MAX_CFA_WORDS 0xfffffff
#define USUAL_MAX_SAVED_WORDS 31

struct module_cfi {
	bool tried;
	struct dp_cfi_file file;
};

struct expression {
	Dwarf_Op *operations;
	size_t n;
};

struct dp_cfi {
	const struct dp_modules *modules;
	struct module_cfi *files; /* by module id */
	size_t n_files, files_capacity;
	size_t n_file_bytes;
	struct dp_map by_frame; /* frame → rule */
	struct dp_cfi_other *others;
	size_t n_others, others_capacity;
	struct expression *expressions;
	size_t n_expressions, expressions_capacity;
	struct dp_cfi_stats stats;
};

int dp_cfi_new(struct dp_cfi **ret, const struct dp_modules *modules)
{
	struct dp_cfi *cfi = calloc(1, sizeof(*cfi));

	if (!cfi)
		return -ENOMEM;
	elf_version(EV_CURRENT);
	cfi->modules = modules;
	*ret = cfi;
	return 0;
}

static void forget_rules(struct dp_cfi *cfi)
{
	for (size_t i = 0; i < cfi->n_expressions; i++)
		free(cfi->expressions[i].operations);
	cfi->n_expressions = 0;
	cfi->n_others = 0;
	dp_map_clear(&cfi->by_frame);
}

void dp_cfi_free(struct dp_cfi *cfi)
{
	if (!cfi)
		return;
	forget_rules(cfi);
	for (size_t i = 0; i < cfi->n_files; i++)
		dp_cfi_file_close(&cfi->files[i].file);
	free(cfi->files);
	free(cfi->others);
	free(cfi->expressions);
	free(cfi);
}

/* The CFI of module @id; *@ret is valid until the next call. Returns 0 or -ENOMEM. */
static int open_file(struct dp_cfi *cfi, uint32_t id, const struct dp_cfi_file **ret)
{
	struct module_cfi *module;
	int r = dp_array_reserve((void **)&cfi->files, &cfi->files_capacity, id + 1,
				 sizeof(*cfi->files));

	if (r < 0)
		return -ENOMEM;
	while (cfi->n_files <= id)
		cfi->files[cfi->n_files++] = (struct module_cfi){0};
	module = &cfi->files[id];
	if (!module->tried) {
		r = dp_cfi_file_open(&module->file, cfi->modules, id,
				     MAX_FILE_BYTES - cfi->n_file_bytes, &cfi->stats.n_entries_bad);
		if (r == -ENOMEM)
			return r;
		module->tried = true;
		cfi->n_file_bytes += module->file.n_bytes;
		cfi->stats.n_files_no_room += r == -EFBIG;
	}
	*ret = &module->file;
	return 0;
}

int dp_cfi_load(struct dp_cfi *cfi, uint32_t id)
{
	const struct dp_cfi_file *file;

	return open_file(cfi, id, &file);
}

/* Keeps a copy of an expression. Returns its number, -ENOENT if it is unusable, or -ENOMEM. */
static int keep_expression(struct dp_cfi *cfi, const Dwarf_Op *operations, size_t n)
{
	Dwarf_Op *copy;

	if (n == 0 || n > MAX_OPERATIONS)
		return -ENOENT;
	if (dp_array_reserve((void **)&cfi->expressions, &cfi->expressions_capacity,
			     cfi->n_expressions + 1, sizeof(*cfi->expressions)) < 0)
		return -ENOMEM;
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

static int make_cfa(struct dp_cfi *cfi, Dwarf_Frame *frame, struct dp_cfi_other *rule)
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
	/* The CFA cannot be had from itself. */
	for (size_t i = 0; i < n; i++) {
		if (operations[i].atom == DW_OP_call_frame_cfa)
			return -ENOENT;
	}
	r = keep_expression(cfi, operations, n);
	if (r < 0)
		return r;
	rule->cfa_is_expression = true;
	rule->cfa_offset = r;
	return 0;
}

static bool is_saved_register(int i)
{
	return memchr(dp_cfi_saved_regs, i, sizeof(dp_cfi_saved_regs));
}

/*
 * A register without a rule, or with one that says so. Of two, libdw 0.188 cannot be asked: its
 * defaults for x86-64 keep 0 (rax) and drop 3 (rbx), having taken one for the other.
 */
static enum dp_cfi_where where_without_rule(int i, bool same)
{
	if (i == 0)
		return DP_CFI_UNKNOWN;
	return same || i == 3 ? DP_CFI_SAME : DP_CFI_UNKNOWN;
}

/* Whether the operations are `CFA + offset`, of which libdw leaves out an offset of 0. */
static bool is_cfa_offset(const Dwarf_Op *operations, size_t n)
{
	return operations[0].atom == DW_OP_call_frame_cfa &&
	       (n == 1 ||
		(n == 2 && operations[1].atom == DW_OP_plus_uconst && fits(operations[1].number)));
}

/*
 * Each register comes as an expression. Source: elfutils/libdw.h, dwarf_frame_register(): no
 * operations in the caller's own memory mean undefined, no operations and no memory mean unchanged,
 * a last DW_OP_stack_value means that it is the value and not its place.
 */
static int make_register(struct dp_cfi *cfi, Dwarf_Frame *frame, int i, struct dp_cfi_other *rule)
{
	Dwarf_Op memory[3];
	Dwarf_Op *operations;
	bool is_value;
	size_t n;
	int r;

	if (dwarf_frame_register(frame, i, memory, &operations, &n) != 0)
		return -ENOENT;
	if (n == 0) {
		rule->where[i] = (uint8_t)where_without_rule(i, !operations);
		return 0;
	}
	if (n == 1 && operations[0].atom == DW_OP_regx) {
		rule->where[i] = DP_CFI_IN_REGISTER;
		rule->offset[i] = (int32_t)operations[0].number;
		return operations[0].number < DP_UNWIND_REGS ? 0 : -ENOENT;
	}
	is_value = operations[n - 1].atom == DW_OP_stack_value;
	n -= is_value;
	if (n > 0 && is_cfa_offset(operations, n)) {
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

/* Puts @rule into one word of shape DP_CFI_USUAL, if it is of that shape. */
static bool make_usual(const struct dp_cfi_other *rule, uint64_t *ret)
{
	uint64_t word = DP_CFI_USUAL | (uint64_t)rule->cfa_register << 2 |
			(uint64_t)(rule->cfa_offset / 8) << 6;

	if (rule->is_signal || rule->cfa_is_expression || rule->cfa_register > 15 ||
	    rule->cfa_offset < 0 || rule->cfa_offset % 8 != 0 ||
	    rule->cfa_offset / 8 > USUAL_MAX_CFA_WORDS ||
	    rule->where[DP_UNWIND_REG_SP] != DP_CFI_IS_CFA || rule->offset[DP_UNWIND_REG_SP] != 0 ||
	    rule->where[DP_UNWIND_REG_PC] != DP_CFI_AT_CFA || rule->offset[DP_UNWIND_REG_PC] != -8)
		return false;
	for (int i = 0; i < DP_UNWIND_REG_PC; i++) {
		if (i != DP_UNWIND_REG_SP && !is_saved_register(i) &&
		    rule->where[i] != DP_CFI_UNKNOWN)
			return false;
	}
	for (unsigned int i = 0; i < DP_CFI_N_SAVED_REGS; i++) {
		int where = rule->where[dp_cfi_saved_regs[i]];
		int32_t offset = rule->offset[dp_cfi_saved_regs[i]];

		if (where == DP_CFI_SAME)
			continue;
		if (where != DP_CFI_AT_CFA || offset >= 0 || offset % 8 != 0 ||
		    offset / -8 > USUAL_MAX_SAVED_WORDS)
			return false;
		word |= (uint64_t)(offset / -8) << (34 + 5 * i);
	}
	*ret = word;
	return true;
}

/* Works out the rule of @frame, and keeps what does not fit a word. */
static int make_rule(struct dp_cfi *cfi, Dwarf_Frame *frame, uint64_t *ret)
{
	struct dp_cfi_other rule = {0};
	int r;

	if (dwarf_frame_info(frame, NULL, NULL, &rule.is_signal) != DP_UNWIND_REG_PC)
		return -ENOENT;
	r = make_register(cfi, frame, DP_UNWIND_REG_PC, &rule);
	if (r == 0 && rule.where[DP_UNWIND_REG_PC] == DP_CFI_UNKNOWN) {
		*ret = DP_CFI_OUTERMOST;
		return 0;
	}
	if (r == 0 && rule.where[DP_UNWIND_REG_PC] == DP_CFI_SAME)
		return -ENOENT;
	if (r == 0)
		r = make_cfa(cfi, frame, &rule);
	for (int i = 0; r == 0 && i < DP_UNWIND_REG_PC; i++)
		r = make_register(cfi, frame, i, &rule);
	if (r < 0 || make_usual(&rule, ret))
		return r;
	if (dp_array_reserve((void **)&cfi->others, &cfi->others_capacity, cfi->n_others + 1,
			     sizeof(*cfi->others)) < 0)
		return -ENOMEM;
	cfi->others[cfi->n_others] = rule;
	*ret = DP_CFI_OTHER | (uint64_t)cfi->n_others++ << 2;
	return 0;
}

/* The rule for @frame from its file. Returns 0, -ENOENT or -ENOMEM. */
static int look_up(struct dp_cfi *cfi, uint64_t frame, uint64_t *ret)
{
	const struct dp_elf_image *image = dp_module_image(cfi->modules, dp_frame_module(frame));
	const struct dp_cfi_file *file;
	Dwarf_Frame *found = NULL;
	uint64_t svma;
	int r;

	if (!image || !dp_elf_svma_of(image, dp_frame_offset(frame), &svma))
		return -ENOENT;
	r = open_file(cfi, dp_frame_module(frame), &file);
	if (r < 0)
		return r;
	if (dwarf_cfi_addrframe(file->eh_frame, svma, &found) != 0 &&
	    dwarf_cfi_addrframe(file->debug_frame, svma, &found) != 0)
		return -ENOENT;
	r = make_rule(cfi, found, ret);
	free(found);
	return r;
}

static void make_room(struct dp_cfi *cfi)
{
	if (cfi->by_frame.n < MAX_RULES && cfi->n_others < MAX_OTHERS &&
	    cfi->n_expressions < MAX_EXPRESSIONS)
		return;
	forget_rules(cfi);
	cfi->stats.n_flushes++;
}

int dp_cfi_find(struct dp_cfi *cfi, uint64_t frame, uint64_t *ret)
{
	uint64_t rule = DP_CFI_NO_RULE;
	int r;

	if (dp_map_get(&cfi->by_frame, frame, ret))
		return 0;
	make_room(cfi);
	r = look_up(cfi, frame, &rule);
	if (r == -ENOMEM || dp_map_set(&cfi->by_frame, frame, rule) < 0)
		return -ENOMEM;
	*ret = rule;
	return 0;
}

const struct dp_cfi_other *dp_cfi_other(const struct dp_cfi *cfi, uint64_t rule)
{
	return &cfi->others[rule >> 2];
}

const Dwarf_Op *dp_cfi_expression(const struct dp_cfi *cfi, int32_t i, size_t *ret_n)
{
	*ret_n = cfi->expressions[i].n;
	return cfi->expressions[i].operations;
}

void dp_cfi_get_stats(const struct dp_cfi *cfi, struct dp_cfi_stats *ret)
{
	*ret = cfi->stats;
}
