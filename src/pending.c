/* SPDX-License-Identifier: MIT */
#include "src/pending.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "src/base/array.h"

/*
 * The hard idea: a thread stays in the table between its calls, since it is about to make the next
 * one, and leaves when it ends. Its end may go unseen, so a full table first throws out those that
 * have nothing pending.
 */

void dp_pending_init(struct dp_pending *pending, size_t max_threads)
{
	*pending = (struct dp_pending){.max_threads = max_threads};
}

static void free_thread(struct dp_pending_thread *thread)
{
	free(thread->calls);
	free(thread);
}

void dp_pending_deinit(struct dp_pending *pending)
{
	for (size_t i = 0; i < pending->n_threads; i++)
		free_thread(pending->threads[i]);
	free(pending->threads);
	dp_map_clear(&pending->positions);
	dp_pending_init(pending, pending->max_threads);
}

struct dp_pending_thread *dp_pending_find(const struct dp_pending *pending, uint32_t tid)
{
	uint64_t position;

	if (!dp_map_get(&pending->positions, tid, &position))
		return NULL;
	return pending->threads[position];
}

/* The last thread takes the place of the one that goes. */
static void remove_at(struct dp_pending *pending, size_t position)
{
	struct dp_pending_thread *thread = pending->threads[position];
	struct dp_pending_thread *last = pending->threads[--pending->n_threads];

	dp_map_remove(&pending->positions, thread->tid);
	if (last != thread) {
		/* Nothing has to grow: there is one key less than there was, and this one is old.
		 */
		int r = dp_map_set(&pending->positions, last->tid, position);

		assert(r == 0);
		(void)r;
		pending->threads[position] = last;
	}
	free_thread(thread);
}

static void remove_idle(struct dp_pending *pending)
{
	for (size_t i = pending->n_threads; i > 0; i--) {
		if (pending->threads[i - 1]->depth == 0)
			remove_at(pending, i - 1);
	}
}

static int add(struct dp_pending *pending, uint32_t tid, struct dp_pending_thread **ret)
{
	struct dp_pending_thread *thread;
	int r;

	r = dp_array_reserve((void **)&pending->threads, &pending->threads_capacity,
			     pending->n_threads + 1, sizeof(struct dp_pending_thread *));
	if (r < 0)
		return r;
	thread = calloc(1, sizeof(*thread));
	if (!thread)
		return -ENOMEM;
	r = dp_map_set(&pending->positions, tid, pending->n_threads);
	if (r < 0) {
		free(thread);
		return r;
	}
	thread->tid = tid;
	pending->threads[pending->n_threads++] = thread;
	*ret = thread;
	return 0;
}

int dp_pending_get(struct dp_pending *pending, uint32_t tid, struct dp_pending_thread **ret)
{
	struct dp_pending_thread *thread = dp_pending_find(pending, tid);

	if (thread) {
		*ret = thread;
		return 0;
	}
	if (pending->n_threads >= pending->max_threads)
		remove_idle(pending);
	if (pending->n_threads >= pending->max_threads)
		return -ENOSPC;
	return add(pending, tid, ret);
}

void dp_pending_remove(struct dp_pending *pending, uint32_t tid)
{
	uint64_t position;

	if (dp_map_get(&pending->positions, tid, &position))
		remove_at(pending, position);
}

int dp_pending_push(struct dp_pending_thread *thread, const struct dp_pending_call *call)
{
	int r;

	if (thread->depth >= DP_PENDING_MAX_DEPTH)
		return -ENOSPC;
	r = dp_array_reserve((void **)&thread->calls, &thread->calls_capacity, thread->depth + 1,
			     sizeof(*thread->calls));
	if (r < 0)
		return r;
	thread->calls[thread->depth++] = *call;
	return 0;
}
