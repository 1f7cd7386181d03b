/* SPDX-License-Identifier: MIT */
/*
 * Contentions are kept as they were estimated and rounded only when they are fed, so that the sum
 * of rounded differences is the rounded whole.
 */
#include "src/wait_rows.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "src/base/array.h"

void dp_wait_rows_clear(struct dp_wait_rows *rows)
{
	free(rows->rows);
	dp_map_clear(&rows->positions);
	*rows = (struct dp_wait_rows){0};
}

int dp_wait_rows_get(struct dp_wait_rows *rows, uint32_t stack, uint32_t tag,
		     struct dp_wait_row **ret)
{
	uint64_t key = (uint64_t)tag << 32 | stack;
	uint64_t position;
	int r;

	if (!dp_map_get(&rows->positions, key, &position)) {
		position = rows->n;
		r = dp_array_reserve((void **)&rows->rows, &rows->capacity, rows->n + 1,
				     sizeof(*rows->rows));
		if (r == 0)
			r = dp_map_set(&rows->positions, key, position);
		if (r < 0)
			return -ENOMEM;
		rows->rows[rows->n++] = (struct dp_wait_row){.stack = stack, .tag = tag};
	}
	*ret = &rows->rows[position];
	return 0;
}

void dp_wait_row_add(struct dp_wait_row *row, double contentions, uint64_t delay_ns)
{
	row->contentions += contentions;
	if (__builtin_add_overflow(row->delay_ns, delay_ns, &row->delay_ns))
		row->delay_ns = UINT64_MAX;
}

uint64_t dp_wait_round(double x)
{
	return x < 0x1p63 ? (uint64_t)round(x) : INT64_MAX;
}

int dp_wait_rows_feed(const struct dp_wait_rows *rows, struct dp_delta *delta)
{
	for (size_t i = 0; i < rows->n; i++) {
		const struct dp_wait_row *row = &rows->rows[i];
		int64_t values[DP_DELTA_MAX_VALUES];
		int r;

		if (row->delay_ns == 0)
			continue;
		values[0] = (int64_t)dp_wait_round(row->contentions);
		values[1] = row->delay_ns > INT64_MAX ? INT64_MAX : (int64_t)row->delay_ns;
		r = dp_delta_add(delta, row->stack, row->tag, values);
		/* The delta counts what is beyond its bound; the rows that it knows must come. */
		if (r < 0 && r != -ENOSPC)
			return r;
	}
	return 0;
}
