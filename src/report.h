/* SPDX-License-Identifier: MIT */
#ifndef DP_REPORT_H
#define DP_REPORT_H

#include <stddef.h>
#include <stdint.h>

#include "encode/pprof.h"
#include "src/delta.h"
#include "src/go_stack.h"
#include "src/probes.h"
#include "src/stack.h"
#include "symbolize/space.h"
#include "symbolize/symbolizer.h"

/*
 * From the delta engine's rows to a pprof profile: names are resolved here, once per address, and
 * only for stacks that have a row.
 */

struct dp_report_source {
	struct dp_space *space;
	const struct dp_modules *modules;
	const struct dp_probes
		*probes; /* a frame at one of these is named after its function; may be NULL */
	struct dp_symbolizer *symbolizer;
	bool is_go; /* stacks are as a Go program's runtime records them, to be trimmed thus: */
	enum dp_go_trim go_trim;
	const char *label_key; /* each row's tag becomes a label of this key; NULL: no label */
	const char *(*label_text)(uint64_t tag); /* its text; NULL: the tag is its number, and a tag
						    of 0 is no label */
};

/* The frames of rows' stacks, copied so that names can be resolved while more stacks come in. */
struct dp_report_stacks {
	uint64_t *frames;
	size_t *ends; /* of each row's frames among all: they begin where the row before ends */
};

/*
 * Copies the frames of @n_rows rows' stacks. @ret: to be cleared. Returns 0 or -ENOMEM.
 */
int dp_report_take_stacks(struct dp_report_stacks *ret, const struct dp_stacks *stacks,
			  const struct dp_delta_row *rows, size_t n_rows);

void dp_report_clear_stacks(struct dp_report_stacks *stacks);

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
 * @stacks: of these rows; a Go program's are changed. @ret: filled on success. Any thread. Returns
 * 0 or -ENOMEM.
 */
int dp_report_rows(struct dp_pprof *profile, const struct dp_report_source *source,
		   struct dp_report_stacks *stacks, const struct dp_delta_row *rows, size_t n_rows,
		   struct dp_report_counts *ret);

#endif
