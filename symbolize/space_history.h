/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_SPACE_HISTORY_H
#define DP_SYMBOLIZE_SPACE_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "symbolize/space.h"

/*
 * Closed mappings, the latest one of each piece of code, so that a library that is opened and
 * closed in a loop takes one place. Private to space.c.
 */

#define DP_SPACE_HISTORY_MAX 4096u

struct dp_space_history {
	struct dp_space_closed {
		struct dp_space_range range;
		uint64_t sequence; /* of the closing */
	} closed[DP_SPACE_HISTORY_MAX];
	size_t n;
	uint64_t sequence;
	uint64_t n_lost;
};

/* Whether @range holds the code that @frame stands for. */
bool dp_space_range_holds(const struct dp_space_range *range, uint64_t frame);

/* Remembers @range. When full, anonymous code goes first, then the oldest. */
void dp_space_history_add(struct dp_space_history *history, const struct dp_space_range *range);

/* The latest closed mapping that held @frame, or NULL; valid until the next addition. */
const struct dp_space_range *dp_space_history_find(const struct dp_space_history *history,
						   uint64_t frame);

#endif
