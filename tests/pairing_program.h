/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_PAIRING_PROGRAM_H
#define DP_TESTS_PAIRING_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/random.h"
#include "src/delta.h"
#include "src/pairing.h"

/*
 * A program with four threads that allocates, resizes, frees each other's objects, fails, jumps out
 * of allocations and ends threads in them, at random; its allocator reuses addresses at once. What
 * it does is written down twice: as the events that the kernel would deliver, those of different
 * threads interleaved at random, and as plain counts of what it really did. At rate 1 the two must
 * agree to the unit.
 *
 * A call is a script of steps. The allocator works in the middle of it (STEP_TAKE, STEP_GIVE), so
 * an address may pass to another thread while the call that gave it up has not returned.
 */

#define N_SITES 40 /* places that call an allocation function; each is a stack */
#define CODE UINT64_C(0x400000)
#define INNER_CODE UINT64_C(0x500000) /* the return address of calls inside the allocator */
#define N_THREADS 4
#define MAX_STEPS 12
#define MAX_OBJECTS 300
#define MAX_ADDRS 4096

enum site { SITE_MALLOC, SITE_CALLOC, SITE_REALLOC, SITE_ARRAY, SITE_OUT, SITE_WRAPPER, N_KINDS };

struct object {
	uint64_t addr;	    /* what the program has */
	uint64_t base_addr; /* what the allocator gave */
	uint64_t size;
	uint32_t site;
	bool tracked; /* can the profiler know the address? */
};

enum step_kind {
	STEP_ENTRY,
	STEP_RETURN,
	STEP_FREE,    /* the event */
	STEP_TAKE,    /* the allocator picks an address for the call */
	STEP_GIVE,    /* the allocator gets an address back */
	STEP_COUNT,   /* the call has returned an object */
	STEP_ENDED,   /* the old object is gone for good */
	STEP_RESIZED, /* the old object is the new one */
	STEP_ALIVE,   /* the old object is back in the program's hands */
	STEP_EXIT,    /* the thread ends, and another begins */
};

struct step {
	enum step_kind kind;
	struct dp_event event;
	const struct dp_alloc_function *function;
	bool returns_object; /* STEP_RETURN: retval is the object plus offset */
	bool dx_is_object;
	uint64_t offset;
	struct object object; /* STEP_COUNT: the new one without its addresses; else the old one */
	uint32_t site;	      /* STEP_RESIZED: of the new one */
	uint64_t size;
};

struct thread {
	uint32_t tid;
	uint64_t stack_top;
	bool jumped_out; /* the next call comes from the top frame */
	struct step steps[MAX_STEPS];
	size_t n_steps, next_step;
	uint64_t addr;		 /* of STEP_TAKE */
	uint64_t return_address; /* of the newest call from the program */
};

struct truth {
	int64_t values[N_SITES][DP_DELTA_MAX_VALUES];
	uint64_t n_calls;
	int64_t entered[N_SITES][2]; /* calls that can succeed, and their bytes */
};

struct program {
	struct dp_random random;
	struct dp_heap *heap;
	struct dp_pairing *pairing;
	struct thread threads[N_THREADS];
	uint32_t next_tid;
	struct object objects[MAX_OBJECTS];
	size_t n_objects;
	uint64_t free_addrs[MAX_ADDRS];
	size_t n_free_addrs;
	uint64_t n_addrs;
	uint32_t first_site; /* calls come from first_site … first_site + N_SITES / 2 - 1 */
	unsigned drop_percent;
	bool entries_only;
	struct truth truth;
};

/* A program without objects, at its first call. Anything that goes wrong fails the running test. */
void program_open(struct program *p, uint64_t seed);
void program_close(struct program *p);

/* From now on there are no returns and no frees, as if they were not probed. */
void program_deliver_entries_only(struct program *p);

/* Every thread makes calls until @n_calls are made in all and every script has run to its end. */
void program_run(struct program *p, size_t n_calls);

/* Each thread allocates in its top frame: nothing below can be pending any more. */
void program_return_to_the_top(struct program *p);

/* A random number below @n, from the program's own generator. */
uint64_t program_below(struct program *p, uint64_t n);

/*
 * For program_run(): writes the script of @t's next call, which may be empty; or of one that
 * allocates in its top frame.
 */
void program_write_script(struct program *p, struct thread *t);
void program_write_call_at_the_top(struct program *p, struct thread *t);

#endif
