/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_RANGE_INDEX_H
#define DP_SYMBOLIZE_RANGE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Which of many address ranges holds an address, where ranges may nest, overlap or be equal: units,
 * functions and symbols of a file. Zeroed memory is an empty index.
 */
struct dp_range {
	uint64_t low, high; /* high exclusive */
	uint32_t value;
	uint32_t rank; /* of several equal ranges the one with the lowest rank is found */
};

struct dp_range_index {
	struct dp_range *ranges;
	uint32_t *outer; /* the last range before each that ends behind it; NULL before sorting */
	size_t n, capacity;
	uint64_t n_over_limit; /* beyond 8 Mi ranges */
};

/* Frees what the index holds; it is empty again. */
void dp_range_index_clear(struct dp_range_index *index);

/* Adds a range; an empty one (high <= low) is left out. Returns 0 or -ENOMEM. */
int dp_range_index_add(struct dp_range_index *index, const struct dp_range *range);

/*
 * Makes the index ready for dp_range_index_find(), after the last addition or change of @ranges.
 * Returns 0 or -ENOMEM.
 */
int dp_range_index_sort(struct dp_range_index *index);

/*
 * The innermost range that holds @address: the one that starts last, then the shortest, then of the
 * lowest rank, then of the lowest value. NULL if there is none.
 */
const struct dp_range *dp_range_index_find(const struct dp_range_index *index, uint64_t address);

#endif
