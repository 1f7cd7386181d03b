/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "symbolize/jit_names.h"
#include "tests/alloc_fail.h"

static struct dp_jit_names read_text(const char *text)
{
	struct dp_jit_names names = {0};

	assert_int_equal(dp_jit_names_feed(&names, text, strlen(text)), 0);
	assert_int_equal(dp_jit_names_commit(&names), 0);
	return names;
}

static void assert_name(const struct dp_jit_names *names, uint64_t avma, const char *expected)
{
	const char *name = dp_jit_names_find(names, avma);

	if (expected) {
		assert_non_null(name);
		assert_string_equal(name, expected);
	} else {
		assert_null(name);
	}
}

static void a_line_names_its_code_and_nothing_beside_it(void **state)
{
	struct dp_jit_names names = read_text("7f4645fc7c00 570 JS:*turn /a b/jit.js:6:14\n"
					      "ABC0 10 upper\n");

	(void)state;
	assert_name(&names, 0x7f4645fc7bff, NULL);
	assert_name(&names, 0x7f4645fc7c00, "JS:*turn /a b/jit.js:6:14");
	assert_name(&names, 0x7f4645fc816f, "JS:*turn /a b/jit.js:6:14");
	assert_name(&names, 0x7f4645fc8170, NULL);
	assert_name(&names, 0xabc8, "upper");
	assert_name(&names, 0, NULL);
	assert_name(&names, UINT64_MAX, NULL);
	assert_int_equal(names.stats.n_lines, 2);
	assert_int_equal(names.stats.n_bad, 0);
	dp_jit_names_clear(&names);
}

static void what_is_no_line_is_counted_and_skipped(void **state)
{
	static const char text[] = "1000 10 first\n"
				   "\n"
				   "2000\n"
				   "2000 10\n"
				   "2000 10 \n"
				   " 2000 10 space before\n"
				   "2000  10 two spaces\n"
				   "0x2000 10 prefix\n"
				   "2000 0 of no size\n"
				   "ffffffffffffff00 1000 beyond the end\n"
				   "12345678901234567 10 too many digits\n"
				   "2000 -10 minus\n"
				   "2000 10 a\0b\n"
				   "3000 10 last\n";
	struct dp_jit_names names = {0};

	(void)state;
	assert_int_equal(dp_jit_names_feed(&names, text, sizeof(text) - 1), 0);
	assert_int_equal(dp_jit_names_commit(&names), 0);
	assert_int_equal(names.stats.n_lines, 2);
	assert_int_equal(names.stats.n_bad, 12);
	assert_name(&names, 0x1000, "first");
	assert_name(&names, 0x2000, NULL);
	assert_name(&names, 0x3000, "last");
	dp_jit_names_clear(&names);
}

static void a_name_may_have_4096_bytes_and_no_more(void **state)
{
	static char text[3 * 5000];
	char name[DP_JIT_NAME_MAX + 2];
	struct dp_jit_names names;
	int at;

	(void)state;
	memset(name, 'n', sizeof(name));
	name[DP_JIT_NAME_MAX] = '\0';
	at = snprintf(text, sizeof(text), "1000 10 %s\n", name);
	name[DP_JIT_NAME_MAX] = 'n';
	name[DP_JIT_NAME_MAX + 1] = '\0';
	snprintf(text + at, sizeof(text) - (size_t)at, "2000 10 %s\n3000 10 x\n", name);
	names = read_text(text);
	name[DP_JIT_NAME_MAX] = '\0';
	assert_name(&names, 0x1000, name);
	assert_name(&names, 0x2000, NULL);
	assert_name(&names, 0x3000, "x");
	assert_int_equal(names.stats.n_bad, 1);
	dp_jit_names_clear(&names);
}

static void a_line_without_end_takes_no_memory_and_ends(void **state)
{
	static char junk[1 << 16];
	struct dp_jit_names names = {0};

	(void)state;
	memset(junk, '7', sizeof(junk));
	for (int i = 0; i < 100; i++)
		assert_int_equal(dp_jit_names_feed(&names, junk, sizeof(junk)), 0);
	assert_int_equal(names.text_capacity, 0);
	assert_int_equal(dp_jit_names_feed(&names, "\n1000 10 x\n", 11), 0);
	assert_int_equal(dp_jit_names_commit(&names), 0);
	assert_int_equal(names.stats.n_bad, 1);
	assert_name(&names, 0x1000, "x");
	dp_jit_names_clear(&names);
}

static void a_later_line_hides_what_earlier_ones_say(void **state)
{
	struct dp_jit_names names = read_text("1000 100 old\n"
					      "1040 10 inside\n"
					      "10f0 20 over its end\n"
					      "0ff0 20 over its start\n"
					      "5000 10 gone\n"
					      "4ff0 100 over all of it\n");

	(void)state;
	assert_name(&names, 0xff0, "over its start");
	assert_name(&names, 0x100f, "over its start");
	assert_name(&names, 0x1010, "old");
	assert_name(&names, 0x103f, "old");
	assert_name(&names, 0x1040, "inside");
	assert_name(&names, 0x104f, "inside");
	assert_name(&names, 0x1050, "old");
	assert_name(&names, 0x10ef, "old");
	assert_name(&names, 0x10f0, "over its end");
	assert_name(&names, 0x110f, "over its end");
	assert_name(&names, 0x5008, "over all of it");
	assert_int_equal(dp_jit_names_feed(&names, "0 10000 all\n", 12), 0);
	assert_int_equal(dp_jit_names_commit(&names), 0);
	assert_name(&names, 0x1040, "all");
	assert_int_equal(names.n_segments, 1);
	dp_jit_names_clear(&names);
}

#define MODEL_BYTES 512

/* A line says which one it is; the model is one number per address. */
static void any_lines_in_any_pieces_give_what_the_last_one_says(void **state)
{
	unsigned int seed = 1;

	(void)state;
	for (int round = 0; round < 300; round++) {
		struct dp_jit_names names = {0};
		int model[MODEL_BYTES] = {0}, n_lines = rand_r(&seed) % 60;

		for (int i = 1; i <= n_lines; i++) {
			unsigned int start = (unsigned int)rand_r(&seed) % MODEL_BYTES;
			unsigned int size = 1 + (unsigned int)rand_r(&seed) % 64, cut;
			char line[64];
			int n = snprintf(line, sizeof(line), "%x %x %d\n", start, size, i);

			for (unsigned int at = start; at < start + size && at < MODEL_BYTES; at++)
				model[at] = i;
			cut = (unsigned int)rand_r(&seed) % (unsigned int)n;
			assert_int_equal(dp_jit_names_feed(&names, line, cut), 0);
			if (rand_r(&seed) % 8 == 0)
				assert_int_equal(dp_jit_names_commit(&names), 0);
			assert_int_equal(dp_jit_names_feed(&names, line + cut, (size_t)n - cut), 0);
		}
		assert_int_equal(dp_jit_names_commit(&names), 0);
		for (unsigned int at = 0; at < MODEL_BYTES; at++) {
			const char *name = dp_jit_names_find(&names, at);

			assert_int_equal(name ? atoi(name) : 0, model[at]);
		}
		assert_true(names.n_segments <= 2 * (size_t)n_lines);
		dp_jit_names_clear(&names);
	}
}

static void lines_beyond_the_limit_are_counted(void **state)
{
	struct dp_jit_names names = {0};

	(void)state;
	for (unsigned int i = 0; i < (1u << 20) + 5; i++) {
		char line[64];
		int n = snprintf(line, sizeof(line), "%x 10 f%u\n", i * 16, i);

		assert_int_equal(dp_jit_names_feed(&names, line, (size_t)n), 0);
	}
	assert_int_equal(dp_jit_names_commit(&names), 0);
	assert_int_equal(names.stats.n_over_limit, 5);
	assert_int_equal(names.n_segments, 1u << 20);
	assert_name(&names, 0, "f0");
	assert_name(&names, 0xfffff8, "f1048575");
	assert_name(&names, 0x1000000, NULL);
	dp_jit_names_clear(&names);
}

static int feed_and_find(void)
{
	struct dp_jit_names names = {0};
	int r = dp_jit_names_feed(&names, "1000 10 a\n1008 10 b\n", 20);

	if (r == 0)
		r = dp_jit_names_commit(&names);
	if (r == 0)
		r = dp_jit_names_feed(&names, "1004 2 c\n", 9);
	if (r == 0)
		r = dp_jit_names_commit(&names);
	if (r == 0)
		assert_name(&names, 0x1004, "c");
	dp_jit_names_clear(&names);
	return r;
}

static void names_survive_every_failed_allocation(void **state)
{
	(void)state;
	ALLOC_FAIL_EACH(feed_and_find());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_names_its_code_and_nothing_beside_it),
		cmocka_unit_test(what_is_no_line_is_counted_and_skipped),
		cmocka_unit_test(a_name_may_have_4096_bytes_and_no_more),
		cmocka_unit_test(a_line_without_end_takes_no_memory_and_ends),
		cmocka_unit_test(a_later_line_hides_what_earlier_ones_say),
		cmocka_unit_test(any_lines_in_any_pieces_give_what_the_last_one_says),
		cmocka_unit_test(lines_beyond_the_limit_are_counted),
		cmocka_unit_test(names_survive_every_failed_allocation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
