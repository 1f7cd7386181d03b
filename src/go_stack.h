/* SPDX-License-Identifier: MIT */
#ifndef DP_GO_STACK_H
#define DP_GO_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "symbolize/symbolizer.h"

/* Which leading frames runtime/pprof leaves out of a stack. */
enum dp_go_trim {
	DP_GO_TRIM_NOTHING,	     /* block and mutex */
	DP_GO_TRIM_RUNTIME,	     /* heap before Go 1.24: "runtime." */
	DP_GO_TRIM_INTERNAL_RUNTIME, /* heap from Go 1.24 on: "internal/runtime/" too */
};

/*
 * Turns a stack as Go's runtime recorded it into the frames that runtime/pprof makes locations of:
 * each stands for all the calls that are inlined there, which are lines of the one location.
 *
 * @frames: @n of them, leaf first, 1 already subtracted from each address. Changed in place; the
 * frames that are left are at its beginning, *@ret_n of them (set on success).
 * Any thread. Returns 0 or -ENOMEM (@frames is undefined).
 */
int dp_go_fold(struct dp_symbolizer *symbolizer, enum dp_go_trim trim, uint64_t *frames, size_t n,
	       size_t *ret_n);

#endif
