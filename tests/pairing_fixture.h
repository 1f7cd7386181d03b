/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_PAIRING_FIXTURE_H
#define DP_TESTS_PAIRING_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/pairing.h"

/*
 * Feeds dp_pairing the events that the kernel would deliver for given calls, and says what the heap
 * made of them. Anything unexpected fails the running test.
 */

#define CODE UINT64_C(0x400000) /* a call whose return address is CODE + n has stack n */
#define TRAMPOLINE UINT64_C(0x7fffffffe000) /* what stands there once a return is trapped */
#define SP UINT64_C(0x7ffc00001000)
#define N_STACKS 16
#define INSIDE \
	UINT64_C(0x500000) /* where allocation functions lie, with set_up_without_returns() */
#define INSIDE_BYTES UINT64_C(0x1000)

struct fixture {
	struct dp_heap *heap;
	struct dp_pairing *pairing;
	struct dp_delta *delta;
	size_t n_interned; /* calls of fixture_intern() */
};

/* Sets up at the heap's rate @rate_bytes; set_up() is for rate 1 and 100 threads. */
void set_up_with(struct fixture *f, uint64_t rate_bytes, size_t max_threads);
void set_up(struct fixture *f);

/* The same, where returns are not probed. */
void set_up_without_returns(struct fixture *f, size_t max_threads);

/* Checks that every entry was counted exactly once, and frees all. */
void tear_down(struct fixture *f);

/* The dp_intern_stack_fn of the fixture; @context is a struct fixture. */
uint32_t fixture_intern(void *context, const struct dp_event *event);

/*
 * Thread @tid enters the function @name, or returns from it where it was entered at @entry_sp. A
 * name may be followed by "2": the function of that name in another library. @dx: 0 if the function
 * leaves nothing there. They return what the call under test returned.
 */
int try_enter(struct fixture *f, uint32_t tid, const char *name, uint64_t sp, uint64_t stack0,
	      uint64_t a0, uint64_t a1, uint64_t a2);
int try_leave(struct fixture *f, uint32_t tid, const char *name, uint64_t entry_sp, uint64_t retval,
	      uint64_t dx);

/* Thread 1 calls @name from stack @stack; jumps into it from another function; returns from it. */
void enter(struct fixture *f, const char *name, uint64_t sp, uint32_t stack, uint64_t a0,
	   uint64_t a1, uint64_t a2);
void jump_into(struct fixture *f, const char *name, uint64_t sp, uint64_t a0, uint64_t a1);
void leave(struct fixture *f, const char *name, uint64_t entry_sp, uint64_t retval);

/* Thread 1 allocates from stack @stack, with malloc at SP; thread 2 frees. */
void allocate(struct fixture *f, uint32_t stack, uint64_t size, uint64_t addr);
void free_at(struct fixture *f, uint64_t addr);

/* All that stack @stack ever allocated, and what it has in use. */
void assert_stack(struct fixture *f, uint32_t stack, int64_t alloc_objects, int64_t alloc_space,
		  int64_t inuse_objects, int64_t inuse_space);

const struct dp_pairing_stats *stats(const struct fixture *f);

#endif
