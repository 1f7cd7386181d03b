/* SPDX-License-Identifier: MIT */
#ifndef DP_GO_PLACES_H
#define DP_GO_PLACES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What a goroutine's wait is, told from the functions on its stack, and where the stack begins that
 * Go's own profiles would show: a table of the runtime's functions, turned into ranges of frames
 * once.
 */

struct dp_go_places;

/* How functions are found: of a program's table, or of whatever a test makes up. */
struct dp_go_names {
	/*
	 * Finds the function @name. @ret_frame: of its first instruction; @ret_bytes: how long it
	 * is. Returns false if there is none.
	 */
	bool (*find)(void *context, const char *name, uint64_t *ret_frame, uint64_t *ret_bytes);
	/*
	 * Where the innermost call at @frame is the inlined function @name: the frame that stands
	 * for that call in its caller. Else @frame. NULL: nothing is inlined.
	 */
	uint64_t (*caller_of_inlined)(void *context, uint64_t frame, const char *name);
	void *context;
};

/*
 * Looks the functions up. @names: needed as long as the places are, and its context.
 * Returns 0; -ENOENT if not even runtime.gopark is there; -ENOMEM.
 */
int dp_go_places_new(struct dp_go_places **ret, const struct dp_go_names *names);
void dp_go_places_free(struct dp_go_places *places); /* NULL is allowed */

enum dp_go_wait_class {
	DP_GO_WAIT_INTERNAL, /* the runtime's own semaphore: in none of Go's profiles */
	DP_GO_WAIT_BLOCK,    /* in the block profile */
	DP_GO_WAIT_LOCK,     /* and who ends it in the mutex profile */
};

/*
 * Cuts a waiter's stack of *@n frames at *@frames, leaf first, to what Go's block profile would
 * have: from the public operation (runtime.chanrecv1, runtime.selectgo, sync.(*Mutex).Lock …) to
 * the goroutine's first function. Moves *@frames and sets *@n, and may change the first frame.
 *
 * @is_semaphore: the wait's reason is that of a semaphore of any kind, so that its functions say
 * what it is.
 */
enum dp_go_wait_class dp_go_places_cut_waiter(struct dp_go_places *places, bool is_semaphore,
					      uint64_t **frames, size_t *n);

/*
 * Cuts the stack of who ended a wait for a lock to what Go's mutex profile would have: from
 * sync.(*Mutex).Unlock, sync.(*RWMutex).Unlock, sync.(*RWMutex).RUnlock outwards. Returns false,
 * with all as it was, if no lock is released there.
 */
bool dp_go_places_cut_waker(struct dp_go_places *places, uint64_t **frames, size_t *n);

#endif
