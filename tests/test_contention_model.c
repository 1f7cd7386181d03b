/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <linux/futex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/random.h"
#include "src/contention.h"

/*
 * Threads that take and give back one lock, simulated: who holds it, who waits in the kernel, what
 * ends each wait and when. The simulation writes the events that a kernel would deliver, with all
 * that it delivers besides, and keeps the truth by itself: it knows what ended a wait because it
 * ended it, and does not look at the events for it. At rate 1 the source must say the truth.
 */
#define PID 100
#define N_THREADS 8 /* ids from 1 */
#define WAKER_STACK 1000
#define KERNEL_ERESTARTSYS 512
#define MAX_EVENTS 40000

struct cell {
	int64_t n, ns;
};

struct truth {
	struct cell block[N_THREADS + 1][DP_N_WAIT_KINDS];
	struct cell mutex[N_THREADS + 1];
};

enum doing {
	RUNNING,
	HOLDING,  /* the lock, in user space */
	QUEUED,	  /* in its wait call */
	GRANTED,  /* taken off the queue by a waker, has not returned */
	EXPIRED,  /* ended by a time-out or a signal, has not returned */
	RELEASED, /* gave the lock back, and is about to enter the call that wakes */
};

struct thread {
	enum doing doing;
	enum dp_wait_kind kind;
	uint64_t enter_ns;
	uint32_t granted_by;
	int64_t result;
};

struct simulation {
	struct dp_random random;
	struct thread threads[N_THREADS + 1];
	uint64_t now_ns;
	struct truth truth;
	struct dp_event *events;
	size_t n_events;
};

static size_t pick(struct simulation *sim, size_t n)
{
	return (size_t)(dp_random_u64(&sim->random) % n);
}

static struct dp_event *emit(struct simulation *sim, enum dp_event_type type, uint32_t tid)
{
	struct dp_event *event = &sim->events[sim->n_events++];

	assert_true(sim->n_events <= MAX_EVENTS);
	*event = (struct dp_event){.type = type, .pid = PID, .tid = tid, .time_ns = sim->now_ns};
	return event;
}

static void enter(struct simulation *sim, uint32_t tid, uint32_t op)
{
	emit(sim, DP_EVENT_FUTEX_ENTER, tid)->futex_enter.op = op | FUTEX_PRIVATE_FLAG;
}

/* The kind of wait travels in a register, for the stack's callback. */
static void leave(struct simulation *sim, uint32_t tid, int64_t result)
{
	struct dp_event *event = emit(sim, DP_EVENT_FUTEX_EXIT, tid);

	event->futex_exit.result = result;
	event->futex_exit.user.regs[0] = sim->threads[tid].kind;
}

/* Once or twice, as the kernel does. */
static void waking(struct simulation *sim, uint32_t tid, uint32_t wakee_tid)
{
	for (size_t n = 1 + pick(sim, 2); n > 0; n--) {
		emit(sim, DP_EVENT_WAKING, tid)->waking.wakee_tid = wakee_tid;
		sim->now_ns += pick(sim, 4);
	}
}

static bool is_free(const struct simulation *sim)
{
	for (uint32_t tid = 1; tid <= N_THREADS; tid++) {
		if (sim->threads[tid].doing == HOLDING)
			return false;
	}
	return true;
}

static void take_lock(struct simulation *sim, uint32_t tid)
{
	struct thread *thread = &sim->threads[tid];

	if (is_free(sim)) {
		thread->doing = HOLDING;
		return;
	}
	thread->kind = (enum dp_wait_kind)pick(sim, DP_N_WAIT_KINDS);
	enter(sim, tid, pick(sim, 2) ? FUTEX_WAIT : FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME);
	thread->enter_ns = sim->now_ns;
	thread->doing = QUEUED;
	if (pick(sim, 8) == 0) {
		sim->now_ns += 3;
		leave(sim, tid, -EAGAIN);
		thread->doing = RUNNING;
	}
}

/* Another waiter is woken for nothing: the late waking of an earlier wait. It sleeps on. */
static void wake_for_nothing(struct simulation *sim, uint32_t waker)
{
	uint32_t tid = 1 + (uint32_t)pick(sim, N_THREADS);

	if (sim->threads[tid].doing == QUEUED && tid != waker)
		waking(sim, waker, tid);
}

static void give_back(struct simulation *sim, uint32_t waker)
{
	uint32_t first = (uint32_t)pick(sim, N_THREADS);

	enter(sim, waker, pick(sim, 4) ? FUTEX_WAKE : FUTEX_WAKE_OP);
	sim->now_ns += pick(sim, 20);
	for (uint32_t i = 0; i < N_THREADS; i++) {
		uint32_t tid = 1 + (first + i) % N_THREADS;
		struct thread *thread = &sim->threads[tid];

		if (thread->doing != QUEUED)
			continue;
		thread->doing = GRANTED;
		thread->granted_by = waker;
		waking(sim, waker, tid);
		break;
	}
	if (pick(sim, 4) == 0)
		wake_for_nothing(sim, waker);
	sim->now_ns += pick(sim, 20);
	leave(sim, waker, 1);
	sim->threads[waker].doing = RUNNING;
}

/* A time-out or a signal: on whatever runs, which may be a waker inside its call. */
static void expire(struct simulation *sim, uint32_t tid)
{
	uint32_t victim = 1 + (uint32_t)pick(sim, N_THREADS);

	if (victim == tid)
		return;
	if (sim->threads[victim].doing == RELEASED && pick(sim, 2)) {
		enter(sim, victim, FUTEX_WAKE);
		waking(sim, victim, tid);
		leave(sim, victim, 0);
	} else {
		waking(sim, victim, tid);
	}
	sim->threads[tid].doing = EXPIRED;
	sim->threads[tid].result = pick(sim, 2) ? -ETIMEDOUT : -KERNEL_ERESTARTSYS;
}

static void count(struct cell *cell, uint64_t delay_ns)
{
	cell->n++;
	cell->ns += (int64_t)(delay_ns ? delay_ns : 1);
}

static void return_from_wait(struct simulation *sim, uint32_t tid)
{
	struct thread *thread = &sim->threads[tid];
	struct cell *waiter = &sim->truth.block[tid][thread->kind];
	bool is_lock = thread->kind == DP_WAIT_MUTEX || thread->kind == DP_WAIT_RWLOCK;

	if (thread->doing == GRANTED) {
		count(waiter, sim->now_ns - thread->enter_ns);
		if (is_lock)
			count(&sim->truth.mutex[thread->granted_by],
			      sim->now_ns - thread->enter_ns);
		leave(sim, tid, 0);
	} else {
		count(waiter, sim->now_ns - thread->enter_ns);
		leave(sim, tid, thread->result);
	}
	thread->doing = RUNNING;
}

static void step(struct simulation *sim)
{
	uint32_t tid = 1 + (uint32_t)pick(sim, N_THREADS);
	struct thread *thread = &sim->threads[tid];

	sim->now_ns += 1 + pick(sim, 300);
	switch (thread->doing) {
	case RUNNING:
		take_lock(sim, tid);
		break;
	case HOLDING:
		if (pick(sim, 3) == 0)
			thread->doing = RELEASED;
		break;
	case RELEASED:
		give_back(sim, tid);
		break;
	case QUEUED:
		if (pick(sim, 20) == 0)
			expire(sim, tid);
		break;
	case GRANTED:
	case EXPIRED:
		return_from_wait(sim, tid);
		break;
	}
}

/* Until every thread runs and nobody holds or waits. */
static void settle(struct simulation *sim)
{
	for (bool busy = true; busy;) {
		busy = false;
		for (uint32_t tid = 1; tid <= N_THREADS; tid++) {
			struct thread *thread = &sim->threads[tid];

			sim->now_ns += 10;
			if (thread->doing == HOLDING)
				thread->doing = RELEASED;
			if (thread->doing == QUEUED)
				expire(sim, tid);
			else if (thread->doing == RELEASED)
				give_back(sim, tid);
			else if (thread->doing != RUNNING)
				return_from_wait(sim, tid);
			busy |= thread->doing != RUNNING;
		}
	}
}

static void start_simulation(struct simulation *sim, uint64_t seed)
{
	*sim = (struct simulation){.now_ns = 1000};
	dp_random_seed(&sim->random, seed);
	sim->events = calloc(MAX_EVENTS, sizeof(*sim->events));
	assert_non_null(sim->events);
}

static uint32_t stack_of(void *context, const struct dp_event *event, enum dp_wait_kind *ret_kind)
{
	(void)context;
	if (event->type == DP_EVENT_WAKING)
		return WAKER_STACK + event->tid;
	*ret_kind = (enum dp_wait_kind)event->futex_exit.user.regs[0];
	return event->tid;
}

static struct dp_contention *new_contention(size_t max_threads)
{
	const struct dp_contention_options options = {
		.pid = PID, .rate_ns = 1, .max_threads = max_threads};
	struct dp_contention *contention = NULL;

	assert_int_equal(dp_contention_new(&contention, &options, stack_of, NULL), 0);
	return contention;
}

static void feed(struct dp_contention *contention, const struct dp_event *events, size_t n)
{
	for (size_t i = 0; i < n; i++)
		assert_int_equal(dp_contention_event(contention, &events[i]), 0);
}

static void assert_balance(const struct dp_contention *contention)
{
	const struct dp_contention_stats *stats = dp_contention_get_stats(contention);

	assert_int_equal(stats->n_calls, stats->n_waits + stats->n_not_slept +
						 stats->n_other_calls + stats->n_abandoned +
						 stats->n_forgotten + stats->n_no_room +
						 dp_contention_pending(contention));
	assert_int_equal(stats->n_waits, stats->n_released + stats->n_ended_otherwise);
	assert_int_equal(stats->n_kept, stats->n_waits);
}

static struct dp_delta *new_delta(void)
{
	const struct dp_delta_spec spec = dp_contention_delta_spec(1000);
	struct dp_delta *delta = NULL;

	assert_int_equal(dp_delta_new(&delta, &spec), 0);
	return delta;
}

/* What the source said since the last call with these. */
static void read_truth(const struct dp_contention *contention, struct dp_delta *block,
		       struct dp_delta *mutex, struct truth *ret)
{
	const struct dp_delta_row *rows;
	size_t n;

	memset(ret, 0, sizeof(*ret));
	dp_delta_begin(block);
	assert_int_equal(dp_contention_feed_block(contention, block), 0);
	assert_int_equal(dp_delta_end(block, &rows, &n), 0);
	for (size_t i = 0; i < n; i++)
		ret->block[rows[i].stack][rows[i].tag] =
			(struct cell){rows[i].values[0], rows[i].values[1]};
	dp_delta_commit(block);
	dp_delta_begin(mutex);
	assert_int_equal(dp_contention_feed_mutex(contention, mutex), 0);
	assert_int_equal(dp_delta_end(mutex, &rows, &n), 0);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(rows[i].tag, 0);
		ret->mutex[rows[i].stack - WAKER_STACK] =
			(struct cell){rows[i].values[0], rows[i].values[1]};
	}
	dp_delta_commit(mutex);
}

static void the_source_says_what_happened(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 50; seed++) {
		struct simulation sim;
		struct dp_contention *contention = new_contention(N_THREADS);
		struct dp_delta *block = new_delta(), *mutex = new_delta();
		struct truth got;
		int64_t n_releases = 0;

		start_simulation(&sim, seed);
		while (sim.n_events < MAX_EVENTS / 4)
			step(&sim);
		settle(&sim);
		feed(contention, sim.events, sim.n_events);
		read_truth(contention, block, mutex, &got);
		assert_memory_equal(&got, &sim.truth, sizeof(got));
		for (uint32_t tid = 1; tid <= N_THREADS; tid++)
			n_releases += got.mutex[tid].n;
		assert_true(n_releases > 100);
		assert_int_equal(dp_contention_pending(contention), 0);
		assert_balance(contention);
		dp_delta_free(block);
		dp_delta_free(mutex);
		dp_contention_free(contention);
		free(sim.events);
	}
}

/* Feeds @n events of which some are missing; threads end and gaps are told at random. */
static void feed_with_losses(struct dp_contention *contention, struct dp_random *random,
			     const struct dp_event *events, size_t n, unsigned percent)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t luck = dp_random_u64(random);

		if (luck % 100 < percent)
			continue;
		if (luck % 1000 == 999)
			dp_contention_gap(contention);
		if (luck % 1000 == 998)
			dp_contention_thread_exit(contention, events[i].tid);
		feed(contention, &events[i], 1);
	}
}

/* Each thread makes one call that wakes nobody: whatever was left of it before is over. */
static void call_once(struct simulation *sim)
{
	for (uint32_t tid = 1; tid <= N_THREADS; tid++) {
		enter(sim, tid, FUTEX_WAKE);
		sim->now_ns += 10;
		leave(sim, tid, 0);
	}
}

static void check_after_losses(uint64_t seed, unsigned percent, bool tell_gap, size_t max_threads)
{
	struct simulation sim;
	struct dp_contention *contention = new_contention(max_threads);
	struct dp_delta *block = new_delta(), *mutex = new_delta();
	struct truth got;
	struct dp_random random;
	size_t n_before;

	dp_random_seed(&random, seed + 1000);
	start_simulation(&sim, seed);
	while (sim.n_events < MAX_EVENTS / 8)
		step(&sim);
	settle(&sim);
	feed_with_losses(contention, &random, sim.events, sim.n_events, percent);
	assert_balance(contention);
	if (tell_gap)
		dp_contention_gap(contention);
	n_before = sim.n_events;
	if (!tell_gap)
		call_once(&sim);
	read_truth(contention, block, mutex, &got);
	memset(&sim.truth, 0, sizeof(sim.truth));
	while (sim.n_events < MAX_EVENTS / 4)
		step(&sim);
	settle(&sim);
	feed(contention, &sim.events[n_before], sim.n_events - n_before);
	assert_balance(contention);
	read_truth(contention, block, mutex, &got);
	if (max_threads >= N_THREADS)
		assert_memory_equal(&got, &sim.truth, sizeof(got));
	dp_delta_free(block);
	dp_delta_free(mutex);
	dp_contention_free(contention);
	free(sim.events);
}

static void losses_that_were_told_leave_later_waits_exact(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		check_after_losses(seed, 1, true, N_THREADS);
		check_after_losses(seed, 30, true, N_THREADS);
	}
}

static void losses_that_were_not_told_heal_with_each_thread_s_next_call(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		check_after_losses(seed, 1, false, N_THREADS);
		check_after_losses(seed, 30, false, N_THREADS);
		check_after_losses(seed, 90, false, N_THREADS);
	}
}

static void too_many_threads_with_losses_do_no_harm(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++)
		check_after_losses(seed, 20, false, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_source_says_what_happened),
		cmocka_unit_test(losses_that_were_told_leave_later_waits_exact),
		cmocka_unit_test(losses_that_were_not_told_heal_with_each_thread_s_next_call),
		cmocka_unit_test(too_many_threads_with_losses_do_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
