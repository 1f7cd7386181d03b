/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: a thread whose creator has events of its own beside inherited ones inherits both.
 * Which of the two count is followed from creator to created.
 */
#include "perf/event_set.h"

#include <errno.h>

#include "src/base/clock.h"

void dp_event_set_add(struct dp_event_set *set, enum dp_sort sort, const struct dp_event_spec *spec)
{
	set->specs[set->n_specs++] = *spec;
	set->i_spec[sort] = (int8_t)set->n_specs;
}

int dp_event_set_open(struct dp_event_set *set, const struct dp_attach_options *options,
		      struct dp_error *err)
{
	struct dp_attach_options attach = *options;
	const pid_t *late;
	size_t n_late;
	int r;

	attach.specs = set->specs;
	attach.n_specs = set->n_specs;
	r = dp_attach_open(&set->attach, &attach, err);
	if (r < 0)
		return r;
	set->attached_ns = dp_monotonic_ns();
	late = dp_attach_late_threads(set->attach, &n_late);
	for (size_t i = 0; i < n_late; i++) {
		if (dp_map_set(&set->owners, (uint64_t)late[i], (uint64_t)late[i]) < 0)
			return dp_error_set(err, -ENOMEM, "pid %d: out of memory", options->pid);
	}
	return 0;
}

void dp_event_set_close(struct dp_event_set *set)
{
	dp_attach_close(set->attach);
	dp_map_clear(&set->owners);
	*set = (struct dp_event_set){0};
}

static bool has(const struct dp_event_set *set, enum dp_sort sort)
{
	return set->attach && set->i_spec[sort] > 0;
}

void dp_event_set_enable(struct dp_event_set *set, enum dp_sort sort)
{
	if (has(set, sort))
		dp_attach_enable(set->attach, (size_t)set->i_spec[sort] - 1);
}

void dp_event_set_disable(struct dp_event_set *set, enum dp_sort sort)
{
	if (has(set, sort))
		dp_attach_disable(set->attach, (size_t)set->i_spec[sort] - 1);
}

void dp_event_set_count(const struct dp_event_set *set, enum dp_sort sort, uint64_t *hits,
			uint64_t *lost)
{
	uint64_t more_hits, more_lost;

	if (!has(set, sort))
		return;
	dp_attach_counts(set->attach, (size_t)set->i_spec[sort] - 1, &more_hits, &more_lost);
	*hits += more_hits;
	*lost += more_lost;
}

bool dp_event_set_is_duplicate(const struct dp_event_set *set, const struct dp_event *event)
{
	uint64_t owner;

	if (set->owners.n == 0 || !dp_map_get(&set->owners, event->tid, &owner))
		return false;
	return dp_attach_late_owner(set->attach, event->id) != (pid_t)owner;
}

void dp_event_set_follow(struct dp_event_set *set, const struct dp_event *event)
{
	uint64_t owner;

	if (set->owners.n == 0)
		return;
	if (event->type == DP_EVENT_EXIT) {
		dp_map_remove(&set->owners, event->tid);
		return;
	}
	if (event->type != DP_EVENT_FORK || event->pid != event->task.parent_pid)
		return;
	/* A thread that was itself found late has its own, whoever created it: what is told of its
	 * creation lies before the attaching was over. */
	if (event->time_ns <= set->attached_ns && dp_map_get(&set->owners, event->tid, NULL))
		return;
	if (dp_map_get(&set->owners, event->task.parent_tid, &owner))
		dp_map_set(&set->owners, event->tid, owner);
	else
		dp_map_remove(&set->owners, event->tid);
}
