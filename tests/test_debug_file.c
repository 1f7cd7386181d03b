/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/frame.h"
#include "symbolize/module_registry.h"
#include "symbolize/symbolizer.h"
#include "tests/sym_oracle.h"

/*
 * Debug files in the root of a target: a directory of this test, with a program that has been
 * stripped of everything but its dynamic symbols and what belongs to it elsewhere.
 */

#define FUNCTION "sym_plain"

static char directory[] = "/tmp/dp-debug-file-XXXXXX";
static char in_root[256]; /* where the build-id says that the debug file is, beginning with a / */

static int set_up(void **state)
{
	char *id;

	(void)state;
	strcpy(directory, "/tmp/dp-debug-file-XXXXXX");
	assert_non_null(mkdtemp(directory));
	free(oracle_run("cd '%s' && mkdir root && cp '%s' whole && cp whole program && "
			"strip --strip-all program && objcopy --only-keep-debug whole debug",
			directory, oracle_sample("calls-dwarf5")));
	id = oracle_run("readelf -n '%s/whole' | sed -n 's/ *Build ID: //p' | tr -d '\\n'",
			directory);
	snprintf(in_root, sizeof(in_root), "/usr/lib/debug/.build-id/%.2s/%s.debug", id, id + 2);
	free(oracle_run("cd '%s/root' && mkdir -p \"$(dirname '.%s')\"", directory, in_root));
	free(id);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(oracle_run("rm -r '%s'", directory));
	return 0;
}

/* Runs a command in the directory; its argument is `in_root` without its slash. */
#define RUN(command) free(oracle_run("cd '%s' && set -- '%s' && " command, directory, in_root + 1))

/* How the function's name in the program is known, when @command has been run in between. */
static enum dp_symbol_source source_after(const char *command)
{
	struct dp_modules *modules;
	struct dp_symbolizer *symbolizer;
	struct oracle_function *functions;
	struct dp_symbol symbol;
	char path[300];
	uint32_t id;
	size_t n;

	snprintf(path, sizeof(path), "%s/root", directory);
	assert_int_equal(dp_modules_new(&modules), 0);
	assert_int_equal(dp_symbolizer_new(&symbolizer, modules), 0);
	dp_modules_set_root(modules, open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
	snprintf(path, sizeof(path), "%s/program", directory);
	id = oracle_add_module(modules, path);
	free(oracle_run("cd '%s' && %s", directory, command));
	snprintf(path, sizeof(path), "%s/whole", directory);
	functions = oracle_functions(path, "", &n);
	uint64_t svma = oracle_function(functions, n, FUNCTION)->svma;
	assert_int_equal(dp_symbolizer_resolve(symbolizer,
					       dp_frame_make(id, oracle_file_off(path, svma)),
					       &symbol),
			 0);
	free(functions);
	dp_symbolizer_free(symbolizer);
	dp_modules_free(modules);
	return symbol.source;
}

static void debug_file_of_the_target_s_root_is_found_by_build_id(void **state)
{
	(void)state;
	assert_int_equal(source_after("true"), DP_SYMBOL_TABLE);
	RUN("mv debug \"root/$1\"");
	assert_int_equal(source_after("true"), DP_SYMBOL_DWARF);
}

static void debug_file_of_the_target_s_root_is_found_by_link(void **state)
{
	(void)state;
	RUN("objcopy --add-gnu-debuglink=debug program && mkdir -p \"root$PWD\" && "
	    "mv debug \"root$PWD\"");
	assert_int_equal(source_after("true"), DP_SYMBOL_DWARF);
}

static void debug_file_of_another_build_is_refused(void **state)
{
	(void)state;
	RUN("true");
	free(oracle_run("objcopy --only-keep-debug '%s' '%s/root%s'", oracle_sample("calls-o0"),
			directory, in_root));
	assert_int_equal(source_after("true"), DP_SYMBOL_TABLE);
}

static void debug_file_is_never_outside_of_the_root(void **state)
{
	(void)state;
	RUN("ln -s \"$PWD/debug\" \"root/$1\"");
	assert_int_equal(source_after("true"), DP_SYMBOL_TABLE);
	RUN("ln -sf ../../../../../../debug \"root/$1\"");
	assert_int_equal(source_after("true"), DP_SYMBOL_TABLE);
	RUN("mkdir -p \"root$PWD\" && mv debug \"root$PWD\" && ln -sf \"$PWD/debug\" \"root/$1\"");
	assert_int_equal(source_after("true"), DP_SYMBOL_DWARF);
}

static void debug_file_must_be_a_regular_file(void **state)
{
	(void)state;
	RUN("mkfifo \"root/$1\"");
	assert_int_equal(source_after("true"), DP_SYMBOL_TABLE);
	RUN("rm \"root/$1\" && mkdir \"root/$1\"");
	assert_int_equal(source_after("true"), DP_SYMBOL_TABLE);
}

/* Of a file that is as long as this only the holes are cheap. */
static void debug_file_that_is_too_large_is_not_copied(void **state)
{
	(void)state;
	RUN("mv debug \"root/$1\" && truncate -s 1025M \"root/$1\"");
	assert_int_equal(source_after("true"), DP_SYMBOL_TABLE);
}

static void program_that_is_overwritten_in_place_has_no_names(void **state)
{
	char command[512];

	(void)state;
	RUN("mv debug \"root/$1\"");
	snprintf(command, sizeof(command), "cat '%s' > program", oracle_sample("calls-dwarf4"));
	assert_int_equal(source_after(command), DP_SYMBOL_NONE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(debug_file_of_the_target_s_root_is_found_by_build_id),
		TEST(debug_file_of_the_target_s_root_is_found_by_link),
		TEST(debug_file_of_another_build_is_refused),
		TEST(debug_file_is_never_outside_of_the_root),
		TEST(debug_file_must_be_a_regular_file),
		TEST(debug_file_that_is_too_large_is_not_copied),
		TEST(program_that_is_overwritten_in_place_has_no_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
