/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: both records of a hit are made before its thread goes on, so nothing of that
 * thread lies between them; and what a thread does next of the same type differs, or a return lies
 * between.
 * Interrupts wake others in the name of the thread that they interrupt, hence the time.
 */
#include "perf/twins.h"

#include "src/base/hash.h"

/* A word holds, from bit 0: the set, the time in ticks, some of the hash. */
#define TICK_BITS 20
#define TICK_MASK ((UINT64_C(1) << TICK_BITS) - 1)
#define HASH_MASK (~((TICK_MASK << 1) | 1))
#define TICK_NS_LOG2 14 /* 16 us */
#define MAX_TICKS 640	/* 10 ms: a virtual machine may stand still in between */

static uint64_t tick_of(const struct dp_event *event)
{
	return event->time_ns >> TICK_NS_LOG2 & TICK_MASK;
}

static uint64_t map_key(uint32_t tid, enum dp_event_type type)
{
	return (uint64_t)tid << 8 | (uint64_t)type;
}

static uint64_t hash_event(const struct dp_event *event)
{
	switch (event->type) {
	case DP_EVENT_ALLOC_ENTRY:
		return dp_hash_words((uint64_t[]){event->entry.probe_avma, event->entry.sp,
						  event->entry.stack0, event->entry.args[0],
						  event->entry.args[1]},
				     5);
	case DP_EVENT_WAKING:
		return dp_hash_words((uint64_t[]){event->waking.wakee_tid}, 1);
	case DP_EVENT_FUTEX_EXIT:
		return dp_hash_words((uint64_t[]){(uint64_t)event->futex_exit.result}, 1);
	default:
		return 0;
	}
}

bool dp_twins_is_second(struct dp_twins *twins, const struct dp_event *event, bool is_new)
{
	uint64_t key = map_key(event->tid, event->type), last = 0, word;

	word = (hash_event(event) & HASH_MASK) | tick_of(event) << 1 | is_new;
	if (dp_map_get(&twins->last, key, &last) && ((last ^ word) & (HASH_MASK | 1)) == 1 &&
	    (((word >> 1) - (last >> 1)) & TICK_MASK) <= MAX_TICKS) {
		dp_map_remove(&twins->last, key);
		return true;
	}
	dp_map_set(&twins->last, key, word);
	return false;
}

void dp_twins_separate(struct dp_twins *twins, const struct dp_event *event)
{
	if (event->type == DP_EVENT_ALLOC_RETURN)
		dp_map_remove(&twins->last, map_key(event->tid, DP_EVENT_ALLOC_ENTRY));
	if (event->type == DP_EVENT_FUTEX_ENTER)
		dp_map_remove(&twins->last, map_key(event->tid, DP_EVENT_FUTEX_EXIT));
}

void dp_twins_clear(struct dp_twins *twins)
{
	dp_map_clear(&twins->last);
}
