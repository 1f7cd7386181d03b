/* SPDX-License-Identifier: MIT */
/*
 * Files that lie: nothing that a file says may crash the reader, hang it, or make it give names
 * that are no text. Run under the sanitizers to mean something.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/frame.h"
#include "symbolize/module_registry.h"
#include "symbolize/symbolizer.h"
#include "tests/sym_oracle.h"

struct sample {
	uint8_t *bytes;
	size_t n_bytes;
	uint64_t file_off[8]; /* of code */
};

static const char *const functions[8] = {"sym_plain",
					 "sym_nested_inlines",
					 "static_function",
					 "sym_with_cold_part",
					 "sym_in_own_section",
					 "sym_sized_asm",
					 "main",
					 "sym_with_nested_function"};

static struct sample read_sample(const char *name)
{
	const char *path = oracle_sample(name);
	struct sample sample = {0};
	struct stat st;
	size_t n;
	struct oracle_function *known = oracle_functions(path, "", &n);
	int fd = open(path, O_RDONLY);

	assert_int_equal(fstat(fd, &st), 0);
	sample.n_bytes = (size_t)st.st_size;
	sample.bytes = malloc(sample.n_bytes);
	assert_non_null(sample.bytes);
	assert_int_equal(read(fd, sample.bytes, sample.n_bytes), sample.n_bytes);
	for (size_t i = 0; i < 8; i++) {
		uint64_t svma =
			n == 1 ? known[0].svma + i
			       : oracle_function(known, n, functions[i])->svma + 9 * (i % 3);

		sample.file_off[i] = oracle_file_off(path, svma);
	}
	close(fd);
	free(known);
	return sample;
}

static void look_at_text(const char *text)
{
	assert_non_null(text);
	assert_true(strlen(text) < (1u << 20));
}

/* Looks at everything in the file. Returns how many frames got a name. */
static size_t look_at(int fd, const uint64_t *file_off)
{
	static const char *const names[] = {"malloc", "sym_plain", "sym_library_function"};
	struct dp_symbolizer *symbolizer;
	struct dp_found_symbol *found;
	struct dp_modules *modules;
	size_t n_named = 0, n_found;
	uint32_t module;

	assert_int_equal(dp_modules_new(&modules), 0);
	assert_int_equal(dp_symbolizer_new(&symbolizer, modules), 0);
	assert_int_equal(dp_modules_add_file(modules, fd, "/hostile", 8, &module), 0);
	if (dp_module_find_functions(modules, module, names, 3, &found, &n_found) == 0)
		free(found);
	for (size_t i = 0; i < 8; i++) {
		struct dp_symbol symbol;

		assert_int_equal(dp_symbolizer_resolve(symbolizer,
						       dp_frame_make(module, file_off[i]), &symbol),
				 0);
		for (size_t j = 0; j < symbol.n_lines; j++) {
			look_at_text(symbol.lines[j].function);
			look_at_text(symbol.lines[j].system_name);
			look_at_text(symbol.lines[j].file);
		}
		n_named += symbol.n_lines > 0;
	}
	dp_symbolizer_free(symbolizer);
	dp_modules_free(modules);
	return n_named;
}

static size_t look_at_bytes(const uint8_t *bytes, size_t n_bytes, const uint64_t *file_off)
{
	int fd = memfd_create("hostile", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n_bytes), n_bytes);
	return look_at(fd, file_off);
}

static void hostile_files_are_named_when_they_are_whole(void **state)
{
	static const char *const names[] = {"tiny.so", "calls-dwarf4", "calls-dwarf5"};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct sample sample = read_sample(names[i]);

		assert_int_equal(look_at_bytes(sample.bytes, sample.n_bytes, sample.file_off),
				 i == 0 ? 4 : 8);
		free(sample.bytes);
	}
}

/* Every third byte of a small file, turned over. */
static void hostile_bytes_anywhere_do_no_harm(void **state)
{
	struct sample sample = read_sample("tiny.so");
	size_t n_less = 0;

	(void)state;
	for (size_t at = 0; at < sample.n_bytes; at += 3) {
		sample.bytes[at] ^= 0xff;
		n_less += look_at_bytes(sample.bytes, sample.n_bytes, sample.file_off) < 4;
		sample.bytes[at] ^= 0xff;
	}
	assert_true(n_less > 10);
	free(sample.bytes);
}

/* Each byte of the headers takes the values at which sizes and offsets overflow. */
static void hostile_headers_do_no_harm(void **state)
{
	static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
	struct sample sample = read_sample("tiny.so");
	const size_t n_headers = 64 + 56 * 8;

	(void)state;
	for (size_t at = 4; at < n_headers; at++) {
		uint8_t before = sample.bytes[at];

		for (size_t i = 0; i < sizeof(values); i++) {
			sample.bytes[at] = values[i];
			look_at_bytes(sample.bytes, sample.n_bytes, sample.file_off);
		}
		sample.bytes[at] = before;
	}
	free(sample.bytes);
}

static void hostile_lengths_do_no_harm(void **state)
{
	struct sample sample = read_sample("tiny.so");

	(void)state;
	for (size_t n = 0; n < sample.n_bytes; n += 37)
		look_at_bytes(sample.bytes, n, sample.file_off);
	free(sample.bytes);
}

static uint64_t next_random(uint64_t *random)
{
	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	return *random;
}

/* Several wrong bytes at once, in the part of the file where DWARF and the tables are. */
static void spoil(const char *name, uint64_t seed, size_t n_rounds)
{
	struct sample sample = read_sample(name);
	uint8_t *spoiled = malloc(sample.n_bytes);
	uint64_t random = seed;

	assert_non_null(spoiled);
	for (size_t i = 0; i < n_rounds; i++) {
		size_t n_wrong = 1 + next_random(&random) % 16;

		memcpy(spoiled, sample.bytes, sample.n_bytes);
		while (n_wrong-- > 0) {
			size_t half = sample.n_bytes / 2;
			size_t at = half + next_random(&random) % (sample.n_bytes - half);

			spoiled[at] = (uint8_t)next_random(&random);
		}
		look_at_bytes(spoiled, sample.n_bytes, sample.file_off);
	}
	free(spoiled);
	free(sample.bytes);
}

static void hostile_dwarf_does_no_harm(void **state)
{
	static const char *const names[] = {"calls-dwarf4", "calls-dwarf5", "calls-lto",
					    "calls-zlib", "calls-clang"};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (access(oracle_sample(names[i]), F_OK) == 0)
			spoil(names[i], 0x9e3779b97f4a7c15 + i, 400);
	}
}

/* The file is cut short between the opening and the first name. */
static void hostile_truncation_is_no_bus_error(void **state)
{
	struct sample sample = read_sample("calls-dwarf5");

	(void)state;
	for (size_t n = 0; n < sample.n_bytes; n += 1 + sample.n_bytes / 40) {
		int fd = memfd_create("hostile", MFD_CLOEXEC);
		struct dp_symbolizer *symbolizer;
		struct dp_modules *modules;
		struct dp_symbol symbol;
		uint32_t module;

		assert_int_equal(write(fd, sample.bytes, sample.n_bytes), sample.n_bytes);
		assert_int_equal(dp_modules_new(&modules), 0);
		assert_int_equal(dp_symbolizer_new(&symbolizer, modules), 0);
		assert_int_equal(dp_modules_add_file(modules, fd, "/hostile", 8, &module), 0);
		assert_int_equal(dp_symbolizer_resolve(symbolizer,
						       dp_frame_make(module, sample.file_off[0]),
						       &symbol),
				 0);
		assert_int_equal(ftruncate(dp_module_fd(modules, module), (off_t)n), 0);
		for (size_t i = 1; i < 8; i++)
			assert_int_equal(
				dp_symbolizer_resolve(symbolizer,
						      dp_frame_make(module, sample.file_off[i]),
						      &symbol),
				0);
		dp_symbolizer_free(symbolizer);
		dp_modules_free(modules);
	}
	free(sample.bytes);
}

/* A function "f" of 65 bytes and the DWARF 4 that @tree describes inside its unit. */
static int assemble(const char *tree)
{
	static const char beginning[] =
		".text\n.globl f\n.type f,@function\nf: .skip 64,0x90\nret\nend: .size f,.-f\n"
		".section .debug_abbrev\n"
		/* 1: the unit, low_pc, high_pc */
		".uleb128 1,0x11; .byte 1; .uleb128 0x11,1,0x12,7,0,0\n"
		/* 2: a function with children, name, low_pc, high_pc */
		".uleb128 2,0x2e; .byte 1; .uleb128 3,8,0x11,1,0x12,7,0,0\n"
		/* 3: an inlined call with children, abstract_origin, low_pc, high_pc, call_line */
		".uleb128 3,0x1d; .byte 1; .uleb128 0x31,0x13,0x11,1,0x12,7,0x59,0xb,0,0\n"
		/* 4: an abstract function, name */
		".uleb128 4,0x2e; .byte 0; .uleb128 3,8,0,0\n"
		/* 5: an abstract function, abstract_origin */
		".uleb128 5,0x2e; .byte 0; .uleb128 0x31,0x13,0,0\n"
		/* 6: an inlined call, abstract_origin, ranges */
		".uleb128 6,0x1d; .byte 0; .uleb128 0x31,0x13,0x55,0x17,0,0\n"
		/* 7: a namespace with children */
		".uleb128 7,0x39; .byte 1; .uleb128 0,0\n"
		/* 8: a function, name, ranges */
		".uleb128 8,0x2e; .byte 0; .uleb128 3,8,0x55,0x17,0,0\n"
		".byte 0\n"
		".section .debug_ranges\n"
		".rept 200000; .quad 40,41; .endr; .quad 0,0\n"
		".section .debug_info\n"
		"info: .long info_end - version\nversion: .value 4; .long 0; .byte 8\n"
		".uleb128 1; .quad f, end - f\n";
	char path[] = "/tmp/dp-hostile-XXXXXX";
	int fd = mkstemp(path);
	char name[64];
	FILE *source;

	assert_true(fd >= 0);
	close(fd);
	snprintf(name, sizeof(name), "%s.s", path);
	source = fopen(name, "w");
	assert_non_null(source);
	fprintf(source, "%s%s\n.byte 0\ninfo_end:\n", beginning, tree);
	fclose(source);
	free(oracle_run("gcc -shared -nostdlib -o %s %s", path, name));
	fd = open(path, O_RDWR | O_CLOEXEC);
	unlink(name);
	unlink(path);
	return fd;
}

/* What the second byte of f resolves to, under a tree that is more than it seems. */
static void check_tree(const char *tree, size_t n_lines, const char *innermost)
{
	struct dp_symbolizer *symbolizer;
	struct dp_found_symbol *found;
	struct dp_modules *modules;
	struct dp_symbol symbol;
	const char *name = "f";
	uint32_t module;
	size_t n;

	assert_int_equal(dp_modules_new(&modules), 0);
	assert_int_equal(dp_symbolizer_new(&symbolizer, modules), 0);
	assert_int_equal(dp_modules_add_file(modules, assemble(tree), "/hostile", 8, &module), 0);
	assert_int_equal(dp_module_find_functions(modules, module, &name, 1, &found, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(dp_symbolizer_resolve(
				 symbolizer, dp_frame_make(module, found[0].file_off + 1), &symbol),
			 0);
	assert_int_equal(symbol.n_lines, n_lines);
	assert_string_equal(symbol.lines[0].function, innermost);
	assert_string_equal(symbol.lines[n_lines - 1].function, "f");
	free(found);
	dp_symbolizer_free(symbolizer);
	dp_modules_free(modules);
}

static void hostile_trees_are_read_as_they_should_be_when_small(void **state)
{
	(void)state;
	check_tree("abstract: .uleb128 4; .asciz \"g\"\n"
		   ".uleb128 2; .asciz \"f\"; .quad f, end - f\n"
		   ".uleb128 3; .long abstract - info; .quad f, end - f; .byte 7\n"
		   ".byte 0,0",
		   2, "g");
}

static void hostile_depth_is_bounded(void **state)
{
	(void)state;
	/* 255 inlined calls inside f, and no more. */
	check_tree("abstract: .uleb128 4; .asciz \"g\"\n"
		   ".uleb128 2; .asciz \"f\"; .quad f, end - f\n"
		   ".rept 100000\n"
		   ".uleb128 3; .long abstract - info; .quad f, end - f; .byte 7\n"
		   ".endr\n"
		   ".skip 100001",
		   256, "g");
	/* A function that lies too deep is not found: the symbol is. */
	check_tree(".rept 100000; .uleb128 7; .endr\n"
		   ".uleb128 2; .asciz \"deep\"; .quad f, end - f; .byte 0\n"
		   ".skip 100000",
		   1, "f");
}

static void hostile_cycles_end(void **state)
{
	(void)state;
	check_tree("self: .uleb128 5; .long self - info\n"
		   ".uleb128 2; .asciz \"f\"; .quad f, end - f\n"
		   ".uleb128 3; .long self - info; .quad f, end - f; .byte 7\n"
		   ".byte 0,0",
		   1, "f");
}

static void hostile_range_lists_are_read_within_a_budget(void **state)
{
	(void)state;
	/* 200 000 calls of 200 000 ranges each. */
	check_tree("abstract: .uleb128 4; .asciz \"g\"\n"
		   ".uleb128 2; .asciz \"f\"; .quad f, end - f\n"
		   ".rept 200000; .uleb128 6; .long abstract - info, 0; .endr\n"
		   ".byte 0",
		   1, "f");
	/* The same for functions. */
	check_tree(".uleb128 2; .asciz \"f\"; .quad f, end - f; .byte 0\n"
		   ".rept 200000; .uleb128 8; .asciz \"g\"; .long 0; .endr",
		   1, "f");
}

static void hostile_strings_that_do_not_end_are_ended(void **state)
{
	struct sample sample = read_sample("calls-endless");

	(void)state;
	assert_int_equal(look_at_bytes(sample.bytes, sample.n_bytes, sample.file_off), 8);
	free(sample.bytes);
}

/* A path out of the file leads to what waits for a writer, or worse, for ever. */
static void hostile_paths_to_what_is_no_file_are_not_opened(void **state)
{
	const char *sample = oracle_sample("calls-dwarf5");
	char *directory = oracle_run("mktemp -d /tmp/dp-hostile-XXXXXX | tr -d '\\n'");
	struct sample whole = read_sample("calls-dwarf5");
	char path[256];
	int fd;

	(void)state;
	free(oracle_run("cd %s && mkfifo fifo && printf '%s/fifo\\0ABCDEFGHIJKLMNOPQRST' >link && "
			"objcopy --add-section .gnu_debugaltlink=link %s alt",
			directory, directory, sample));
	snprintf(path, sizeof(path), "%s/alt", directory);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	alarm(20);
	assert_int_equal(look_at(fd, whole.file_off), 8);
	alarm(0);
	free(oracle_run("cd %s && rm fifo link alt && cd / && rmdir %s", directory, directory));
	free(directory);
	free(whole.bytes);
}

static uint64_t main_of(const char *path)
{
	size_t n;
	struct oracle_function *known = oracle_functions(path, "", &n);
	uint64_t file_off = oracle_file_off(path, oracle_function(known, n, "main")->svma);

	free(known);
	return file_off;
}

/* The same for the path of split DWARF, which is in the skeleton unit. */
static void hostile_paths_of_split_dwarf_are_not_opened(void **state)
{
	char *directory = oracle_run("mktemp -d /tmp/dp-hostile-XXXXXX | tr -d '\\n'");
	char path[256];
	int fd;

	(void)state;
	free(oracle_run("cd %s && echo 'int main(void) { return 0; }' >a.c && "
			"gcc -gdwarf-5 -gsplit-dwarf -o a a.c && rm a*.dwo && mkfifo a-a.dwo && "
			"ln a-a.dwo a.dwo",
			directory));
	snprintf(path, sizeof(path), "%s/a", directory);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	alarm(20);
	look_at(fd, (const uint64_t[8]){main_of(path)});
	alarm(0);
	free(oracle_run("rm -r %s", directory));
	free(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hostile_files_are_named_when_they_are_whole),
		cmocka_unit_test(hostile_bytes_anywhere_do_no_harm),
		cmocka_unit_test(hostile_headers_do_no_harm),
		cmocka_unit_test(hostile_lengths_do_no_harm),
		cmocka_unit_test(hostile_dwarf_does_no_harm),
		cmocka_unit_test(hostile_truncation_is_no_bus_error),
		cmocka_unit_test(hostile_trees_are_read_as_they_should_be_when_small),
		cmocka_unit_test(hostile_depth_is_bounded),
		cmocka_unit_test(hostile_cycles_end),
		cmocka_unit_test(hostile_range_lists_are_read_within_a_budget),
		cmocka_unit_test(hostile_strings_that_do_not_end_are_ended),
		cmocka_unit_test(hostile_paths_to_what_is_no_file_are_not_opened),
		cmocka_unit_test(hostile_paths_of_split_dwarf_are_not_opened),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
