/* SPDX-License-Identifier: MIT */
/*
 * The profilers of an attached process. A profile is collected in the process's thread and built by
 * the caller; of the caller's own process it is built in that thread too, which is left out.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/process.h"

struct make {
	struct profiler *profiler;
	enum dp_kind kind;
	int r;
};

static void run_make(struct deltaprof *process, void *argument)
{
	struct make *make = argument;

	make->r = -EINVAL;
	if (dp_session_has(process->session, make->kind))
		make->r = dp_profiler_new(&make->profiler->profiler, process->session, make->kind,
					  process->started_ns);
}

static int open_profiler(struct profiler *profiler, struct deltaprof *process, enum dp_kind kind)
{
	struct make make = {.profiler = profiler, .kind = kind};

	profiler->process = process;
	pthread_mutex_init(&profiler->lock, NULL);
	dp_process_run(process, run_make, &make);
	if (make.r < 0) {
		pthread_mutex_destroy(&profiler->lock);
		return make.r;
	}
	pthread_mutex_lock(&process->profilers_lock);
	profiler->next = process->profilers;
	process->profilers = profiler;
	pthread_mutex_unlock(&process->profilers_lock);
	return 0;
}

static void close_profiler(struct profiler *profiler)
{
	struct deltaprof *process = profiler->process;
	struct profiler **link = &process->profilers;

	pthread_mutex_lock(&process->profilers_lock);
	while (*link != profiler)
		link = &(*link)->next;
	*link = profiler->next;
	pthread_mutex_unlock(&process->profilers_lock);
	dp_profiler_free(profiler->profiler);
	pthread_mutex_destroy(&profiler->lock);
}

struct build {
	struct profiler *profiler;
	uint8_t *data;
	size_t n_bytes;
	int r;
};

/* Up to the cut if its time has come, else up to now. */
static void collect(struct deltaprof *process, struct build *build)
{
	struct profiler *profiler = build->profiler;
	uint64_t now_ns = process->stopped_ns ? process->stopped_ns : dp_monotonic_ns();
	bool cut = process->cut_ns <= now_ns;

	build->r = dp_session_cut(process->session, cut ? process->cut_ns : now_ns);
	if (build->r < 0)
		dp_process_set_state(process, DELTAPROF_FAILED);
	else if (cut)
		dp_cuts_make(process, profiler, dp_cuts_is_late(process));
	if (build->r == 0 && !profiler->is_set_aside)
		build->r = dp_profiler_collect(profiler->profiler, now_ns);
}

static void run_collect(struct deltaprof *process, void *argument)
{
	struct build *build = argument;

	if (!build->profiler->is_set_aside)
		collect(process, build);
	if (build->r == 0 && process->is_own)
		build->r =
			dp_profiler_build(build->profiler->profiler, &build->data, &build->n_bytes);
}

static int build_profile(struct build *build)
{
	const struct deltaprof *process = build->profiler->process;

	if (process->is_own || !build->profiler->is_set_aside)
		dp_process_run(build->profiler->process, run_collect, build);
	if (build->r == 0 && !process->is_own)
		build->r =
			dp_profiler_build(build->profiler->profiler, &build->data, &build->n_bytes);
	return build->r;
}

static int deliver(struct profiler *profiler, deltaprof_writer *write, void *context, char *error)
{
	struct build build = {.profiler = profiler};
	struct dp_error err = {""};
	int r;

	pthread_mutex_lock(&profiler->lock);
	r = build_profile(&build);
	if (r < 0) {
		dp_error_set(&err, r, "pid %d: making a profile: %s", profiler->process->pid,
			     strerror(-r));
	} else {
		r = write(context, build.data, build.n_bytes, err.text);
		if (r < 0)
			dp_profiler_abort(profiler->profiler);
		else
			dp_profiler_commit(profiler->profiler);
	}
	profiler->is_set_aside = false;
	free(build.data);
	pthread_mutex_unlock(&profiler->lock);
	if (r < 0)
		dp_process_set_error(error, &err);
	return r < 0 ? r : 0;
}

static int64_t start_of(struct profiler *profiler)
{
	int64_t start_ns;

	pthread_mutex_lock(&profiler->lock);
	start_ns = dp_profiler_start_unix_ns(profiler->profiler);
	pthread_mutex_unlock(&profiler->lock);
	return start_ns;
}

static int new_heap_profiler(struct deltaprof_heap_profiler **ret, struct deltaprof *process,
			     enum dp_kind kind)
{
	struct deltaprof_heap_profiler *profiler = calloc(1, sizeof(*profiler));
	int r = profiler ? open_profiler(&profiler->base, process, kind) : -ENOMEM;

	if (r < 0)
		free(profiler);
	else
		*ret = profiler;
	return r;
}

int deltaprof_heap_profiler_new(struct deltaprof_heap_profiler **ret, struct deltaprof *process)
{
	return new_heap_profiler(ret, process, DP_KIND_HEAP);
}

int deltaprof_cheap_profiler_new(struct deltaprof_heap_profiler **ret, struct deltaprof *process)
{
	return new_heap_profiler(ret, process, DP_KIND_CHEAP);
}

void deltaprof_heap_profiler_free(struct deltaprof_heap_profiler *profiler)
{
	if (profiler)
		close_profiler(&profiler->base);
	free(profiler);
}

int deltaprof_heap_profiler_profile(struct deltaprof_heap_profiler *profiler,
				    deltaprof_writer *write, void *context, char *error)
{
	return deliver(&profiler->base, write, context, error);
}

int64_t deltaprof_heap_profiler_start(struct deltaprof_heap_profiler *profiler)
{
	return start_of(&profiler->base);
}

static int new_block_profiler(struct deltaprof_block_profiler **ret, struct deltaprof *process,
			      enum dp_kind kind)
{
	struct deltaprof_block_profiler *profiler = calloc(1, sizeof(*profiler));
	int r = profiler ? open_profiler(&profiler->base, process, kind) : -ENOMEM;

	if (r < 0)
		free(profiler);
	else
		*ret = profiler;
	return r;
}

int deltaprof_block_profiler_new(struct deltaprof_block_profiler **ret, struct deltaprof *process)
{
	return new_block_profiler(ret, process, DP_KIND_BLOCK);
}

int deltaprof_mutex_profiler_new(struct deltaprof_block_profiler **ret, struct deltaprof *process)
{
	return new_block_profiler(ret, process, DP_KIND_MUTEX);
}

void deltaprof_block_profiler_free(struct deltaprof_block_profiler *profiler)
{
	if (profiler)
		close_profiler(&profiler->base);
	free(profiler);
}

int deltaprof_block_profiler_profile(struct deltaprof_block_profiler *profiler,
				     deltaprof_writer *write, void *context, char *error)
{
	return deliver(&profiler->base, write, context, error);
}

int64_t deltaprof_block_profiler_start(struct deltaprof_block_profiler *profiler)
{
	return start_of(&profiler->base);
}
