/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
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

#include "symbolize/appeared.h"
#include "tests/alloc_fail.h"
#include "tests/sym_oracle.h"

/* The process that is looked at is this one: it maps files at AVMA as a loader would. */
#define AVMA UINT64_C(0x400000000)
#define N_BYTES 8192u

/* Above every pid. Source: the kernel's include/linux/threads.h, PID_MAX_LIMIT. */
#define NO_PID (1 << 22)

struct build_id {
	uint8_t bytes[DP_MODULE_BUILD_ID_MAX];
	size_t n;
};

static struct dp_modules *modules;
static char directory[] = "/tmp/dp-appeared-XXXXXX";

static int set_up(void **state)
{
	(void)state;
	strcpy(directory, "/tmp/dp-appeared-XXXXXX");
	assert_non_null(mkdtemp(directory));
	assert_int_equal(dp_modules_new(&modules), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	munmap((void *)AVMA, N_BYTES);
	dp_modules_free(modules);
	free(oracle_run("rm -r '%s'", directory));
	return 0;
}

/* As readelf knows it. */
static struct build_id build_id_of(const char *path)
{
	char *text = oracle_run("readelf -n '%s' | sed -n 's/ *Build ID: //p'", path);
	struct build_id id = {.n = 0};
	unsigned byte;

	for (const char *at = text; sscanf(at, "%2x", &byte) == 1; at += 2)
		id.bytes[id.n++] = (uint8_t)byte;
	free(text);
	return id;
}

/* A path in the directory, valid until the next call but three. */
static const char *path_of(const char *name)
{
	static char paths[4][512];
	static unsigned i;

	i = (i + 1) % 4;
	snprintf(paths[i], sizeof(paths[i]), "%s/%s", directory, name);
	return paths[i];
}

static void put(const char *sample, const char *name)
{
	free(oracle_run("cp '%s' '%s.new' && mv '%s.new' '%s'", oracle_sample(sample),
			path_of(name), path_of(name), path_of(name)));
}

static void map(const char *name)
{
	int fd = open(path_of(name), O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_ptr_equal(
		mmap((void *)AVMA, N_BYTES, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0),
		(void *)AVMA);
	close(fd);
}

/* The module of a mapping of @name at AVMA, with the build-id (NULL: none) and inode as told. */
static uint32_t told(const char *name, const struct build_id *id, uint64_t inode)
{
	const char *path = path_of(name);
	struct dp_maps_line line = {
		.start = AVMA, .end = AVMA + N_BYTES, .path = path, .path_bytes = strlen(path)};
	struct dp_file_identity identity = {.inode = inode};
	uint32_t module = 0;

	if (id) {
		identity.build_id = id->bytes;
		identity.build_id_bytes = id->n;
	}
	assert_int_equal(dp_appeared_open(modules, getpid(), &line, &identity, &module), 0);
	return module;
}

static struct dp_module_info info_of(uint32_t id)
{
	struct dp_module_info info;

	assert_true(dp_module_get(modules, id, &info));
	return info;
}

static void assert_is(uint32_t module, const struct build_id *id)
{
	struct dp_module_info info = info_of(module);

	assert_int_equal(info.kind, DP_MODULE_ELF);
	assert_int_equal(info.build_id_bytes, id->n);
	assert_memory_equal(info.build_id, id->bytes, id->n);
}

static uint64_t inode_of(const char *name)
{
	struct stat st;

	assert_int_equal(stat(path_of(name), &st), 0);
	return st.st_ino;
}

static void appeared_mapping_that_is_still_there_is_opened(void **state)
{
	struct build_id a = build_id_of(oracle_sample("calls-dwarf4"));

	(void)state;
	assert_true(a.n >= 16);
	put("calls-dwarf4", "a");
	map("a");
	assert_is(told("a", &a, 0), &a);
}

static void appeared_file_is_not_the_one_that_has_its_address_now(void **state)
{
	struct build_id a = build_id_of(oracle_sample("calls-dwarf4"));
	struct build_id b = build_id_of(oracle_sample("calls-dwarf5"));

	(void)state;
	put("calls-dwarf4", "a");
	put("calls-dwarf5", "b");
	map("b");
	assert_is(told("a", &a, 0), &a);
	assert_is(told("b", &b, 0), &b);
	assert_string_equal(info_of(1).path, path_of("a"));
}

static void appeared_file_that_is_replaced_and_unmapped_is_opaque(void **state)
{
	struct build_id a = build_id_of(oracle_sample("calls-dwarf4"));

	(void)state;
	put("calls-dwarf5", "a");
	assert_int_equal(info_of(told("a", &a, 0)).kind, DP_MODULE_OPAQUE);
	map("a");
	assert_int_equal(info_of(told("a", &a, 0)).kind, DP_MODULE_OPAQUE);
}

static void appeared_file_that_was_seen_before_is_known_without_a_look(void **state)
{
	struct build_id a = build_id_of(oracle_sample("calls-dwarf4"));
	uint32_t module;

	(void)state;
	put("calls-dwarf4", "a");
	map("a");
	module = told("a", &a, 0);
	munmap((void *)AVMA, N_BYTES);
	put("calls-dwarf5", "a");
	assert_int_equal(told("a", &a, 0), module);
	assert_is(module, &a);
}

/* An overlay's file may be told by its path inside a layer. */
static void appeared_file_goes_by_the_path_that_the_process_knows(void **state)
{
	struct build_id a = build_id_of(oracle_sample("calls-dwarf4"));

	(void)state;
	put("calls-dwarf4", "a");
	map("a");
	assert_string_equal(info_of(told("layer", &a, 0)).path, path_of("a"));
}

static void appeared_file_without_build_id_must_have_the_path_or_the_inode(void **state)
{
	(void)state;
	put("calls-no-build-id", "a");
	put("calls-no-build-id", "b");
	map("b");
	assert_int_equal(info_of(told("layer", NULL, 0)).kind, DP_MODULE_OPAQUE);
	assert_int_equal(info_of(told("b", NULL, inode_of("b"))).kind, DP_MODULE_ELF);
	assert_int_equal(info_of(told("a", NULL, inode_of("b"))).kind, DP_MODULE_OPAQUE);
	assert_int_equal(info_of(told("a", NULL, inode_of("a"))).kind, DP_MODULE_ELF);
}

static void appeared_file_of_a_process_that_has_ended_is_found_in_its_root(void **state)
{
	struct build_id a = build_id_of(oracle_sample("calls-dwarf4"));
	const struct dp_file_identity identity = {.build_id = a.bytes, .build_id_bytes = a.n};
	const struct dp_maps_line line = {
		.start = AVMA, .end = AVMA + N_BYTES, .path = "/a", .path_bytes = 2};
	uint32_t module = 0;

	(void)state;
	put("calls-dwarf4", "a");
	assert_int_equal(dp_appeared_open(modules, NO_PID, &line, &identity, &module), 0);
	assert_int_equal(info_of(module).kind, DP_MODULE_OPAQUE);
	dp_modules_set_root(modules, open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC));
	assert_int_equal(dp_appeared_open(modules, NO_PID, &line, &identity, &module), 0);
	assert_is(module, &a);
}

static int open_again(void)
{
	const char *path = path_of("a");
	struct dp_maps_line line = {
		.start = AVMA, .end = AVMA + N_BYTES, .path = path, .path_bytes = strlen(path)};
	uint32_t module = 77, n = dp_modules_count(modules);
	int r = dp_appeared_open(modules, getpid(), &line, NULL, &module);

	if (r < 0) {
		assert_int_equal(module, 77);
		assert_int_equal(dp_modules_count(modules), n);
	}
	return r;
}

static void appeared_leaves_all_as_it_was_when_memory_is_out(void **state)
{
	(void)state;
	put("calls-dwarf4", "a");
	map("a");
	ALLOC_FAIL_EACH(open_again());
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(appeared_mapping_that_is_still_there_is_opened),
		TEST(appeared_file_is_not_the_one_that_has_its_address_now),
		TEST(appeared_file_that_is_replaced_and_unmapped_is_opaque),
		TEST(appeared_file_that_was_seen_before_is_known_without_a_look),
		TEST(appeared_file_goes_by_the_path_that_the_process_knows),
		TEST(appeared_file_without_build_id_must_have_the_path_or_the_inode),
		TEST(appeared_file_of_a_process_that_has_ended_is_found_in_its_root),
		TEST(appeared_leaves_all_as_it_was_when_memory_is_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
