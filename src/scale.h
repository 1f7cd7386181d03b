/* SPDX-License-Identifier: MIT */
#ifndef DP_SCALE_H
#define DP_SCALE_H

#include <stdint.h>

/*
 * Estimators: from what was sampled to what was there.
 */

/*
 * Probability that an allocation of @size bytes is sampled at a mean distance of @rate bytes:
 * 1 - exp(-size / rate). An empty allocation counts as one byte here, so that it can be seen at
 * all; rate <= 1 gives 1. Source: Go's runtime and tcmalloc sample alike (Poisson process over
 * bytes).
 */
double dp_scale_probability(uint64_t size, uint64_t rate);

/*
 * Go's scaleHeapSample: scales @objects of @bytes in all that the Go runtime sampled at @rate,
 * truncating toward zero as Go does. rate <= 1, or no objects or bytes: objects == 0 or bytes == 0
 * gives (0, 0), rate <= 1 leaves them. Source: Go, src/runtime/pprof/protomem.go.
 */
void dp_scale_go_heap(int64_t objects, int64_t bytes, int64_t rate, int64_t *ret_objects,
		      int64_t *ret_bytes);

/*
 * Ticks to nanoseconds as Go's block and mutex profiles do: trunc(cycles / (cycles_per_second /
 * 1e9)); 0 if @cycles_per_second is not positive. Source: Go, src/runtime/pprof/pprof.go.
 */
int64_t dp_scale_go_delay(int64_t cycles, int64_t cycles_per_second);

#endif
