/* SPDX-License-Identifier: MIT */
#include <dlfcn.h>
#include <elf.h>
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
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/frame.h"
#include "symbolize/module.h"
#include "symbolize/module_registry.h"
#include "tests/alloc_fail.h"
#include "tests/sym_oracle.h"

static struct dp_modules *new_modules(void)
{
	struct dp_modules *modules;

	assert_int_equal(dp_modules_new(&modules), 0);
	return modules;
}

static struct dp_module_info info_of(const struct dp_modules *modules, uint32_t id)
{
	struct dp_module_info info;

	assert_true(dp_module_get(modules, id, &info));
	return info;
}

static const char *libc_path(void)
{
	static Dl_info info;

	assert_int_not_equal(dladdr((void *)gnu_get_libc_version, &info), 0);
	return info.dli_fname;
}

/* A copy of sample @name that may be changed, at a path of its own. */
static char *copy_of(const char *name)
{
	char *path = strdup("/tmp/dp-module-XXXXXX");
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	close(fd);
	free(oracle_run("cp '%s' '%s'", oracle_sample(name), path));
	return path;
}

static void remove_copy(char *path)
{
	unlink(path);
	free(path);
}

static void modules_are_numbered_from_one(void **state)
{
	struct dp_modules *modules = new_modules();
	struct dp_module_info info;

	(void)state;
	assert_int_equal(dp_modules_count(modules), 0);
	assert_false(dp_module_get(modules, 0, &info));
	assert_false(dp_module_get(modules, 1, &info));
	assert_int_equal(oracle_add_module(modules, oracle_sample("library.so")), 1);
	assert_int_equal(oracle_add_module(modules, oracle_sample("tiny.so")), 2);
	assert_int_equal(dp_modules_count(modules), 2);
	assert_false(dp_module_get(modules, 0, &info));
	assert_false(dp_module_get(modules, 3, &info));
	assert_int_equal(dp_module_fd(modules, 0), -1);
	assert_int_equal(dp_module_fd(modules, 3), -1);
	dp_modules_free(modules);
	dp_modules_free(NULL);
}

static void module_knows_what_readelf_knows(void **state)
{
	struct dp_modules *modules = new_modules();
	uint32_t id = oracle_add_module(modules, oracle_sample("library.so"));
	struct dp_module_info info = info_of(modules, id);
	char *wanted = oracle_run("readelf -n '%s' | sed -n 's/.*Build ID: //p'",
				  oracle_sample("library.so"));
	char hex[2 * DP_MODULE_BUILD_ID_MAX + 1] = "";

	(void)state;
	assert_int_equal(info.kind, DP_MODULE_ELF);
	assert_int_equal(info.machine, EM_X86_64);
	assert_string_equal(info.path, oracle_sample("library.so"));
	for (size_t i = 0; i < info.build_id_bytes; i++)
		sprintf(hex + 2 * i, "%02x", info.build_id[i]);
	assert_int_equal(info.build_id_bytes, 20);
	wanted[strcspn(wanted, "\n")] = '\0';
	assert_string_equal(hex, wanted);
	free(wanted);

	id = oracle_add_module(modules, oracle_sample("calls-no-build-id"));
	assert_null(info_of(modules, id).build_id);
	assert_int_equal(info_of(modules, id).build_id_bytes, 0);
	dp_modules_free(modules);
}

static void module_keeps_its_file_open_and_out_of_children(void **state)
{
	struct dp_modules *modules = new_modules();
	uint32_t id = oracle_add_module(modules, oracle_sample("library.so"));
	int fd = dp_module_fd(modules, id);

	(void)state;
	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	dp_modules_free(modules);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void module_is_the_same_by_any_path(void **state)
{
	struct dp_modules *modules = new_modules();
	char *copy = copy_of("library.so");
	uint32_t id = oracle_add_module(modules, oracle_sample("library.so"));
	char other[600];

	(void)state;
	snprintf(other, sizeof(other), "%s.link", copy);
	assert_int_equal(link(copy, other), 0);
	assert_int_equal(oracle_add_module(modules, oracle_sample("library.so")), id);
	/* Equal bytes in another file are another module; another name of one file is not. */
	assert_int_equal(oracle_add_module(modules, copy), id + 1);
	assert_int_equal(oracle_add_module(modules, other), id + 1);
	assert_int_equal(dp_modules_count(modules), 2);
	unlink(other);
	remove_copy(copy);
	dp_modules_free(modules);
}

static void module_is_another_one_when_the_path_got_a_new_file(void **state)
{
	struct dp_modules *modules = new_modules();
	char *copy = copy_of("library.so");
	uint32_t id = oracle_add_module(modules, copy);
	uint8_t byte;

	(void)state;
	assert_int_equal(unlink(copy), 0);
	free(oracle_run("cp '%s' '%s'", oracle_sample("tiny.so"), copy));
	assert_int_not_equal(oracle_add_module(modules, copy), id);
	/* Overwritten in place: the same inode, another build-id. */
	free(oracle_run("cat '%s' > '%s'", oracle_sample("calls-dwarf4"), copy));
	assert_int_equal(oracle_add_module(modules, copy), id + 2);
	/* The first file is gone from the disk and can still be read. */
	assert_int_equal(dp_module_read(modules, id, 1, &byte, 1), 1);
	assert_int_equal(byte, 'E');
	remove_copy(copy);
	dp_modules_free(modules);
}

static void module_that_is_no_code_is_opaque(void **state)
{
	static const char *const commands[] = {
		": > $F",		       /* empty */
		"printf '\\177ELF' > $F",      /* only the beginning */
		"head -c 4096 /dev/zero > $F", /* no magic */
		"echo '#!/bin/sh' > $F",
		"gcc -x c -c -o $F /dev/null", /* not linked */
	};
	struct dp_modules *modules = new_modules();
	struct dp_modules_stats stats;
	char byte;

	(void)state;
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		struct dp_found_symbol *found;
		const char *name = "malloc";
		char *copy = copy_of("tiny.so");
		uint32_t id;
		size_t n;

		free(oracle_run("F='%s'; %s", copy, commands[i]));
		id = oracle_add_module(modules, copy);
		assert_int_equal(info_of(modules, id).kind, DP_MODULE_OPAQUE);
		assert_int_equal(info_of(modules, id).machine, 0);
		assert_int_equal(dp_module_fd(modules, id), -1);
		assert_int_equal(dp_module_read(modules, id, 0, &byte, 1), -ENOEXEC);
		assert_int_equal(dp_module_find_functions(modules, id, &name, 1, &found, &n),
				 -ENOEXEC);
		assert_int_equal(oracle_add_module(modules, copy), id);
		remove_copy(copy);
		dp_modules_get_stats(modules, &stats);
		assert_int_equal(stats.n_unreadable, i + 1);
	}
	dp_modules_free(modules);
}

static void module_without_a_file_descriptor_is_opaque_and_counted(void **state)
{
	struct dp_modules *modules = new_modules();
	struct dp_modules_stats stats;
	uint32_t id, again;

	(void)state;
	assert_int_equal(dp_modules_add_opaque(modules, 1, 2, "/x y", 4, EMFILE, &id), 0);
	assert_int_equal(dp_modules_add_opaque(modules, 1, 2, "/x", 2, EACCES, &again), 0);
	assert_int_not_equal(id, again);
	assert_int_equal(dp_modules_add_opaque(modules, 1, 2, "/x y", 4, EMFILE, &again), 0);
	assert_int_equal(id, again);
	assert_int_equal(info_of(modules, id).kind, DP_MODULE_OPAQUE);
	assert_string_equal(info_of(modules, id).path, "/x y");
	dp_modules_get_stats(modules, &stats);
	assert_int_equal(stats.n_without_fd, 1);
	assert_int_equal(stats.n_unreadable, 1);
	dp_modules_free(modules);
}

static void modules_are_no_more_than_a_frame_can_name(void **state)
{
	struct dp_modules *modules = new_modules();
	struct dp_modules_stats stats;
	uint32_t id;

	(void)state;
	for (uint32_t i = 1; i <= DP_FRAME_MAX_MODULE; i++) {
		assert_int_equal(dp_modules_add_opaque(modules, 1, i, "/x", 2, ENOENT, &id), 0);
		assert_int_equal(id, i);
	}
	id = 77;
	assert_int_equal(dp_modules_add_opaque(modules, 1, 0, "/x", 2, ENOENT, &id), 0);
	assert_int_equal(id, 0);
	assert_int_equal(dp_modules_add_opaque(modules, 1, 5, "/x", 2, ENOENT, &id), 0);
	assert_int_equal(id, 5);
	dp_modules_get_stats(modules, &stats);
	assert_int_equal(stats.n_over_limit, 1);
	dp_modules_free(modules);
}

/* Every name that nm finds in the table must be found at all of nm's places, and nowhere else. */
static void check_functions(const char *path, const char *nm_options, size_t at_least)
{
	struct dp_modules *modules = new_modules();
	uint32_t id = oracle_add_module(modules, path);
	size_t n_functions, n_found, n_matched = 0;
	struct oracle_function *functions = oracle_functions(path, nm_options, &n_functions);
	const char **names = calloc(n_functions, sizeof(*names));
	struct dp_found_symbol *found;

	assert_true(n_functions >= at_least);
	for (size_t i = 0; i < n_functions; i++)
		names[i] = functions[i].name;
	assert_int_equal(
		dp_module_find_functions(modules, id, names, n_functions, &found, &n_found), 0);
	for (size_t i = 0; i < n_found; i++) {
		const char *name = names[found[i].i_name];
		bool known = false;

		assert_true(i == 0 || found[i].i_name > found[i - 1].i_name ||
			    (found[i].i_name == found[i - 1].i_name &&
			     found[i].file_off > found[i - 1].file_off));
		for (size_t j = 0; j < n_functions && !known; j++)
			known = strcmp(functions[j].name, name) == 0 &&
				functions[j].size_bytes == found[i].size_bytes &&
				oracle_file_off(path, functions[j].svma) == found[i].file_off;
		if (!known)
			fail_msg("%s: %s found at 0x%" PRIx64, path, name, found[i].file_off);
		n_matched++;
	}
	assert_true(n_matched >= at_least);
	free(found);
	free(names);
	free(functions);
	dp_modules_free(modules);
}

static void module_finds_the_functions_that_nm_finds(void **state)
{
	(void)state;
	check_functions(oracle_sample("calls-dwarf5"), "", 12);
	check_functions(oracle_sample("calls-nopie"), "", 12);
	check_functions(oracle_sample("calls-stripped"), "-D", 9);
	check_functions(oracle_sample("library.so"), "", 1);
}

static const struct oracle_function *libc_function(const char *name, uint64_t *ret_file_off)
{
	static struct oracle_function *functions;
	static size_t n;
	const struct oracle_function *function;

	if (!functions)
		functions = oracle_functions(libc_path(), "-D", &n);
	function = oracle_function(functions, n, name);
	*ret_file_off = oracle_file_off(libc_path(), function->svma);
	return function;
}

static void module_finds_the_allocator_of_the_real_libc(void **state)
{
	static const char *const names[] = {
		"malloc", "calloc",   "realloc",	 "reallocarray",
		"free",	  "memalign", "aligned_alloc",	 "posix_memalign",
		"valloc", "pvalloc",  "no_such_function"};
	const size_t n_names = sizeof(names) / sizeof(*names);
	struct dp_modules *modules = new_modules();
	uint32_t id = oracle_add_module(modules, libc_path());
	struct dp_found_symbol *found;
	size_t n_found;

	(void)state;
	assert_int_equal(dp_module_find_functions(modules, id, names, n_names, &found, &n_found),
			 0);
	assert_int_equal(n_found, n_names - 1);
	for (size_t i = 0; i < n_found; i++) {
		uint64_t file_off;
		const struct oracle_function *wanted = libc_function(names[i], &file_off);

		assert_int_equal(found[i].i_name, i);
		assert_true(found[i].file_off == file_off);
		assert_true(found[i].size_bytes == wanted->size_bytes);
	}
	free(found);
	dp_modules_free(modules);
}

static void module_finds_every_version_of_a_function(void **state)
{
	static const char *const names[] = {"sym_versioned_2", "sym_versioned"};
	const char *path = oracle_sample("versioned.so");
	struct dp_modules *modules = new_modules();
	uint32_t id = oracle_add_module(modules, path);
	struct oracle_function *functions;
	struct dp_found_symbol *found;
	size_t n_found, n;
	uint64_t first, second;

	(void)state;
	functions = oracle_functions(path, "", &n);
	first = oracle_file_off(path, oracle_function(functions, n, "sym_versioned_1")->svma);
	second = oracle_file_off(path, oracle_function(functions, n, "sym_versioned_2")->svma);
	assert_int_equal(dp_module_find_functions(modules, id, names, 2, &found, &n_found), 0);
	assert_int_equal(n_found, 3);
	assert_int_equal(found[0].i_name, 0);
	assert_true(found[0].file_off == second);
	assert_int_equal(found[1].i_name, 1);
	assert_int_equal(found[2].i_name, 1);
	assert_true(found[1].file_off == (first < second ? first : second));
	assert_true(found[2].file_off == (first < second ? second : first));
	free(functions);
	free(found);
	dp_modules_free(modules);
}

/* Turns the section header of .dynsym at @path into one of nothing. */
static void forget_dynsym(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	size_t n_forgotten = 0;
	Elf64_Ehdr ehdr;

	assert_int_equal(pread(fd, &ehdr, sizeof(ehdr), 0), sizeof(ehdr));
	for (size_t i = 0; i < ehdr.e_shnum; i++) {
		off_t at = (off_t)(ehdr.e_shoff + i * sizeof(Elf64_Shdr));
		Elf64_Shdr shdr;

		assert_int_equal(pread(fd, &shdr, sizeof(shdr), at), sizeof(shdr));
		if (shdr.sh_type != SHT_DYNSYM)
			continue;
		shdr.sh_type = SHT_NULL;
		assert_int_equal(pwrite(fd, &shdr, sizeof(shdr), at), sizeof(shdr));
		n_forgotten++;
	}
	assert_int_equal(n_forgotten, 1);
	close(fd);
}

/* Only .symtab writes the version into the name. */
static void module_ignores_the_version_in_the_name_of_a_symbol(void **state)
{
	static const char *const names[] = {"sym_versioned", "sym_versioned@SYM_1", "sym_version"};
	struct dp_modules *modules = new_modules();
	char *copy = copy_of("versioned.so");
	struct dp_found_symbol *found;
	size_t n_found;
	uint32_t id;

	(void)state;
	forget_dynsym(copy);
	id = oracle_add_module(modules, copy);
	assert_int_equal(dp_module_find_functions(modules, id, names, 3, &found, &n_found), 0);
	assert_int_equal(n_found, 2);
	assert_int_equal(found[0].i_name, 0);
	assert_int_equal(found[1].i_name, 0);
	free(found);
	remove_copy(copy);
	dp_modules_free(modules);
}

static void module_finds_functions_in_a_static_program(void **state)
{
	static const char *const names[] = {"malloc", "free", "sym_plain", "malloc"};
	const char *path = oracle_sample("calls-static");
	struct dp_modules *modules = new_modules();
	uint32_t id = oracle_add_module(modules, path);
	struct dp_found_symbol *found;
	struct oracle_function *functions;
	size_t n_found, n;

	(void)state;
	functions = oracle_functions(path, "", &n);
	assert_int_equal(dp_module_find_functions(modules, id, names, 4, &found, &n_found), 0);
	assert_int_equal(n_found, 4);
	for (size_t i = 0; i < n_found; i++) {
		const struct oracle_function *wanted = oracle_function(functions, n, names[i]);

		assert_int_equal(found[i].i_name, i);
		assert_true(found[i].file_off == oracle_file_off(path, wanted->svma));
	}
	free(functions);
	free(found);
	dp_modules_free(modules);
}

static void module_gives_nothing_for_unknown_names(void **state)
{
	static const char *const names[] = {"no_such_function", "", "sink", "sym_plai",
					    "sym_plain_"};
	struct dp_modules *modules = new_modules();
	uint32_t id = oracle_add_module(modules, oracle_sample("calls-dwarf5"));
	struct dp_found_symbol *found = (void *)&names;
	size_t n_found = 9;

	(void)state;
	assert_int_equal(dp_module_find_functions(modules, id, names, 5, &found, &n_found), 0);
	assert_null(found);
	assert_int_equal(n_found, 0);
	assert_int_equal(dp_module_find_functions(modules, id, NULL, 0, &found, &n_found), 0);
	assert_int_equal(n_found, 0);
	assert_int_equal(dp_module_find_functions(modules, id + 1, names, 5, &found, &n_found),
			 -ENOENT);
	dp_modules_free(modules);
}

static void module_reads_the_bytes_of_its_file(void **state)
{
	const char *path = oracle_sample("tiny.so");
	struct dp_modules *modules = new_modules();
	uint32_t id = oracle_add_module(modules, path);
	struct stat st;
	char head[4], wanted[64], bytes[64];
	int fd = open(path, O_RDONLY);

	(void)state;
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(dp_module_read(modules, id, 0, head, 4), 4);
	assert_memory_equal(head, ELFMAG, 4);
	assert_int_equal(pread(fd, wanted, 64, st.st_size - 10), 10);
	assert_int_equal(dp_module_read(modules, id, (uint64_t)st.st_size - 10, bytes, 64), 10);
	assert_memory_equal(bytes, wanted, 10);
	assert_int_equal(dp_module_read(modules, id, (uint64_t)st.st_size, bytes, 64), 0);
	assert_int_equal(dp_module_read(modules, id, UINT64_MAX, bytes, 64), -EINVAL);
	assert_int_equal(dp_module_read(modules, id + 1, 0, bytes, 64), -ENOENT);
	close(fd);
	dp_modules_free(modules);
}

static uint32_t add_own_vdso(struct dp_modules *modules, size_t *ret_bytes)
{
	const char *vdso = (const char *)getauxval(AT_SYSINFO_EHDR);
	const size_t n_bytes = 4096;
	void *copy = malloc(n_bytes);
	uint32_t id;

	assert_non_null(vdso);
	assert_non_null(copy);
	memcpy(copy, vdso, n_bytes);
	*ret_bytes = n_bytes;
	assert_int_equal(dp_modules_add_vdso(modules, copy, n_bytes, &id), 0);
	return id;
}

static void module_of_the_vdso_lives_in_memory(void **state)
{
	struct dp_modules *modules = new_modules();
	size_t n_bytes;
	uint32_t id = add_own_vdso(modules, &n_bytes);
	char bytes[16];

	(void)state;
	assert_int_equal(info_of(modules, id).kind, DP_MODULE_VDSO);
	assert_int_equal(info_of(modules, id).machine, EM_X86_64);
	assert_string_equal(info_of(modules, id).path, "[vdso]");
	assert_int_equal(dp_module_fd(modules, id), -1);
	assert_int_equal(add_own_vdso(modules, &n_bytes), id);
	assert_int_equal(dp_module_read(modules, id, 0, bytes, 4), 4);
	assert_memory_equal(bytes, ELFMAG, 4);
	assert_int_equal(dp_module_read(modules, id, n_bytes - 8, bytes, 16), 8);
	assert_int_equal(dp_module_read(modules, id, n_bytes, bytes, 16), 0);
	dp_modules_free(modules);
}

static void module_survives_a_file_that_is_cut_short_later(void **state)
{
	static const char *const names[] = {"sym_plain"};
	struct dp_modules *modules = new_modules();
	char *copy = copy_of("calls-dwarf5");
	uint32_t id = oracle_add_module(modules, copy);
	struct dp_found_symbol *found;
	size_t n_found;
	char byte;

	(void)state;
	assert_int_equal(truncate(copy, 4096), 0);
	if (dp_module_find_functions(modules, id, names, 1, &found, &n_found) == 0) {
		assert_int_equal(n_found, 0);
		free(found);
	}
	assert_int_equal(dp_module_read(modules, id, 5000, &byte, 1), 0);
	assert_int_equal(truncate(copy, 0), 0);
	if (dp_module_find_functions(modules, id, names, 1, &found, &n_found) == 0)
		free(found);
	remove_copy(copy);
	dp_modules_free(modules);
}

static struct dp_modules *modules_in_question;
static struct dp_found_symbol *found_in_question = (void *)1;

static int find_again(uint32_t id)
{
	static const char *const names[] = {"sym_plain", "main"};
	size_t n = 77;
	int r = dp_module_find_functions(modules_in_question, id, names, 2, &found_in_question, &n);

	if (r < 0) {
		assert_ptr_equal(found_in_question, (void *)1);
		assert_int_equal(n, 77);
	} else {
		assert_int_equal(n, 2);
		free(found_in_question);
	}
	return r;
}

static int add_again(const char *path)
{
	struct dp_modules *modules;
	uint32_t id = 77;
	int r = dp_modules_new(&modules);

	if (r < 0)
		return r;
	r = dp_modules_add_file(modules, open(path, O_RDONLY | O_CLOEXEC), path, strlen(path), &id);
	if (r < 0) {
		assert_int_equal(id, 77);
		assert_int_equal(dp_modules_count(modules), 0);
	}
	dp_modules_free(modules);
	return r;
}

static void module_leaves_all_as_it_was_when_memory_is_out(void **state)
{
	int fd_before = dup(0), fd_after;

	(void)state;
	close(fd_before);
	modules_in_question = new_modules();
	ALLOC_FAIL_EACH(add_again(oracle_sample("calls-dwarf5")));
	oracle_add_module(modules_in_question, oracle_sample("calls-dwarf5"));
	ALLOC_FAIL_EACH(find_again(1));
	dp_modules_free(modules_in_question);
	fd_after = dup(0);
	assert_int_equal(fd_before, fd_after);
	close(fd_after);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(modules_are_numbered_from_one),
		cmocka_unit_test(module_knows_what_readelf_knows),
		cmocka_unit_test(module_keeps_its_file_open_and_out_of_children),
		cmocka_unit_test(module_is_the_same_by_any_path),
		cmocka_unit_test(module_is_another_one_when_the_path_got_a_new_file),
		cmocka_unit_test(module_that_is_no_code_is_opaque),
		cmocka_unit_test(module_without_a_file_descriptor_is_opaque_and_counted),
		cmocka_unit_test(modules_are_no_more_than_a_frame_can_name),
		cmocka_unit_test(module_finds_the_functions_that_nm_finds),
		cmocka_unit_test(module_finds_the_allocator_of_the_real_libc),
		cmocka_unit_test(module_finds_every_version_of_a_function),
		cmocka_unit_test(module_ignores_the_version_in_the_name_of_a_symbol),
		cmocka_unit_test(module_finds_functions_in_a_static_program),
		cmocka_unit_test(module_gives_nothing_for_unknown_names),
		cmocka_unit_test(module_reads_the_bytes_of_its_file),
		cmocka_unit_test(module_of_the_vdso_lives_in_memory),
		cmocka_unit_test(module_survives_a_file_that_is_cut_short_later),
		cmocka_unit_test(module_leaves_all_as_it_was_when_memory_is_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
