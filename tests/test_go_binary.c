/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "symbolize/go_binary.h"
#include "tests/sym_oracle.h"

static bool is_go(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool go;

	assert_true(fd >= 0);
	go = dp_file_is_go(fd);
	close(fd);
	return go;
}

static void a_go_program_is_known_by_its_sections(void **state)
{
	(void)state;
	assert_true(is_go(oracle_sample("go-plain")));
	assert_true(is_go(oracle_sample("go-pie")));
}

static void a_go_program_without_sections_is_known_by_its_build_information(void **state)
{
	(void)state;
	assert_true(is_go(oracle_sample("go-plain-sectionless")));
	assert_true(is_go(oracle_sample("go-pie-sectionless")));
}

static void c_programs_are_not_go(void **state)
{
	(void)state;
	assert_false(is_go(oracle_sample("calls-dwarf5")));
	assert_false(is_go(oracle_sample("calls-static")));
	assert_false(is_go(oracle_sample("library.so")));
	assert_false(is_go(oracle_sample("unw-sectionless")));
}

/* It holds the magic itself, where it reads it. */
static void the_program_that_looks_for_the_magic_is_not_go(void **state)
{
	(void)state;
	assert_false(is_go("/proc/self/exe"));
}

static void what_is_no_elf_file_is_not_go(void **state)
{
	int fds[2];

	(void)state;
	assert_false(is_go("/dev/null"));
	assert_false(is_go("/proc/self/status"));
	assert_false(is_go("/"));
	assert_int_equal(pipe(fds), 0);
	close(fds[1]);
	assert_false(dp_file_is_go(fds[0]));
	close(fds[0]);
	assert_false(dp_file_is_go(-1));
}

/* Whatever stands in the headers: no more than the answer may be wrong. */
static void headers_that_lie_are_survived(void **state)
{
	char path[] = "/tmp/dp-go-XXXXXX";
	int fd = mkstemp(path);
	uint32_t random = 1;

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	for (int i = 0; i < 64; i++) {
		free(oracle_run("head -c 1500000 '%s' > '%s'",
				oracle_sample(i % 2 ? "go-plain" : "go-plain-sectionless"), path));
		fd = open(path, O_RDWR | O_CLOEXEC);
		for (int k = 0; k < 8; k++) {
			uint8_t byte;

			random = random * 1664525 + 1013904223;
			byte = (uint8_t)(random >> 24);
			assert_int_equal(pwrite(fd, &byte, 1, 16 + (random >> 8) % 600), 1);
		}
		(void)dp_file_is_go(fd);
		close(fd);
	}
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_go_program_is_known_by_its_sections),
		cmocka_unit_test(a_go_program_without_sections_is_known_by_its_build_information),
		cmocka_unit_test(c_programs_are_not_go),
		cmocka_unit_test(the_program_that_looks_for_the_magic_is_not_go),
		cmocka_unit_test(what_is_no_elf_file_is_not_go),
		cmocka_unit_test(headers_that_lie_are_survived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
