/* SPDX-License-Identifier: MIT */
/*
 * Numbers are read digit by digit instead of with strtoull() and strtod(): those take signs, white
 * space, hexadecimal and "inf", and the second one follows the locale.
 */
#include "src/units.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit duration_units[] = {
	{"ns", 1},
	{"us", 1000},
	{"\u00b5s", 1000},
	{"ms", 1000 * 1000},
	{"s", UINT64_C(1000) * 1000 * 1000},
	{"m", UINT64_C(60) * 1000 * 1000 * 1000},
	{"h", UINT64_C(3600) * 1000 * 1000 * 1000},
};

static const struct unit size_units[] = {
	{"", 1},
	{"B", 1},
	{"kB", 1000},
	{"KB", 1000},
	{"MB", 1000 * 1000},
	{"GB", 1000 * 1000 * 1000},
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
};

/* Reads digits up to *@ret_end. Returns 0, -EINVAL if there is none, -ERANGE beyond INT64_MAX. */
static int parse_digits(const char *text, const char **ret_end, uint64_t *ret)
{
	uint64_t value = 0;
	const char *p = text;

	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(value, UINT64_C(10), &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value) ||
		    value > INT64_MAX)
			return -ERANGE;
	}
	if (p == text)
		return -EINVAL;
	*ret_end = p;
	*ret = value;
	return 0;
}

int dp_parse_number(const char *text, uint64_t *ret)
{
	uint64_t number;
	const char *end;
	int r;

	r = parse_digits(text, &end, &number);
	if (r < 0)
		return r;
	if (*end != '\0')
		return -EINVAL;
	*ret = number;
	return 0;
}

static const struct unit *find_unit(const struct unit *units, size_t n_units, const char *name)
{
	for (size_t i = 0; i < n_units; i++) {
		if (strcmp(units[i].name, name) == 0)
			return &units[i];
	}
	return NULL;
}

static int scale(uint64_t number, const struct unit *unit, uint64_t *ret)
{
	uint64_t value;

	if (__builtin_mul_overflow(number, unit->factor, &value) || value > INT64_MAX)
		return -ERANGE;
	*ret = value;
	return 0;
}

int dp_parse_duration(const char *text, uint64_t *ret_ns)
{
	const struct unit *unit;
	uint64_t number;
	const char *end;
	int r;

	r = parse_digits(text, &end, &number);
	if (r < 0)
		return r;
	if (*end == '\0') {
		if (number > 0)
			return -ENODATA;
		*ret_ns = 0;
		return 0;
	}
	unit = find_unit(duration_units, sizeof(duration_units) / sizeof(duration_units[0]), end);
	return unit ? scale(number, unit, ret_ns) : -EINVAL;
}

int dp_parse_size(const char *text, uint64_t *ret_bytes)
{
	const struct unit *unit;
	uint64_t number;
	const char *end;
	int r;

	r = parse_digits(text, &end, &number);
	if (r < 0)
		return r;
	unit = find_unit(size_units, sizeof(size_units) / sizeof(size_units[0]), end);
	return unit ? scale(number, unit, ret_bytes) : -EINVAL;
}

int dp_parse_percent(const char *text, double *ret_percent)
{
	uint64_t whole, fraction = 0, divisor = 1;
	const char *end, *start;
	double value;
	int r;

	r = parse_digits(text, &end, &whole);
	if (r < 0)
		return r;
	if (*end == '.') {
		start = end + 1;
		r = parse_digits(start, &end, &fraction);
		if (r < 0 || end - start > 6)
			return -EINVAL;
		for (const char *p = start; p < end; p++)
			divisor *= 10;
	}
	if (*end == '%')
		end++;
	if (*end != '\0')
		return -EINVAL;
	value = (double)whole + (double)fraction / (double)divisor;
	if (value > 100)
		return -ERANGE;
	*ret_percent = value;
	return 0;
}
