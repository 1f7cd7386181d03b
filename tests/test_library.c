/* SPDX-License-Identifier: MIT */
/* The library as its users call it, from many threads at once, against a target that counts. */
#include "src/deltaprof.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/library_fixture.h"
#include "tests/perf_fixture.h"

#define CALLERS 8
#define OBJECTS (TURNS_THREADS * TURNS_BLOCKS)

static const struct deltaprof_options exact = {
	.size = sizeof(exact), .heap_rate_bytes = 1, .block_rate_ns = 1, .seed = 1};

/* One attach to a target, with what each test may want. */
struct bench {
	struct turns turns;
	struct deltaprof *process;
	struct deltaprof_heap_profiler *heap;
	char error[DELTAPROF_ERROR_BYTES];
};

static void bench_open(struct bench *bench)
{
	*bench = (struct bench){.turns = {.pid = 0}};
	turns_start(&bench->turns);
	if (deltaprof_attach(&bench->process, bench->turns.pid, &exact, bench->error) < 0)
		fail_msg("%s", bench->error);
	assert_int_equal(deltaprof_heap_profiler_new(&bench->heap, bench->process), 0);
}

static void bench_close(struct bench *bench)
{
	deltaprof_heap_profiler_free(bench->heap);
	deltaprof_detach(bench->process);
	turns_end(&bench->turns);
}

static void take_heap(struct bench *bench, struct tally *tally)
{
	if (deltaprof_heap_profiler_profile(bench->heap, tally_write, tally, bench->error) < 0)
		fail_msg("%s", bench->error);
}

/* @tally's sums are of @n turns, and its last profile says what is in use after @n_all of them. */
static void assert_heap(const struct tally *tally, int n, int n_all)
{
	assert_int_equal(tally->sums[0], n * OBJECTS);
	assert_int_equal(tally->sums[1], n * OBJECTS * TURNS_BLOCK_BYTES);
	assert_int_equal(tally->last[2], n_all * OBJECTS / 2);
	assert_int_equal(tally->last[3], n_all * OBJECTS / 2 * TURNS_BLOCK_BYTES);
}

/* What a crowd of threads does to one profiler. */
struct crowd {
	struct deltaprof *process;
	int (*profile)(struct crowd *crowd, char *error);
	void *profiler;
	struct tally tally;
	atomic_bool stop;
	atomic_uint n_delivered, n_refused, n_odd;
};

static int crowd_heap(struct crowd *crowd, char *error)
{
	return deltaprof_heap_profiler_profile(crowd->profiler, tally_write, &crowd->tally, error);
}

static int crowd_block(struct crowd *crowd, char *error)
{
	return deltaprof_block_profiler_profile(crowd->profiler, tally_write, &crowd->tally, error);
}

static void ignore_line(void *context, const char *text)
{
	(void)context;
	(void)text;
}

/* Everything else that may be called at any time. */
static void ask_more(struct crowd *crowd)
{
	struct deltaprof_stats stats = {.size = sizeof(stats)};
	struct deltaprof_heap_profiler *own = NULL;

	if (deltaprof_heap_profiler_new(&own, crowd->process) < 0 ||
	    deltaprof_heap_profiler_start(own) <= 0 ||
	    deltaprof_state(crowd->process) != DELTAPROF_RUNNING)
		crowd->n_odd++;
	deltaprof_heap_profiler_free(own);
	deltaprof_get_stats(crowd->process, &stats);
	deltaprof_describe(crowd->process, ignore_line, NULL);
	deltaprof_cut_at(crowd->process, 0, 0);
}

static void *ask(void *context)
{
	char error[DELTAPROF_ERROR_BYTES];
	struct crowd *crowd = context;

	while (!atomic_load(&crowd->stop)) {
		int r = crowd->profile(crowd, error);

		if (r == 0)
			crowd->n_delivered++;
		else if (r == -EPIPE && strcmp(error, "the tally would not take it") == 0)
			crowd->n_refused++;
		else
			crowd->n_odd++;
		ask_more(crowd);
	}
	return NULL;
}

/* So that a slow profiler (a sanitized one) loses nothing, and more than one gets a part. */
static void await_deliveries(struct crowd *crowd, unsigned n)
{
	unsigned end = crowd->n_delivered + n;

	while ((int)(crowd->n_delivered - end) < 0)
		usleep(1000);
}

/* CALLERS threads ask while the target does @n times @what; then the rest is taken. */
static void run_crowd(struct crowd *crowd, struct turns *turns, char what, unsigned n)
{
	pthread_t threads[CALLERS];
	struct deltaprof_stats stats = {.size = sizeof(stats)};
	char error[DELTAPROF_ERROR_BYTES];

	crowd->tally.fail_every = 3;
	for (int i = 0; i < CALLERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, ask, crowd), 0);
	for (unsigned i = 0; i < n; i++) {
		turns_do(turns, what, 1);
		await_deliveries(crowd, 2);
	}
	atomic_store(&crowd->stop, true);
	for (int i = 0; i < CALLERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(crowd->n_odd, 0);
	assert_int_equal(crowd->n_delivered, crowd->tally.n_delivered);
	assert_true(crowd->n_refused > 0);
	crowd->tally.fail_every = 0;
	assert_int_equal(crowd->profile(crowd, error), 0);
	deltaprof_get_stats(crowd->process, &stats);
	assert_int_equal(stats.n_lost, 0);
}

static void many_threads_get_each_heap_delta_exactly_once(void **state)
{
	struct bench bench;
	struct crowd crowd = {.profile = crowd_heap, .tally = {.function = "keep_block"}};

	(void)state;
	bench_open(&bench);
	crowd.process = bench.process;
	crowd.profiler = bench.heap;
	run_crowd(&crowd, &bench.turns, 'a', 20);
	assert_heap(&crowd.tally, 20, 20);
	assert_true(crowd.tally.n_nonempty > 1);
	bench_close(&bench);
}

static void many_threads_get_each_wait_exactly_once(void **state)
{
	struct bench bench;
	struct deltaprof_block_profiler *block = NULL, *mutex = NULL;
	struct crowd crowd = {.profile = crowd_block, .tally = {.function = "wait_mutex"}};
	struct tally released = {.function = "release_mutex"};

	(void)state;
	bench_open(&bench);
	assert_int_equal(deltaprof_block_profiler_new(&block, bench.process), 0);
	assert_int_equal(deltaprof_mutex_profiler_new(&mutex, bench.process), 0);
	crowd.process = bench.process;
	crowd.profiler = block;
	run_crowd(&crowd, &bench.turns, 'w', 5);
	assert_int_equal(crowd.tally.sums[0], 5 * TURNS_WAITS);
	assert_int_equal(deltaprof_block_profiler_profile(mutex, tally_write, &released, NULL), 0);
	assert_int_equal(released.sums[0], 5 * TURNS_WAITS);
	assert_int_equal(released.sums[1], crowd.tally.sums[1]);
	deltaprof_block_profiler_free(block);
	deltaprof_block_profiler_free(mutex);
	bench_close(&bench);
}

static void a_writer_that_fails_gets_the_same_delta_again(void **state)
{
	struct tally tally = {.function = "keep_block", .fail_every = 1};
	struct bench bench;
	int64_t start_ns;

	(void)state;
	bench_open(&bench);
	start_ns = deltaprof_heap_profiler_start(bench.heap);
	turns_do(&bench.turns, 'a', 1);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(deltaprof_heap_profiler_profile(bench.heap, tally_write, &tally,
								 bench.error),
				 -EPIPE);
		assert_string_equal(bench.error, "the tally would not take it");
		assert_true(deltaprof_heap_profiler_start(bench.heap) == start_ns);
	}
	turns_do(&bench.turns, 'a', 1);
	tally.fail_every = 0;
	take_heap(&bench, &tally);
	assert_heap(&tally, 2, 2);
	assert_true(deltaprof_heap_profiler_start(bench.heap) > start_ns);
	take_heap(&bench, &tally);
	assert_heap(&tally, 2, 2);
	bench_close(&bench);
}

static void two_profilers_of_one_process_are_independent(void **state)
{
	struct tally tally = {.function = "keep_block"}, other_tally = {.function = "keep_block"};
	struct deltaprof_heap_profiler *other = NULL;
	struct bench bench;

	(void)state;
	bench_open(&bench);
	assert_int_equal(deltaprof_heap_profiler_new(&other, bench.process), 0);
	for (int i = 1; i <= 2; i++) {
		turns_do(&bench.turns, 'a', 1);
		take_heap(&bench, &tally);
		assert_heap(&tally, i, i);
	}
	assert_int_equal(deltaprof_heap_profiler_profile(other, tally_write, &other_tally, NULL),
			 0);
	assert_heap(&other_tally, 2, 2);
	assert_int_equal(other_tally.n_delivered, 1);
	deltaprof_heap_profiler_free(other);
	bench_close(&bench);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void a_cut_divides_what_was_before_it_from_what_came_after(void **state)
{
	struct tally before = {.function = "keep_block"}, after = {.function = "keep_block"};
	struct bench bench;

	(void)state;
	bench_open(&bench);
	turns_do(&bench.turns, 'a', 2);
	deltaprof_cut_at(bench.process, now_ns(), 0);
	turns_do(&bench.turns, 'a', 3);
	take_heap(&bench, &before);
	assert_heap(&before, 2, 2);
	deltaprof_cut_at(bench.process, 0, 0);
	take_heap(&bench, &after);
	assert_heap(&after, 3, 5);
	bench_close(&bench);
}

static void after_a_stop_the_rest_can_be_had_and_nothing_more(void **state)
{
	struct tally tally = {.function = "keep_block"};
	struct bench bench;

	(void)state;
	bench_open(&bench);
	turns_do(&bench.turns, 'a', 2);
	assert_int_equal(deltaprof_stop(bench.process), 0);
	turns_do(&bench.turns, 'a', 1);
	take_heap(&bench, &tally);
	assert_heap(&tally, 2, 2);
	bench_close(&bench);
}

static void the_state_descriptor_tells_of_the_end(void **state)
{
	struct tally tally = {.function = "keep_block"};
	struct pollfd end = {.events = POLLIN};
	struct bench bench;

	(void)state;
	bench_open(&bench);
	assert_int_equal(deltaprof_pid(bench.process), bench.turns.pid);
	assert_string_equal(deltaprof_comm(bench.process), "turns");
	end.fd = deltaprof_state_fd(bench.process);
	assert_int_equal(poll(&end, 1, 0), 0);
	assert_int_equal(deltaprof_state(bench.process), DELTAPROF_RUNNING);
	turns_do(&bench.turns, 'a', 2);
	turns_end(&bench.turns);
	assert_int_equal(poll(&end, 1, 60000), 1);
	assert_int_equal(deltaprof_state(bench.process), DELTAPROF_ENDED);
	take_heap(&bench, &tally);
	assert_int_equal(tally.sums[0], 2 * OBJECTS);
	bench_close(&bench);
}

__attribute__((noinline)) static void *own_block(void)
{
	void *volatile block = malloc(10);

	return block;
}

static void of_its_own_process_the_librarys_thread_is_left_out(void **state)
{
	struct tally tally = {.function = "own_block", .unwanted = "dp_"};
	struct deltaprof_heap_profiler *heap = NULL;
	struct deltaprof *process = NULL;
	char error[DELTAPROF_ERROR_BYTES];

	(void)state;
	if (deltaprof_attach(&process, getpid(), &exact, error) < 0)
		fail_msg("%s", error);
	assert_int_equal(deltaprof_heap_profiler_new(&heap, process), 0);
	for (int i = 0; i < 100; i++)
		free(own_block());
	/* The first one makes the library's thread allocate a lot. */
	for (int i = 0; i < 3; i++)
		assert_int_equal(deltaprof_heap_profiler_profile(heap, tally_write, &tally, error),
				 0);
	assert_int_equal(tally.n_unwanted, 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	/* A sanitizer's allocator is not the C library's. */
	assert_int_equal(tally.sums[0], 100);
	assert_int_equal(tally.sums[1], 1000);
#endif
	deltaprof_heap_profiler_free(heap);
	deltaprof_detach(process);
}

static void assert_refused(pid_t pid, const struct deltaprof_options *options, int r,
			   const char *words)
{
	struct deltaprof *process = (void *)1;
	char error[DELTAPROF_ERROR_BYTES] = "";

	assert_int_equal(deltaprof_attach(&process, pid, options, error), r);
	assert_ptr_equal(process, (void *)1);
	if (!strstr(error, words) || strchr(error, '\n'))
		fail_msg("not one sentence with '%s': '%s'", words, error);
	assert_int_equal(deltaprof_attach(&process, pid, options, NULL), r);
}

static void *wait_for_end(void *argument)
{
	struct target *tid = argument;

	tid->pid = gettid();
	sem_post(&tid->shared->ready);
	await(&tid->shared->end);
	return NULL;
}

static void what_is_no_process_to_profile_is_refused_in_a_sentence(void **state)
{
	static struct shared shared;
	struct target thread = {.shared = &shared};
	pthread_t id;
	siginfo_t info;
	pid_t zombie = fork();

	(void)state;
	if (zombie == 0)
		_exit(0);
	assert_int_equal(waitid(P_PID, (id_t)zombie, &info, WEXITED | WNOWAIT), 0);
	assert_refused(zombie, NULL, -EINVAL, "zombie");
	waitpid(zombie, NULL, 0);
	assert_refused(zombie, NULL, -ESRCH, "no such process");
	assert_refused(0, NULL, -ESRCH, "no such process");
	assert_refused(-1, NULL, -ESRCH, "no such process");
	if (getpgid(2) == 0)
		assert_refused(2, NULL, -EINVAL, "kernel thread");

	sem_init(&shared.ready, 0, 0);
	sem_init(&shared.end, 0, 0);
	assert_int_equal(pthread_create(&id, NULL, wait_for_end, &thread), 0);
	await(&shared.ready);
	assert_refused(thread.pid, NULL, -EINVAL, "thread");
	sem_post(&shared.end);
	pthread_join(id, NULL);
}

static void options_that_make_no_sense_are_refused_in_a_sentence(void **state)
{
	struct {
		struct deltaprof_options known;
		uint64_t later;
	} options = {.known = exact};

	(void)state;
	options.known.size = 0;
	assert_refused(getpid(), &options.known, -EINVAL, "size");
	options.known.size = offsetof(struct deltaprof_options, stacks) - 1;
	assert_refused(getpid(), &options.known, -EINVAL, "size");
	options.known.size = sizeof(options);
	options.later = 1;
	assert_refused(getpid(), &options.known, -EINVAL, "size");
	options.known = exact;
	options.known.profiles = 1 << 5;
	assert_refused(getpid(), &options.known, -EINVAL, "profiles");
}

static void a_profiler_of_what_is_not_observed_is_refused(void **state)
{
	struct deltaprof_block_profiler *block = (void *)1;
	struct deltaprof_heap_profiler *heap = (void *)1;
	struct deltaprof_options options = exact;
	struct deltaprof *process = NULL;
	struct turns turns;

	(void)state;
	turns_start(&turns);
	options.profiles = DELTAPROF_HEAP;
	assert_int_equal(deltaprof_attach(&process, turns.pid, &options, NULL), 0);
	assert_int_equal(deltaprof_block_profiler_new(&block, process), -EINVAL);
	assert_int_equal(deltaprof_mutex_profiler_new(&block, process), -EINVAL);
	assert_ptr_equal(block, (void *)1);
	deltaprof_detach(process);
	options.profiles = DELTAPROF_CONTENTION;
	assert_int_equal(deltaprof_attach(&process, turns.pid, &options, NULL), 0);
	assert_int_equal(deltaprof_heap_profiler_new(&heap, process), -EINVAL);
	assert_ptr_equal(heap, (void *)1);
	deltaprof_detach(process);
	turns_end(&turns);
	deltaprof_heap_profiler_free(NULL);
	deltaprof_block_profiler_free(NULL);
	deltaprof_detach(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_threads_get_each_heap_delta_exactly_once),
		cmocka_unit_test(many_threads_get_each_wait_exactly_once),
		cmocka_unit_test(a_writer_that_fails_gets_the_same_delta_again),
		cmocka_unit_test(two_profilers_of_one_process_are_independent),
		cmocka_unit_test(a_cut_divides_what_was_before_it_from_what_came_after),
		cmocka_unit_test(after_a_stop_the_rest_can_be_had_and_nothing_more),
		cmocka_unit_test(the_state_descriptor_tells_of_the_end),
		cmocka_unit_test(of_its_own_process_the_librarys_thread_is_left_out),
		cmocka_unit_test(what_is_no_process_to_profile_is_refused_in_a_sentence),
		cmocka_unit_test(options_that_make_no_sense_are_refused_in_a_sentence),
		cmocka_unit_test(a_profiler_of_what_is_not_observed_is_refused),
	};
	int skip = perf_must_skip();

	return skip ? skip : cmocka_run_group_tests(tests, NULL, NULL);
}
