/* SPDX-License-Identifier: MIT */
/*
 * Functions are compared by their string numbers, which are equal exactly if the strings are. Two
 * with the same 64-bit hash, which hardly happens, are chained.
 */
#include "encode/functions.h"

#include <stdbool.h>
#include <stdlib.h>

#include "encode/reserve.h"
#include "src/base/hash.h"

static uint64_t hash_function(uint64_t seed, const Perftools__Profiles__Function *function)
{
	const uint64_t words[] = {seed, (uint64_t)function->name, (uint64_t)function->system_name,
				  (uint64_t)function->filename, (uint64_t)function->start_line};

	return dp_hash_words(words, sizeof(words) / sizeof(words[0]));
}

static bool equal(const Perftools__Profiles__Function *a, const Perftools__Profiles__Function *b)
{
	return a->name == b->name && a->system_name == b->system_name &&
	       a->filename == b->filename && a->start_line == b->start_line;
}

int dp_functions_add(struct dp_functions *functions, const Perftools__Profiles__Function *function,
		     uint64_t *ret_id)
{
	uint64_t hash = hash_function(functions->seed, function);
	struct dp_function_entry *entry;
	uint64_t chain = 0;
	int r;

	dp_map_get(&functions->by_hash, hash, &chain);
	for (uint64_t id = chain; id > 0; id = functions->entries[id - 1].chain) {
		if (equal(&functions->entries[id - 1].message, function)) {
			*ret_id = id;
			return 0;
		}
	}
	r = DP_RESERVE(functions->entries, functions->capacity, functions->n + 1);
	if (r < 0)
		return r;
	r = dp_map_set(&functions->by_hash, hash, functions->n + 1);
	if (r < 0)
		return r;
	entry = &functions->entries[functions->n++];
	entry->message = *function;
	entry->message.id = functions->n;
	entry->chain = chain;
	*ret_id = functions->n;
	return 0;
}

void dp_functions_clear(struct dp_functions *functions)
{
	free(functions->entries);
	dp_map_clear(&functions->by_hash);
	*functions = (struct dp_functions){0};
}
