// SPDX-License-Identifier: MIT
/*
 * The scenes of tests/targets/futexes.c: in each a wait_NAME() waits, and what wakes it from there
 * is release_NAME(), or move_NAME() or disturb_NAME() where there are more calls than one. Each
 * call's result must be the one given.
 */
#include <limits.h>
#include <signal.h>

#include "futexes.h"

/* Source: asm-generic/unistd.h and linux/futex.h of Linux 6.7, which Debian 12's do not have. */
#define NR_FUTEX_WAITV 449
#define NR_FUTEX_WAKE 454
#define NR_FUTEX_WAIT 455
#define NR_FUTEX_REQUEUE 456
#define PRIVATE_U32 (0x02 | 128)

#define BIT_OURS 4u
#define BIT_OTHER 8u

static void set_words(struct play *play)
{
	atomic_store(play->word, 0);
	atomic_store(play->other, 0);
}

/* Takes the lock of priority inheritance in @other, and that in @word. */
static void hold_pi(struct play *play)
{
	atomic_store(play->word, (uint32_t)play->tid);
	atomic_store(play->other, (uint32_t)play->tid);
}

static void hold_other_pi(struct play *play)
{
	set_words(play);
	atomic_store(play->other, (uint32_t)play->tid);
}

/* Lets go what the waiter was given. Nobody waits for it: no one is woken. */
static void let_go_pi(struct waiter *waiter, _Atomic uint32_t *word)
{
	if ((atomic_load(word) & FUTEX_TID_MASK) != (uint32_t)atomic_load(&waiter->tid))
		fail("the lock is not ours", (long)atomic_load(word));
	if (plain_call(FUTEX(FUTEX_UNLOCK_PI_PRIVATE, word)) != 0)
		fail("unlock", -errno);
}

/* ---- scenes of futex(2) ---- */

WAITER(wait_wait)
{
	WAIT_FOR(0, lock_call(FUTEX(FUTEX_WAIT_PRIVATE, waiter->play->word)));
}
RELEASER(release_wait, 1, FUTEX(FUTEX_WAKE_PRIVATE, play->word, .b = 1))

WAITER(wait_shared)
{
	WAIT_FOR(0, lock_call(FUTEX(FUTEX_WAIT, waiter->play->word)));
}
RELEASER(release_shared, 1, FUTEX(FUTEX_WAKE, play->word, .b = 1))

WAITER(wait_plain)
{
	WAIT_FOR(0, plain_call(FUTEX(FUTEX_WAIT_PRIVATE, waiter->play->word)));
}
RELEASER(release_plain, 1, FUTEX(FUTEX_WAKE_PRIVATE, play->word, .b = 1))

WAITER(wait_bitset)
{
	WAIT_FOR(0, lock_call(FUTEX(FUTEX_WAIT_BITSET_PRIVATE, waiter->play->word, .d = BIT_OURS)));
}
RELEASER(miss_bitset, 0, FUTEX(FUTEX_WAKE_BITSET_PRIVATE, play->word, .b = 1, .d = BIT_OTHER))
RELEASER(release_bitset, 1, FUTEX(FUTEX_WAKE_BITSET_PRIVATE, play->word, .b = 1, .d = BIT_OURS))

static void act_bitset(struct play *play)
{
	miss_bitset(play);
	release_bitset(play);
}

/* Wakes through the second word, because the operation on it says so. */
WAITER(wait_wake_op)
{
	WAIT_FOR(0, lock_call(FUTEX(FUTEX_WAIT_PRIVATE, waiter->play->other)));
}
RELEASER(release_wake_op, 1,
	 FUTEX(FUTEX_WAKE_OP_PRIVATE, play->word, .b = 1, .c = 1, .other = play->other,
	       .d = FUTEX_OP(FUTEX_OP_SET, 1, FUTEX_OP_CMP_EQ, 0)))

WAITER(wait_requeue)
{
	WAIT_FOR(0, lock_call(FUTEX(FUTEX_WAIT_PRIVATE, waiter->play->word)));
}
RELEASER(move_requeue, 1,
	 FUTEX(FUTEX_REQUEUE_PRIVATE, play->word, .b = 0, .c = 1, .other = play->other))
RELEASER(release_requeue, 1, FUTEX(FUTEX_WAKE_PRIVATE, play->other, .b = 1))

static void act_requeue(struct play *play)
{
	move_requeue(play);
	usleep(play->hold_us);
	release_requeue(play);
}

/* Of two, the first is woken by the call that moves the second. */
WAITER(wait_cmp_requeue)
{
	WAIT_FOR(0, lock_call(FUTEX(FUTEX_WAIT_PRIVATE, waiter->play->word)));
}
RELEASER(move_cmp_requeue, 2,
	 FUTEX(FUTEX_CMP_REQUEUE_PRIVATE, play->word, .b = 1, .c = 1, .other = play->other))
RELEASER(release_cmp_requeue, 1, FUTEX(FUTEX_WAKE_PRIVATE, play->other, .b = 1))

static void act_cmp_requeue(struct play *play)
{
	move_cmp_requeue(play);
	usleep(play->hold_us);
	release_cmp_requeue(play);
}

WAITER(wait_lock_pi)
{
	WAIT_FOR(0, lock_call(FUTEX(FUTEX_LOCK_PI_PRIVATE, waiter->play->word)));
	let_go_pi(waiter, waiter->play->word);
}
RELEASER(release_lock_pi, 0, FUTEX(FUTEX_UNLOCK_PI_PRIVATE, play->word))

WAITER(wait_lock_pi2)
{
	WAIT_FOR(0, lock_call(FUTEX(FUTEX_LOCK_PI2_PRIVATE, waiter->play->word)));
	let_go_pi(waiter, waiter->play->word);
}
RELEASER(release_lock_pi2, 0, FUTEX(FUTEX_UNLOCK_PI_PRIVATE, play->word))

WAITER(wait_requeue_pi)
{
	WAIT_FOR(0, lock_call(FUTEX(FUTEX_WAIT_REQUEUE_PI_PRIVATE, waiter->play->word,
				    .other = waiter->play->other)));
	let_go_pi(waiter, waiter->play->other);
}
RELEASER(move_requeue_pi, 1,
	 FUTEX(FUTEX_CMP_REQUEUE_PI_PRIVATE, play->word, .b = 1, .c = 0, .other = play->other))
RELEASER(release_requeue_pi, 0, FUTEX(FUTEX_UNLOCK_PI_PRIVATE, play->other))

static void act_requeue_pi(struct play *play)
{
	move_requeue_pi(play);
	usleep(play->hold_us);
	release_requeue_pi(play);
}

/* The lock is free: the call that would move the waiter gives it the lock, and wakes it. */
WAITER(wait_requeue_pi_free)
{
	WAIT_FOR(0, lock_call(FUTEX(FUTEX_WAIT_REQUEUE_PI_PRIVATE, waiter->play->word,
				    .other = waiter->play->other)));
	let_go_pi(waiter, waiter->play->other);
}
RELEASER(release_requeue_pi_free, 1,
	 FUTEX(FUTEX_CMP_REQUEUE_PI_PRIVATE, play->word, .b = 1, .c = 0, .other = play->other))

WAITER(wait_timeout)
{
	struct timespec time = after_us(-1, waiter->play->hold_us);

	WAIT_FOR(-ETIMEDOUT,
		 lock_call(FUTEX(FUTEX_WAIT_PRIVATE, waiter->play->word, .c = (long)&time)));
}

WAITER(wait_timeout_bitset)
{
	struct timespec time = after_us(CLOCK_REALTIME, waiter->play->hold_us);

	WAIT_FOR(-ETIMEDOUT, lock_call(FUTEX(FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME,
					     waiter->play->word, .c = (long)&time, .d = BIT_OURS)));
}

WAITER(wait_timeout_pi)
{
	struct timespec time = after_us(CLOCK_MONOTONIC, waiter->play->hold_us);

	WAIT_FOR(-ETIMEDOUT,
		 lock_call(FUTEX(FUTEX_LOCK_PI2_PRIVATE, waiter->play->word, .c = (long)&time)));
}

/* ---- signals ---- */

static void send_signal(struct play *play, int number)
{
	if (syscall(SYS_tgkill, getpid(), atomic_load(&play->waiters[0].tid), number) < 0)
		fail("tgkill", -errno);
}

/* Its handler was installed without SA_RESTART: the call ends. */
WAITER(wait_signal)
{
	WAIT_FOR(-EINTR, lock_call(FUTEX(FUTEX_WAIT_PRIVATE, waiter->play->word)));
}

static void act_signal(struct play *play)
{
	send_signal(play, SIGUSR1);
}

/* The call is made again by the kernel: two sleeps, of which the second one is released. */
WAITER(wait_restart)
{
	WAIT_FOR(0, lock_call(FUTEX(FUTEX_WAIT_PRIVATE, waiter->play->word)));
}
RELEASER(release_restart, 1, FUTEX(FUTEX_WAKE_PRIVATE, play->word, .b = 1))

static void interrupt_once(struct play *play)
{
	int tid = atomic_load(&play->waiters[0].tid);
	unsigned long n = count_sleeps(tid);

	send_signal(play, SIGUSR2);
	while (count_sleeps(tid) == n)
		usleep(100);
	hold_on(play);
}

static void act_restart(struct play *play)
{
	interrupt_once(play);
	release_restart(play);
}

WAITER(wait_restart_pi)
{
	WAIT_FOR(0, lock_call(FUTEX(FUTEX_LOCK_PI_PRIVATE, waiter->play->word)));
	let_go_pi(waiter, waiter->play->word);
}
RELEASER(release_restart_pi, 0, FUTEX(FUTEX_UNLOCK_PI_PRIVATE, play->word))

static void act_restart_pi(struct play *play)
{
	interrupt_once(play);
	release_restart_pi(play);
}

/* ---- no sleep, more sleeps, more sleepers ---- */

WAITER(wait_changed)
{
	WAIT_FOR(-EAGAIN, lock_call(FUTEX(FUTEX_WAIT_PRIVATE, waiter->play->word, .b = 1)));
}

WAITER(wait_free_pi)
{
	WAIT_FOR(0, lock_call(FUTEX(FUTEX_LOCK_PI_PRIVATE, waiter->play->word)));
	let_go_pi(waiter, waiter->play->word);
}

/* Woken for nothing, it waits again. */
WAITER(wait_spurious)
{
	while (atomic_load(waiter->play->word) == 0)
		WAIT_FOR(0, lock_call(FUTEX(FUTEX_WAIT_PRIVATE, waiter->play->word)));
}
RELEASER(disturb_spurious, 1, FUTEX(FUTEX_WAKE_PRIVATE, play->word, .b = 1))
RELEASER(release_spurious, 1, FUTEX(FUTEX_WAKE_PRIVATE, play->word, .b = 1))

static void act_spurious(struct play *play)
{
	int tid = atomic_load(&play->waiters[0].tid);
	unsigned long n = count_sleeps(tid);

	disturb_spurious(play);
	while (count_sleeps(tid) == n)
		usleep(100);
	hold_on(play);
	atomic_store(play->word, 1);
	release_spurious(play);
}

WAITER(wait_herd)
{
	WAIT_FOR(0, lock_call(FUTEX(FUTEX_WAIT_PRIVATE, waiter->play->word)));
}
RELEASER(release_herd, MAX_WAITERS, FUTEX(FUTEX_WAKE_PRIVATE, play->word, .b = INT_MAX))

/* Woken by another process. */
WAITER(wait_elsewhere)
{
	WAIT_FOR(0, lock_call(FUTEX(FUTEX_WAIT, waiter->play->word)));
}

/* ---- the calls of later kernels ---- */

struct vector_word {
	uint64_t value, address;
	uint32_t flags, reserved;
};

#define VECTOR(play)                                                                 \
	{                                                                            \
		{.address = (uintptr_t)(play)->word, .flags = PRIVATE_U32},          \
			{.address = (uintptr_t)(play)->other, .flags = PRIVATE_U32}, \
	}

/* Its result says which word: the second. */
WAITER(wait_waitv)
{
	struct vector_word vector[] = VECTOR(waiter->play);

	WAIT_FOR(1, lock_call(NEWER(NR_FUTEX_WAITV, vector, .a = 2)));
}
RELEASER(release_waitv, 1,
	 NEWER(NR_FUTEX_WAKE, play->other, .a = BIT_OURS, .b = 1, .c = PRIVATE_U32))

/* The same, by the old call. */
WAITER(wait_waitv_old)
{
	struct vector_word vector[] = VECTOR(waiter->play);

	WAIT_FOR(0, lock_call(NEWER(NR_FUTEX_WAITV, vector, .a = 2)));
}
RELEASER(release_waitv_old, 1, FUTEX(FUTEX_WAKE_PRIVATE, play->word, .b = 1))

WAITER(wait_waitv_timeout)
{
	struct vector_word vector[] = VECTOR(waiter->play);
	struct timespec time = after_us(CLOCK_MONOTONIC, waiter->play->hold_us);

	WAIT_FOR(-ETIMEDOUT, lock_call(NEWER(NR_FUTEX_WAITV, vector, .a = 2, .c = (long)&time,
					     .other = (const void *)CLOCK_MONOTONIC)));
}

WAITER(wait_waitv_changed)
{
	struct vector_word vector[] = VECTOR(waiter->play);

	vector[1].value = 1;
	WAIT_FOR(-EAGAIN, lock_call(NEWER(NR_FUTEX_WAITV, vector, .a = 2)));
}

#define NEWER_WAIT(word_) NEWER(NR_FUTEX_WAIT, word_, .b = BIT_OURS, .c = PRIVATE_U32)

WAITER(wait_newer)
{
	WAIT_FOR(0, lock_call(NEWER_WAIT(waiter->play->word)));
}
RELEASER(release_newer, 1,
	 NEWER(NR_FUTEX_WAKE, play->word, .a = BIT_OURS, .b = 1, .c = PRIVATE_U32))

WAITER(wait_newer_requeue)
{
	WAIT_FOR(0, lock_call(NEWER_WAIT(waiter->play->word)));
}
RELEASER(move_newer_requeue, 1,
	 NEWER(NR_FUTEX_REQUEUE, ((const struct vector_word[])VECTOR(play)), .b = 0, .c = 1))
RELEASER(release_newer_requeue, 1,
	 NEWER(NR_FUTEX_WAKE, play->other, .a = BIT_OURS, .b = 1, .c = PRIVATE_U32))

static void act_newer_requeue(struct play *play)
{
	move_newer_requeue(play);
	usleep(play->hold_us);
	release_newer_requeue(play);
}

/* The old calls and the newer ones meet at one word. */
WAITER(wait_newer_by_old)
{
	WAIT_FOR(0, lock_call(NEWER_WAIT(waiter->play->word)));
}
RELEASER(release_newer_by_old, 1, FUTEX(FUTEX_WAKE_PRIVATE, play->word, .b = 1))

WAITER(wait_old_by_newer)
{
	WAIT_FOR(0, lock_call(FUTEX(FUTEX_WAIT_PRIVATE, waiter->play->word)));
}
RELEASER(release_old_by_newer, 1,
	 NEWER(NR_FUTEX_WAKE, play->word, .a = BIT_OURS, .b = 1, .c = PRIVATE_U32))

/* ---- what is played ---- */

#define BASIC(scene_name, act_function, ...)                                                   \
	{                                                                                      \
		.name = #scene_name, .waiter_name = "wait_" #scene_name, .hold = set_words,    \
		.wait = wait_##scene_name, .act = act_function, .n_waiters = 1, .n_sleeps = 1, \
		__VA_ARGS__                                                                    \
	}
#define RELEASED(scene_name, ...)                                                         \
	BASIC(scene_name, release_##scene_name, .charged = {{"release_" #scene_name, 1}}, \
	      __VA_ARGS__)
#define ACTED(scene_name, ...) \
	BASIC(scene_name, act_##scene_name, .charged = {{"release_" #scene_name, 1}}, __VA_ARGS__)

/* A later designator replaces an earlier one: what differs comes last. */
#pragma GCC diagnostic ignored "-Woverride-init"
const struct scene scenes[] = {
	RELEASED(wait, ),
	RELEASED(shared, ),
	RELEASED(plain, .charged = {{NULL, 0}}, .is_plain = true),
	ACTED(bitset, ),
	RELEASED(wake_op, ),
	ACTED(requeue, ),
	ACTED(cmp_requeue, .n_waiters = 2, .n_sleeps = 2,
	      .charged = {{"move_cmp_requeue", 1}, {"release_cmp_requeue", 1}}),
	RELEASED(lock_pi, .hold = hold_pi),
	RELEASED(lock_pi2, .hold = hold_pi),
	ACTED(requeue_pi, .hold = hold_other_pi),
	RELEASED(requeue_pi_free, ),
	BASIC(timeout, no_act, ),
	BASIC(timeout_bitset, no_act, ),
	BASIC(timeout_pi, no_act, .hold = hold_pi),
	BASIC(signal, act_signal, ),
	ACTED(restart, .n_sleeps = 2),
	ACTED(restart_pi, .n_sleeps = 2, .hold = hold_pi),
	BASIC(changed, no_act, .n_sleeps = 0, .n_not_slept = 1),
	BASIC(free_pi, no_act, .n_sleeps = 0, .n_not_slept = 1),
	ACTED(spurious, .n_sleeps = 2,
	      .charged = {{"disturb_spurious", 1}, {"release_spurious", 1}}),
	RELEASED(herd, .n_waiters = MAX_WAITERS, .n_sleeps = MAX_WAITERS,
		 .charged = {{"release_herd", MAX_WAITERS}}),
	BASIC(elsewhere, act_elsewhere, ),
	RELEASED(waitv, .is_newer = true),
	RELEASED(waitv_old, .is_newer = true),
	BASIC(waitv_timeout, no_act, .is_newer = true),
	BASIC(waitv_changed, no_act, .n_sleeps = 0, .n_not_slept = 1, .is_newer = true),
	RELEASED(newer, .is_newer = true),
	ACTED(newer_requeue, .is_newer = true),
	RELEASED(newer_by_old, .is_newer = true),
	RELEASED(old_by_newer, .is_newer = true),
};

const size_t n_scenes = sizeof(scenes) / sizeof(scenes[0]);
