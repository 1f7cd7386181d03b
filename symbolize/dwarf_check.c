/* SPDX-License-Identifier: MIT */
#include "symbolize/dwarf_check.h"

#include <dwarf.h>
#include <elfutils/libdwelf.h>
#include <gelf.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * The one hard idea: a string that its section does not end goes on in what lies behind. In the
 * file's image that is the rest of the file, and then zeros up to the end of a page. A section that
 * was compressed lies in memory of its own with nothing behind it: its last byte is made a zero,
 * which it is already in every file whose strings end. (.debug_info may end otherwise, in the
 * description of an assembler file, whose last number is then wrong; nobody reads that one.)
 */

struct image {
	const char *bytes;
	size_t n_bytes;
};

/* ".debug_str", ".zdebug_str", ".debug_str.dwo" and so on. */
static bool is_string_section(const char *name)
{
	static const char *const names[] = {"debug_str", "debug_line_str", "debug_info",
					    "debug_types"};
	const char *at = strstr(name, "debug_");

	for (size_t i = 0; at && i < sizeof(names) / sizeof(*names); i++) {
		size_t n = strlen(names[i]);

		if (strncmp(at, names[i], n) == 0 && (!at[n] || at[n] == '.'))
			return true;
	}
	return false;
}

static bool is_inside(const struct image *image, const Elf_Data *data)
{
	uintptr_t at = (uintptr_t)data->d_buf, start = (uintptr_t)image->bytes;

	return at >= start && at - start < image->n_bytes;
}

/* Whether there is a zero from the section's last byte on. */
static bool ends_inside(const struct image *image, const Elf_Data *data)
{
	size_t last = (size_t)((const char *)data->d_buf - image->bytes) + data->d_size - 1;

	return image->n_bytes % (size_t)sysconf(_SC_PAGESIZE) != 0 ||
	       (last < image->n_bytes && memchr(image->bytes + last, '\0', image->n_bytes - last));
}

/* Of one section; @strings: the section of their names. */
static bool end_section(const struct image *image, Elf *elf, Elf_Scn *section, size_t strings)
{
	Elf_Data *data = NULL;
	const char *name;
	GElf_Shdr shdr;

	if (!gelf_getshdr(section, &shdr) || shdr.sh_type == SHT_NOBITS)
		return true;
	name = elf_strptr(elf, strings, shdr.sh_name);
	if (name && is_string_section(name))
		data = elf_getdata(section, NULL);
	if (!data || !data->d_buf || data->d_size == 0)
		return true;
	if (is_inside(image, data))
		return ends_inside(image, data);
	((char *)data->d_buf)[data->d_size - 1] = '\0';
	return true;
}

static bool end_file(Elf *elf)
{
	Elf_Scn *section = NULL;
	struct image image;
	size_t strings;

	image.bytes = elf_rawfile(elf, &image.n_bytes);
	if (!image.bytes || image.n_bytes == 0 || elf_getshdrstrndx(elf, &strings) < 0)
		return false;
	while ((section = elf_nextscn(elf, section))) {
		if (!end_section(&image, elf, section, strings))
			return false;
	}
	return true;
}

/* Nothing at all may be at @path too. A relative one is in a directory of our own disks. */
static bool may_open(const char *path)
{
	struct stat st;

	return path[0] != '/' || stat(path, &st) < 0 || S_ISREG(st.st_mode);
}

bool dp_dwarf_end_strings(Dwarf *dwarf)
{
	const char *path;
	const void *build_id;
	Dwarf *alternate;

	if (dwelf_dwarf_gnu_debugaltlink(dwarf, &path, &build_id) > 0 && !may_open(path))
		return false;
	alternate = dwarf_getalt(dwarf);
	return end_file(dwarf_getelf(dwarf)) && (!alternate || end_file(dwarf_getelf(alternate)));
}

static const char *string_of(Dwarf_Die *die, unsigned int name)
{
	Dwarf_Attribute attribute;

	return dwarf_formstring(dwarf_attr(die, name, &attribute));
}

bool dp_dwarf_split_is_file(Dwarf_Die *die)
{
	const char *directory = string_of(die, DW_AT_comp_dir);
	const char *name = string_of(die, DW_AT_dwo_name);
	char path[PATH_MAX];

	if (!name)
		name = string_of(die, DW_AT_GNU_dwo_name);
	if (!name)
		return true;
	if (name[0] == '/' || !directory)
		return may_open(name);
	return snprintf(path, sizeof(path), "%s/%s", directory, name) < (int)sizeof(path) &&
	       may_open(path);
}
