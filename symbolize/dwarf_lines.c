/* SPDX-License-Identifier: MIT */
#include "symbolize/dwarf_lines.h"

#include <dwarf.h>
#include <string.h>

/*
 * The one hard idea: each inlined call says who was inlined and where the call stands; the line
 * table says where the address itself stands. So the places move out by one: the innermost function
 * gets the line table's, every outer one the place of the call that it contains.
 */

static const char *text_of(Dwarf_Die *die, unsigned int attribute)
{
	Dwarf_Attribute memory;
	Dwarf_Attribute *found = dwarf_attr_integrate(die, attribute, &memory);
	const char *text = found ? dwarf_formstring(found) : NULL;

	return text && text[0] ? text : NULL;
}

static int64_t number_of(Dwarf_Attribute *found)
{
	Dwarf_Word number;

	if (!found || dwarf_formudata(found, &number) != 0 || number > INT32_MAX)
		return 0;
	return (int64_t)number;
}

/* libdw's name for no file (number 0 before DWARF 5) is "???". */
static void set_file(const struct dp_dwarf_unit *unit, const char *file, struct dp_dwarf_line *ret)
{
	ret->file = file && strcmp(file, "???") != 0 ? file : "";
	ret->directory = ret->file[0] && ret->file[0] != '/' ? unit->directory : "";
}

/* Where @call, an inlined one, stands. */
static void place_of_call(struct dp_dwarf_unit *unit, Dwarf_Die *call, struct dp_dwarf_line *ret)
{
	Dwarf_Attribute memory;
	Dwarf_Attribute *found = dwarf_attr(call, DW_AT_call_file, &memory);
	const char *file = NULL;
	Dwarf_Files *files;
	Dwarf_Word i_file;
	size_t n_files;

	if (found && dwarf_formudata(found, &i_file) == 0 &&
	    dwarf_getsrcfiles(&unit->code, &files, &n_files) == 0)
		file = dwarf_filesrc(files, i_file, NULL, NULL);
	set_file(unit, file, ret);
	ret->line = number_of(dwarf_attr(call, DW_AT_call_line, &memory));
}

static void place_of_pc(struct dp_dwarf_unit *unit, uint64_t pc, struct dp_dwarf_line *ret)
{
	Dwarf_Line *line = dwarf_getsrc_die(&unit->die, pc);
	int number;

	set_file(unit, line ? dwarf_linesrc(line, NULL, NULL) : NULL, ret);
	ret->line = line && dwarf_lineno(line, &number) == 0 && number > 0 ? number : 0;
}

static void name_of(Dwarf_Die *call, struct dp_dwarf_line *ret)
{
	Dwarf_Attribute memory;

	ret->linkage_name = text_of(call, DW_AT_linkage_name);
	if (!ret->linkage_name)
		ret->linkage_name = text_of(call, DW_AT_MIPS_linkage_name);
	ret->name = text_of(call, DW_AT_name);
	ret->start_line = number_of(dwarf_attr_integrate(call, DW_AT_decl_line, &memory));
}

int dp_dwarf_lines(struct dp_dwarf *dwarf, uint64_t address, struct dp_dwarf_line *ret,
		   size_t *ret_n)
{
	uint64_t pc = address - dwarf->bias;
	Dwarf_Die calls[DP_DWARF_MAX_LINES];
	struct dp_dwarf_function *function;
	struct dp_dwarf_unit *unit;
	size_t n = 0;
	int r = dp_dwarf_find(dwarf, pc, &unit, &function);

	if (r < 0)
		return r;
	if (!unit) {
		*ret_n = 0;
		return 0;
	}
	if (function)
		n = dp_dwarf_calls_at(&function->calls, &function->die, pc, calls);
	ret[0] = (struct dp_dwarf_line){0};
	place_of_pc(unit, pc, &ret[0]);
	for (size_t i = 0; i < n; i++) {
		name_of(&calls[i], &ret[i]);
		if (i + 1 < n) {
			ret[i + 1] = (struct dp_dwarf_line){0};
			place_of_call(unit, &calls[i], &ret[i + 1]);
		}
	}
	*ret_n = n ? n : ret[0].line > 0;
	return 0;
}
