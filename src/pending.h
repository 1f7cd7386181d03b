/* SPDX-License-Identifier: MIT */
#ifndef DP_PENDING_H
#define DP_PENDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "perf/entry_rules.h"
#include "src/base/map.h"
#include "src/heap.h"

/*
 * Allocation calls that were entered and have not returned, per thread: the table behind
 * src/pairing.h, which knows what they mean.
 */

/* The kernel traps at most 64 nested returns of a thread. Source: kernel/events/uprobes.c,
 * MAX_URETPROBE_DEPTH. */
#define DP_PENDING_MAX_DEPTH 128

struct dp_pending_call {
	uint64_t probe_avma;
	uint64_t sp;	     /* at entry */
	uint64_t stack0;     /* the word there */
	uint64_t out_align;  /* alignment asked for if the call stores its result through a pointer;
				else 0 */
	uint64_t inner_addr; /* of such a call: the newest object that a call inside it returned and
				that may be its result; 0 if none */
};

struct dp_pending_thread {
	uint32_t tid;
	struct dp_pending_call *calls; /* outermost first; sp never grows towards the newest */
	size_t calls_capacity;
	size_t depth;

	/* Of the outermost call; valid while depth > 0. */
	uint64_t size;
	uint32_t stack; /* if sampled */
	bool sampled;
	bool taken;    /* old is out of the heap's table */
	bool doubtful; /* records were lost since it was entered, its return maybe among them */
	struct dp_heap_object old;
	size_t n_nested; /* calls entered inside it so far */

	/* Of the newest call, where only entries are known; valid while depth > 0. */
	struct dp_entry_call newest;
};

struct dp_pending {
	struct dp_pending_thread **threads; /* in no order */
	size_t n_threads;
	size_t threads_capacity;
	size_t max_threads;
	struct dp_map positions; /* tid to index into threads */
};

/* An empty table of at most @max_threads; allocates nothing yet. */
void dp_pending_init(struct dp_pending *pending, size_t max_threads);

/* Frees every thread. What their calls had taken from the heap is the caller's business. */
void dp_pending_deinit(struct dp_pending *pending);

/* The thread, or NULL; valid until a thread is removed. */
struct dp_pending_thread *dp_pending_find(const struct dp_pending *pending, uint32_t tid);

/*
 * The thread, made if it is not there; when the table is full, threads without calls make room.
 * Returns 0, -ENOSPC or -ENOMEM.
 */
int dp_pending_get(struct dp_pending *pending, uint32_t tid, struct dp_pending_thread **ret);

/* Removes the thread, if there. */
void dp_pending_remove(struct dp_pending *pending, uint32_t tid);

/*
 * Adds the newest call of @thread. Returns 0, -ENOSPC beyond DP_PENDING_MAX_DEPTH, or -ENOMEM.
 */
int dp_pending_push(struct dp_pending_thread *thread, const struct dp_pending_call *call);

#endif
