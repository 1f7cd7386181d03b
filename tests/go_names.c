/* SPDX-License-Identifier: MIT */
/*
 * Says what we make of the stacks that tests/targets/go/names.go has listed: for each "stack" of
 * the listing one, with a line "call LINE START FILE|FUNCTION" for each call of the folded stack,
 * and for each "frame" of the listing one "at LINE START FILE|FUNCTION", of its address alone. For
 * heap stacks a second one follows, "stack trimmed", as the profile has them.
 *
 * Usage: go_names PROGRAM LISTING TRIM (1: "runtime.", 2: "internal/runtime/" too)
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/frame.h"
#include "src/go_stack.h"
#include "symbolize/elf_image.h"
#include "symbolize/go_table.h"
#include "symbolize/module_registry.h"

#define MAX_PCS 1024

struct names {
	struct dp_modules *modules;
	struct dp_symbolizer *symbolizer;
	struct dp_go_table *table;
	uint32_t module;
	uint64_t bias;
	enum dp_go_trim trim;
	char kind[16];
	uint64_t pcs[MAX_PCS]; /* as recorded */
	size_t n_pcs;
};

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "go_names: %s\n", what);
	exit(1);
}

static uint64_t frame_of(const struct names *names, uint64_t pc)
{
	uint64_t file_off;

	if (!dp_elf_file_off_of(dp_module_image(names->modules, names->module), pc - names->bias,
				&file_off))
		return 0;
	return dp_frame_make(names->module, file_off);
}

static void print_lines(const struct names *names, const char *what, uint64_t frame, size_t n_max)
{
	struct dp_symbol symbol;

	if (dp_symbolizer_resolve(names->symbolizer, frame, &symbol) < 0)
		fail("out of memory");
	if (symbol.source != DP_SYMBOL_GO)
		printf("%s 0 0 |\n", what);
	for (size_t i = 0; symbol.source == DP_SYMBOL_GO && i < symbol.n_lines && i < n_max; i++)
		printf("%s %" PRIi64 " %" PRIi64 " %s|%s\n", what, symbol.lines[i].line,
		       symbol.lines[i].start_line, symbol.lines[i].file, symbol.lines[i].function);
}

static void print_stack(const struct names *names, const char *kind, enum dp_go_trim trim)
{
	uint64_t frames[MAX_PCS];
	size_t n;

	for (size_t i = 0; i < names->n_pcs; i++)
		frames[i] = frame_of(names, names->pcs[i] - 1);
	if (dp_go_fold(names->symbolizer, trim, frames, names->n_pcs, &n) < 0)
		fail("out of memory");
	printf("stack %s\n", kind);
	for (size_t i = 0; i < n; i++)
		print_lines(names, "call", frames[i], SIZE_MAX);
}

static void read_line(struct names *names, const char *line)
{
	struct dp_go_function function;
	uint64_t pc;

	if (sscanf(line, "main %" SCNx64, &pc) == 1) {
		if (!dp_go_table_find(names->table, "main.main", &function))
			fail("there is no main.main");
		names->bias = pc - function.entry;
	} else if (sscanf(line, "stack %15s", names->kind) == 1) {
		names->n_pcs = 0;
	} else if (sscanf(line, "pc %" SCNx64, &pc) == 1 && names->n_pcs < MAX_PCS) {
		names->pcs[names->n_pcs++] = pc;
	} else if (sscanf(line, "frame %" SCNx64, &pc) == 1) {
		print_lines(names, "at", frame_of(names, pc), 1);
	} else if (strcmp(line, "end\n") == 0) {
		print_stack(names, names->kind, DP_GO_TRIM_NOTHING);
		if (strcmp(names->kind, "heap") == 0)
			print_stack(names, "trimmed", names->trim);
	}
}

int main(int argc, char **argv)
{
	static struct names names;
	static char line[1 << 17];
	FILE *listing;
	uint64_t module_data;
	int fd;

	if (argc != 4)
		fail("usage: go_names PROGRAM LISTING TRIM");
	names.trim = (enum dp_go_trim)atoi(argv[3]);
	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	listing = fopen(argv[2], "r");
	if (fd < 0 || !listing)
		fail("cannot open the program or the listing");
	if (dp_go_table_open(&names.table, fd) < 0)
		fail("there is no table");
	if (!dp_go_table_module_data(names.table, &module_data))
		fail("there are no module data");
	if (dp_modules_new(&names.modules) < 0 ||
	    dp_symbolizer_new(&names.symbolizer, names.modules) < 0 ||
	    dp_modules_add_file(names.modules, fd, argv[1], strlen(argv[1]), &names.module) < 0)
		fail("out of memory");
	while (fgets(line, sizeof(line), listing))
		read_line(&names, line);
	fclose(listing);
	dp_symbolizer_free(names.symbolizer);
	dp_modules_free(names.modules);
	dp_go_table_free(names.table);
	return 0;
}
