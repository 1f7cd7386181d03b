/* SPDX-License-Identifier: MIT */
#ifndef DP_ENCODE_STRINGS_H
#define DP_ENCODE_STRINGS_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/map.h"

/*
 * The string table of a profile: each distinct text once, numbered in the order of arrival, valid
 * UTF-8. Number 0 is "".
 */
struct dp_strings {
	char *bytes; /* every string with its NUL, one after the other */
	size_t n_bytes, bytes_capacity;
	struct dp_string {
		size_t offset;	/* in bytes */
		uint64_t chain; /* number + 1 of another one with the same hash; 0: none */
	} * entries;
	size_t n, entries_capacity;
	struct dp_map by_hash; /* hash → number + 1 */
	uint64_t seed;
};

/* Makes a table that holds "" only. On failure @strings is still to be cleared. 0 or -ENOMEM. */
int dp_strings_init(struct dp_strings *strings);

/* Frees what @strings holds; all zero is allowed. */
void dp_strings_clear(struct dp_strings *strings);

/*
 * Gives the number of @text, which is copied if it is new. NULL counts as "". Names out of ELF and
 * DWARF are any bytes, but a proto3 string must be UTF-8: each byte that is not part of a well
 * formed sequence becomes '?'.
 *
 * Returns 0 or -ENOMEM; then the table is unchanged.
 * Source: Unicode 15, table 3-7 (well-formed UTF-8); protobuf language guide, scalar types.
 */
int dp_strings_add(struct dp_strings *strings, const char *text, int64_t *ret);

/* Gives string @i, which must be below @strings->n. Valid until the next dp_strings_add(). */
const char *dp_strings_get(const struct dp_strings *strings, size_t i);

#endif
