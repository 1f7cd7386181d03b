/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: profilers are asked one after the other, and naming takes its time; but all must
 * hold what happened up to the same moment. So at that moment all are collected, whoever asks when,
 * and only at the next one do events have to wait for those that were not asked yet.
 */
#include "src/base/clock.h"
#include "src/process.h"

/* Beside the time between two cuts. */
#define PATIENCE_NS 2000000000

/*
 * Sets aside what a profiler holds up to the cut. @mine: its lock is held already. Returns whether
 * that is done; not while it is being delivered, or waits to be asked for and there is still time.
 */
static bool set_aside(struct deltaprof *process, struct profiler *profiler, bool mine, bool late)
{
	bool done = profiler->cut_ns == process->cut_ns;

	if (done || (!mine && pthread_mutex_trylock(&profiler->lock) != 0))
		return done;
	if (!profiler->is_set_aside || late) {
		profiler->is_set_aside =
			dp_profiler_collect(profiler->profiler, process->cut_ns) == 0;
		profiler->cut_ns = process->cut_ns;
		done = true;
	}
	if (!mine)
		pthread_mutex_unlock(&profiler->lock);
	return done;
}

static void set_cut(struct deltaprof *process, uint64_t at_ns)
{
	uint64_t now_ns = dp_monotonic_ns();

	process->cut_ns = at_ns;
	process->cut_due_ns = at_ns > now_ns ? at_ns : now_ns;
}

bool dp_cuts_is_late(const struct deltaprof *process)
{
	uint64_t length_ns = process->cut_ns - process->last_cut_ns;

	return dp_monotonic_ns() - process->cut_due_ns > length_ns + PATIENCE_NS;
}

void dp_cuts_make(struct deltaprof *process, const struct profiler *mine, bool late)
{
	bool all = true;

	pthread_mutex_lock(&process->profilers_lock);
	for (struct profiler *p = process->profilers; p; p = p->next)
		all = set_aside(process, p, p == mine, late) && all;
	pthread_mutex_unlock(&process->profilers_lock);
	if (!all)
		return;
	process->last_cut_ns = process->cut_ns;
	set_cut(process, process->every_ns ? process->cut_ns + process->every_ns : UINT64_MAX);
}

/* Makes the cut now, if its time has come. */
static void make_due(struct deltaprof *process, bool late)
{
	if (process->cut_ns > dp_monotonic_ns())
		return;
	if (dp_session_cut(process->session, process->cut_ns) < 0)
		dp_process_set_state(process, DELTAPROF_FAILED);
	else
		dp_cuts_make(process, NULL, late);
}

struct cuts {
	uint64_t first_ns, every_ns;
};

static void run_cut_at(struct deltaprof *process, void *argument)
{
	const struct cuts *cuts = argument;

	make_due(process, true);
	process->every_ns = cuts->first_ns ? cuts->every_ns : 0;
	set_cut(process, cuts->first_ns ? cuts->first_ns : UINT64_MAX);
	make_due(process, false);
}

void deltaprof_cut_at(struct deltaprof *process, uint64_t monotonic_ns, uint64_t every_ns)
{
	struct cuts cuts = {monotonic_ns, every_ns};

	dp_process_run(process, run_cut_at, &cuts);
}
