/* SPDX-License-Identifier: MIT */
#include "symbolize/space_history.h"

#include "src/base/frame.h"

/*
 * The one hard idea: a mapping is remembered for what it held (a stretch of a module's file), not
 * for where it was; only anonymous code, which has no file, goes by its addresses.
 */

bool dp_space_range_holds(const struct dp_space_range *range, uint64_t frame)
{
	uint64_t offset = dp_frame_offset(frame);
	uint64_t first = range->module ? range->file_off : range->start;

	return range->module == dp_frame_module(frame) && offset >= first &&
	       offset - first < range->end - range->start;
}

static bool same_code(const struct dp_space_range *a, const struct dp_space_range *b)
{
	if (a->module != b->module || a->end - a->start != b->end - b->start)
		return false;
	return a->module ? a->file_off == b->file_off : a->start == b->start;
}

/* Whether @a is to be forgotten before @b. */
static bool goes_before(const struct dp_space_closed *a, const struct dp_space_closed *b)
{
	if (!a->range.module != !b->range.module)
		return !a->range.module;
	return a->sequence < b->sequence;
}

static struct dp_space_closed *place_for(struct dp_space_history *history,
					 const struct dp_space_range *range)
{
	struct dp_space_closed *victim = &history->closed[0];

	for (size_t i = 0; i < history->n; i++) {
		struct dp_space_closed *closed = &history->closed[i];

		if (same_code(&closed->range, range))
			return closed;
		if (goes_before(closed, victim))
			victim = closed;
	}
	if (history->n < DP_SPACE_HISTORY_MAX)
		return &history->closed[history->n++];
	history->n_lost++;
	return victim;
}

void dp_space_history_add(struct dp_space_history *history, const struct dp_space_range *range)
{
	*place_for(history, range) = (struct dp_space_closed){*range, ++history->sequence};
}

const struct dp_space_range *dp_space_history_find(const struct dp_space_history *history,
						   uint64_t frame)
{
	const struct dp_space_closed *latest = NULL;

	for (size_t i = 0; i < history->n; i++) {
		const struct dp_space_closed *closed = &history->closed[i];

		if (dp_space_range_holds(&closed->range, frame) &&
		    (!latest || closed->sequence > latest->sequence))
			latest = closed;
	}
	return latest ? &latest->range : NULL;
}
