/* SPDX-License-Identifier: MIT */
#include "src/scale.h"

#include <math.h>

/*
 * Go's conversion of a float64 that does not fit an int64 is whatever the processor gives
 * (INT64_MIN on x86-64); the nearest value that fits is as wrong, but cannot come out negative.
 */
static int64_t truncate_to_int64(double x)
{
	if (isnan(x))
		return 0;
	if (x >= 0x1p63)
		return INT64_MAX;
	if (x <= -0x1p63)
		return INT64_MIN;
	return (int64_t)x;
}

double dp_scale_probability(uint64_t size, uint64_t rate)
{
	if (rate <= 1)
		return 1.0;
	/* expm1 keeps all digits where size is tiny beside rate, which is the usual case. */
	return -expm1(-(double)(size ? size : 1) / (double)rate);
}

void dp_scale_go_heap(int64_t objects, int64_t bytes, int64_t rate, int64_t *ret_objects,
		      int64_t *ret_bytes)
{
	double mean_bytes;
	double factor;

	if (objects == 0 || bytes == 0) {
		*ret_objects = 0;
		*ret_bytes = 0;
		return;
	}
	if (rate <= 1) {
		*ret_objects = objects;
		*ret_bytes = bytes;
		return;
	}
	/* exp and not expm1, in Go's order of operations: equal to the last bit is the point here.
	 */
	mean_bytes = (double)bytes / (double)objects;
	factor = 1 / (1 - exp(-mean_bytes / (double)rate));
	*ret_objects = truncate_to_int64((double)objects * factor);
	*ret_bytes = truncate_to_int64((double)bytes * factor);
}

int64_t dp_scale_go_delay(int64_t cycles, int64_t cycles_per_second)
{
	double cycles_per_ns = (double)cycles_per_second / 1e9;

	if (cycles_per_second <= 0)
		return 0;
	return truncate_to_int64((double)cycles / cycles_per_ns);
}
