/* SPDX-License-Identifier: MIT */
#ifndef DP_LOCKS_H
#define DP_LOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"
#include "symbolize/module.h"

/*
 * What a thread waits for, told from the functions on its stack: a table of names per kind, turned
 * into address ranges per module once, and matched without resolving any name.
 *
 * The mutex that a condition variable's wait takes again on its way out is waited for inside
 * pthread_cond_wait(). glibc does it in a function that it does not export: such a wait is told as
 * one for a mutex where the file has a symbol table, and as part of the condition variable's where
 * it is stripped.
 */

enum dp_wait_kind {
	DP_WAIT_FUTEX, /* no known function on the stack */
	DP_WAIT_MUTEX,
	DP_WAIT_RWLOCK,
	DP_WAIT_CONDVAR,
	DP_WAIT_SEMAPHORE,
	DP_WAIT_BARRIER,
	DP_WAIT_JOIN,
	DP_N_WAIT_KINDS,
};

/* "mutex", "rwlock", "condvar", "semaphore", "barrier", "join", "futex": the label `wait`. Static.
 */
const char *dp_wait_kind_name(enum dp_wait_kind kind);

/* Whether waits of this kind belong into the mutex profile: mutex and rwlock. */
bool dp_wait_kind_is_lock(enum dp_wait_kind kind);

struct dp_locks;

/* @modules: borrowed, must outlive it. Returns 0 or -ENOMEM; *@ret only on success. */
int dp_locks_new(struct dp_locks **ret, struct dp_modules *modules);
void dp_locks_free(struct dp_locks *locks); /* NULL is allowed */

/*
 * Looks through modules that were not looked at yet. Reads their files, may block on it; allocates.
 * Returns 0, or -ENOMEM: what was done stays, the next call goes on from there.
 */
int dp_locks_update(struct dp_locks *locks);

/*
 * The kind of wait of a stack of @n_frames frames at @frames, leaf first: that of the innermost
 * function that is in the table, whose place is *@ret_i_frame (0 and DP_WAIT_FUTEX if there is
 * none). Functions that release are in the table too, so that a waker's stack can be cut at them.
 */
enum dp_wait_kind dp_locks_classify(const struct dp_locks *locks, const uint64_t *frames,
				    size_t n_frames, size_t *ret_i_frame);

/*
 * The function of the table that @frame belongs to, as the frame of its first instruction: the one
 * that @frame lies in, or the one that jumps to the nameless function that @frame lies in. (In a
 * stripped glibc pthread_join(), sem_wait(), pthread_mutex_timedlock() and pthread_mutex_unlock()
 * end in a jump to a function that is not exported; they themselves leave no frame. Of several that
 * jump there, e.g. pthread_join() and pthread_timedjoin_np(), it is the first in the table.)
 * @frame itself if there is none.
 */
uint64_t dp_locks_entry(const struct dp_locks *locks, uint64_t frame);

#endif
