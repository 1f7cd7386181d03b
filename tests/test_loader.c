/* SPDX-License-Identifier: MIT */
/* What is read of a loader's file, beside what nm and readelf say; and files that lie. */
#include "symbolize/loader.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/sym_oracle.h"

#define LOADER "/lib64/ld-linux-x86-64.so.2"

static struct dp_loader read_loader(const char *path)
{
	struct dp_loader loader;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(dp_loader_read(fd, &loader), 0);
	close(fd);
	return loader;
}

/* The number that a shell command prints in hexadecimal. */
static uint64_t number(const char *command)
{
	char *text = oracle_run("%s", command);
	uint64_t value = strtoull(text, NULL, 16);

	free(text);
	assert_true(value > 0);
	return value;
}

static void glibcs_loader_has_all_that_nm_and_readelf_show(void **state)
{
	struct dp_loader loader = read_loader(LOADER);

	(void)state;
	assert_true(loader.is_64bit);
	assert_true(loader.is_library);
	assert_int_equal(loader.machine, EM_X86_64);
	assert_int_equal(loader.notify_svma,
			 number("nm -D " LOADER " | sed -n 's/ T _dl_debug_state.*//p'"));
	assert_int_equal(loader.r_debug_svma,
			 number("nm -D " LOADER " | sed -n 's/ B _r_debug.*//p'"));
	assert_int_equal(loader.entry_svma,
			 number("readelf -h " LOADER " | sed -n 's/.*Entry point.* 0x//p'"));
}

static void musls_loader_notifies_and_shows_no_r_debug(void **state)
{
	static const char path[] = "/lib/ld-musl-x86_64.so.1";
	struct dp_loader loader;

	(void)state;
	if (access(path, R_OK) != 0)
		skip();
	loader = read_loader(path);
	assert_true(loader.is_library);
	assert_int_equal(
		loader.notify_svma,
		number("nm -D /lib/ld-musl-x86_64.so.1 | sed -n 's/ W _dl_debug_state.*//p'"));
	assert_int_equal(loader.r_debug_svma, 0);
}

static void a_program_is_told_from_a_library(void **state)
{
	static const char *const programs[] = {"launch-pie", "launch-nopie", "launch-static",
					       "launch-static-pie", "launch-static-pie-exports"};

	(void)state;
	for (size_t i = 0; i < sizeof(programs) / sizeof(*programs); i++) {
		struct dp_loader loader = read_loader(oracle_sample(programs[i]));

		assert_false(loader.is_library);
		assert_int_equal(loader.r_debug_svma, 0);
		/* Static ones have the function, in the table that is not looked at. */
		if (i < 4)
			assert_int_equal(loader.notify_svma, 0);
	}
	assert_true(read_loader(oracle_sample("launch-library.so")).is_library);
}

/* Reads @n_bytes at @bytes as a file; whatever it returns, it returns. */
static int read_bytes(const char *bytes, size_t n_bytes)
{
	struct dp_loader loader;
	int fd = memfd_create("loader", MFD_CLOEXEC);
	int r;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n_bytes), n_bytes);
	r = dp_loader_read(fd, &loader);
	close(fd);
	return r;
}

static void what_is_no_elf_file_is_refused(void **state)
{
	(void)state;
	assert_int_equal(read_bytes("", 0), -ENOEXEC);
	assert_int_equal(read_bytes("#!/bin/sh\n", 10), -ENOEXEC);
	assert_int_equal(read_bytes("\177ELF", 4), -ENOEXEC);
	assert_int_equal(read_bytes("!<arch>\n", 8), -ENOEXEC);
}

static void files_that_are_cut_or_garbled_do_no_harm(void **state)
{
	int fd = open(LOADER, O_RDONLY | O_CLOEXEC);
	char *bytes = malloc(1 << 20);
	unsigned random = 1;
	ssize_t n_bytes;

	(void)state;
	assert_true(fd >= 0 && bytes);
	n_bytes = read(fd, bytes, 1 << 20);
	assert_true(n_bytes > 65536);
	close(fd);
	for (ssize_t n = 0; n < n_bytes; n += 1 + n / 16) {
		int r = read_bytes(bytes, (size_t)n);

		assert_true(r == 0 || r == -ENOEXEC);
	}
	/* Headers, dynamic symbols and section headers, a few bytes at a time, each garbled on top
	 * of the others. */
	for (int i = 0; i < 300; i++) {
		size_t at;
		int r;

		random = random * 1664525u + 1013904223u;
		at = (random >> 8) % 4096;
		if (i % 3 == 0)
			at = (size_t)n_bytes - 1 - at;
		if (at >= EI_NIDENT)
			bytes[at] = (char)(random >> 24);
		r = read_bytes(bytes, (size_t)n_bytes);
		assert_true(r == 0 || r == -ENOEXEC);
	}
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(glibcs_loader_has_all_that_nm_and_readelf_show),
		cmocka_unit_test(musls_loader_notifies_and_shows_no_r_debug),
		cmocka_unit_test(a_program_is_told_from_a_library),
		cmocka_unit_test(what_is_no_elf_file_is_refused),
		cmocka_unit_test(files_that_are_cut_or_garbled_do_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
