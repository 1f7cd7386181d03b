/* SPDX-License-Identifier: MIT */
#include "symbolize/dwarf_lines.h"

#include <dwarf.h>
#include <string.h>

/*
 * The one hard idea: each inlined call says who was inlined and where the call stands; the line
 * table says where the address itself stands. So the places move out by one: the innermost function
 * gets the line table's, every outer one the place of the call that it contains.
 */

#define MAX_DEPTH 256
#define MAX_RANGE_STEPS (1u << 20)

/* Whether @die's code holds @pc, reading at most *@budget range entries in all. */
static bool holds(Dwarf_Die *die, uint64_t pc, size_t *budget)
{
	Dwarf_Addr base, low, high;
	ptrdiff_t next = 0;

	while (*budget > 0 && (next = dwarf_ranges(die, next, &base, &low, &high)) > 0) {
		--*budget;
		if (pc >= low && pc < high)
			return true;
	}
	return false;
}

static bool is_scope(int tag)
{
	return tag == DW_TAG_inlined_subroutine || tag == DW_TAG_lexical_block ||
	       tag == DW_TAG_try_block || tag == DW_TAG_catch_block || tag == DW_TAG_with_stmt;
}

/* The child of @parent that is a scope around @pc. */
static bool inner_scope(Dwarf_Die *parent, uint64_t pc, size_t *budget, Dwarf_Die *ret)
{
	if (dwarf_child(parent, ret) != 0)
		return false;
	do {
		if (is_scope(dwarf_tag(ret)) && holds(ret, pc, budget))
			return true;
	} while (dwarf_siblingof(ret, ret) == 0);
	return false;
}

/* The function and the inlined calls inside it around @pc, outermost first. */
static size_t collect_calls(Dwarf_Die *function, uint64_t pc, Dwarf_Die *ret_calls)
{
	size_t budget = MAX_RANGE_STEPS;
	Dwarf_Die scope = *function, inner;
	size_t n = 1;

	ret_calls[0] = *function;
	for (int depth = 0; depth < MAX_DEPTH && n < DP_DWARF_MAX_LINES; depth++) {
		if (!inner_scope(&scope, pc, &budget, &inner))
			break;
		if (dwarf_tag(&inner) == DW_TAG_inlined_subroutine)
			ret_calls[n++] = inner;
		scope = inner;
	}
	return n;
}

static const char *text_of(Dwarf_Die *die, unsigned int attribute)
{
	Dwarf_Attribute memory;
	Dwarf_Attribute *found = dwarf_attr_integrate(die, attribute, &memory);
	const char *text = found ? dwarf_formstring(found) : NULL;

	return text && text[0] ? text : NULL;
}

static int64_t number_of(Dwarf_Die *die, unsigned int attribute)
{
	Dwarf_Attribute memory;
	Dwarf_Word number;
	Dwarf_Attribute *found = dwarf_attr_integrate(die, attribute, &memory);

	if (!found || dwarf_formudata(found, &number) != 0 || number > INT32_MAX)
		return 0;
	return (int64_t)number;
}

/* libdw's name for no file (number 0 before DWARF 5) is "???". */
static const char *file_or_empty(const char *file)
{
	return file && strcmp(file, "???") != 0 ? file : "";
}

/* The file in which @call, an inlined call, stands. */
static const char *call_file(Dwarf_Die *call)
{
	Dwarf_Attribute memory;
	Dwarf_Attribute *found = dwarf_attr(call, DW_AT_call_file, &memory);
	Dwarf_Files *files;
	Dwarf_Word i_file;
	size_t n_files;
	Dwarf_Die unit;

	if (!found || dwarf_formudata(found, &i_file) != 0 ||
	    !dwarf_diecu(call, &unit, NULL, NULL) ||
	    dwarf_getsrcfiles(&unit, &files, &n_files) != 0)
		return "";
	return file_or_empty(dwarf_filesrc(files, i_file, NULL, NULL));
}

static void place_of_pc(struct dp_dwarf_unit *unit, uint64_t pc, struct dp_dwarf_line *ret)
{
	Dwarf_Line *line = dwarf_getsrc_die(&unit->die, pc);
	int number;

	ret->file = line ? file_or_empty(dwarf_linesrc(line, NULL, NULL)) : "";
	ret->line = line && dwarf_lineno(line, &number) == 0 && number > 0 ? number : 0;
}

static void name_of(Dwarf_Die *call, struct dp_dwarf_line *ret)
{
	ret->linkage_name = text_of(call, DW_AT_linkage_name);
	if (!ret->linkage_name)
		ret->linkage_name = text_of(call, DW_AT_MIPS_linkage_name);
	ret->name = text_of(call, DW_AT_name);
	ret->start_line = number_of(call, DW_AT_decl_line);
}

int dp_dwarf_lines(struct dp_dwarf *dwarf, uint64_t address, struct dp_dwarf_line *ret,
		   size_t *ret_n)
{
	uint64_t pc = address - dwarf->bias;
	Dwarf_Die calls[DP_DWARF_MAX_LINES];
	struct dp_dwarf_unit *unit;
	Dwarf_Die *function;
	size_t n = 0;
	int r = dp_dwarf_find(dwarf, pc, &unit, &function);

	if (r < 0)
		return r;
	if (function)
		n = collect_calls(function, pc, calls);
	if (unit) {
		ret[0] = (struct dp_dwarf_line){0};
		place_of_pc(unit, pc, &ret[0]);
	}
	for (size_t i = 0; i < n; i++) {
		Dwarf_Die *call = &calls[n - 1 - i];

		name_of(call, &ret[i]);
		if (i + 1 < n)
			ret[i + 1] = (struct dp_dwarf_line){
				.file = call_file(call),
				.line = number_of(call, DW_AT_call_line),
			};
	}
	*ret_n = n ? n : (unit && ret[0].line ? 1 : 0);
	return 0;
}
