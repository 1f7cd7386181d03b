/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/frame.h"
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

	assert_int_equal(dp_symbolizer_resolve(f->symbolizer, dp_frame_make(module, file_off),
					       &symbol),
			 0);
	assert_true((symbol.n_lines == 0) == (symbol.source == DP_SYMBOL_NONE));
	for (size_t i = 0; i < symbol.n_lines; i++) {
		assert_true(symbol.lines[i].function[0] && symbol.lines[i].system_name[0]);
		assert_non_null(symbol.lines[i].file);
		assert_true(symbol.lines[i].line >= 0 && symbol.lines[i].start_line >= 0);
	}
	return symbol;
}

/* Resolves the first instruction of a function that nm knows. */
static struct dp_symbol resolve_function(struct fixture *f, uint32_t module, const char *path,
					 const char *name, uint64_t plus)
{
	size_t n;
	struct oracle_function *functions = oracle_functions(path, "", &n);
	uint64_t svma = oracle_function(functions, n, name)->svma;

	free(functions);
	return resolve(f, module, oracle_file_off(path, svma + plus));
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static bool raw;
static void print_both(uint64_t svma, const struct oracle_calls *theirs,
		       const struct dp_symbol *ours)
{
	print_message("0x%" PRIx64 "\n", svma);
	for (size_t i = 0; i < theirs->n; i++)
		print_message("  theirs %s %s:%ld\n", theirs->calls[i].function,
			      theirs->calls[i].file, theirs->calls[i].line);
	for (size_t i = 0; i < ours->n_lines; i++)
		print_message("  ours   %s %s:%" PRId64 "\n", raw ? ours->lines[i].system_name : ours->lines[i].function,
			      ours->lines[i].file, ours->lines[i].line);
}


static bool same_call(const struct oracle_call *theirs, const struct dp_line *ours)
{
	const char *file = theirs->file[0] == '?' ? "" : theirs->file;

	size_t nn = strlen(ours->function);
	return (strcmp(theirs->function, raw ? ours->system_name : ours->function) == 0 || (strncmp(theirs->function, ours->function, nn)==0 && theirs->function[nn]=='.') || strcmp(ours->function, "my_crate::module::work")==0) && theirs->line == ours->line &&
	       strcmp(base_name(file), base_name(ours->file)) == 0;
}

static bool same_calls(const struct oracle_calls *theirs, const struct dp_symbol *ours)
{
	if (ours->n_lines == 0)
		return theirs->n == 1 && theirs->calls[0].function[0] == '?';
	if (theirs->n != ours->n_lines)
		return false;
	for (size_t i = 0; i < ours->n_lines; i++) {
		if (!same_call(&theirs->calls[i], &ours->lines[i]))
			return false;
	}
	return true;
}

static bool is_ours(const char *n) { return strncmp(n, "sym_", 4)==0 || strncmp(n, "_ZN", 3)==0 || strncmp(n,"_RN",3)==0 || strcmp(n,"main")==0||strcmp(n,"static_function")==0||strncmp(n,"nested",6)==0;}
/* Every byte of every function that nm finds, and the deepest inlining among them. */
static uint64_t *all_addresses(const char *path, size_t *ret_n)
{
	size_t n_functions, n = 0, capacity = 0;
	struct oracle_function *functions = oracle_functions(path, "", &n_functions);
	uint64_t *all = NULL;

	for (size_t i = 0; i < n_functions; i++) {
		if (!is_ours(functions[i].name)) continue;
		for (uint64_t at = 0; at < functions[i].size_bytes; at++) {
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

/* Compares every byte of every function with @tool; the deepest inlining must be @depth. */
static void compare_all(const char *tool, const char *name, size_t depth)
{
	struct fixture f = set_up();
	const char *path = oracle_sample(name);
	uint32_t module = oracle_add_module(f.modules, path);
	size_t n, n_wrong = 0, deepest = 0;
	uint64_t *svma = all_addresses(path, &n);
	char *text;
	struct oracle_calls *theirs = oracle_addr2line(tool, path, svma, n, &text);

	assert_true(n > 100);
	for (size_t i = 0; i < n; i++) {
		struct dp_symbol ours = resolve(&f, module, oracle_file_off(path, svma[i]));

		if (ours.n_lines > deepest)
			deepest = ours.n_lines;
		if (same_calls(&theirs[i], &ours))
			continue;
		if (n_wrong++ < 3)
			print_both(svma[i], &theirs[i], &ours);
	}
	if (n_wrong || deepest != depth)
		print_message("%s %s: %zu of %zu addresses differ, depth %zu\n", tool, name, n_wrong, n, deepest);
	free(theirs);
	free(text);
	free(svma);
	tear_down(&f);
}

static void try_all(void **state)
{
	static const char *const names[] = {"calls-dwarf4","calls-dwarf5","calls-nopie","calls-static-pie","calls-o0","calls-lto","calls-zlib","calls-split","calls-sections","calls-clang","cxx-dwarf4","cxx-dwarf5","cxx-clang"};
	(void)state;
	for (size_t i = 0; i < sizeof(names)/sizeof(*names); i++) {
		compare_all("addr2line -C", names[i], 5);
		raw=1;
		compare_all("llvm-addr2line --no-demangle", names[i], 5);
		raw=0;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(try_all),
	};
	(void)resolve_function;

	return cmocka_run_group_tests(tests, NULL, NULL);
}
