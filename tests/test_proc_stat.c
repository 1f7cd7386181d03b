/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/proc_stat.h"

static int read_line(const char *line, struct dp_proc_stat *ret)
{
	char path[] = "/tmp/dp-proc-stat-XXXXXX";
	int fd = mkstemp(path), r;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, line, strlen(line)), (ssize_t)strlen(line));
	close(fd);
	r = dp_proc_stat_read(path, ret);
	unlink(path);
	return r;
}

/* A line of a kernel of 6.18, with a name that does its worst. */
static void the_fields_behind_any_name_are_read(void **state)
{
	struct dp_proc_stat stat;

	(void)state;
	assert_int_equal(
		read_line("812 (a) R (b 9) t 1 812 812 0 -1 4194560 119 0 0 0 1 2 0 0 20 0 "
			  "17 0 3456789 14270464 899 18446744073709551615 94150 94170 "
			  "140726431384576 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0\n",
			  &stat),
		0);
	assert_int_equal(stat.state, 't');
	assert_int_equal(stat.flags, 4194560);
	assert_int_equal(stat.n_threads, 17);
	assert_int_equal(stat.start_ticks, 3456789);
	assert_int_equal(stat.stack_start, 140726431384576);
}

static void what_is_no_such_line_is_refused(void **state)
{
	struct dp_proc_stat stat = {.state = 'x'};

	(void)state;
	assert_int_equal(read_line("", &stat), -EBADMSG);
	assert_int_equal(read_line("812 (a) R 1 812 812 0", &stat), -EBADMSG);
	assert_int_equal(dp_proc_stat_read("/proc/0/stat", &stat), -ENOENT);
	assert_int_equal(stat.state, 'x');
}

static void our_own_line_is_read(void **state)
{
	uintptr_t here = (uintptr_t)__builtin_frame_address(0);
	struct dp_proc_stat stat;

	(void)state;
	assert_int_equal(dp_proc_stat_read("/proc/self/stat", &stat), 0);
	assert_int_equal(stat.state, 'R');
	assert_int_equal(stat.n_threads, 1);
	assert_in_range(stat.stack_start, here, here + (1 << 20));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_fields_behind_any_name_are_read),
		cmocka_unit_test(what_is_no_such_line_is_refused),
		cmocka_unit_test(our_own_line_is_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
