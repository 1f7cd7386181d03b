/* SPDX-License-Identifier: MIT */
#ifndef DP_TESTS_FUTEXES_H
#define DP_TESTS_FUTEXES_H

#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>

#include "target.h"

/*
 * What the scenes of tests/targets/futexes.c are made of.
 */

#define MAX_WAITERS 3
#define MAX_CHARGED 2

struct scene;
struct play;

struct waiter {
	struct play *play;
	int start[2], act[2]; /* pipes */
	_Atomic int tid;
	long result; /* of the last call */
	uint64_t waited_ns;
};

/* What a function of a scene has done, when the scene is played: contentions a round. */
struct charge {
	const char *function;
	unsigned n;
};

struct scene {
	const char *name;
	const char *waiter_name;
	void (*hold)(struct play *play); /* by the releaser, before anybody waits; may be NULL */
	void (*wait)(struct waiter *waiter); /* by each waiter */
	void (*act)(struct play *play);	     /* by the releaser, when all of them sleep */
	unsigned n_waiters;
	unsigned n_sleeps;    /* a round, all waiters */
	unsigned n_not_slept; /* waiting calls that do not sleep, a round */
	struct charge charged[MAX_CHARGED];
	bool is_plain; /* not for a lock */
	bool is_newer;
};

struct play {
	const struct scene *scene;
	int start[2], told[2];
	unsigned rounds, hold_us;
	unsigned n_played;
	uint64_t held_ns; /* the least that all sleeps together took */
	struct waiter waiters[MAX_WAITERS];
	int tid; /* the releaser's */
	/* Elsewhere's are shared with another process. */
	_Atomic uint32_t *word, *other;
	_Atomic uint32_t own_words[2];
};

extern const struct scene scenes[];
extern const size_t n_scenes;

/* Ends the target with its complaint. */
void fail(const char *what, long result);

uint64_t now_ns(void);

/* The time on @clock in @us; with a negative @clock the span itself. */
struct timespec after_us(clockid_t clock, unsigned us);

/* Tells whoever is at the other end of the pipe to go on. */
void tell(const int ends[2]);

/* Waits until all waiters sleep, and then for the time to hold. */
void hold_on(struct play *play);

/* How often the thread has gone to sleep. */
unsigned long count_sleeps(int tid);

/* For a scene whose waiters end by themselves. */
void no_act(struct play *play);

/* For the scene whose waiter is woken by another process. */
void act_elsewhere(struct play *play);

/* ---- the calls ---- */

/* What a system call takes; a futex operation's own number is the second of a futex(2)'s. */
struct call {
	long number;
	const void *word;
	long a, b, c;
	const void *other;
	long d;
};

/* The C library has functions of these names too. */
#define HIDDEN __attribute__((visibility("hidden")))

/* The three make the call; the first waits for a lock and the second lets one go. */
long lock_call(const struct call *call) __asm__("__lll_lock_wait") HIDDEN;
long unlock_call(const struct call *call) __asm__("__lll_lock_wake") HIDDEN;
long plain_call(const struct call *call);

#define FUTEX(op, at, ...) \
	(&(const struct call){.number = SYS_futex, .word = (at), .a = (op), __VA_ARGS__})
#define NEWER(nr, at, ...) (&(const struct call){.number = (nr), .word = (at), __VA_ARGS__})

/* Functions of a waiter: of the words that they wait on, the value is 0 as long as they should. */
#define WAITER(name)                           \
	KEEP void name(struct waiter *waiter); \
	KEEP void name(struct waiter *waiter)

/* Measures one call. */
#define WAIT_FOR(expected, call)                                         \
	do {                                                             \
		uint64_t start_ns = now_ns();                            \
		waiter->result = (call);                                 \
		waiter->waited_ns += now_ns() - start_ns;                \
		if (waiter->result != (expected))                        \
			fail(waiter->play->scene->name, waiter->result); \
		STAY();                                                  \
	} while (0)

/* A function of the releaser that makes one call, which must give @expected. */
#define RELEASER(name, expected, call)           \
	KEEP void name(struct play *play);       \
	KEEP void name(struct play *play)        \
	{                                        \
		long result = unlock_call(call); \
                                                 \
		if (result != (expected))        \
			fail(#name, result);     \
		STAY();                          \
	}

#endif
