/* SPDX-License-Identifier: MIT */
#ifndef DP_REPORT_H
#define DP_REPORT_H

#include <stddef.h>
#include <stdint.h>

#include "encode/pprof.h"
#include "src/delta.h"
#include "src/probes.h"
#include "src/stack.h"
#include "symbolize/space.h"
#include "symbolize/symbolizer.h"

/*
 * From the delta engine's rows to a pprof profile: names are resolved here, once per address, and
 * only for stacks that have a row.
 */

struct dp_report_source {
	const struct dp_stacks *stacks;
	const struct dp_space *space;
	const struct dp_modules *modules;
	const struct dp_probes
		*probes; /* a frame at one of these is named after its function; may be NULL */
	struct dp_symbolizer *symbolizer;
	const char *label_key; /* each row's tag becomes a label of this key … */
	const char *(*label_text)(uint64_t tag); /* … and this text; NULL: no label */
};

/* What a profile is made of, for its comments. */
struct dp_report_counts {
	uint64_t n_stacks;     /* rows */
	uint64_t n_locations;  /* distinct addresses */
	uint64_t n_unresolved; /* of these without a name: shown as FILE+0xOFFSET */
	uint64_t n_overflowed; /* rows that the delta engine had no room for, since the attach */
	uint64_t n_suppressed; /* rows that would have been negative, since the attach */
};

/*
 * Adds a sample to @profile for each of @n_rows rows at @rows, whose values are the profile's in
 * order. The first mapping of the profile is the program's own, as pprof expects.
 *
 * @ret: filled on success. Returns 0 or -ENOMEM.
 */
int dp_report_rows(struct dp_pprof *profile, const struct dp_report_source *source,
		   const struct dp_delta_row *rows, size_t n_rows, struct dp_report_counts *ret);

#endif
