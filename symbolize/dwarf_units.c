/* SPDX-License-Identifier: MIT */
#include "symbolize/dwarf_units.h"

#include <dwarf.h>
#include <errno.h>
#include <stdlib.h>

#include "src/base/array.h"
#include "symbolize/dwarf_check.h"

/*
 * The one hard idea: .debug_aranges cannot be relied on (clang and Go leave it out, and elfutils
 * before 0.191 knows nothing else), and dwarf_getscopes() walks a unit's whole tree for every
 * address, recursing as deep as the file says. So the units are indexed by their own ranges, and a
 * unit's functions in one bounded walk at its first address. Code that the linker threw away is
 * still described, at address 0 or the like: only ranges that begin in the file's code count.
 */

#define MAX_RANGE_STEPS (16u << 20)
#define MAX_DEPTH 64
#define MAX_CALLS (4u << 20)

static void clear_functions(struct dp_dwarf_unit *unit)
{
	for (size_t i = 0; i < unit->n_functions; i++)
		dp_dwarf_calls_clear(&unit->functions[i].calls);
	free(unit->functions);
	unit->functions = NULL;
	unit->n_functions = unit->functions_capacity = 0;
	dp_range_index_clear(&unit->by_pc);
}

void dp_dwarf_clear(struct dp_dwarf *dwarf)
{
	for (size_t i = 0; i < dwarf->n_units; i++)
		clear_functions(&dwarf->units[i]);
	free(dwarf->units);
	dp_range_index_clear(&dwarf->by_pc);
	*dwarf = (struct dp_dwarf){0};
}

static bool is_code(const struct dp_dwarf *dwarf, uint64_t pc)
{
	uint64_t file_off;

	return dp_elf_file_off_of(dwarf->image, pc + dwarf->bias - dwarf->elf_bias, &file_off);
}

/* Adds the ranges of @die to @index. Returns how many, or -ENOMEM. */
static int add_ranges(struct dp_dwarf *dwarf, Dwarf_Die *die, size_t value,
		      struct dp_range_index *index)
{
	Dwarf_Addr base, low, high;
	ptrdiff_t next = 0;
	int n = 0;

	while ((next = dwarf_ranges(die, next, &base, &low, &high)) > 0) {
		struct dp_range range = {low, high, (uint32_t)value, 0};

		if (++dwarf->n_steps > MAX_RANGE_STEPS)
			break;
		if (!is_code(dwarf, low))
			continue;
		if (dp_range_index_add(index, &range) < 0)
			return -ENOMEM;
		n++;
	}
	return n;
}

static int add_unit(struct dp_dwarf *dwarf, Dwarf_Die *die)
{
	int r = dp_array_reserve((void **)&dwarf->units, &dwarf->units_capacity, dwarf->n_units + 1,
				 sizeof(*dwarf->units));

	if (r < 0)
		return -ENOMEM;
	dwarf->units[dwarf->n_units] = (struct dp_dwarf_unit){.die = *die};
	r = add_ranges(dwarf, die, dwarf->n_units, &dwarf->by_pc);
	dwarf->n_units++;
	return r < 0 ? r : 0;
}

int dp_dwarf_build(struct dp_dwarf *ret, Dwfl_Module *module, const struct dp_elf_image *image)
{
	Dwarf_CU *unit = NULL;
	uint8_t type;
	Dwarf_Die die;
	int r = 0;

	ret->dwarf = dwfl_module_getdwarf(module, &ret->bias);
	if (!ret->dwarf || !dwfl_module_getelf(module, &ret->elf_bias) ||
	    !dp_dwarf_end_strings(ret->dwarf)) {
		ret->dwarf = NULL;
		return 0;
	}
	ret->image = image;
	ret->room_for_calls = MAX_CALLS;
	while (r == 0 && dwarf_get_units(ret->dwarf, unit, &unit, NULL, &type, &die, NULL) == 0) {
		if (type == DW_UT_compile ||
		    (type == DW_UT_skeleton && dp_dwarf_split_is_file(&die)))
			r = add_unit(ret, &die);
	}
	return r < 0 ? r : dp_range_index_sort(&ret->by_pc);
}

static int add_function(struct dp_dwarf *dwarf, struct dp_dwarf_unit *unit, Dwarf_Die *die)
{
	int n;

	if (dp_array_reserve((void **)&unit->functions, &unit->functions_capacity,
			     unit->n_functions + 1, sizeof(*unit->functions)) < 0)
		return -ENOMEM;
	n = add_ranges(dwarf, die, unit->n_functions, &unit->by_pc);
	if (n > 0)
		unit->functions[unit->n_functions++] = (struct dp_dwarf_function){.die = *die};
	return n < 0 ? n : 0;
}

/* Whether functions with code may be described inside a DIE of this @tag. */
static bool may_hold_functions(int tag)
{
	switch (tag) {
	case DW_TAG_subprogram: /* nested functions, local classes */
	case DW_TAG_lexical_block:
	case DW_TAG_namespace:
	case DW_TAG_module:
	case DW_TAG_class_type:
	case DW_TAG_structure_type:
	case DW_TAG_union_type:
	case DW_TAG_interface_type:
		return true;
	default:
		return false;
	}
}

/* Walks the unit's tree depth first; a DIE always lies behind its parent and its elder sibling. */
static int add_functions(struct dp_dwarf *dwarf, struct dp_dwarf_unit *unit)
{
	Dwarf_Die path[MAX_DEPTH];
	size_t depth = 0;

	if (dwarf_child(&unit->code, &path[0]) != 0)
		return 0;
	for (;;) {
		Dwarf_Die *die = &path[depth];
		int tag = dwarf_tag(die);

		if (tag == DW_TAG_subprogram && add_function(dwarf, unit, die) < 0)
			return -ENOMEM;
		if (depth + 1 < MAX_DEPTH && may_hold_functions(tag) &&
		    dwarf_child(die, &path[depth + 1]) == 0) {
			depth++;
			continue;
		}
		while (dwarf_siblingof(&path[depth], &path[depth]) != 0) {
			if (depth-- == 0)
				return 0;
		}
	}
}

static const char *directory_of(Dwarf_Die *die)
{
	Dwarf_Attribute memory;
	Dwarf_Attribute *found = dwarf_attr(die, DW_AT_comp_dir, &memory);
	const char *directory = found ? dwarf_formstring(found) : NULL;

	return directory ? directory : "";
}

static int index_functions(struct dp_dwarf *dwarf, struct dp_dwarf_unit *unit)
{
	uint8_t type;
	Dwarf_Die split;
	int r;

	unit->code = unit->die;
	if (dwarf_cu_info(unit->die.cu, NULL, &type, NULL, &split, NULL, NULL, NULL) == 0 &&
	    type == DW_UT_skeleton && split.addr)
		unit->code = split;
	unit->directory = directory_of(&unit->die);
	dwarf->n_steps = 0;
	r = add_functions(dwarf, unit);
	if (r == 0)
		r = dp_range_index_sort(&unit->by_pc);
	if (r < 0)
		clear_functions(unit);
	unit->indexed = r == 0;
	return r;
}

/* For a unit without ranges of its own: what .debug_aranges says. */
static struct dp_dwarf_unit *find_by_aranges(struct dp_dwarf *dwarf, uint64_t pc)
{
	size_t low = 0, high = dwarf->n_units;
	Dwarf_Off wanted;
	Dwarf_Die die;

	if (!dwarf_addrdie(dwarf->dwarf, pc, &die))
		return NULL;
	wanted = dwarf_dieoffset(&die);
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (dwarf_dieoffset(&dwarf->units[middle].die) < wanted)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < dwarf->n_units && dwarf_dieoffset(&dwarf->units[low].die) == wanted)
		return &dwarf->units[low];
	return NULL;
}

static int walk_function(struct dp_dwarf *dwarf, struct dp_dwarf_function *function)
{
	int r = function->walked ? 0
				 : dp_dwarf_calls_build(&function->calls, &function->die,
							&dwarf->room_for_calls);

	function->walked = r == 0;
	return r;
}

int dp_dwarf_find(struct dp_dwarf *dwarf, uint64_t pc, struct dp_dwarf_unit **ret_unit,
		  struct dp_dwarf_function **ret_function)
{
	const struct dp_range *range = dp_range_index_find(&dwarf->by_pc, pc);
	struct dp_dwarf_unit *unit = range ? &dwarf->units[range->value] : NULL;
	struct dp_dwarf_function *function;
	int r = 0;

	if (!unit && dwarf->dwarf)
		unit = find_by_aranges(dwarf, pc);
	if (unit && !unit->indexed)
		r = index_functions(dwarf, unit);
	if (r < 0)
		return r;
	range = unit ? dp_range_index_find(&unit->by_pc, pc) : NULL;
	function = range ? &unit->functions[range->value] : NULL;
	if (function)
		r = walk_function(dwarf, function);
	if (r < 0)
		return r;
	*ret_unit = unit;
	*ret_function = function;
	return 0;
}
