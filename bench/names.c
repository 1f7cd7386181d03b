// SPDX-License-Identifier: MIT
/*
 * Names addresses of one file as addr2line does: one process, everything cold.
 *
 * usage: bench_names FILE < ADDRESSES
 *
 *     reads   one address (as the file is linked, in hexadecimal) a line
 *     prints  as addr2line -a -i -f -C: the address, then for each call, the innermost first, a
 * line with the function and one with FILE:LINE; "??" is what is not known on standard error:
 * ADDRESSES NAMED NS SLOWEST-NS PEAK-KIB
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "src/base/clock.h"
#include "src/base/frame.h"
#include "symbolize/module.h"
#include "symbolize/module_registry.h"
#include "symbolize/symbolizer.h"

struct namer {
	struct dp_modules *modules;
	struct dp_symbolizer *symbolizer;
	uint32_t module;
	uint64_t n, n_named, ns, slowest_ns;
};

static void print_symbol(uint64_t svma, const struct dp_symbol *symbol)
{
	printf("0x%016" PRIx64 "\n", svma);
	if (symbol->n_lines == 0)
		puts("??\n??:0");
	for (size_t i = 0; i < symbol->n_lines; i++) {
		const struct dp_line *line = &symbol->lines[i];

		printf("%s\n%s:%" PRId64 "\n", line->function, line->file[0] ? line->file : "??",
		       line->line);
	}
}

static int name_one(struct namer *namer, uint64_t svma)
{
	const struct dp_elf_image *image = dp_module_image(namer->modules, namer->module);
	struct dp_symbol symbol = {.n_lines = 0};
	uint64_t start_ns = dp_monotonic_ns(), ns, file_off;
	int r = 0;

	if (dp_elf_file_off_of(image, svma, &file_off))
		r = dp_symbolizer_resolve(namer->symbolizer, dp_frame_make(namer->module, file_off),
					  &symbol);
	ns = dp_monotonic_ns() - start_ns;
	namer->ns += ns;
	if (ns > namer->slowest_ns)
		namer->slowest_ns = ns;
	namer->n++;
	namer->n_named += symbol.n_lines > 0;
	print_symbol(svma, &symbol);
	return r;
}

static int name_all(struct namer *namer, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[64];
	int r;

	if (fd < 0)
		return -errno;
	r = dp_modules_new(&namer->modules);
	if (r == 0)
		r = dp_symbolizer_new(&namer->symbolizer, namer->modules);
	if (r == 0)
		r = dp_modules_add_file(namer->modules, fd, path, strlen(path), &namer->module);
	if (r == 0 && namer->module == 0)
		r = -ENOEXEC;
	while (r == 0 && fgets(text, sizeof(text), stdin))
		r = name_one(namer, strtoull(text, NULL, 16));
	return r;
}

int main(int argc, char **argv)
{
	struct namer namer = {.modules = NULL};
	struct rusage usage;
	int r;

	if (argc != 2) {
		fprintf(stderr, "usage: bench_names FILE < ADDRESSES\n");
		return 2;
	}
	r = name_all(&namer, argv[1]);
	getrusage(RUSAGE_SELF, &usage);
	if (r == 0)
		fprintf(stderr, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %ld\n", namer.n,
			namer.n_named, namer.ns, namer.slowest_ns, usage.ru_maxrss);
	else
		fprintf(stderr, "bench_names: %s\n", strerror(-r));
	dp_symbolizer_free(namer.symbolizer);
	dp_modules_free(namer.modules);
	return r < 0;
}
