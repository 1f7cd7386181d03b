/* SPDX-License-Identifier: MIT */
/*
 * The one hard idea: two equal readings may both lie in the middle of the same change, when the
 * thread that makes it was preempted. If the lock was free in between they do not. Else they are
 * believed only where half of a change would show: where the cycle that is being published is
 * empty, which a flush makes it last of all, and bytes are objects times their size, which they are
 * not between the additions; where bytes are not kept, if no addition of two words can be under
 * way.
 * Source: the runtime's mprof.go, mProf_FlushLocked(), mProf_PostSweep(), MemProfile().
 */
#include "src/go_figures.h"

#include <string.h>

struct words {
	uint64_t allocs, frees, alloc_bytes, free_bytes;
};

unsigned dp_go_heap_record_bytes(const struct dp_go_layout *layout)
{
	return layout->cycle_bytes * (1 + DP_GO_N_CYCLES);
}

/* Cycle @i's words, the published ones being cycle -1's, if both readings agree on them. */
static bool get_words(const struct dp_go_reading *reading, int i, struct words *ret)
{
	unsigned n_bytes = reading->layout->cycle_bytes;
	size_t at = (size_t)(i + 1) * n_bytes;

	if (memcmp(reading->first + at, reading->second + at, n_bytes) != 0)
		return false;
	memset(ret, 0, sizeof(*ret));
	memcpy(ret, reading->first + at, n_bytes);
	return true;
}

static bool has_bytes(const struct dp_go_reading *reading)
{
	return reading->layout->cycle_bytes == sizeof(struct words);
}

static bool is_sane(const struct dp_go_reading *reading, const struct words *w)
{
	return !has_bytes(reading) || (w->alloc_bytes == w->allocs * reading->size &&
				       w->free_bytes == w->frees * reading->size);
}

static bool is_zero(const struct words *w)
{
	return (w->allocs | w->frees | w->alloc_bytes | w->free_bytes) == 0;
}

static void add(struct dp_go_figures *sum, const struct words *w)
{
	sum->allocs += w->allocs;
	sum->frees += w->frees;
}

/* Whether a cycle's allocations may have been added already, and its frees not. */
static bool may_be_half_added(const struct dp_go_reading *reading)
{
	for (int i = 0; !has_bytes(reading) && i < DP_GO_N_CYCLES; i++) {
		struct words w;

		if (!get_words(reading, i, &w) || (w.allocs != 0 && w.frees != 0))
			return true;
	}
	return false;
}

static bool give(const struct dp_go_figures *sum, struct dp_go_figures *ret)
{
	if (sum->frees > sum->allocs)
		return false;
	*ret = *sum;
	return true;
}

bool dp_go_figures_published(const struct dp_go_reading *reading, struct dp_go_figures *ret)
{
	struct dp_go_figures sum = {0};
	struct words active, due;

	if (!get_words(reading, -1, &active) ||
	    !get_words(reading, (int)(reading->cycle % DP_GO_N_CYCLES), &due) ||
	    !is_sane(reading, &active) || !is_sane(reading, &due))
		return false;
	if (!reading->is_quiet && (!is_zero(&due) || may_be_half_added(reading)))
		return false;
	add(&sum, &active);
	add(&sum, &due);
	return give(&sum, ret);
}

bool dp_go_figures_all(const struct dp_go_reading *reading, struct dp_go_figures *ret)
{
	struct dp_go_figures sum = {0};

	for (int i = -1; i < DP_GO_N_CYCLES; i++) {
		struct words w;

		if (!get_words(reading, i, &w) || !is_sane(reading, &w))
			return false;
		/* Until it is published something, nothing can be counted twice. */
		if (!reading->is_quiet && i == -1 && !is_zero(&w))
			return false;
		add(&sum, &w);
	}
	return give(&sum, ret);
}

/* As Go converts on amd64: toward zero, and what does not fit is the least number. */
static int64_t to_integer(double count)
{
	const double limit = 9223372036854775808.0; /* 2^63 */

	return count >= -limit && count < limit ? (int64_t)count : INT64_MIN;
}

bool dp_go_figures_event(const struct dp_go_reading *reading, int64_t *ret_count,
			 int64_t *ret_cycles)
{
	int64_t count, cycles;
	double real;

	if (!reading->is_quiet || memcmp(reading->first, reading->second, DP_GO_EVENT_BYTES) != 0)
		return false;
	memcpy(&count, reading->first, sizeof(count));
	memcpy(&real, reading->first, sizeof(real));
	memcpy(&cycles, reading->first + sizeof(count), sizeof(cycles));
	if (reading->layout->count_is_double)
		count = to_integer(real);
	if (count < 0 || cycles < 0)
		return false;
	*ret_count = count;
	*ret_cycles = cycles;
	return true;
}
