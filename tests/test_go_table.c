/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "symbolize/go_table.h"
#include "tests/alloc_fail.h"
#include "tests/go_fixture.h"
#include "tests/sym_oracle.h"

static int open_bytes(struct dp_go_table **ret, const void *bytes, size_t n_bytes)
{
	int fd = go_fixture_open(bytes, n_bytes);
	int r = dp_go_table_open(ret, fd);

	close(fd);
	return r;
}

static struct dp_go_table *open_fixture(enum go_fixture_format format)
{
	struct dp_go_table *table;
	struct go_fixture f;

	go_fixture_build(&f, format);
	assert_int_equal(open_bytes(&table, f.bytes, sizeof(f.bytes)), 0);
	return table;
}

static void check_line(const struct dp_go_line *line, const char *function, const char *file,
		       int64_t n, int64_t start, uint64_t parent)
{
	assert_string_equal(line->function, function);
	assert_string_equal(line->file, file);
	assert_int_equal(line->line, n);
	assert_int_equal(line->start_line, start);
	assert_int_equal(line->parent, parent);
}

static void every_format_is_read(void **state)
{
	struct dp_go_line lines[DP_GO_MAX_LINES];

	(void)state;
	for (enum go_fixture_format format = GO_FIXTURE_1_16; format <= GO_FIXTURE_1_26; format++) {
		struct dp_go_table *table = open_fixture(format);
		bool has_starts = format >= GO_FIXTURE_1_20;
		uint64_t module_data;

		assert_true(dp_go_table_module_data(table, &module_data));
		assert_int_equal(module_data, 0x402100);
		assert_int_equal(dp_go_table_lines(table, 0x401000, lines), 1);
		check_line(&lines[0], "main.f", "f.go", 10, has_starts ? 7 : 0, 0);
		assert_int_equal(dp_go_table_lines(table, 0x40100f, lines), 1);
		assert_int_equal(dp_go_table_lines(table, 0x401010, lines), 2);
		check_line(&lines[0], "main.inner", "f.go", 10, has_starts ? 5 : 0, 0x401040);
		check_line(&lines[1], "main.f", "f.go", 20, has_starts ? 7 : 0, 0);
		assert_int_equal(dp_go_table_lines(table, 0x40101f, lines), 2);
		assert_int_equal(dp_go_table_lines(table, 0x401020, lines), 1);
		assert_int_equal(dp_go_table_lines(table, 0x4011ff, lines), 1);
		check_line(&lines[0], "main.g[int]", "f.go", 20, has_starts ? 7 : 0, 0);
		assert_int_equal(dp_go_table_lines(table, 0x401200, lines), 1);
		check_line(&lines[0], "runtime.sigpanic", "", 0, 0, 0);
		dp_go_table_free(table);
	}
}

static void no_code_has_no_lines(void **state)
{
	static const uint64_t svma[] = {0, 0x400fff, 0x401300, UINT64_MAX};
	struct dp_go_table *table = open_fixture(GO_FIXTURE_1_20);
	struct dp_go_line lines[DP_GO_MAX_LINES];
	struct dp_go_function function;

	(void)state;
	for (size_t i = 0; i < sizeof(svma) / sizeof(*svma); i++) {
		assert_int_equal(dp_go_table_lines(table, svma[i], lines), 0);
		assert_false(dp_go_table_function(table, svma[i], &function));
	}
	dp_go_table_free(table);
}

static void functions_are_found_by_address_and_by_name(void **state)
{
	struct dp_go_table *table = open_fixture(GO_FIXTURE_1_20);
	struct dp_go_function by_address, by_name;

	(void)state;
	assert_true(dp_go_table_function(table, 0x401150, &by_address));
	assert_true(dp_go_table_find(table, "main.g[int]", &by_name));
	assert_int_equal(by_address.entry, 0x401100);
	assert_int_equal(by_address.end, 0x401200);
	assert_int_equal(by_name.entry, 0x401100);
	assert_ptr_equal(by_name.name, by_address.name);
	assert_false(dp_go_table_find(table, "main.g", &by_name));
	assert_false(dp_go_table_find(table, "", &by_name));
	dp_go_table_free(table);
}

/* Of 1.20's format, 16 bytes an entry: index @i of the tree at 16. */
static void put_inlined(struct go_fixture *f, size_t i, uint8_t func_id, uint32_t name,
			uint32_t parent)
{
	uint8_t *at = f->bytes + GO_FIXTURE_TREES + 16 + 16 * i;

	at[0] = func_id;
	memcpy(at + 4, &name, 4);
	memcpy(at + 8, &parent, 4);
}

static void a_wrapper_that_called_something_is_left_out(void **state)
{
	struct dp_go_line lines[DP_GO_MAX_LINES];
	struct dp_go_table *table;
	struct go_fixture f;
	uint8_t *id;

	(void)state;
	go_fixture_build(&f, GO_FIXTURE_1_20);
	/* main.f's _func: behind the functab of 32 bytes; its number behind 10 words. */
	id = f.bytes + GO_FIXTURE_TABLE + 0xc0 + 32 + 40;
	*id = 21;
	assert_int_equal(open_bytes(&table, f.bytes, sizeof(f.bytes)), 0);
	assert_int_equal(dp_go_table_lines(table, 0x401010, lines), 1);
	check_line(&lines[0], "main.inner", "f.go", 10, 5, 0);
	/* It is what is there itself. */
	assert_int_equal(dp_go_table_lines(table, 0x401000, lines), 1);
	assert_int_equal(lines[0].func_id, 21);
	dp_go_table_free(table);
	/* A panic function was called. */
	put_inlined(&f, 0, 18, 37, 0x40);
	assert_int_equal(open_bytes(&table, f.bytes, sizeof(f.bytes)), 0);
	assert_int_equal(dp_go_table_lines(table, 0x401010, lines), 2);
	dp_go_table_free(table);
}

static void calls_that_are_inlined_for_ever_end(void **state)
{
	struct dp_go_line lines[DP_GO_MAX_LINES];
	struct dp_go_table *table;
	struct go_fixture f;

	(void)state;
	go_fixture_build(&f, GO_FIXTURE_1_20);
	put_inlined(&f, 0, 0, 37, 0x10);
	assert_int_equal(open_bytes(&table, f.bytes, sizeof(f.bytes)), 0);
	assert_int_equal(dp_go_table_lines(table, 0x401010, lines), DP_GO_MAX_LINES);
	assert_string_equal(lines[DP_GO_MAX_LINES - 2].function, "main.inner");
	assert_string_equal(lines[DP_GO_MAX_LINES - 1].function, "main.f");
	dp_go_table_free(table);
}

static int open_changed(enum go_fixture_format format, size_t at, uint64_t value, size_t n_bytes)
{
	struct dp_go_table *table;
	struct go_fixture f;
	int r;

	go_fixture_build(&f, format);
	memcpy(f.bytes + at, &value, n_bytes);
	r = open_bytes(&table, f.bytes, sizeof(f.bytes));
	if (r == 0)
		dp_go_table_free(table);
	return r;
}

static void other_versions_are_refused(void **state)
{
	(void)state;
	assert_int_equal(open_changed(GO_FIXTURE_1_20, GO_FIXTURE_TABLE, 0xf2, 1), -ENOTSUP);
	assert_int_equal(open_changed(GO_FIXTURE_1_20, GO_FIXTURE_TABLE, 0xfb, 1), -ENOTSUP);
	assert_int_equal(open_changed(GO_FIXTURE_1_20, GO_FIXTURE_TABLE, 0x12, 1), -ENOENT);
	assert_int_equal(open_changed(GO_FIXTURE_1_20, GO_FIXTURE_TABLE + 7, 4, 1), -ENOENT);
}

static void absurd_counts_are_refused(void **state)
{
	static const uint64_t counts[] = {0, 1000, UINT32_MAX, UINT64_MAX};

	(void)state;
	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++)
		assert_int_not_equal(
			open_changed(GO_FIXTURE_1_20, GO_FIXTURE_TABLE + 8, counts[i], 8), 0);
	for (size_t i = 4; i < 9; i++)
		assert_int_not_equal(
			open_changed(GO_FIXTURE_1_20, GO_FIXTURE_TABLE + 8 * i, UINT64_MAX, 8), 0);
}

static void without_module_data_there_are_no_inlined_calls(void **state)
{
	struct dp_go_line lines[DP_GO_MAX_LINES];
	struct dp_go_table *table;
	struct go_fixture f;
	uint64_t module_data;

	(void)state;
	go_fixture_build(&f, GO_FIXTURE_1_20);
	memset(f.bytes + GO_FIXTURE_MODULE, 0, GO_FIXTURE_MODULE_BYTES);
	assert_int_equal(open_bytes(&table, f.bytes, sizeof(f.bytes)), 0);
	assert_false(dp_go_table_module_data(table, &module_data));
	assert_int_equal(dp_go_table_lines(table, 0x401010, lines), 1);
	dp_go_table_free(table);
	/* Where the text begins is said nowhere else. */
	go_fixture_build(&f, GO_FIXTURE_1_26);
	memset(f.bytes + GO_FIXTURE_MODULE, 0, GO_FIXTURE_MODULE_BYTES);
	assert_int_equal(open_bytes(&table, f.bytes, sizeof(f.bytes)), -ENOEXEC);
}

static void look_everywhere(const struct dp_go_table *table)
{
	struct dp_go_line lines[DP_GO_MAX_LINES];
	struct dp_go_function function;

	for (uint64_t svma = 0x400ff8; svma < 0x401308; svma += 8) {
		size_t n = dp_go_table_lines(table, svma, lines);

		for (size_t i = 0; i < n; i++)
			assert_true(strlen(lines[i].function) > 0 && lines[i].file);
		(void)dp_go_table_function(table, svma, &function);
	}
	(void)dp_go_table_find(table, "main.g", &function);
}

static void look_at(const uint8_t *bytes, size_t n_bytes)
{
	struct dp_go_table *table;

	if (open_bytes(&table, bytes, n_bytes) == 0) {
		look_everywhere(table);
		dp_go_table_free(table);
	}
}

static void every_byte_that_is_flipped_is_survived(void **state)
{
	static const uint8_t flips[] = {0x01, 0x80, 0xff};

	(void)state;
	for (enum go_fixture_format format = GO_FIXTURE_1_16; format <= GO_FIXTURE_1_26; format++) {
		struct go_fixture f;

		go_fixture_build(&f, format);
		for (size_t i = 0; i < GO_FIXTURE_BYTES; i++) {
			bool is_table = i < GO_FIXTURE_TREES + GO_FIXTURE_TREES_BYTES;
			bool is_module = i >= GO_FIXTURE_MODULE &&
					 i < GO_FIXTURE_MODULE + GO_FIXTURE_MODULE_BYTES;

			for (size_t k = 0; (is_table || is_module) && k < sizeof(flips); k++) {
				f.bytes[i] ^= flips[k];
				look_at(f.bytes, sizeof(f.bytes));
				f.bytes[i] ^= flips[k];
			}
		}
	}
}

static void every_length_that_is_cut_is_survived(void **state)
{
	(void)state;
	for (enum go_fixture_format format = GO_FIXTURE_1_16; format <= GO_FIXTURE_1_26; format++) {
		struct go_fixture f;

		go_fixture_build(&f, format);
		for (size_t n = 0; n < sizeof(f.bytes); n += n < GO_FIXTURE_TREES ? 3 : 16)
			look_at(f.bytes, n);
	}
}

static void c_programs_have_no_table(void **state)
{
	struct dp_go_table *table = NULL;
	int fd = open(oracle_sample("calls-dwarf5"), O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_int_equal(dp_go_table_open(&table, fd), -ENOENT);
	close(fd);
	assert_int_equal(dp_go_table_open(&table, -1), -ENOENT);
	assert_null(table);
	dp_go_table_free(NULL);
}

static int try_open(int fd)
{
	struct dp_go_table *table = NULL;
	int r = dp_go_table_open(&table, fd);

	assert_true((r == 0) == (table != NULL));
	dp_go_table_free(table);
	return r;
}

static void a_failed_allocation_leaves_nothing(void **state)
{
	struct go_fixture f;
	int fd;

	(void)state;
	go_fixture_build(&f, GO_FIXTURE_1_26);
	fd = go_fixture_open(f.bytes, sizeof(f.bytes));
	ALLOC_FAIL_EACH(try_open(fd));
	close(fd);
	fd = open(oracle_sample("go-pie"), O_RDONLY | O_CLOEXEC);
	ALLOC_FAIL_EACH(try_open(fd));
	close(fd);
}

/* Real programs: the whole of them is gone through. */
static void real_programs_are_read(void **state)
{
	static const char *const names[] = {"go-plain", "go-pie", "go-plain-sectionless",
					    "go-pie-sectionless"};
	struct dp_go_line lines[DP_GO_MAX_LINES];

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		int fd = open(oracle_sample(names[i]), O_RDONLY | O_CLOEXEC);
		size_t n_inlined = 0, n_lines = 0;
		struct dp_go_function main_main, function;
		struct dp_go_table *table;
		uint64_t module_data;

		assert_int_equal(dp_go_table_open(&table, fd), 0);
		close(fd);
		assert_true(dp_go_table_module_data(table, &module_data));
		assert_true(dp_go_table_find(table, "main.main", &main_main));
		assert_int_equal(dp_go_table_lines(table, main_main.entry, lines), 1);
		assert_non_null(strstr(lines[0].file, "go_plain.go"));
		for (uint64_t svma = main_main.entry - 0x20000; svma < main_main.entry; svma += 4) {
			size_t n = dp_go_table_lines(table, svma, lines);

			n_lines += n > 0;
			n_inlined += n > 1;
		}
		assert_true(n_lines > 1000 && n_inlined > 100);
		assert_true(dp_go_table_find(table, "runtime.gopark", &function));
		dp_go_table_free(table);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_format_is_read),
		cmocka_unit_test(no_code_has_no_lines),
		cmocka_unit_test(functions_are_found_by_address_and_by_name),
		cmocka_unit_test(a_wrapper_that_called_something_is_left_out),
		cmocka_unit_test(calls_that_are_inlined_for_ever_end),
		cmocka_unit_test(other_versions_are_refused),
		cmocka_unit_test(absurd_counts_are_refused),
		cmocka_unit_test(without_module_data_there_are_no_inlined_calls),
		cmocka_unit_test(every_byte_that_is_flipped_is_survived),
		cmocka_unit_test(every_length_that_is_cut_is_survived),
		cmocka_unit_test(c_programs_have_no_table),
		cmocka_unit_test(a_failed_allocation_leaves_nothing),
		cmocka_unit_test(real_programs_are_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
