/* SPDX-License-Identifier: MIT */
#ifndef DP_UNITS_H
#define DP_UNITS_H

#include <stdint.h>

/*
 * Durations, sizes and percentages as people write them on a command line. Every function reads the
 * whole string: no white space, no sign, nothing behind the unit. They neither allocate nor look at
 * the locale, may be called from any thread, and leave the result untouched on failure.
 *
 * All return 0, -EINVAL for a text that is not of the form, -ENODATA for a bare number where a unit
 * is needed, or -ERANGE for a value that does not fit (beyond INT64_MAX).
 */

/*
 * A whole number, digits only.
 */
int dp_parse_number(const char *text, uint64_t *ret);

/*
 * A whole number and one of ns, us, µs, ms, s, m (minutes), h; "0" needs no unit.
 * *@ret_ns: nanoseconds, at most INT64_MAX (about 292 years).
 */
int dp_parse_duration(const char *text, uint64_t *ret_ns);

/*
 * A whole number of bytes, alone or with B, kB or KB (1000), MB, GB, KiB (1024), MiB, GiB.
 * *@ret_bytes: bytes, at most INT64_MAX.
 */
int dp_parse_size(const char *text, uint64_t *ret_bytes);

/*
 * A decimal number (at most six digits behind the point) with or without "%".
 * *@ret_percent: per cent, 0 to 100; more is -ERANGE.
 */
int dp_parse_percent(const char *text, double *ret_percent);

#endif
