/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/frame.h"
#include "symbolize/module_registry.h"
#include "symbolize/symbolizer.h"
#include "tests/sym_oracle.h"

/* Where a copy of the sample lies, with or without its alternate file. */
struct place {
	char directory[64];
};

static struct place place_new(void)
{
	struct place place = {"/tmp/dp-alt-file-XXXXXX"};

	if (access(oracle_sample("templates-dwz"), F_OK) < 0) {
		print_message("no dwz (Debian: dwz)\n");
		skip();
	}
	assert_non_null(mkdtemp(place.directory));
	free(oracle_run("cp '%s' '%s/program'", oracle_sample("templates-dwz"), place.directory));
	return place;
}

static void place_remove(const struct place *place)
{
	free(oracle_run("rm -r '%s'", place->directory));
}

/* How many calls with a name are found around main()'s bytes, from the program in @place. */
static size_t count_calls(const struct place *place)
{
	size_t n_functions, n = 0;
	struct oracle_function *functions =
		oracle_functions(oracle_sample("templates-dwarf5"), "", &n_functions);
	const struct oracle_function *function = oracle_function(functions, n_functions, "main");
	struct dp_symbolizer *symbolizer;
	struct dp_modules *modules;
	char path[128];
	uint32_t module;

	assert_int_equal(dp_modules_new(&modules), 0);
	snprintf(path, sizeof(path), "%s/root", place->directory);
	dp_modules_set_root(modules, open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
	snprintf(path, sizeof(path), "%s/program", place->directory);
	assert_int_equal(dp_symbolizer_new(&symbolizer, modules), 0);
	module = oracle_add_module(modules, path);
	assert_true(function->size_bytes > 0);
	for (uint64_t at = 0; at < function->size_bytes; at++) {
		uint64_t file_off = oracle_file_off(path, function->svma + at);
		struct dp_symbol symbol;

		assert_int_equal(
			dp_symbolizer_resolve(symbolizer, dp_frame_make(module, file_off), &symbol),
			0);
		assert_string_equal(symbol.lines[symbol.n_lines - 1].function, "main");
		n += symbol.n_lines;
	}
	dp_symbolizer_free(symbolizer);
	dp_modules_free(modules);
	free(functions);
	return n;
}

static void alternate_file_is_found_beside_the_file_that_names_it(void **state)
{
	struct place place = place_new();
	size_t n_without = count_calls(&place);

	(void)state;
	free(oracle_run("cp '%s' '%s/'", oracle_sample("templates-dwz.common"), place.directory));
	assert_true(count_calls(&place) > n_without);
	place_remove(&place);
}

static void alternate_file_is_found_at_an_absolute_path(void **state)
{
	struct place place = place_new();
	size_t n_without = count_calls(&place);

	(void)state;
	free(oracle_run("mkdir '%s/elsewhere' && cp '%s' '%s/elsewhere/common' && cd '%s' && "
			"objcopy --dump-section .gnu_debugaltlink=link program && "
			"printf '%s/elsewhere/common\\0' >new && tail -c 20 link >>new && "
			"objcopy --update-section .gnu_debugaltlink=new program",
			place.directory, oracle_sample("templates-dwz.common"), place.directory,
			place.directory, place.directory));
	assert_true(count_calls(&place) > n_without);
	place_remove(&place);
}

static void alternate_file_of_another_program_is_refused(void **state)
{
	struct place place = place_new();
	size_t n_without = count_calls(&place);

	(void)state;
	free(oracle_run("cp '%s' '%s/templates-dwz.common'", oracle_sample("templates-other"),
			place.directory));
	assert_int_equal(count_calls(&place), n_without);
	place_remove(&place);
}

static void alternate_file_may_be_a_directory_or_a_pipe(void **state)
{
	struct place place = place_new();
	size_t n_without = count_calls(&place);

	(void)state;
	free(oracle_run("mkdir '%s/templates-dwz.common'", place.directory));
	assert_int_equal(count_calls(&place), n_without);
	free(oracle_run("rmdir '%s/templates-dwz.common' && mkfifo '%s/templates-dwz.common'",
			place.directory, place.directory));
	assert_int_equal(count_calls(&place), n_without);
	place_remove(&place);
}

/* Both in the target's root alone: the debug file by build-id, its alternate file relative to it.
 */
static void alternate_file_is_found_in_the_target_s_root(void **state)
{
	struct place place = place_new();
	size_t n_without;

	(void)state;
	free(oracle_run("cd '%s' && id=$(readelf -n program | sed -n 's/ *Build ID: //p') && "
			"dir=root/usr/lib/debug/.build-id/$(echo $id | cut -c1-2) && "
			"mkdir -p $dir && ln -s $dir by-id && "
			"objcopy --only-keep-debug program $dir/$(echo $id | cut -c3-).debug && "
			"strip --strip-debug -R .gnu_debugaltlink program",
			place.directory));
	n_without = count_calls(&place);
	free(oracle_run("cp '%s' '%s/by-id/templates-dwz.common'", oracle_sample("templates-other"),
			place.directory));
	assert_int_equal(count_calls(&place), n_without);
	free(oracle_run("cp '%s' '%s/by-id/'", oracle_sample("templates-dwz.common"),
			place.directory));
	assert_true(count_calls(&place) > n_without);
	place_remove(&place);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(alternate_file_is_found_beside_the_file_that_names_it),
		cmocka_unit_test(alternate_file_is_found_at_an_absolute_path),
		cmocka_unit_test(alternate_file_of_another_program_is_refused),
		cmocka_unit_test(alternate_file_may_be_a_directory_or_a_pipe),
		cmocka_unit_test(alternate_file_is_found_in_the_target_s_root),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
