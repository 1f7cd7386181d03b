/* SPDX-License-Identifier: MIT */
/*
 * What we say of many addresses in many files beside what binutils' addr2line says: each function,
 * file and line of each inlined call. Where they differ, one of the rules below must say why, and
 * where binutils is wrong about more than a name, LLVM must say the same as we do.
 */
#include <dlfcn.h>
#include <gnu/libc-version.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/frame.h"
#include "symbolize/demangle.h"
#include "symbolize/symbolizer.h"
#include "tests/sym_oracle.h"

/* Why binutils 2.40 says something else. */
enum reason {
	SAME,
	/* It gives the linkage name of C functions, too: "__GI_bsearch", and with LTO "f.isra.0".
	 */
	LINKAGE_NAME,
	/* Of several symbols of one function it takes another one: "__GI_abort" for "abort". */
	OTHER_ALIAS,
	/* The symbol's name, which is the outermost function's, given to the innermost call. */
	SYMBOL_MISPLACED,
	/* With DWARF 5 the unit's own source file for another one, and with LTO "<artificial>". */
	WRONG_FILE,
	/* Inlined calls that it does not see: DW_FORM_rnglistx, and ranges outside the caller's. */
	CALLS_MISSED,
	N_REASONS,
	UNEXPLAINED = N_REASONS,
};

static const char *const reason_names[] = {
	"same", "linkage name", "other alias", "symbol misplaced", "wrong file", "calls missed",
};

struct file {
	const char *path;     /* what we read */
	const char *binutils; /* the same code, for addr2line; NULL: @path */
	const char *llvm;     /* the same code, for LLVM; NULL: @path */
	const char *symbols;  /* the same code, for nm; NULL: @path */
	const char *nm_options;
	bool in_dwarf;
};

/* Everything that is known of one address. */
struct comparison {
	uint64_t svma;
	struct dp_symbol ours;
	const struct oracle_calls *binutils, *llvm;
	const struct oracle_function *functions; /* of the file */
	size_t n_functions;
};

struct totals {
	size_t n, n_dwarf, n_of[N_REASONS + 1];
};

/* ---- one address ---------------------------------------------------------------------------- */

static const char *file_of(const struct oracle_call *call)
{
	return strcmp(call->file, "??") == 0 ? "" : call->file;
}

static bool same_text(const char *theirs, const char *mangled)
{
	char *text = dp_demangle(mangled);
	bool same = strcmp(theirs, text ? text : mangled) == 0;

	free(text);
	return same;
}

/* LLVM gives mangled names, and takes the outermost one from the symbol table. */
static bool llvm_agrees(const struct comparison *c)
{
	if (!c->llvm || c->llvm->n != c->ours.n_lines)
		return false;
	for (size_t i = 0; i < c->ours.n_lines; i++) {
		const struct oracle_call *theirs = &c->llvm->calls[i];
		const struct dp_line *ours = &c->ours.lines[i];

		if (theirs->line != ours->line || strcmp(file_of(theirs), ours->file) != 0 ||
		    (i + 1 < c->ours.n_lines && strcmp(theirs->function, ours->system_name) != 0))
			return false;
	}
	return true;
}

static bool holds(const struct oracle_function *function, uint64_t svma)
{
	return svma >= function->svma && svma - function->svma < function->size_bytes;
}

/* Whether @a and @b are symbols at one address. */
static bool are_aliases(const struct comparison *c, const struct oracle_function *a, const char *b)
{
	for (size_t i = 0; i < c->n_functions; i++) {
		if (c->functions[i].svma == a->svma && strcmp(c->functions[i].name, b) == 0)
			return true;
	}
	return false;
}

/* Why the innermost or the outermost call has the name of @symbol, which holds the address. */
static enum reason explain_symbol(const struct comparison *c, const struct oracle_function *symbol,
				  size_t i)
{
	const struct dp_line *ours = &c->ours.lines[i];

	if (i + 1 == c->ours.n_lines)
		return are_aliases(c, symbol, ours->system_name) ? OTHER_ALIAS : UNEXPLAINED;
	if (i == 0 && strcmp(ours->function, ours->system_name) == 0)
		return SYMBOL_MISPLACED;
	return UNEXPLAINED;
}

static enum reason explain_name(const struct comparison *c, size_t i)
{
	const struct dp_line *ours = &c->ours.lines[i];
	const char *theirs = c->binutils->calls[i].function;

	if (strcmp(theirs, ours->function) == 0)
		return SAME;
	if (strcmp(theirs, ours->system_name) == 0)
		return LINKAGE_NAME;
	for (size_t k = 0; k < c->n_functions; k++) {
		const struct oracle_function *symbol = &c->functions[k];
		enum reason reason = UNEXPLAINED;

		if (holds(symbol, c->svma) && same_text(theirs, symbol->name))
			reason = explain_symbol(c, symbol, i);
		if (reason != UNEXPLAINED)
			return reason;
	}
	return UNEXPLAINED;
}

static enum reason explain_place(const struct comparison *c, size_t i)
{
	const struct oracle_call *theirs = &c->binutils->calls[i];
	const struct dp_line *ours = &c->ours.lines[i];

	if (theirs->line != ours->line)
		return UNEXPLAINED;
	if (strcmp(file_of(theirs), ours->file) == 0)
		return SAME;
	return llvm_agrees(c) ? WRONG_FILE : UNEXPLAINED;
}

/* The reason of the first difference; every further one must have one, too. */
static enum reason explain(const struct comparison *c)
{
	enum reason first = SAME;

	if (c->ours.n_lines == 0)
		return strcmp(c->binutils->calls[0].function, "??") == 0 ? SAME : UNEXPLAINED;
	if (c->binutils->n != c->ours.n_lines)
		return c->binutils->n < c->ours.n_lines && llvm_agrees(c) ? CALLS_MISSED
									  : UNEXPLAINED;
	for (size_t i = 0; i < c->ours.n_lines; i++) {
		enum reason reasons[] = {explain_name(c, i), explain_place(c, i)};

		for (size_t k = 0; k < 2; k++) {
			if (reasons[k] == UNEXPLAINED)
				return UNEXPLAINED;
			if (first == SAME)
				first = reasons[k];
		}
	}
	return first;
}

/* ---- one file ------------------------------------------------------------------------------- */

/* About @n addresses spread evenly over the functions. */
static uint64_t *spread(const struct oracle_function *functions, size_t n_functions, size_t n,
			size_t *ret_n)
{
	uint64_t n_bytes = 0, step, next = 0, at = 0;
	uint64_t *all;
	size_t n_all = 0;

	for (size_t i = 0; i < n_functions; i++)
		n_bytes += functions[i].size_bytes;
	step = n_bytes > n ? n_bytes / n : 1;
	all = calloc(n_bytes / step + 1, sizeof(*all));
	assert_non_null(all);
	for (size_t i = 0; i < n_functions; i++) {
		for (; next < at + functions[i].size_bytes; next += step)
			all[n_all++] = functions[i].svma + (next - at);
		at += functions[i].size_bytes;
	}
	*ret_n = n_all;
	return all;
}

static void print_both(const struct comparison *c)
{
	print_message("0x%" PRIx64 "\n", c->svma);
	for (size_t i = 0; i < c->binutils->n; i++)
		print_message("  theirs %s %s:%ld\n", c->binutils->calls[i].function,
			      c->binutils->calls[i].file, c->binutils->calls[i].line);
	for (size_t i = 0; i < c->ours.n_lines; i++)
		print_message("  ours   %s (%s) %s:%" PRId64 "\n", c->ours.lines[i].function,
			      c->ours.lines[i].system_name, c->ours.lines[i].file,
			      c->ours.lines[i].line);
}

static void compare_each(const struct file *file, struct comparison *c, const uint64_t *svma,
			 size_t n, const struct oracle_calls *binutils,
			 const struct oracle_calls *llvm, struct totals *totals)
{
	struct dp_modules *modules;
	struct dp_symbolizer *symbolizer;
	uint32_t module;

	assert_int_equal(dp_modules_new(&modules), 0);
	assert_int_equal(dp_symbolizer_new(&symbolizer, modules), 0);
	module = oracle_add_module(modules, file->path);
	for (size_t i = 0; i < n; i++) {
		uint64_t frame = dp_frame_make(module, oracle_file_off(file->path, svma[i]));
		enum reason reason;

		c->svma = svma[i];
		c->binutils = &binutils[i];
		c->llvm = llvm ? &llvm[i] : NULL;
		assert_int_equal(dp_symbolizer_resolve(symbolizer, frame, &c->ours), 0);
		reason = explain(c);
		totals->n_of[reason]++;
		totals->n_dwarf += c->ours.source == DP_SYMBOL_DWARF;
		if (reason == UNEXPLAINED && totals->n_of[reason] <= 3)
			print_both(c);
	}
	totals->n += n;
	dp_symbolizer_free(symbolizer);
	dp_modules_free(modules);
}

/* Compares about @n addresses of @file. */
static struct totals compare(const struct file *file, size_t n)
{
	const char *symbols = file->symbols ? file->symbols : file->path;
	struct comparison c = {0};
	struct totals totals = {0};
	struct oracle_function *functions =
		oracle_functions(symbols, file->nm_options ? file->nm_options : "", &c.n_functions);
	uint64_t *svma = spread(functions, c.n_functions, n, &n);
	struct oracle_calls *binutils, *llvm = NULL;
	char *binutils_text, *llvm_text = NULL;

	c.functions = functions;
	binutils = oracle_addr2line("addr2line -C", file->binutils ? file->binutils : file->path,
				    svma, n, &binutils_text);
	if (file->in_dwarf && DP_SYM_LLVM_ADDR2LINE[0])
		llvm = oracle_addr2line(DP_SYM_LLVM_ADDR2LINE " --no-demangle",
					file->llvm ? file->llvm : file->path, svma, n, &llvm_text);
	compare_each(file, &c, svma, n, binutils, llvm, &totals);
	print_message("%s: %zu addresses", file->path, totals.n);
	for (size_t i = 0; i < N_REASONS; i++) {
		if (totals.n_of[i])
			print_message(", %s %zu", reason_names[i], totals.n_of[i]);
	}
	print_message("\n");
	if (totals.n_of[UNEXPLAINED])
		fail_msg("%s: %zu of %zu addresses differ and nothing explains it", file->path,
			 totals.n_of[UNEXPLAINED], totals.n);
	/* Not all has some: what crt*.o and libgcc give to a file. */
	assert_true(file->in_dwarf ? 100 * totals.n_dwarf > 95 * totals.n : totals.n_dwarf == 0);
	free(llvm);
	free(llvm_text);
	free(binutils);
	free(binutils_text);
	free(functions);
	free(svma);
	return totals;
}

/* ---- all files ------------------------------------------------------------------------------ */

#define N_ADDRESSES 5000

static size_t n_compared;

static struct totals compare_sample(const struct file *names)
{
	struct file file = *names;
	char paths[4][512];
	const char **members[] = {&file.path, &file.binutils, &file.llvm, &file.symbols};
	struct totals totals;

	for (size_t i = 0; i < 4; i++) {
		if (!*members[i])
			continue;
		snprintf(paths[i], sizeof(paths[i]), "%s", oracle_sample(*members[i]));
		*members[i] = paths[i];
	}
	totals = compare(&file, N_ADDRESSES);
	n_compared += totals.n;
	return totals;
}

static void names_agree_with_addr2line_for_gcc(void **state)
{
	(void)state;
	compare_sample(&(struct file){.path = "templates-dwarf4", .in_dwarf = true});
	compare_sample(&(struct file){.path = "templates-dwarf5", .in_dwarf = true});
}

static void names_agree_with_addr2line_for_clang(void **state)
{
	(void)state;
	if (!DP_SYM_LLVM_ADDR2LINE[0] || access(oracle_sample("templates-clang"), F_OK) < 0) {
		print_message("no clang or no llvm-addr2line (Debian: clang, llvm)\n");
		skip();
	}
	compare_sample(&(struct file){.path = "templates-clang", .in_dwarf = true});
}

static void names_agree_with_addr2line_for_compressed_sections(void **state)
{
	(void)state;
	compare_sample(&(struct file){.path = "templates-zlib", .in_dwarf = true});
}

/* LLVM 14 does not read the alternate file. */
static void names_agree_with_addr2line_for_a_dwz_supplementary_file(void **state)
{
	(void)state;
	if (access(oracle_sample("templates-dwz"), F_OK) < 0) {
		print_message("no dwz (Debian: dwz)\n");
		skip();
	}
	compare_sample(&(struct file){
		.path = "templates-dwz", .llvm = "templates-dwarf5", .in_dwarf = true});
}

/* addr2line does not read .dwo files: it is asked about the same code with its DWARF inside. */
static void names_agree_with_addr2line_for_split_dwarf(void **state)
{
	(void)state;
	compare_sample(&(struct file){
		.path = "templates-split", .binutils = "templates-dwarf5", .in_dwarf = true});
	compare_sample(&(struct file){
		.path = "templates-split4", .binutils = "templates-dwarf4", .in_dwarf = true});
}

static void names_agree_with_addr2line_for_a_file_that_debuglink_names(void **state)
{
	(void)state;
	compare_sample(&(struct file){.path = "templates-linked",
				      .llvm = "templates-dwarf5",
				      .symbols = "templates-symtab",
				      .in_dwarf = true});
}

/* addr2line does not read .gnu_debugdata: it is asked about the same code with its .symtab. */
static void names_agree_with_addr2line_for_mini_debuginfo(void **state)
{
	(void)state;
	compare_sample(&(struct file){.path = "templates-mini",
				      .binutils = "templates-symtab",
				      .symbols = "templates-symtab"});
}

static void names_agree_with_addr2line_for_symbol_tables(void **state)
{
	(void)state;
	compare_sample(&(struct file){.path = "templates-symtab"});
	compare_sample(&(struct file){.path = "templates-dynsym", .nm_options = "-D"});
}

/* @path's debug file in the directory of build-ids; NULL if there is none. */
static const char *debug_file(const char *path)
{
	static char debug[512];
	char *line = oracle_run("readelf -n '%s' | sed -n 's,.*Build ID: \\(..\\)\\(.*\\),"
				"/usr/lib/debug/.build-id/\\1/\\2.debug,p'",
				path);

	line[strcspn(line, "\n")] = '\0';
	snprintf(debug, sizeof(debug), "%s", line);
	free(line);
	return access(debug, R_OK) == 0 ? debug : NULL;
}

static void compare_system_file(const char *path, const char *package)
{
	const struct file file = {.path = path, .symbols = debug_file(path), .in_dwarf = true};

	if (!file.symbols) {
		print_message("no debug file of %s (Debian: %s)\n", path, package);
		skip();
	}
	n_compared += compare(&file, 2 * N_ADDRESSES).n;
}

/* What a program exports, or a library. */
static void names_agree_with_addr2line_for_the_distributions_stripped_files(void **state)
{
	static const char *const paths[] = {"/usr/bin/redis-server", "/usr/sbin/mariadbd",
					    "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
					    "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"};

	(void)state;
	for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
		const struct file file = {.path = paths[i], .nm_options = "-D"};

		if (access(paths[i], R_OK) < 0)
			print_message("no %s\n", paths[i]);
		else if (debug_file(paths[i]))
			print_message("%s has a debug file\n", paths[i]);
		else
			n_compared += compare(&file, N_ADDRESSES).n;
	}
}

static void names_agree_with_addr2line_for_the_real_libc(void **state)
{
	Dl_info info;
	char path[512];

	(void)state;
	assert_int_not_equal(dladdr((void *)gnu_get_libc_version, &info), 0);
	assert_non_null(realpath(info.dli_fname, path));
	compare_system_file(path, "libc6-dbg");
}

static void names_agree_with_addr2line_for_the_real_python(void **state)
{
	(void)state;
	if (access("/usr/bin/python3.11", R_OK) < 0) {
		print_message("no python3.11\n");
		skip();
	}
	compare_system_file("/usr/bin/python3.11", "python3.11-dbg");
}

static void more_than_ten_thousand_addresses_were_compared(void **state)
{
	(void)state;
	print_message("%zu addresses\n", n_compared);
	assert_true(n_compared >= 10000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_agree_with_addr2line_for_gcc),
		cmocka_unit_test(names_agree_with_addr2line_for_clang),
		cmocka_unit_test(names_agree_with_addr2line_for_compressed_sections),
		cmocka_unit_test(names_agree_with_addr2line_for_a_dwz_supplementary_file),
		cmocka_unit_test(names_agree_with_addr2line_for_split_dwarf),
		cmocka_unit_test(names_agree_with_addr2line_for_a_file_that_debuglink_names),
		cmocka_unit_test(names_agree_with_addr2line_for_mini_debuginfo),
		cmocka_unit_test(names_agree_with_addr2line_for_symbol_tables),
		cmocka_unit_test(names_agree_with_addr2line_for_the_distributions_stripped_files),
		cmocka_unit_test(names_agree_with_addr2line_for_the_real_libc),
		cmocka_unit_test(names_agree_with_addr2line_for_the_real_python),
		cmocka_unit_test(more_than_ten_thousand_addresses_were_compared),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
