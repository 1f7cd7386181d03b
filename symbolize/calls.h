/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_CALLS_H
#define DP_SYMBOLIZE_CALLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/map.h"
#include "symbolize/module.h"

/*
 * Whether an address can be a return address: a call stands before it. A part of symbolize/unwind.
 * Zeroed memory knows of none.
 */
struct dp_calls {
	struct dp_map known; /* frame → 0 or 1 */
};

/*
 * @frame: of the last byte before the address. Code that is in no file cannot be looked at, and may
 * be anything. Reads the file at the first time.
 */
bool dp_calls_stand_before(struct dp_calls *calls, struct dp_modules *modules, uint64_t frame);

/* Whether the @n_bytes at @code end in the encoding of a call. Source: Intel SDM volume 2, CALL. */
bool dp_calls_end_of_code(const uint8_t *code, size_t n_bytes);

void dp_calls_clear(struct dp_calls *calls);

#endif
