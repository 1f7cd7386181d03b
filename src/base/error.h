/* SPDX-License-Identifier: MIT */
#ifndef DP_BASE_ERROR_H
#define DP_BASE_ERROR_H

/*
 * What failed, on what, why, and what to do next: one full sentence, without a newline and without
 * the program's name. Set-up code fills it; hot code never formats anything and counts instead.
 */
struct dp_error {
	char text[768];
};

/*
 * Writes a formatted sentence into @err and returns @code unchanged, so that a failing function can
 * end in `return dp_error_set(err, -EINVAL, "...")`.
 *
 * @err: may be NULL, then nothing is written. A text that does not fit is cut.
 * @code: a negative errno.
 * Does not allocate; safe from any thread on distinct @err.
 */
int dp_error_set(struct dp_error *err, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
