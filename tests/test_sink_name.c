/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "encode/sink.h"

#define NAME "redis-server-812-heap-20261122T173000.123Z.pb.gz"

static void names_are_safe_and_sort_by_time(void **state)
{
	static const struct {
		const char *comm;
		pid_t pid;
		const char *profile;
		int64_t ns;
		const char *name;
	} cases[] = {
		/* Times by `date -u -d @SECONDS`. */
		{"redis-server", 812, "heap", 1795368600123000000, NAME},
		{"a", 1, "mutex", 0, "a-1-mutex-19700101T000000.000Z.pb.gz"},
		{"a", 1, "block", 999999, "a-1-block-19700101T000000.000Z.pb.gz"},
		{"a", 1, "heap", 1000000, "a-1-heap-19700101T000000.001Z.pb.gz"},
		{"a", 4194304, "cheap", 1798761599999999999,
		 "a-4194304-cheap-20261231T235959.999Z.pb.gz"},
		{"a", 1, "heap", 1798761600000000000, "a-1-heap-20270101T000000.000Z.pb.gz"},
		{"a", 1, "heap", 1709164800005000000, "a-1-heap-20240229T000000.005Z.pb.gz"},
		{"a", 1, "heap", -1, "a-1-heap-19691231T235959.999Z.pb.gz"},
		{"a", 1, "heap", INT64_MAX, "a-1-heap-22620411T234716.854Z.pb.gz"},
		{"a", 1, "heap", INT64_MIN, "a-1-heap-16770921T001243.145Z.pb.gz"},
		{"", 1, "heap", 0, "unknown-1-heap-19700101T000000.000Z.pb.gz"},
		{"..", 1, "heap", 0, "_.-1-heap-19700101T000000.000Z.pb.gz"},
		{"-rf", 1, "heap", 0, "_rf-1-heap-19700101T000000.000Z.pb.gz"},
		{"../x y\n", 1, "heap", 0, "_._x_y_-1-heap-19700101T000000.000Z.pb.gz"},
		{"g++_1.2-x", 1, "heap", 0, "g++_1.2-x-1-heap-19700101T000000.000Z.pb.gz"},
		{"caf\xc3\xa9*?$'\"", 1, "heap", 0, "caf_______-1-heap-19700101T000000.000Z.pb.gz"},
	};
	char name[DP_SINK_NAME_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		dp_sink_name(name, cases[i].comm, cases[i].pid, cases[i].profile, cases[i].ns);
		assert_string_equal(name, cases[i].name);
	}
}

static void the_longest_name_is_whole(void **state)
{
	char comm[301], name[DP_SINK_NAME_MAX];

	(void)state;
	memset(comm, 'c', 300);
	comm[300] = '\0';
	dp_sink_name(name, comm, INT32_MIN, "a_long_profile_x", INT64_MIN);
	assert_int_equal(strspn(name, "c"), 64);
	assert_string_equal(name + 64, "--2147483648-a_long_profile_x-16770921T001243.145Z.pb.gz");
}

static void a_name_does_not_depend_on_the_time_zone(void **state)
{
	char name[DP_SINK_NAME_MAX];

	(void)state;
	setenv("TZ", "NPT-5:45", 1);
	tzset();
	dp_sink_name(name, "redis-server", 812, "heap", 1795368600123000000);
	unsetenv("TZ");
	tzset();
	assert_string_equal(name, NAME);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_safe_and_sort_by_time),
		cmocka_unit_test(the_longest_name_is_whole),
		cmocka_unit_test(a_name_does_not_depend_on_the_time_zone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
