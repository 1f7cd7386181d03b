/* SPDX-License-Identifier: MIT */
/* Futex calls and wake-ups, with the registers and the stack of whoever makes them. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/sampler_fixture.h"

#define PATTERN_BYTES 256
#define DWARF_SP 7
#define DWARF_IP 16

enum role { WAITER, WAKER, N_ROLES };

/* In shared->words, for each role: where its call's frame is, and the known bytes in it. */
#define I_FRAME(role) (2 * (role))
#define I_PATTERN(role) (2 * (role) + 1)

/* At the same address in the target. */
static int futex_words[2];

static uint8_t pattern_byte(size_t i)
{
	return (uint8_t)(i * 5 + 1);
}

struct call {
	int op;
	int value;
	long time_out_ns; /* 0: none */
};

/*
 * A futex call through libc, from a frame that holds known bytes. The frame is still there when
 * shared->done is raised, until shared->leave is.
 */
static __attribute__((noinline)) void call_futex(struct shared *shared, enum role role,
						 const struct call *call)
{
	struct timespec time_out = {.tv_nsec = call->time_out_ns};
	uint8_t pattern[PATTERN_BYTES];

	for (size_t i = 0; i < PATTERN_BYTES; i++)
		pattern[i] = pattern_byte(i);
	__asm__ volatile("" ::"r"(pattern) : "memory");
	shared->words[I_FRAME(role)] = (uintptr_t)__builtin_frame_address(0);
	shared->words[I_PATTERN(role)] = (uintptr_t)pattern;
	syscall(SYS_futex, &futex_words[0], call->op, call->value,
		call->time_out_ns ? &time_out : NULL, NULL, 0);
	sem_post(&shared->done);
	await(&shared->leave);
	__asm__ volatile("" ::"r"(pattern) : "memory");
}

static void *wait_for_word(void *context)
{
	static const struct call call = {.op = FUTEX_WAIT_PRIVATE};
	struct shared *shared = context;

	atomic_store(&shared->tids[WAITER], gettid());
	sem_post(&shared->ready);
	await(&shared->create);
	call_futex(shared, WAITER, &call);
	return NULL;
}

static void wake_a_waiter(struct shared *shared)
{
	static const struct call call = {.op = FUTEX_WAKE_PRIVATE, .value = 1};
	pthread_t waiter;

	atomic_store(&shared->tids[WAKER], gettid());
	if (pthread_create(&waiter, NULL, wait_for_word, shared))
		abort();
	await(&shared->go);
	call_futex(shared, WAKER, &call);
	pthread_join(waiter, NULL);
}

/* What was seen of the target's threads, with copies of what events point to. */
struct seen {
	struct dp_event event;
	struct dp_user_state user;
	uint8_t stack[8192];
};

#define MAX_SEEN 2048

struct watch {
	const struct shared *shared;
	size_t n_seen;
	struct seen seen[MAX_SEEN];
};

static struct watch *watch_new(const struct target *target)
{
	struct watch *watch = malloc(sizeof(*watch));

	assert_non_null(watch);
	watch->shared = target->shared;
	watch->n_seen = 0;
	return watch;
}

static void keep_user(struct seen *seen, const struct dp_user_state *user)
{
	assert_true(user->stack_bytes <= sizeof(seen->stack));
	seen->user = *user;
	if (user->stack)
		memcpy(seen->stack, user->stack, user->stack_bytes);
	seen->user.stack = user->stack ? seen->stack : NULL;
}

static void keep(void *context, const struct dp_event *event)
{
	struct watch *watch = context;
	struct seen *seen = &watch->seen[watch->n_seen];
	const atomic_int *tids = watch->shared->tids;

	if (event->type != DP_EVENT_FUTEX_ENTER && event->type != DP_EVENT_FUTEX_EXIT &&
	    event->type != DP_EVENT_WAKING)
		return;
	if (event->tid != (uint32_t)atomic_load(&tids[WAITER]) &&
	    event->tid != (uint32_t)atomic_load(&tids[WAKER]))
		return;
	assert_true(watch->n_seen < MAX_SEEN);
	watch->n_seen++;
	seen->event = *event;
	if (event->type == DP_EVENT_FUTEX_EXIT)
		keep_user(seen, &event->futex_exit.user);
	if (event->type == DP_EVENT_WAKING)
		keep_user(seen, &event->waking.user);
}

static bool is_call(const struct dp_event *event)
{
	return event->type == DP_EVENT_FUTEX_ENTER &&
	       event->futex_enter.uaddr >= (uintptr_t)futex_words &&
	       event->futex_enter.uaddr < (uintptr_t)(futex_words + 2);
}

/* The role's call on our words, from index @from on. */
static size_t find_call(const struct watch *watch, enum role role, size_t from)
{
	uint32_t tid = (uint32_t)atomic_load(&watch->shared->tids[role]);

	for (size_t i = from; i < watch->n_seen; i++) {
		if (watch->seen[i].event.tid == tid && is_call(&watch->seen[i].event))
			return i;
	}
	return SIZE_MAX;
}

/* Where the call that is entered at index @i returns: the thread's next FUTEX_EXIT. */
static size_t find_exit(const struct watch *watch, size_t i)
{
	uint32_t tid = watch->seen[i].event.tid;

	for (i++; i < watch->n_seen; i++) {
		if (watch->seen[i].event.tid != tid || watch->seen[i].event.type == DP_EVENT_WAKING)
			continue;
		assert_int_equal(watch->seen[i].event.type, DP_EVENT_FUTEX_EXIT);
		return i;
	}
	return SIZE_MAX;
}

/*
 * Whether the thread whose call goes from @first to @last wakes the other one, 0 or 1; *@ret_i:
 * where. (An interrupt may wake others meanwhile, and a kernel may give a wake-up to the woken
 * thread's event too, so that it comes twice.)
 */
static size_t count_woken(const struct watch *watch, size_t first, size_t last, size_t *ret_i)
{
	uint32_t waiter = (uint32_t)atomic_load(&watch->shared->tids[WAITER]);
	uint32_t waker = (uint32_t)atomic_load(&watch->shared->tids[WAKER]);
	uint32_t tid = watch->seen[first].event.tid;

	for (size_t i = first + 1; i < last; i++) {
		const struct dp_event *event = &watch->seen[i].event;

		if (event->tid != tid || event->type != DP_EVENT_WAKING ||
		    event->waking.wakee_tid != (tid == waiter ? waker : waiter))
			continue;
		*ret_i = i;
		return 1;
	}
	return 0;
}

static void await_blocked_in_futex(pid_t pid, pid_t tid)
{
	char path[64];
	char wanted[64];
	char text[256];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", pid, tid);
	snprintf(wanted, sizeof(wanted), "%d %p ", SYS_futex, (void *)&futex_words[0]);
	for (int i = 0; i < 60000; i++) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = read(fd, text, sizeof(text) - 1);

		close(fd);
		text[n > 0 ? n : 0] = '\0';
		if (strncmp(text, wanted, strlen(wanted)) == 0)
			return;
		usleep(1000);
	}
	fail_msg("the target does not wait");
}

static uint64_t user_sp(const struct dp_user_state *user)
{
	return user->regs[DWARF_SP];
}

/* The call was made by a system call instruction in libc. */
static void expect_in_libc(const struct dp_user_state *user)
{
	const uint8_t *ip = (const uint8_t *)(uintptr_t)user->regs[DWARF_IP];
	Dl_info info = {0};

	assert_true(user->has_regs);
	assert_int_not_equal(dladdr(ip, &info), 0);
	assert_non_null(strstr(info.dli_fname, "libc.so"));
#ifdef __x86_64__
	assert_int_equal(ip[-2], 0x0f);
	assert_int_equal(ip[-1], 0x05);
#endif
}

/* The stack is that of the role's call: its known bytes, and what is in the target above its frame.
 */
static void expect_stack(const struct dp_user_state *user, const struct target *target,
			 enum role role)
{
	uint64_t pattern = target->shared->words[I_PATTERN(role)];
	uint64_t frame = target->shared->words[I_FRAME(role)];
	uint64_t end = user_sp(user) + user->stack_bytes;
	uint8_t memory[256]; /* further up is what changes: the thread's own data */
	char path[64];
	int fd;

	assert_non_null(user->stack);
	assert_true(pattern > user_sp(user) && pattern + PATTERN_BYTES <= end);
	assert_true(frame > user_sp(user) && frame + sizeof(memory) <= end);
	for (size_t i = 0; i < PATTERN_BYTES; i++)
		assert_int_equal(user->stack[pattern - user_sp(user) + i], pattern_byte(i));
	snprintf(path, sizeof(path), "/proc/%d/mem", target->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(pread(fd, memory, sizeof(memory), (off_t)frame), sizeof(memory));
	close(fd);
	assert_memory_equal(memory, user->stack + (frame - user_sp(user)), sizeof(memory));
}

static void a_wait_and_the_wake_up_that_ends_it_are_seen_in_order_with_both_stacks(void **state)
{
	struct dp_sampler_options options = {.contention = true};
	struct dp_sampler *sampler;
	struct target target;
	struct watch *watch;
	size_t waits, wakes, waking = 0, woke, woken;

	(void)state;
	target_start(&target, wake_a_waiter);
	await(&target.shared->ready);
	sampler = sampler_open_with(&target, options, false);
	dp_sampler_enable(sampler);
	sem_post(&target.shared->create);
	await_blocked_in_futex(target.pid, atomic_load(&target.shared->tids[WAITER]));
	sem_post(&target.shared->go);
	await_times(&target.shared->done, 2);
	watch = watch_new(&target);
	sampler_drain(sampler, keep, watch);

	waits = find_call(watch, WAITER, 0);
	wakes = find_call(watch, WAKER, 0);
	assert_true(waits < wakes && wakes < watch->n_seen);
	assert_int_equal(watch->seen[waits].event.futex_enter.op, FUTEX_WAIT_PRIVATE);
	assert_int_equal(watch->seen[wakes].event.futex_enter.op, FUTEX_WAKE_PRIVATE);
	assert_int_equal(watch->seen[wakes].event.futex_enter.val, 1);
	woke = find_exit(watch, wakes);
	woken = find_exit(watch, waits);
	assert_true(woke < watch->n_seen && woken < watch->n_seen);
	assert_int_equal(watch->seen[woke].event.futex_exit.result, 1);
	assert_int_equal(watch->seen[woken].event.futex_exit.result, 0);
	assert_int_equal(count_woken(watch, wakes, woke, &waking), 1);
	assert_true(waking < woken);
	assert_int_equal(watch->seen[waking].event.waking.wakee_tid,
			 atomic_load(&target.shared->tids[WAITER]));

	expect_in_libc(&watch->seen[waking].user);
	expect_in_libc(&watch->seen[woken].user);
	expect_stack(&watch->seen[waking].user, &target, WAKER);
	expect_stack(&watch->seen[woken].user, &target, WAITER);
	assert_null(watch->seen[woke].user.stack); /* nobody needs the stack of one that woke */
	assert_false(watch->seen[woke].user.has_regs);

	raise_times(&target.shared->leave, 2);
	target_join(&target);
	free(watch);
	dp_sampler_close(sampler);
}

static void call_alone(struct shared *shared, const struct call *call)
{
	atomic_store(&shared->tids[WAITER], gettid());
	sem_post(&shared->ready);
	await(&shared->go);
	call_futex(shared, WAITER, call);
}

static void wait_for_another_value(struct shared *shared)
{
	static const struct call call = {.op = FUTEX_WAIT_PRIVATE, .value = 1};

	call_alone(shared, &call);
}

static void wait_until_time_is_out(struct shared *shared)
{
	static const struct call call = {.op = FUTEX_WAIT_PRIVATE, .time_out_ns = 1000000};

	call_alone(shared, &call);
}

/* A call that ends without another thread, in @result. */
static void expect_ends_alone(void (*body)(struct shared *shared), long result)
{
	struct dp_sampler_options options = {.contention = true};
	struct dp_sampler *sampler;
	struct target target;
	struct watch *watch;
	size_t call, returned, waking;

	target_start(&target, body);
	await(&target.shared->ready);
	sampler = sampler_open_with(&target, options, false);
	dp_sampler_enable(sampler);
	sem_post(&target.shared->go);
	await(&target.shared->done);
	watch = watch_new(&target);
	sampler_drain(sampler, keep, watch);
	call = find_call(watch, WAITER, 0);
	assert_true(call < watch->n_seen);
	returned = find_exit(watch, call);
	assert_true(returned < watch->n_seen);
	assert_int_equal(watch->seen[returned].event.futex_exit.result, result);
	assert_int_equal(count_woken(watch, call, returned, &waking), 0);
	/* What did not sleep is nobody's concern: it comes without. */
	if (result == -EAGAIN) {
		assert_false(watch->seen[returned].user.has_regs);
	} else {
		expect_in_libc(&watch->seen[returned].user);
		expect_stack(&watch->seen[returned].user, &target, WAITER);
	}
	sem_post(&target.shared->leave);
	target_join(&target);
	free(watch);
	dp_sampler_close(sampler);
}

static void a_call_that_does_not_wait_returns_its_error(void **state)
{
	(void)state;
	expect_ends_alone(wait_for_another_value, -EAGAIN);
}

static void a_wait_that_times_out_returns_its_error(void **state)
{
	(void)state;
	expect_ends_alone(wait_until_time_is_out, -ETIMEDOUT);
}

#define TURNS 100

/* Two threads that take turns: each waits on its word and wakes the other on the other's. */
static void take_turns(struct shared *shared, enum role role)
{
	int *mine = &futex_words[role], *others = &futex_words[1 - role];

	for (int i = 0; i < TURNS; i++) {
		while (__atomic_load_n(mine, __ATOMIC_ACQUIRE) <= i) {
			atomic_fetch_add(&shared->calls[role], 1);
			syscall(SYS_futex, mine, FUTEX_WAIT_PRIVATE, i, NULL, NULL, 0);
		}
		probed_free(probed_alloc((size_t)i, role));
		__atomic_store_n(others, i + (role == WAITER ? 1 : 2), __ATOMIC_RELEASE);
		atomic_fetch_add(&shared->calls[role], 1);
		syscall(SYS_futex, others, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	}
	sem_post(&shared->done);
	await(&shared->leave);
}

static void *take_first_turns(void *context)
{
	struct shared *shared = context;

	atomic_store(&shared->tids[WAITER], gettid());
	sem_post(&shared->ready);
	await(&shared->go);
	take_turns(shared, WAITER);
	return NULL;
}

static void take_turns_on_two_threads(struct shared *shared)
{
	pthread_t thread;

	atomic_store(&shared->tids[WAKER], gettid());
	if (pthread_create(&thread, NULL, take_first_turns, shared))
		abort();
	await(&shared->go);
	__atomic_store_n(&futex_words[WAITER], 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &futex_words[WAITER], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	atomic_fetch_add(&shared->calls[WAKER], 1);
	take_turns(shared, WAKER);
	pthread_join(thread, NULL);
}

/* Every call of the role is there, returns, and wakes the other if it says so, unless that had not
 * fallen asleep yet. Returns the wake-ups. */
static size_t check_calls(const struct watch *watch, enum role role)
{
	size_t n_calls = 0, n_wakings = 0, waking;

	for (size_t i = 0; (i = find_call(watch, role, i)) != SIZE_MAX; i++) {
		size_t last = find_exit(watch, i);
		size_t n;

		assert_true(last < watch->n_seen);
		n_calls++;
		if ((watch->seen[i].event.futex_enter.op & FUTEX_CMD_MASK) != FUTEX_WAKE)
			continue;
		n = count_woken(watch, i, last, &waking);
		assert_true((int64_t)n <= watch->seen[last].event.futex_exit.result);
		n_wakings += n;
	}
	assert_int_equal(n_calls, atomic_load(&watch->shared->calls[role]));
	return n_wakings;
}

static void no_call_is_missed_or_doubled_and_heap_events_come_beside(void **state)
{
	struct dp_sampler_options options = {.contention = true};
	struct dp_sampler_stats stats;
	struct dp_sampler *sampler;
	struct target target;
	struct watch *watch;

	(void)state;
	target_start(&target, take_turns_on_two_threads);
	await(&target.shared->ready);
	sampler = sampler_open_with(&target, options, true);
	dp_sampler_enable(sampler);
	raise_times(&target.shared->go, 2);
	await_times(&target.shared->done, 2);
	watch = watch_new(&target);
	sampler_drain(sampler, keep, watch);
	dp_sampler_get_stats(sampler, &stats);
	assert_int_equal(stats.n_lost, 0);
	assert_int_equal(stats.n_malformed, 0);
	assert_int_equal(stats.n_entry_hits, 2 * TURNS);
	assert_int_equal(stats.n_return_hits, 2 * TURNS);
	assert_int_equal(stats.n_free_hits, 2 * TURNS);
	assert_true(check_calls(watch, WAITER) + check_calls(watch, WAKER) > 0);
	raise_times(&target.shared->leave, 2);
	target_join(&target);
	free(watch);
	dp_sampler_close(sampler);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			a_wait_and_the_wake_up_that_ends_it_are_seen_in_order_with_both_stacks),
		cmocka_unit_test(a_call_that_does_not_wait_returns_its_error),
		cmocka_unit_test(a_wait_that_times_out_returns_its_error),
		cmocka_unit_test(no_call_is_missed_or_doubled_and_heap_events_come_beside),
	};
	int r = perf_must_skip();

	return r ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
