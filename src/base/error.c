/* SPDX-License-Identifier: MIT */
#include "src/base/error.h"

#include <stdarg.h>
#include <stdio.h>

int dp_error_set(struct dp_error *err, int code, const char *format, ...)
{
	va_list args;

	if (!err)
		return code;
	va_start(args, format);
	vsnprintf(err->text, sizeof(err->text), format, args);
	va_end(args);
	return code;
}
