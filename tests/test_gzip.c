/* SPDX-License-Identifier: MIT */
/* gzip(1) is the judge of what is written. */
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

#include "encode/gzip.h"
#include "tests/alloc_fail.h"

/* Has gzip(1) unpack @n_bytes at @packed and asserts that it gives @n_wanted at @wanted. */
static void assert_unpacks_to(const uint8_t *packed, size_t n_bytes, const void *wanted,
			      size_t n_wanted)
{
	char path[] = "/tmp/deltaprof-test-XXXXXX", command[128];
	uint8_t *unpacked = malloc(n_wanted + 1);
	int fd = mkstemp(path);
	FILE *pipe;

	assert_non_null(unpacked);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, packed, n_bytes), n_bytes);
	close(fd);
	snprintf(command, sizeof(command), "gzip -dc <%s", path);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	assert_int_equal(fread(unpacked, 1, n_wanted + 1, pipe), n_wanted);
	assert_int_equal(pclose(pipe), 0);
	assert_memory_equal(unpacked, wanted, n_wanted);
	unlink(path);
	free(unpacked);
}

static void assert_round_trip(const void *data, size_t n_bytes)
{
	uint8_t *packed = NULL;
	size_t n_packed = 0;

	assert_int_equal(dp_gzip(data, n_bytes, &packed, &n_packed), 0);
	assert_unpacks_to(packed, n_packed, data, n_bytes);
	free(packed);
}

static void nothing_gives_an_empty_member(void **state)
{
	uint8_t *packed = NULL;
	size_t n_packed = 0;

	(void)state;
	assert_int_equal(dp_gzip(NULL, 0, &packed, &n_packed), 0);
	assert_unpacks_to(packed, n_packed, "", 0);
	free(packed);
}

static void text_noise_and_zeros_come_back(void **state)
{
	enum { n_bytes = 3000000 };
	uint8_t *data = calloc(1, n_bytes);
	uint32_t x = 1;

	(void)state;
	assert_non_null(data);
	assert_round_trip("a", 1);
	assert_round_trip("hello, hello, hello, hello", 26);
	assert_round_trip(data, n_bytes);
	for (size_t i = 0; i < n_bytes; i++) {
		x = x * 1664525u + 1013904223u;
		data[i] = (uint8_t)(x >> 24);
	}
	assert_round_trip(data, n_bytes);
	free(data);
}

static void zeros_get_much_smaller(void **state)
{
	static const uint8_t zeros[100000];
	uint8_t *packed = NULL;
	size_t n_packed = 0;

	(void)state;
	assert_int_equal(dp_gzip(zeros, sizeof(zeros), &packed, &n_packed), 0);
	assert_in_range(n_packed, 1, 1000);
	free(packed);
}

static void the_header_has_no_name_and_no_time(void **state)
{
	/* RFC 1952: magic, deflate, no flags, time 0, fastest, Unix. */
	static const uint8_t header[] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 3};
	uint8_t *packed = NULL;
	size_t n_packed = 0;

	(void)state;
	assert_int_equal(dp_gzip("x", 1, &packed, &n_packed), 0);
	assert_true(n_packed > sizeof(header));
	assert_memory_equal(packed, header, sizeof(header));
	free(packed);
}

static void equal_input_gives_equal_output(void **state)
{
	uint8_t *first = NULL, *second = NULL;
	size_t n_first = 0, n_second = 0;

	(void)state;
	assert_int_equal(dp_gzip("some profile", 12, &first, &n_first), 0);
	assert_int_equal(dp_gzip("some profile", 12, &second, &n_second), 0);
	assert_int_equal(n_first, n_second);
	assert_memory_equal(first, second, n_first);
	free(first);
	free(second);
}

static void more_than_zlib_can_count_is_refused(void **state)
{
	uint8_t *packed = (void *)1;
	size_t n_packed = 2;

	(void)state;
	assert_int_equal(dp_gzip("", (size_t)UINT32_MAX + 1, &packed, &n_packed), -EFBIG);
	assert_int_equal(dp_gzip("", UINT32_MAX, &packed, &n_packed), -EFBIG);
	assert_ptr_equal(packed, (void *)1);
	assert_int_equal(n_packed, 2);
}

static int pack_text(void)
{
	uint8_t *packed = NULL;
	size_t n_packed = 0;
	int r = dp_gzip("some text", 9, &packed, &n_packed);

	if (r < 0) {
		assert_null(packed);
		assert_int_equal(n_packed, 0);
	}
	free(packed);
	return r;
}

static void a_failed_allocation_is_reported_and_leaks_nothing(void **state)
{
	(void)state;
	alloc_fail_at(1);
	assert_int_equal(pack_text(), -ENOMEM);
	ALLOC_FAIL_EACH(pack_text());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_gives_an_empty_member),
		cmocka_unit_test(text_noise_and_zeros_come_back),
		cmocka_unit_test(zeros_get_much_smaller),
		cmocka_unit_test(the_header_has_no_name_and_no_time),
		cmocka_unit_test(equal_input_gives_equal_output),
		cmocka_unit_test(more_than_zlib_can_count_is_refused),
		cmocka_unit_test(a_failed_allocation_is_reported_and_leaks_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
