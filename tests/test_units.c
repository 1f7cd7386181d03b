/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/units.h"

static void assert_duration(const char *text, uint64_t ns)
{
	uint64_t got = 42;

	assert_int_equal(dp_parse_duration(text, &got), 0);
	assert_int_equal(got, ns);
}

static void assert_no_duration(const char *text, int code)
{
	uint64_t got = 42;

	assert_int_equal(dp_parse_duration(text, &got), code);
	assert_int_equal(got, 42);
}

static void duration_takes_every_unit(void **state)
{
	(void)state;
	assert_duration("1ns", 1);
	assert_duration("100us", 100000);
	assert_duration("7\xc2\xb5s", 7000);
	assert_duration("500ms", 500000000);
	assert_duration("10s", 10000000000);
	assert_duration("1m", 60000000000);
	assert_duration("2h", 7200000000000);
}

static void duration_of_zero_needs_no_unit(void **state)
{
	(void)state;
	assert_duration("0", 0);
	assert_duration("000", 0);
	assert_duration("0s", 0);
}

static void duration_without_a_unit_is_told_apart(void **state)
{
	(void)state;
	assert_no_duration("10", -ENODATA);
	assert_no_duration("1", -ENODATA);
}

static void duration_refuses_what_is_not_one(void **state)
{
	static const char *const wrong[] = {"",	     "s",    " 1s",  "1 s",  "1s ",  "-1s",
					    "+1s",   "1.5s", "1S",   "1sec", "1d",   "0x1s",
					    "1m30s", "1Ms",  "1s\n", "inf",  "\xb5s"};

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_no_duration(wrong[i], -EINVAL);
}

static void duration_is_exact_up_to_its_limit_and_refused_beyond(void **state)
{
	(void)state;
	assert_duration("9223372036854775807ns", INT64_MAX);
	assert_no_duration("9223372036854775808ns", -ERANGE);
	assert_duration("9223372036s", UINT64_C(9223372036000000000));
	assert_no_duration("9223372037s", -ERANGE);
	assert_duration("2562047h", UINT64_C(9223369200000000000));
	assert_no_duration("2562048h", -ERANGE);
	/* 2^64 + 1 seconds: would wrap around to 1. */
	assert_no_duration("18446744073709551617s", -ERANGE);
	/* 2^62 * 3600 wraps around to 0 in 64 bits. */
	assert_no_duration("4611686018427387904h", -ERANGE);
}

static void assert_size(const char *text, uint64_t bytes)
{
	uint64_t got = 42;

	assert_int_equal(dp_parse_size(text, &got), 0);
	assert_int_equal(got, bytes);
}

static void assert_no_size(const char *text, int code)
{
	uint64_t got = 42;

	assert_int_equal(dp_parse_size(text, &got), code);
	assert_int_equal(got, 42);
}

static void size_takes_every_unit(void **state)
{
	(void)state;
	assert_size("1", 1);
	assert_size("4096", 4096);
	assert_size("4096B", 4096);
	assert_size("3kB", 3000);
	assert_size("3KB", 3000);
	assert_size("1MB", 1000000);
	assert_size("2GB", 2000000000);
	assert_size("512KiB", 524288);
	assert_size("1MiB", 1048576);
	assert_size("4GiB", 4294967296);
	assert_size("0", 0);
}

static void size_refuses_what_is_not_one(void **state)
{
	static const char *const wrong[] = {"",	    "KiB", " 1",  "1 KiB", "-1",   "+1",
					    "1K",   "1k",  "1M",  "1kib",  "1KIB", "1.5MiB",
					    "0x10", "1e6", "1TB", "1,000"};

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_no_size(wrong[i], -EINVAL);
}

static void size_is_exact_up_to_its_limit_and_refused_beyond(void **state)
{
	(void)state;
	assert_size("9223372036854775807", INT64_MAX);
	assert_no_size("9223372036854775808", -ERANGE);
	assert_size("8589934591GiB", UINT64_C(8589934591) << 30);
	assert_no_size("8589934592GiB", -ERANGE);
	assert_no_size("99999999999999999999999", -ERANGE);
}

static void assert_percent(const char *text, double percent)
{
	double got = 42;

	assert_int_equal(dp_parse_percent(text, &got), 0);
	assert_true(got == percent);
}

static void assert_no_percent(const char *text, int code)
{
	double got = 42;

	assert_int_equal(dp_parse_percent(text, &got), code);
	assert_true(got == 42);
}

static void percent_reads_with_and_without_its_sign(void **state)
{
	(void)state;
	assert_percent("5", 5);
	assert_percent("5%", 5);
	assert_percent("0.5%", 0.5);
	assert_percent("12.25", 12.25);
	assert_percent("100", 100);
	assert_percent("100.000000%", 100);
	assert_percent("0", 0);
}

static void percent_refuses_what_is_not_one(void **state)
{
	static const char *const wrong[] = {"",	   "%",	  ".5",	   "5.",       "5.%", "5%%",
					    "5 %", "-5",  "+5",	   "1e1",      "0x5", "nan",
					    "inf", "5,5", "1.2.3", "1.1234567"};

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_no_percent(wrong[i], -EINVAL);
	assert_no_percent("100.000001", -ERANGE);
	assert_no_percent("101%", -ERANGE);
	assert_no_percent("99999999999999999999", -ERANGE);
}

static void number_takes_digits_only(void **state)
{
	uint64_t got = 42;

	(void)state;
	assert_int_equal(dp_parse_number("1234", &got), 0);
	assert_int_equal(got, 1234);
	assert_int_equal(dp_parse_number("", &got), -EINVAL);
	assert_int_equal(dp_parse_number("12a", &got), -EINVAL);
	assert_int_equal(dp_parse_number("-1", &got), -EINVAL);
	assert_int_equal(dp_parse_number("18446744073709551616", &got), -ERANGE);
	assert_int_equal(got, 1234);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(duration_takes_every_unit),
		cmocka_unit_test(duration_of_zero_needs_no_unit),
		cmocka_unit_test(duration_without_a_unit_is_told_apart),
		cmocka_unit_test(duration_refuses_what_is_not_one),
		cmocka_unit_test(duration_is_exact_up_to_its_limit_and_refused_beyond),
		cmocka_unit_test(size_takes_every_unit),
		cmocka_unit_test(size_refuses_what_is_not_one),
		cmocka_unit_test(size_is_exact_up_to_its_limit_and_refused_beyond),
		cmocka_unit_test(percent_reads_with_and_without_its_sign),
		cmocka_unit_test(percent_refuses_what_is_not_one),
		cmocka_unit_test(number_takes_digits_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
