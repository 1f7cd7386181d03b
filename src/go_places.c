/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: which functions Go's profiles leave out at a stack's leaf is a count of frames in
 * the runtime's source (skip), inlined ones included, and the count changes with the version. The
 * names of those frames hardly do, so they are what is cut by.
 */
#include "src/go_places.h"

#include <errno.h>
#include <stdlib.h>

#include "src/base/map.h"

/* Roles of functions. */
#define WAITS 1u    /* the innermost part of a waiter's stack, left out */
#define COUNTS 2u   /* a semaphore that the block profile counts */
#define LOCKS 4u    /* ... and the mutex profile too */
#define RELEASES 8u /* left out of a releaser's stack, with all that is inside of it */
#define ENDS 16u    /* the outermost frame, which no profile shows */

/*
 * Source: Go 1.17 to 1.27: src/runtime/sema.go, chan.go, select.go, proc.go; src/sync/mutex.go,
 * rwmutex.go, waitgroup.go; src/internal/sync/mutex.go; src/internal/poll/fd_mutex.go. Since Go
 * 1.24 a sync.Mutex is one of internal/sync inside, whose Lock() and Unlock() are left out too.
 */
static const struct function {
	const char *name;
	unsigned roles;
} functions[] = {
	{"runtime.gopark", WAITS}, /* has to be the first */
	{"runtime.goparkunlock", WAITS},
	{"runtime.chanrecv", WAITS},
	{"runtime.chansend", WAITS},
	{"runtime.semacquire1", WAITS},
	{"sync.runtime_notifyListWait", WAITS},
	{"sync.runtime_Semacquire", WAITS | COUNTS},
	{"sync.runtime_SemacquireWaitGroup", WAITS | COUNTS},
	{"internal/poll.runtime_Semacquire", WAITS | COUNTS},
	{"sync.runtime_SemacquireMutex", WAITS | COUNTS | LOCKS},
	{"sync.runtime_SemacquireRWMutex", WAITS | COUNTS | LOCKS},
	{"sync.runtime_SemacquireRWMutexR", WAITS | COUNTS | LOCKS},
	{"internal/sync.runtime_SemacquireMutex", WAITS | COUNTS | LOCKS},
	{"sync.(*Mutex).lockSlow", WAITS},
	{"internal/sync.(*Mutex).lockSlow", WAITS},
	{"internal/sync.(*Mutex).Lock", WAITS},
	{"runtime.semrelease1", RELEASES},
	{"sync.runtime_Semrelease", RELEASES},
	{"internal/sync.runtime_Semrelease", RELEASES},
	{"sync.(*Mutex).unlockSlow", RELEASES},
	{"internal/sync.(*Mutex).unlockSlow", RELEASES},
	{"internal/sync.(*Mutex).Unlock", RELEASES},
	{"sync.(*RWMutex).rUnlockSlow", RELEASES},
	{"runtime.goexit", ENDS},
};

#define N_FUNCTIONS (sizeof(functions) / sizeof(functions[0]))

/* So deep inside of the release of a lock the goroutine is readied. */
#define MAX_RELEASE_FRAMES 16

/* So many of them are inlined into each other at the most. */
#define MAX_INLINED 4

struct place {
	uint64_t begin, end; /* frames, end exclusive */
	unsigned roles;
};

struct dp_go_places {
	struct dp_go_names names;
	struct place places[N_FUNCTIONS];
	size_t n;
	struct dp_map callers; /* frame → the frame that stands for it, see skip_inlined() */
};

int dp_go_places_new(struct dp_go_places **ret, const struct dp_go_names *names)
{
	struct dp_go_places *places = calloc(1, sizeof(*places));

	if (!places)
		return -ENOMEM;
	places->names = *names;
	for (size_t i = 0; i < N_FUNCTIONS; i++) {
		struct place *place = &places->places[places->n];
		uint64_t n_bytes;

		if (!names->find(names->context, functions[i].name, &place->begin, &n_bytes)) {
			if (i == 0)
				break;
			continue;
		}
		place->end = place->begin + n_bytes;
		place->roles = functions[i].roles;
		places->n++;
	}
	if (places->n == 0) {
		dp_go_places_free(places);
		return -ENOENT;
	}
	*ret = places;
	return 0;
}

void dp_go_places_free(struct dp_go_places *places)
{
	if (!places)
		return;
	dp_map_clear(&places->callers);
	free(places);
}

static unsigned roles_of(const struct dp_go_places *places, uint64_t frame)
{
	for (size_t i = 0; i < places->n; i++) {
		if (frame >= places->places[i].begin && frame < places->places[i].end)
			return places->places[i].roles;
	}
	return 0;
}

/* Leaves out the functions of @role that are inlined where the stack begins. */
static void skip_inlined(struct dp_go_places *places, unsigned role, uint64_t *frame)
{
	const struct dp_go_names *names = &places->names;
	uint64_t found = *frame;
	unsigned n_skipped = 0;

	if (!names->caller_of_inlined || dp_map_get(&places->callers, *frame, frame))
		return;
	for (size_t i = 0; i < N_FUNCTIONS; i++) {
		uint64_t caller = found;

		if (functions[i].roles & role)
			caller = names->caller_of_inlined(names->context, found, functions[i].name);
		if (caller == found || n_skipped == MAX_INLINED)
			continue;
		found = caller;
		n_skipped++;
		i = SIZE_MAX; /* from the first on: what it is inlined in may be inlined too */
	}
	/* What cannot be remembered is found again. */
	dp_map_set(&places->callers, *frame, found);
	*frame = found;
}

static void drop_end(const struct dp_go_places *places, const uint64_t *frames, size_t *n)
{
	if (*n > 1 && roles_of(places, frames[*n - 1]) & ENDS)
		--*n;
}

enum dp_go_wait_class dp_go_places_cut_waiter(struct dp_go_places *places, bool is_semaphore,
					      uint64_t **frames, size_t *n)
{
	unsigned roles, seen = 0;
	size_t i = 0;

	for (; i + 1 < *n && (roles = roles_of(places, (*frames)[i])) & WAITS; i++)
		seen |= roles;
	*frames += i;
	*n -= i;
	if (*n > 0)
		skip_inlined(places, WAITS, *frames);
	drop_end(places, *frames, n);
	if (seen & LOCKS)
		return DP_GO_WAIT_LOCK;
	return is_semaphore && !(seen & COUNTS) ? DP_GO_WAIT_INTERNAL : DP_GO_WAIT_BLOCK;
}

bool dp_go_places_cut_waker(struct dp_go_places *places, uint64_t **frames, size_t *n)
{
	size_t begin = 0;

	for (size_t i = 0; i + 1 < *n && i < MAX_RELEASE_FRAMES; i++) {
		if (roles_of(places, (*frames)[i]) & RELEASES)
			begin = i + 1;
	}
	if (begin == 0)
		return false;
	*frames += begin;
	*n -= begin;
	skip_inlined(places, RELEASES, *frames);
	drop_end(places, *frames, n);
	return true;
}
