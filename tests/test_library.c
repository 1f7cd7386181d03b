/* SPDX-License-Identifier: MIT */
/*
 * The public library on a live process (tests/targets/hammer.c), which counts its own allocations:
 * whatever asks, in however many threads, and however often writing fails, what is delivered adds
 * up to that.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/deltaprof.h"
#include "tests/delivered.h"
#include "tests/perf_fixture.h"

#define N_ASKING 8
#define N_TARGET_THREADS "4"
#define OBJECT_BYTES 64 /* of the target's every object */
#define ROUNDS 8
#define BURST_MS 30 /* short enough for the rings, however slow a sanitizer makes their reader */
#define PAUSE_MS 50

enum { OBJECTS, SPACE, INUSE_OBJECTS, INUSE_SPACE };
enum { CONTENTIONS, DELAY };

struct hammer {
	pid_t pid;
	FILE *says, *hears;
};

struct fixture {
	struct hammer hammer;
	struct deltaprof *process;
	struct deltaprof_heap_profiler *heap;
};

static void start_hammer(struct hammer *hammer)
{
	int in[2], out[2];
	char line[64];

	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	hammer->pid = fork();
	assert_true(hammer->pid >= 0);
	if (hammer->pid == 0) {
		dup2(in[0], STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		close(in[1]);
		close(out[0]);
		execl(getenv("DP_HAMMER"), "hammer", "--threads", N_TARGET_THREADS, NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	hammer->hears = fdopen(in[1], "w");
	hammer->says = fdopen(out[0], "r");
	assert_non_null(fgets(line, sizeof(line), hammer->says));
	assert_int_equal(strncmp(line, "ready ", 6), 0);
}

static void end_hammer(struct hammer *hammer)
{
	fclose(hammer->hears);
	fclose(hammer->says);
	waitpid(hammer->pid, NULL, 0);
}

/* Tells it a command. Returns how many pairs of malloc and free it has made so far. */
static int64_t tell(struct hammer *hammer, const char *command)
{
	char line[64];
	long long n;

	fprintf(hammer->hears, "%s\n", command);
	fflush(hammer->hears);
	assert_non_null(fgets(line, sizeof(line), hammer->says));
	assert_int_equal(sscanf(line, "{\"pairs\":%lld}", &n), 1);
	return n;
}

static void sleep_ms(long ms)
{
	nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

/* Lets it work for a moment. Returns its count. */
static int64_t burst(struct hammer *hammer)
{
	tell(hammer, "go");
	sleep_ms(BURST_MS);
	return tell(hammer, "stop");
}

static const struct deltaprof_options exact = {
	.size = sizeof(exact), .heap_rate_bytes = 1, .block_rate_ns = 1};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char error[DELTAPROF_ERROR_BYTES] = "";

	assert_non_null(f);
	start_hammer(&f->hammer);
	if (deltaprof_attach(&f->process, f->hammer.pid, &exact, error) != 0)
		fail_msg("%s", error);
	assert_int_equal(deltaprof_heap_profiler_new(&f->heap, f->process), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	deltaprof_heap_profiler_free(f->heap);
	deltaprof_detach(f->process);
	end_hammer(&f->hammer);
	free(f);
	return 0;
}

static uint64_t n_lost(struct deltaprof *process)
{
	struct deltaprof_stats stats = {.size = sizeof(stats)};

	deltaprof_get_stats(process, &stats);
	return stats.n_lost;
}

static struct delivered nothing(void)
{
	return (struct delivered){.lock = PTHREAD_MUTEX_INITIALIZER};
}

static void ask(struct deltaprof_heap_profiler *heap, struct delivered *delivered)
{
	char error[DELTAPROF_ERROR_BYTES] = "";

	if (deltaprof_heap_profiler_profile(heap, deliver, delivered, error) != 0)
		fail_msg("%s", error);
}

/* Threads that all ask one heap profiler and one block profiler. */
struct asking {
	struct deltaprof_heap_profiler *heap;
	struct deltaprof_block_profiler *block;
	struct delivered of_heap, of_block;
	atomic_bool stop;
	atomic_uint n_failed; /* calls that returned what the writer did */
	atomic_uint n_wrong;  /* … something else */
};

static void count(struct asking *asking, int r, const char *error)
{
	if (r == DELIVERED_FAILS && strcmp(error, "told to fail") == 0)
		atomic_fetch_add(&asking->n_failed, 1);
	else if (r != 0)
		atomic_fetch_add(&asking->n_wrong, 1);
}

static void *ask_on(void *context)
{
	struct asking *asking = context;
	char error[DELTAPROF_ERROR_BYTES] = "";

	while (!atomic_load(&asking->stop)) {
		count(asking,
		      deltaprof_heap_profiler_profile(asking->heap, deliver, &asking->of_heap,
						      error),
		      error);
		count(asking,
		      deltaprof_block_profiler_profile(asking->block, deliver, &asking->of_block,
						       error),
		      error);
		sleep_ms(1);
	}
	return NULL;
}

/* Lets the target work while N_ASKING threads ask. Returns its count. */
static int64_t hammer_while_asking(struct fixture *f, struct asking *asking)
{
	pthread_t threads[N_ASKING];
	int64_t n_pairs = 0;

	for (size_t i = 0; i < N_ASKING; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, ask_on, asking), 0);
	for (int i = 0; i < ROUNDS; i++) {
		n_pairs = burst(&f->hammer);
		sleep_ms(PAUSE_MS);
	}
	atomic_store(&asking->stop, true);
	for (size_t i = 0; i < N_ASKING; i++)
		pthread_join(threads[i], NULL);
	return n_pairs;
}

static void check_shared(struct fixture *f, unsigned n_fail)
{
	struct asking asking = {.heap = f->heap, .of_heap = nothing(), .of_block = nothing()};
	struct deltaprof_stats stats = {.size = sizeof(stats)};
	int64_t n_pairs;

	assert_int_equal(deltaprof_block_profiler_new(&asking.block, f->process), 0);
	/* The first profile reads debug information, which takes its time. */
	burst(&f->hammer);
	ask(asking.heap, &asking.of_heap);
	asking.of_heap.n_fail = asking.of_block.n_fail = n_fail;
	n_pairs = hammer_while_asking(f, &asking);
	asking.of_heap.n_fail = asking.of_block.n_fail = 0;
	ask(asking.heap, &asking.of_heap);
	assert_int_equal(
		deltaprof_block_profiler_profile(asking.block, deliver, &asking.of_block, NULL), 0);
	deltaprof_get_stats(f->process, &stats);

	assert_int_equal(stats.n_lost, 0);
	assert_int_equal(asking.n_wrong, 0);
	assert_int_equal(asking.n_failed > 0, n_fail > 0);
	assert_true(n_pairs > 1000);
	assert_int_equal(asking.of_heap.sums[OBJECTS], n_pairs);
	assert_int_equal(asking.of_heap.sums[SPACE], n_pairs * OBJECT_BYTES);
	assert_int_equal(asking.of_heap.last[INUSE_OBJECTS], 0);
	assert_int_equal(asking.of_heap.last[INUSE_SPACE], 0);
	assert_true(asking.of_heap.n_of_contents > 3);
	assert_int_equal(asking.of_heap.n_gaps, 0);
	assert_true(stats.n_waits > 0);
	assert_int_equal(asking.of_block.sums[CONTENTIONS], stats.n_waits);
	assert_int_equal(asking.of_block.n_gaps, 0);
	deltaprof_block_profiler_free(asking.block);
}

static void many_threads_that_ask_one_profiler_get_each_difference_once(void **state)
{
	check_shared(*state, 0);
}

static void what_a_writer_fails_to_write_comes_again(void **state)
{
	check_shared(*state, 3);
}

static void profilers_do_not_take_from_one_another(void **state)
{
	struct fixture *f = *state;
	struct deltaprof_heap_profiler *other = NULL;
	struct delivered often = nothing(), once = nothing();
	int64_t n_pairs = 0;

	assert_int_equal(deltaprof_heap_profiler_new(&other, f->process), 0);
	for (int i = 0; i < ROUNDS; i++) {
		n_pairs = burst(&f->hammer);
		ask(other, &often);
	}
	ask(f->heap, &once);
	assert_int_equal(n_lost(f->process), 0);
	assert_int_equal(often.n_of_contents, ROUNDS);
	assert_int_equal(often.sums[OBJECTS], n_pairs);
	assert_int_equal(once.sums[OBJECTS], n_pairs);
	deltaprof_heap_profiler_free(other);
}

static void a_profile_that_is_cut_ends_where_it_was_said(void **state)
{
	struct fixture *f = *state;
	struct delivered before = nothing(), again = nothing(), after = nothing();
	struct timespec now;
	int64_t n_before, n_pairs;

	n_before = burst(&f->hammer);
	clock_gettime(CLOCK_MONOTONIC, &now);
	deltaprof_cut_at(f->process, (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec);
	n_pairs = burst(&f->hammer);
	ask(f->heap, &before);
	ask(f->heap, &again);
	deltaprof_cut_at(f->process, 0);
	ask(f->heap, &after);
	assert_int_equal(n_lost(f->process), 0);
	assert_true(n_pairs > n_before);
	assert_int_equal(before.sums[OBJECTS], n_before);
	assert_int_equal(again.n_of_contents, 0);
	assert_int_equal(again.end_ns, before.end_ns);
	assert_int_equal(after.sums[OBJECTS], n_pairs - n_before);
}

static void the_end_of_a_process_is_told_and_its_last_profile_can_be_had(void **state)
{
	struct fixture *f = *state;
	struct pollfd end = {.fd = deltaprof_state_fd(f->process), .events = POLLIN};
	struct delivered delivered = nothing();
	int64_t n_pairs;

	assert_int_equal(deltaprof_state(f->process), DELTAPROF_RUNNING);
	assert_int_equal(poll(&end, 1, 0), 0);
	n_pairs = burst(&f->hammer);
	kill(f->hammer.pid, SIGKILL);
	assert_int_equal(poll(&end, 1, 60000), 1);
	assert_int_equal(deltaprof_state(f->process), DELTAPROF_ENDED);
	assert_int_equal(deltaprof_stop(f->process), 0);
	ask(f->heap, &delivered);
	assert_int_equal(n_lost(f->process), 0);
	assert_int_equal(delivered.sums[OBJECTS], n_pairs);
}

static void what_is_not_observed_has_no_profiler(void **state)
{
	struct fixture *f = *state;
	struct deltaprof_options options = exact;
	struct deltaprof *process;
	struct deltaprof_heap_profiler *heap = NULL;
	struct deltaprof_block_profiler *block = NULL;

	options.profiles = DELTAPROF_CONTENTION;
	assert_int_equal(deltaprof_attach(&process, f->hammer.pid, &options, NULL), 0);
	assert_int_equal(deltaprof_heap_profiler_new(&heap, process), -EINVAL);
	assert_null(heap);
	deltaprof_detach(process);
	options.profiles = DELTAPROF_HEAP;
	assert_int_equal(deltaprof_attach(&process, f->hammer.pid, &options, NULL), 0);
	assert_int_equal(deltaprof_block_profiler_new(&block, process), -EINVAL);
	assert_int_equal(deltaprof_mutex_profiler_new(&block, process), -EINVAL);
	assert_null(block);
	deltaprof_detach(process);
}

static void expect_no_attach(pid_t pid, int error_number)
{
	struct deltaprof *process = NULL;
	char error[DELTAPROF_ERROR_BYTES] = "";

	assert_int_equal(deltaprof_attach(&process, pid, NULL, error), error_number);
	assert_null(process);
	assert_true(strlen(error) > 10);
	assert_null(strchr(error, '\n'));
	assert_int_equal(deltaprof_attach(&process, pid, NULL, NULL), error_number);
}

static void what_cannot_be_attached_to_is_said(void **state)
{
	struct hammer ended;
	siginfo_t info;

	(void)state;
	start_hammer(&ended);
	fclose(ended.hears);
	fclose(ended.says);
	assert_int_equal(waitid(P_PID, (id_t)ended.pid, &info, WEXITED | WNOWAIT), 0);
	expect_no_attach(ended.pid, -EINVAL);
	waitpid(ended.pid, NULL, 0);
	expect_no_attach(ended.pid, -ESRCH);
	expect_no_attach(0, -ESRCH);
	expect_no_attach(-1, -ESRCH);
}

/* Of a caller that was compiled with an older, shorter struct. */
static void options_that_are_not_there_have_their_defaults(void **state)
{
	struct fixture *f = *state;
	struct deltaprof_options options = exact;
	struct deltaprof_stats stats = {.size = offsetof(struct deltaprof_stats, n_lost)};
	struct deltaprof *process;

	options.size = offsetof(struct deltaprof_options, heap_rate_bytes);
	options.profiles = DELTAPROF_HEAP;
	assert_int_equal(deltaprof_attach(&process, f->hammer.pid, &options, NULL), 0);
	burst(&f->hammer);
	deltaprof_stop(process);
	stats.n_lost = 42;
	deltaprof_get_stats(process, &stats);
	assert_int_equal(stats.n_lost, 42);
	assert_true(stats.n_events > 0);
	stats.size = sizeof(stats);
	deltaprof_get_stats(process, &stats);
	/* 512 KiB apart, not each of them. */
	assert_true(stats.n_allocations_sampled < stats.n_allocations / 10);
	deltaprof_detach(process);
}

int main(void)
{
#define ON_A_TARGET(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		ON_A_TARGET(many_threads_that_ask_one_profiler_get_each_difference_once),
		ON_A_TARGET(what_a_writer_fails_to_write_comes_again),
		ON_A_TARGET(profilers_do_not_take_from_one_another),
		ON_A_TARGET(a_profile_that_is_cut_ends_where_it_was_said),
		ON_A_TARGET(the_end_of_a_process_is_told_and_its_last_profile_can_be_had),
		ON_A_TARGET(what_is_not_observed_has_no_profiler),
		ON_A_TARGET(options_that_are_not_there_have_their_defaults),
		cmocka_unit_test(what_cannot_be_attached_to_is_said),
	};
	int skip = perf_must_skip();

	if (skip)
		return skip;
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
