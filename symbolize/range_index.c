/* SPDX-License-Identifier: MIT */
#include "symbolize/range_index.h"

#include <errno.h>
#include <stdlib.h>

#include "src/base/array.h"

/*
 * The one hard idea: sorted by start, the range that is looked for lies at or before the last start
 * that is not above the address; where that one has ended already, all that end no later are
 * skipped. So a search takes one step for each level of nesting, however many neighbours there are.
 */

#define MAX_RANGES (8u << 20)
#define NONE UINT32_MAX

void dp_range_index_clear(struct dp_range_index *index)
{
	free(index->ranges);
	free(index->outer);
	*index = (struct dp_range_index){0};
}

int dp_range_index_add(struct dp_range_index *index, const struct dp_range *range)
{
	if (range->high <= range->low)
		return 0;
	if (index->n == MAX_RANGES) {
		index->n_over_limit++;
		return 0;
	}
	if (dp_array_reserve((void **)&index->ranges, &index->capacity, index->n + 1,
			     sizeof(*index->ranges)) < 0)
		return -ENOMEM;
	index->ranges[index->n++] = *range;
	return 0;
}

static int compare_u64(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

/* The preferred one of several comes last, where the search begins. */
static int compare(const void *a, const void *b)
{
	const struct dp_range *x = a, *y = b;
	int r = compare_u64(x->low, y->low);

	if (r == 0)
		r = compare_u64(y->high, x->high);
	if (r == 0)
		r = compare_u64(y->rank, x->rank);
	return r ? r : compare_u64(y->value, x->value);
}

int dp_range_index_sort(struct dp_range_index *index)
{
	free(index->outer);
	index->outer = NULL;
	if (index->n == 0)
		return 0;
	index->outer = malloc(index->n * sizeof(*index->outer));
	if (!index->outer)
		return -ENOMEM;
	qsort(index->ranges, index->n, sizeof(*index->ranges), compare);
	for (uint32_t i = 0; i < index->n; i++) {
		uint32_t outer = i ? i - 1 : NONE;

		while (outer != NONE && index->ranges[outer].high <= index->ranges[i].high)
			outer = index->outer[outer];
		index->outer[i] = outer;
	}
	return 0;
}

const struct dp_range *dp_range_index_find(const struct dp_range_index *index, uint64_t address)
{
	size_t low = 0, high = index->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (index->ranges[middle].low <= address)
			low = middle + 1;
		else
			high = middle;
	}
	for (uint32_t i = low ? (uint32_t)low - 1 : NONE; i != NONE; i = index->outer[i]) {
		if (index->ranges[i].high > address)
			return &index->ranges[i];
	}
	return NULL;
}
