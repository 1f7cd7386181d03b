/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/frame.h"
#include "symbolize/demangle.h"
#include "symbolize/module_registry.h"
#include "symbolize/symbolizer.h"
#include "tests/alloc_fail.h"
#include "tests/sym_oracle.h"

struct fixture {
	struct dp_modules *modules;
	struct dp_symbolizer *symbolizer;
};

static struct fixture set_up(void)
{
	struct fixture f;

	assert_int_equal(dp_modules_new(&f.modules), 0);
	assert_int_equal(dp_symbolizer_new(&f.symbolizer, f.modules), 0);
	return f;
}

static void tear_down(struct fixture *f)
{
	dp_symbolizer_free(f->symbolizer);
	dp_modules_free(f->modules);
}

static struct dp_symbol resolve(struct fixture *f, uint32_t module, uint64_t file_off)
{
	struct dp_symbol symbol;

	assert_int_equal(
		dp_symbolizer_resolve(f->symbolizer, dp_frame_make(module, file_off), &symbol), 0);
	assert_true((symbol.n_lines == 0) == (symbol.source == DP_SYMBOL_NONE));
	for (size_t i = 0; i < symbol.n_lines; i++) {
		assert_true(symbol.lines[i].function[0] && symbol.lines[i].system_name[0]);
		assert_non_null(symbol.lines[i].file);
		assert_true(symbol.lines[i].line >= 0 && symbol.lines[i].start_line >= 0);
	}
	return symbol;
}

/* The svma of a function that nm finds; the last file's functions are kept. */
static uint64_t svma_of(const char *path, const char *name)
{
	static struct oracle_function *functions;
	static char known_path[512];
	static size_t n;

	if (strcmp(path, known_path) != 0) {
		free(functions);
		functions = oracle_functions(path, "", &n);
		snprintf(known_path, sizeof(known_path), "%s", path);
	}
	return oracle_function(functions, n, name)->svma;
}

/* Resolves the instruction @plus bytes into a function that nm finds in @path. */
static struct dp_symbol resolve_function(struct fixture *f, uint32_t module, const char *path,
					 const char *name, uint64_t plus)
{
	return resolve(f, module, oracle_file_off(path, svma_of(path, name) + plus));
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* A tool that says what is at an address, and where it is known to say something else. */
struct oracle {
	const char *tool;
	bool (*excused)(const struct oracle_calls *theirs, const struct dp_symbol *ours);
	bool mangled; /* it gives the names of the file */
};

static const char *name_for(const struct oracle *oracle, const struct dp_line *line)
{
	return oracle->mangled ? line->system_name : line->function;
}

static void print_both(const struct oracle *oracle, uint64_t svma,
		       const struct oracle_calls *theirs, const struct dp_symbol *ours)
{
	print_message("0x%" PRIx64 "\n", svma);
	for (size_t i = 0; i < theirs->n; i++)
		print_message("  theirs %s %s:%ld\n", theirs->calls[i].function,
			      theirs->calls[i].file, theirs->calls[i].line);
	for (size_t i = 0; i < ours->n_lines; i++)
		print_message("  ours   %s %s:%" PRId64 "\n", name_for(oracle, &ours->lines[i]),
			      ours->lines[i].file, ours->lines[i].line);
}

static bool same_place(const struct oracle_call *theirs, const struct dp_line *ours)
{
	const char *file = theirs->file[0] == '?' ? "" : theirs->file;

	return theirs->line == ours->line && strcmp(base_name(file), base_name(ours->file)) == 0;
}

static bool same_calls(const struct oracle *oracle, const struct oracle_calls *theirs,
		       const struct dp_symbol *ours)
{
	if (ours->n_lines == 0)
		return theirs->n == 1 && theirs->calls[0].function[0] == '?';
	if (theirs->n != ours->n_lines)
		return false;
	for (size_t i = 0; i < ours->n_lines; i++) {
		if (!same_place(&theirs->calls[i], &ours->lines[i]) ||
		    strcmp(theirs->calls[i].function, name_for(oracle, &ours->lines[i])) != 0)
			return false;
	}
	return true;
}

/* Functions of the samples themselves, also in a static program with all of libc beside them. */
static bool is_of_sample(const char *name)
{
	static const char *const prefixes[] = {"sym_", "_ZN",	 "_Z",
					       "_RN",  "nested", "static_function"};

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++) {
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	}
	return strcmp(name, "main") == 0;
}

/* Every byte of every function of the sample at @path. */
static uint64_t *all_addresses(const char *path, size_t *ret_n)
{
	size_t n_functions, n = 0, capacity = 0;
	struct oracle_function *functions = oracle_functions(path, "", &n_functions);
	uint64_t *all = NULL;

	for (size_t i = 0; i < n_functions; i++) {
		uint64_t n_bytes = is_of_sample(functions[i].name) ? functions[i].size_bytes : 0;

		for (uint64_t at = 0; at < n_bytes; at++) {
			if (n == capacity) {
				capacity = capacity ? 2 * capacity : 4096;
				all = realloc(all, capacity * sizeof(*all));
				assert_non_null(all);
			}
			all[n++] = functions[i].svma + at;
		}
	}
	free(functions);
	*ret_n = n;
	return all;
}

/*
 * Compares what we say of every byte of every function in sample @name with what @oracle says of
 * the same address in sample @oracle_name, whose code is the same. Inlining must go as deep as
 * @depth at least.
 */
static void compare_with(const struct oracle *oracle, const char *name, const char *oracle_name,
			 size_t depth)
{
	const char *path = oracle_sample(name), *oracle_path = oracle_sample(oracle_name);
	struct fixture f = set_up();
	uint32_t module = oracle_add_module(f.modules, path);
	size_t n, n_wrong = 0, deepest = 0;
	uint64_t *svma = all_addresses(oracle_path, &n);
	char *text;
	struct oracle_calls *theirs = oracle_addr2line(oracle->tool, oracle_path, svma, n, &text);

	assert_true(n > 500);
	for (size_t i = 0; i < n; i++) {
		struct dp_symbol ours = resolve(&f, module, oracle_file_off(path, svma[i]));

		if (ours.n_lines > deepest)
			deepest = ours.n_lines;
		if (same_calls(oracle, &theirs[i], &ours) ||
		    (oracle->excused && oracle->excused(&theirs[i], &ours)))
			continue;
		if (n_wrong++ < 3)
			print_both(oracle, svma[i], &theirs[i], &ours);
	}
	if (n_wrong)
		fail_msg("%s %s: %zu of %zu addresses differ", oracle->tool, name, n_wrong, n);
	assert_true(deepest >= depth);
	free(theirs);
	free(text);
	free(svma);
	tear_down(&f);
}

static void symbolizer_agrees_with_addr2line_on_c(void **state)
{
	static const char *const names[] = {"calls-dwarf4", "calls-dwarf5",	"calls-nopie",
					    "calls-static", "calls-static-pie", "calls-o0",
					    "calls-zlib",   "calls-sections"};
	const struct oracle oracle = {.tool = "addr2line -C"};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		compare_with(&oracle, names[i], names[i], 6);
}

/*
 * Where there is no linkage name, binutils 2.40 gives the symbol's name to the innermost call, be
 * it inlined (wrong) or not, and to no other one.
 */
static bool addr2line_excused(const struct oracle_calls *theirs, const struct dp_symbol *ours)
{
	size_t n = ours->n_lines;

	if (theirs->n != n || n < 2)
		return false;
	for (size_t i = 0; i < n; i++) {
		const char *their_name = theirs->calls[i].function;
		bool symbol_misplaced =
			i == 0 && strcmp(their_name, ours->lines[n - 1].function) == 0 &&
			strcmp(ours->lines[0].function, ours->lines[0].system_name) == 0;
		bool symbol_missing = i == n - 1 && strstr(ours->lines[i].system_name, "hidden");

		if (!same_place(&theirs->calls[i], &ours->lines[i]) ||
		    (strcmp(their_name, ours->lines[i].function) != 0 && !symbol_misplaced &&
		     !symbol_missing))
			return false;
	}
	return true;
}

static void symbolizer_agrees_with_addr2line_on_cxx(void **state)
{
	const struct oracle oracle = {.tool = "addr2line -C", .excused = addr2line_excused};

	(void)state;
	compare_with(&oracle, "cxx-dwarf4", "cxx-dwarf4", 10);
	compare_with(&oracle, "cxx-dwarf5", "cxx-dwarf5", 10);
}

/* binutils 2.40 takes the name of the file from the wrong unit: "<artificial>". */
static bool lto_excused(const struct oracle_calls *theirs, const struct dp_symbol *ours)
{
	bool artificial = false;

	if (theirs->n != ours->n_lines)
		return false;
	for (size_t i = 0; i < ours->n_lines; i++) {
		if (strcmp(theirs->calls[i].function, ours->lines[i].function) != 0 ||
		    theirs->calls[i].line != ours->lines[i].line)
			return false;
		artificial |= strcmp(base_name(theirs->calls[i].file), "<artificial>") == 0;
	}
	return artificial;
}

static void symbolizer_agrees_with_addr2line_after_link_time_optimisation(void **state)
{
	const struct oracle oracle = {.tool = "addr2line -C", .excused = lto_excused};

	(void)state;
	compare_with(&oracle, "calls-lto", "calls-lto", 6);
}

/* addr2line does not read .dwo files: it is asked about the same code with its DWARF inside. */
static void symbolizer_reads_split_dwarf(void **state)
{
	const struct oracle oracle = {.tool = "addr2line -C"};

	(void)state;
	compare_with(&oracle, "calls-split", "calls-dwarf5", 6);
}

/* addr2line believes in it: it is asked about the same code without it. */
static void symbolizer_ignores_code_that_the_linker_discarded(void **state)
{
	const struct oracle oracle = {.tool = "addr2line -C"};

	(void)state;
	compare_with(&oracle, "calls-discarded", "calls-sections", 6);
}

/* elfutils 0.188 does not name inlined calls in nested functions, nor Rust's new names. */
static bool eu_excused(const struct oracle_calls *theirs, const struct dp_symbol *ours)
{
	const char *outermost = ours->n_lines ? ours->lines[ours->n_lines - 1].function : "";

	return same_place(&theirs->calls[0], &ours->lines[0]) &&
	       (strcmp(outermost, "nested") == 0 ||
		strcmp(outermost, "my_crate::module::work") == 0);
}

static void symbolizer_agrees_with_eu_addr2line(void **state)
{
	static const char *const names[] = {"calls-dwarf4", "calls-dwarf5",	"calls-nopie",
					    "calls-static", "calls-static-pie", "calls-zlib"};
	const struct oracle oracle = {.tool = "eu-addr2line -C", .excused = eu_excused};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		compare_with(&oracle, names[i], names[i], 6);
}

/* LLVM takes the outermost name from the symbol table: C1 where DWARF says C2, "nested.0". */
static bool llvm_excused(const struct oracle_calls *theirs, const struct dp_symbol *ours)
{
	size_t n = ours->n_lines;
	char *their_name, *our_name, *dot;
	bool same;

	if (n == 0 || theirs->n != n)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!same_place(&theirs->calls[i], &ours->lines[i]) ||
		    (i + 1 < n &&
		     strcmp(theirs->calls[i].function, ours->lines[i].system_name) != 0))
			return false;
	}
	/* A clone's symbol has a suffix, DWARF's linkage name does not. */
	dot = strchr(theirs->calls[n - 1].function, '.');
	if (dot && strncmp(theirs->calls[n - 1].function, "_Z", 2) == 0)
		*dot = '\0';
	their_name = dp_demangle(theirs->calls[n - 1].function);
	our_name = dp_demangle(ours->lines[n - 1].system_name);
	same = their_name && our_name ? strcmp(their_name, our_name) == 0
				      : strncmp(theirs->calls[n - 1].function, "nested.", 7) == 0;
	free(their_name);
	free(our_name);
	return same;
}

static void symbolizer_agrees_with_llvm_on_what_clang_built(void **state)
{
	const struct oracle oracle = {.tool = DP_SYM_LLVM_ADDR2LINE " --no-demangle",
				      .excused = llvm_excused,
				      .mangled = true};
	static const char *const names[] = {"calls-dwarf5", "calls-lto",  "calls-split",
					    "cxx-dwarf4",   "cxx-dwarf5", "calls-clang",
					    "cxx-clang"};

	(void)state;
	if (!DP_SYM_LLVM_ADDR2LINE[0]) {
		print_message("no llvm-addr2line (Debian: llvm)\n");
		skip();
	}
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (access(oracle_sample(names[i]), F_OK) == 0)
			compare_with(&oracle, names[i], names[i], 6);
	}
}

/* The line of the sample's source that holds @text. */
static int64_t source_line(const char *file, const char *text)
{
	char *number = oracle_run("grep -nF '%s' '" DP_SYM_SOURCES "/%s' | head -1", text, file);
	int64_t line = strtol(number, NULL, 10);

	free(number);
	assert_true(line > 0);
	return line;
}

static void symbolizer_knows_where_each_function_begins(void **state)
{
	static const char *const names[] = {"calls-dwarf4", "calls-dwarf5", "calls-nopie",
					    "calls-lto", "calls-split"};
	const int64_t plain = source_line("sym_calls.c", "int sym_plain(int x)");
	const int64_t sink = source_line("sym_calls.c", "sink = x;");
	const int64_t inner = source_line("sym_calls.h", "int sym_header_inner(");
	const int64_t outer = source_line("sym_calls.c", "int static_function(");

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		const char *path = oracle_sample(names[i]);
		struct fixture f = set_up();
		uint32_t module = oracle_add_module(f.modules, path);
		struct dp_symbol symbol = resolve_function(&f, module, path, "sym_plain", 0);
		bool inlined = false;

		assert_int_equal(symbol.source, DP_SYMBOL_DWARF);
		assert_string_equal(symbol.lines[0].function, "sym_plain");
		assert_int_equal(symbol.lines[0].start_line, plain);
		assert_int_equal(symbol.lines[0].line, sink);
		for (uint64_t at = 0; at < 30 && !inlined; at++) {
			symbol = resolve_function(&f, module, path, "static_function", at);
			inlined = symbol.n_lines == 2;
		}
		assert_true(inlined);
		assert_string_equal(symbol.lines[0].function, "sym_header_inner");
		assert_int_equal(symbol.lines[0].start_line, inner);
		assert_string_equal(base_name(symbol.lines[0].file), "sym_calls.h");
		assert_string_equal(symbol.lines[1].function, "static_function");
		assert_int_equal(symbol.lines[1].start_line, outer);
		assert_string_equal(base_name(symbol.lines[1].file), "sym_calls.c");
		tear_down(&f);
	}
}

static void symbolizer_gives_absolute_paths(void **state)
{
	const char *path = oracle_sample("calls-dwarf5");
	struct fixture f = set_up();
	uint32_t module = oracle_add_module(f.modules, path);
	struct dp_symbol symbol = resolve_function(&f, module, path, "sym_plain", 0);

	(void)state;
	assert_int_equal(symbol.lines[0].file[0], '/');
	assert_int_equal(access(symbol.lines[0].file, F_OK), 0);
	tear_down(&f);
}

/* The symbol table's function at every byte is nm's: nothing else between two functions. */
static void check_table(const char *name, const char *nm_options)
{
	const char *path = oracle_sample(name);
	struct fixture f = set_up();
	uint32_t module = oracle_add_module(f.modules, path);
	size_t n;
	struct oracle_function *functions = oracle_functions(path, nm_options, &n);
	size_t n_bytes = 0;

	for (size_t i = 0; i < n; i++) {
		for (uint64_t at = 0; at < functions[i].size_bytes; at++) {
			struct dp_symbol symbol =
				resolve(&f, module, oracle_file_off(path, functions[i].svma + at));

			assert_int_equal(symbol.source, DP_SYMBOL_TABLE);
			assert_int_equal(symbol.n_lines, 1);
			assert_string_equal(symbol.lines[0].system_name, functions[i].name);
			assert_string_equal(symbol.lines[0].file, "");
			assert_int_equal(symbol.lines[0].line, 0);
			assert_int_equal(symbol.lines[0].start_line, 0);
			n_bytes++;
		}
	}
	assert_true(n_bytes > 300);
	free(functions);
	tear_down(&f);
}

static void symbolizer_takes_symtab_where_there_is_no_dwarf(void **state)
{
	(void)state;
	check_table("calls-symtab", "");
}

static void symbolizer_takes_dynsym_of_a_stripped_file(void **state)
{
	const char *whole = oracle_sample("calls-dwarf5");
	struct fixture f = set_up();
	uint32_t module = oracle_add_module(f.modules, oracle_sample("calls-stripped"));
	struct dp_symbol symbol;

	(void)state;
	check_table("calls-stripped", "-D");
	/* A function that .dynsym does not have is nobody's, not its neighbour's. */
	symbol = resolve_function(&f, module, whole, "static_function", 1);
	assert_int_equal(symbol.source, DP_SYMBOL_NONE);
	tear_down(&f);
}

static void symbolizer_gives_a_gap_to_a_label_and_not_to_a_sized_function(void **state)
{
	const char *path = oracle_sample("calls-symtab");
	struct fixture f = set_up();
	uint32_t module = oracle_add_module(f.modules, path);

	(void)state;
	/* sym_sized_asm is 6 bytes long and followed by 2 of padding; the label has no size. */
	assert_int_equal(resolve_function(&f, module, path, "sym_sized_asm", 5).n_lines, 1);
	assert_int_equal(resolve_function(&f, module, path, "sym_sized_asm", 6).n_lines, 0);
	assert_int_equal(resolve_function(&f, module, path, "sym_sized_asm", 7).n_lines, 0);
	for (uint64_t at = 8; at < 15; at++) {
		struct dp_symbol s = resolve_function(&f, module, path, "sym_sized_asm", at);

		assert_int_equal(s.source, DP_SYMBOL_TABLE);
		assert_string_equal(s.lines[0].function, "sym_label_asm");
	}
	assert_string_equal(
		resolve_function(&f, module, path, "sym_sized_asm", 15).lines[0].system_name,
		"_ZN8my_crate6module4work17h0123456789abcdefE");
	tear_down(&f);
}

/* As musl's memset is followed by clone(), which .dynsym does not have. */
static void symbolizer_gives_a_label_of_a_stripped_file_its_first_byte_only(void **state)
{
	const char *whole = oracle_sample("calls-dwarf5");
	struct fixture f = set_up();
	uint32_t module = oracle_add_module(f.modules, oracle_sample("calls-stripped"));
	struct dp_symbol s = resolve_function(&f, module, whole, "sym_sized_asm", 8);

	(void)state;
	assert_int_equal(s.source, DP_SYMBOL_TABLE);
	assert_string_equal(s.lines[0].function, "sym_label_asm");
	s = resolve_function(&f, module, whole, "sym_sized_asm", 9);
	assert_int_equal(s.source, DP_SYMBOL_NONE);
	tear_down(&f);
}

static void symbolizer_demangles_rust(void **state)
{
	static const char *const names[] = {"_ZN8my_crate6module4work17h0123456789abcdefE",
					    "_RNvNtCs1234_8my_crate6module4work"};
	const char *path = oracle_sample("calls-dwarf5");
	struct fixture f = set_up();
	uint32_t module = oracle_add_module(f.modules, path);

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct dp_symbol s = resolve_function(&f, module, path, names[i], 0);

		assert_int_equal(s.n_lines, 1);
		assert_string_equal(s.lines[0].function, "my_crate::module::work");
		assert_string_equal(s.lines[0].system_name, names[i]);
	}
	tear_down(&f);
}

static void symbolizer_cuts_versions_off(void **state)
{
	const char *path = oracle_sample("versioned.so");
	struct fixture f = set_up();
	uint32_t module = oracle_add_module(f.modules, oracle_sample("versioned-bare.so"));
	struct dp_symbol s = resolve_function(&f, module, path, "sym_versioned_2", 0);

	(void)state;
	assert_string_equal(s.lines[0].system_name, "sym_versioned");
	tear_down(&f);
}

static void symbolizer_finds_the_file_that_debuglink_names(void **state)
{
	const struct oracle oracle = {.tool = "addr2line -C"};

	(void)state;
	compare_with(&oracle, "calls-dwarf5-linked", "calls-dwarf5", 6);
	compare_with(&oracle, "calls-no-build-id-linked", "calls-no-build-id", 6);
}

/* The file that debuglink names is there, but was made from another program. */
static void check_wrong_debug_file(const char *linked, const char *debug, const char *whole)
{
	char *directory = oracle_run("mktemp -d /tmp/dp-symbolizer-XXXXXX");
	struct fixture f = set_up();
	char path[600];
	struct dp_symbol s;

	directory[strcspn(directory, "\n")] = '\0';
	free(oracle_run("cp '%s' '%s/'", oracle_sample(linked), directory));
	free(oracle_run("cp '%s' '%s/%s'", oracle_sample("calls-o0"), directory, debug));
	snprintf(path, sizeof(path), "%s/%s", directory, linked);
	s = resolve_function(&f, oracle_add_module(f.modules, path), oracle_sample(whole),
			     "static_function", 0);
	assert_int_equal(s.source, DP_SYMBOL_NONE);
	free(oracle_run("rm -r '%s'", directory));
	free(directory);
	tear_down(&f);
}

static void symbolizer_refuses_the_debug_file_of_another_program(void **state)
{
	(void)state;
	check_wrong_debug_file("calls-dwarf5-linked", "calls-dwarf5.debug", "calls-dwarf5");
	check_wrong_debug_file("calls-no-build-id-linked", "calls-no-build-id.debug",
			       "calls-no-build-id");
}

static const char *libc_path(void)
{
	static Dl_info info;

	assert_int_not_equal(dladdr((void *)gnu_get_libc_version, &info), 0);
	return info.dli_fname;
}

static void symbolizer_names_the_real_libc(void **state)
{
	struct fixture f = set_up();
	uint32_t module = oracle_add_module(f.modules, libc_path());
	size_t n;
	struct oracle_function *functions = oracle_functions(libc_path(), "-D", &n);
	uint64_t svma = oracle_function(functions, n, "malloc")->svma;
	struct dp_symbol s = resolve(&f, module, oracle_file_off(libc_path(), svma));
	char *debug = oracle_run("readelf -n '%s' | sed -n "
				 "'s,.*Build ID: \\(..\\)\\(.*\\),"
				 "/usr/lib/debug/.build-id/\\1/\\2.debug,p'",
				 libc_path());

	(void)state;
	debug[strcspn(debug, "\n")] = '\0';
	if (access(debug, R_OK) == 0) {
		assert_int_equal(s.source, DP_SYMBOL_DWARF);
		assert_string_equal(base_name(s.lines[s.n_lines - 1].file), "malloc.c");
		assert_true(s.lines[s.n_lines - 1].line > 1000);
		assert_true(s.lines[s.n_lines - 1].start_line > 1000);
	} else {
		print_message("no separate debug file of libc (Debian: libc6-dbg)\n");
		assert_int_equal(s.source, DP_SYMBOL_TABLE);
	}
	assert_string_equal(s.lines[s.n_lines - 1].function, "malloc");
	free(debug);
	free(functions);
	tear_down(&f);
}

static void symbolizer_names_the_vdso(void **state)
{
	const char *vdso = (const char *)getauxval(AT_SYSINFO_EHDR);
	char path[] = "/tmp/dp-vdso-XXXXXX";
	struct fixture f = set_up();
	struct oracle_function *functions;
	void *copy = malloc(4096);
	int fd = mkstemp(path);
	uint32_t module;
	uint64_t svma;
	size_t n;

	(void)state;
	assert_non_null(copy);
	memcpy(copy, vdso, 4096);
	/* The section headers may lie beyond the first page; nm needs all of it. */
	assert_true(write(fd, vdso, 8192) == 8192 || write(fd, vdso, 4096) == 4096);
	close(fd);
	free(copy);
	copy = malloc(8192);
	memcpy(copy, vdso, 8192);
	assert_int_equal(dp_modules_add_vdso(f.modules, copy, 8192, &module), 0);
	functions = oracle_functions(path, "-D", &n);
	svma = oracle_function(functions, n, "__vdso_clock_gettime")->svma;
	/* clock_gettime is its weak alias, with fewer underscores. */
	assert_string_equal(resolve(&f, module, oracle_file_off(path, svma + 1)).lines[0].function,
			    "clock_gettime");
	free(functions);
	unlink(path);
	tear_down(&f);
}

static void symbolizer_still_names_a_deleted_file(void **state)
{
	const char *path = oracle_sample("calls-dwarf5");
	char copy[] = "/tmp/dp-symbolizer-XXXXXX";
	int fd = mkstemp(copy);
	struct fixture f = set_up();
	struct dp_symbol s;
	uint32_t module;

	(void)state;
	close(fd);
	free(oracle_run("cp '%s' '%s'", path, copy));
	module = oracle_add_module(f.modules, copy);
	unlink(copy);
	s = resolve_function(&f, module, path, "sym_nested_inlines", 0);
	assert_int_equal(s.source, DP_SYMBOL_DWARF);
	assert_string_equal(s.lines[s.n_lines - 1].function, "sym_nested_inlines");
	tear_down(&f);
}

/* A debuginfod that would be asked would find us listening. */
static void symbolizer_never_asks_the_network(void **state)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t n_bytes = sizeof(address);
	struct fixture f = set_up();
	char url[64];

	(void)state;
	assert_int_equal(bind(fd, (struct sockaddr *)&address, n_bytes), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n_bytes), 0);
	snprintf(url, sizeof(url), "http://127.0.0.1:%d/", ntohs(address.sin_port));
	setenv("DEBUGINFOD_URLS", url, 1);
	setenv("DEBUGINFOD_TIMEOUT", "5", 1);
	resolve_function(&f, oracle_add_module(f.modules, oracle_sample("calls-stripped")),
			 oracle_sample("calls-dwarf5"), "static_function", 0);
	unsetenv("DEBUGINFOD_URLS");
	assert_int_equal(accept4(fd, NULL, NULL, SOCK_CLOEXEC), -1);
	assert_int_equal(errno, EAGAIN);
	close(fd);
	tear_down(&f);
}

static void symbolizer_knows_nothing_of_what_is_no_code(void **state)
{
	struct fixture f = set_up();
	uint32_t module = oracle_add_module(f.modules, oracle_sample("calls-dwarf5")), opaque;

	(void)state;
	assert_int_equal(dp_modules_add_opaque(f.modules, 0, 0, "/x", 2, ENOENT, &opaque), 0);
	assert_int_equal(resolve(&f, 0, 0x1000).source, DP_SYMBOL_NONE);
	assert_int_equal(resolve(&f, module, 0).source, DP_SYMBOL_NONE);
	assert_int_equal(resolve(&f, module, DP_FRAME_OFFSET_MASK).source, DP_SYMBOL_NONE);
	assert_int_equal(resolve(&f, opaque, 0x1000).source, DP_SYMBOL_NONE);
	assert_int_equal(resolve(&f, opaque + 1, 0x1000).source, DP_SYMBOL_NONE);
	dp_symbolizer_free(NULL);
	tear_down(&f);
}

static void symbolizer_remembers_what_it_gave(void **state)
{
	const char *path = oracle_sample("calls-dwarf5");
	struct fixture f = set_up();
	uint32_t module = oracle_add_module(f.modules, path);
	struct dp_symbol first = resolve_function(&f, module, path, "sym_plain", 0), again;

	(void)state;
	for (uint64_t at = 0; at < 100; at++)
		resolve_function(&f, module, path, "sym_nested_inlines", at);
	again = resolve_function(&f, module, path, "sym_plain", 0);
	assert_ptr_equal(first.lines, again.lines);
	assert_string_equal(first.lines[0].function, "sym_plain");
	tear_down(&f);
}

static void symbolizer_counts_what_is_beyond_its_bound(void **state)
{
	const char *path = oracle_sample("calls-dwarf5");
	struct fixture f = set_up();
	uint32_t module = oracle_add_module(f.modules, path);

	(void)state;
	dp_symbolizer_set_max_frames(f.symbolizer, 1);
	assert_int_equal(resolve_function(&f, module, path, "sym_plain", 0).n_lines, 1);
	assert_int_equal(resolve_function(&f, module, path, "sym_plain", 1).n_lines, 0);
	assert_int_equal(dp_symbolizer_over_limit(f.symbolizer), 1);
	assert_int_equal(resolve_function(&f, module, path, "sym_plain", 0).n_lines, 1);
	assert_int_equal(dp_symbolizer_over_limit(f.symbolizer), 1);
	tear_down(&f);
}

static int resolve_once(struct dp_modules *modules, uint64_t frame)
{
	struct dp_symbol symbol = {.n_lines = 77};
	struct dp_symbolizer *symbolizer;
	int r = dp_symbolizer_new(&symbolizer, modules);

	if (r < 0)
		return r;
	r = dp_symbolizer_resolve(symbolizer, frame, &symbol);
	if (r < 0)
		assert_int_equal(symbol.n_lines, 77);
	else
		assert_int_equal(symbol.n_lines, 1);
	dp_symbolizer_free(symbolizer);
	return r;
}

/* The same symbolizer is asked again after each failure, which it must have survived. */
static int resolve_until_it_works(struct fixture *f, uint64_t frame, const char *name)
{
	struct dp_symbol symbol;
	unsigned long k = 0;
	int r;

	do {
		alloc_fail_at(++k);
		r = dp_symbolizer_resolve(f->symbolizer, frame, &symbol);
		alloc_fail_at(0);
		assert_true(r == 0 || r == -ENOMEM);
	} while (r < 0 && k < 1000);
	assert_string_equal(symbol.lines[symbol.n_lines - 1].function, name);
	return r;
}

static void symbolizer_leaves_all_as_it_was_when_memory_is_out(void **state)
{
	const char *path = oracle_sample("calls-dwarf5");
	struct fixture f = set_up();
	uint32_t module = oracle_add_module(f.modules, path);
	uint64_t frame = dp_frame_make(module, oracle_file_off(path, svma_of(path, "sym_plain")));
	uint64_t inlines =
		dp_frame_make(module, oracle_file_off(path, svma_of(path, "sym_nested_inlines")));

	(void)state;
	ALLOC_FAIL_EACH(resolve_once(f.modules, frame));
	assert_int_equal(resolve_until_it_works(&f, frame, "sym_plain"), 0);
	assert_int_equal(resolve_until_it_works(&f, inlines, "sym_nested_inlines"), 0);
	tear_down(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(symbolizer_agrees_with_addr2line_on_c),
		cmocka_unit_test(symbolizer_agrees_with_addr2line_on_cxx),
		cmocka_unit_test(symbolizer_agrees_with_addr2line_after_link_time_optimisation),
		cmocka_unit_test(symbolizer_reads_split_dwarf),
		cmocka_unit_test(symbolizer_ignores_code_that_the_linker_discarded),
		cmocka_unit_test(symbolizer_agrees_with_eu_addr2line),
		cmocka_unit_test(symbolizer_agrees_with_llvm_on_what_clang_built),
		cmocka_unit_test(symbolizer_knows_where_each_function_begins),
		cmocka_unit_test(symbolizer_gives_absolute_paths),
		cmocka_unit_test(symbolizer_takes_symtab_where_there_is_no_dwarf),
		cmocka_unit_test(symbolizer_takes_dynsym_of_a_stripped_file),
		cmocka_unit_test(symbolizer_gives_a_gap_to_a_label_and_not_to_a_sized_function),
		cmocka_unit_test(symbolizer_gives_a_label_of_a_stripped_file_its_first_byte_only),
		cmocka_unit_test(symbolizer_demangles_rust),
		cmocka_unit_test(symbolizer_cuts_versions_off),
		cmocka_unit_test(symbolizer_finds_the_file_that_debuglink_names),
		cmocka_unit_test(symbolizer_refuses_the_debug_file_of_another_program),
		cmocka_unit_test(symbolizer_names_the_real_libc),
		cmocka_unit_test(symbolizer_names_the_vdso),
		cmocka_unit_test(symbolizer_still_names_a_deleted_file),
		cmocka_unit_test(symbolizer_never_asks_the_network),
		cmocka_unit_test(symbolizer_knows_nothing_of_what_is_no_code),
		cmocka_unit_test(symbolizer_remembers_what_it_gave),
		cmocka_unit_test(symbolizer_counts_what_is_beyond_its_bound),
		cmocka_unit_test(symbolizer_leaves_all_as_it_was_when_memory_is_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
