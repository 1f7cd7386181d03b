/* SPDX-License-Identifier: MIT */
#ifndef DP_ENCODE_FUNCTIONS_H
#define DP_ENCODE_FUNCTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "encode/profile.pb-c.h"
#include "src/base/map.h"

/*
 * The function table of a profile: each distinct (name, system_name, filename, start_line) once.
 * The id of entry i is i + 1. All zero is an empty table.
 */
struct dp_functions {
	struct dp_function_entry *entries;
	size_t n, capacity;
	struct dp_map by_hash; /* hash → id */
	uint64_t seed;	       /* of the hash; to be set before the first addition */
};

struct dp_function_entry {
	Perftools__Profiles__Function message;
	uint64_t chain; /* id of another one with the same hash; 0: none */
};

/*
 * Gives the id of the function with @function's content, adding it if it is new; @function's own id
 * is not looked at. Returns 0 or -ENOMEM; then the table is unchanged.
 */
int dp_functions_add(struct dp_functions *functions, const Perftools__Profiles__Function *function,
		     uint64_t *ret_id);

/* Frees what @functions holds. */
void dp_functions_clear(struct dp_functions *functions);

#endif
