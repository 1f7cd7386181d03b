/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "symbolize/maps.h"

static struct dp_maps_line parse(const char *text)
{
	struct dp_maps_line line;

	assert_int_equal(dp_maps_parse_line(text, strlen(text), &line), 0);
	return line;
}

static void assert_path(const struct dp_maps_line *line, const char *path)
{
	assert_int_equal(line->path_bytes, strlen(path));
	assert_memory_equal(line->path, path, strlen(path));
}

static void maps_reads_every_field_of_a_code_mapping(void **state)
{
	struct dp_maps_line line =
		parse("7f2b1c028000-7f2b1c17d000 r-xp 00028000 fe:01 1048583                    "
		      "/usr/lib/x86_64-linux-gnu/libc.so.6\n");

	(void)state;
	assert_true(line.start == 0x7f2b1c028000);
	assert_true(line.end == 0x7f2b1c17d000);
	assert_true(line.file_off == 0x28000);
	assert_int_equal(line.major, 0xfe);
	assert_int_equal(line.minor, 1);
	assert_true(line.inode == 1048583);
	assert_true(line.readable && !line.writable && line.executable);
	assert_false(line.deleted);
	assert_path(&line, "/usr/lib/x86_64-linux-gnu/libc.so.6");
}

static void maps_keeps_the_spaces_of_a_path(void **state)
{
	struct dp_maps_line line =
		parse("00400000-00401000 r-xp 00000000 08:02 7   /opt/my program/a  b \n");

	(void)state;
	assert_path(&line, "/opt/my program/a  b ");
}

static void maps_keeps_an_escaped_newline_as_it_is(void **state)
{
	struct dp_maps_line line = parse("00400000-00401000 r-xp 00000000 08:02 7 /a\\012b\n");

	(void)state;
	assert_path(&line, "/a\\012b");
}

static void maps_cuts_the_mark_of_a_deleted_file(void **state)
{
	struct dp_maps_line line =
		parse("00400000-00401000 r-xp 00000000 08:02 7 /tmp/x (deleted) (deleted)\n");

	(void)state;
	assert_true(line.deleted);
	assert_path(&line, "/tmp/x (deleted)");
	line = parse("00400000-00401000 r-xp 00000000 08:02 7 /tmp/x (deleted) \n");
	assert_false(line.deleted);
}

static void maps_reads_a_mapping_without_a_path(void **state)
{
	struct dp_maps_line line = parse("7ffff7fc1000-7ffff7fc3000 rwxs 00000000 00:00 0 \n");

	(void)state;
	assert_true(line.readable && line.writable && line.executable);
	assert_path(&line, "");
	line = parse("7ffff7fc1000-7ffff7fc3000 ---p 00000000 00:00 0");
	assert_false(line.readable || line.writable || line.executable);
	assert_path(&line, "");
}

static void maps_reads_the_largest_numbers(void **state)
{
	struct dp_maps_line line =
		parse("ffffffffff600000-ffffffffffffffff --xp ffffffffffffffff "
		      "ffffffff:ffffffff 18446744073709551615                  [vsyscall]\n");

	(void)state;
	assert_true(line.end == UINT64_MAX);
	assert_true(line.file_off == UINT64_MAX);
	assert_true(line.inode == UINT64_MAX);
	assert_true(line.major == UINT32_MAX && line.minor == UINT32_MAX);
	assert_path(&line, "[vsyscall]");
}

static void maps_refuses_numbers_that_do_not_fit(void **state)
{
	static const char *const lines[] = {
		"10000000000000000-20000000000000000 r-xp 0 0:0 0",
		"1-2 r-xp 10000000000000000 0:0 0",
		"1-2 r-xp 0 100000000:0 0",
		"1-2 r-xp 0 0:100000000 0",
		"1-2 r-xp 0 0:0 18446744073709551616",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		struct dp_maps_line line = {.inode = 99};

		assert_int_equal(dp_maps_parse_line(lines[i], strlen(lines[i]), &line), -EBADMSG);
		assert_int_equal(line.inode, 99);
	}
}

static void maps_refuses_what_the_kernel_does_not_write(void **state)
{
	static const char *const lines[] = {
		"",
		"\n",
		"garbage",
		"-2 r-xp 0 0:0 0",
		"1- r-xp 0 0:0 0",
		"1 2 r-xp 0 0:0 0",
		"2-1 r-xp 0 0:0 0",
		"1-1 r-xp 0 0:0 0",
		"1-2  r-xp 0 0:0 0",
		"1-2 r-x 0 0:0 0",
		"1-2 r-xq 0 0:0 0",
		"1-2 x-rp 0 0:0 0",
		"1-2 r-xp",
		"1-2 r-xp 0 00 0",
		"1-2 r-xp 0 0:0",
		"1-2 r-xp 0 0:0 ",
		"1-2 r-xp 0 0:0 0a /x",
		"1-2 r-xp 0 0:0 0/x",
		"0x1-2 r-xp 0 0:0 0",
		"1-2 r-xp 0 0:0 -1",
		"1-2 r-xp 0 0:0 0 /x\n\n",
		"1-2 r-xp 0 0:0 0 /x\n1-2 r-xp 0 0:0 0 /y\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		struct dp_maps_line line;

		assert_int_equal(dp_maps_parse_line(lines[i], strlen(lines[i]), &line), -EBADMSG);
	}
}

/* Each prefix is copied to a block of exactly its size: the sanitizer sees a read beyond it. */
static void maps_never_reads_beyond_the_line(void **state)
{
	static const char text[] =
		"7f2b1c028000-7f2b1c17d000 r-xp 00028000 fe:01 1048583  /x (deleted)";

	(void)state;
	for (size_t n = 0; n < sizeof(text); n++) {
		struct dp_maps_line line;
		char *copy = malloc(n ? n : 1);

		assert_non_null(copy);
		memcpy(copy, text, n);
		if (dp_maps_parse_line(copy, n, &line) == 0)
			assert_true(line.path + line.path_bytes <= copy + n);
		free(copy);
	}
}

static void maps_reads_every_line_of_this_process(void **state)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char *text = NULL;
	size_t capacity = 0, n_code = 0;
	ssize_t n;

	(void)state;
	assert_non_null(maps);
	while ((n = getline(&text, &capacity, maps)) > 0) {
		struct dp_maps_line line;
		unsigned long start, end;

		assert_int_equal(dp_maps_parse_line(text, (size_t)n, &line), 0);
		assert_int_equal(sscanf(text, "%lx-%lx", &start, &end), 2);
		assert_true(line.start == start && line.end == end);
		n_code += line.executable;
	}
	assert_true(n_code > 2);
	free(text);
	fclose(maps);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(maps_reads_every_field_of_a_code_mapping),
		cmocka_unit_test(maps_keeps_the_spaces_of_a_path),
		cmocka_unit_test(maps_keeps_an_escaped_newline_as_it_is),
		cmocka_unit_test(maps_cuts_the_mark_of_a_deleted_file),
		cmocka_unit_test(maps_reads_a_mapping_without_a_path),
		cmocka_unit_test(maps_reads_the_largest_numbers),
		cmocka_unit_test(maps_refuses_numbers_that_do_not_fit),
		cmocka_unit_test(maps_refuses_what_the_kernel_does_not_write),
		cmocka_unit_test(maps_never_reads_beyond_the_line),
		cmocka_unit_test(maps_reads_every_line_of_this_process),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
