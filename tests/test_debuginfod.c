/* SPDX-License-Identifier: MIT */
/* debuginfod without its library: the client is ours, and answers when the test lets it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/frame.h"
#include "symbolize/debuginfod.h"
#include "symbolize/debuginfod_client.h"
#include "symbolize/symbolizer.h"
#include "tests/alloc_fail.h"
#include "tests/sym_oracle.h"

/* ---- the client ---- */

struct client {
	bool is_wanted, cannot_open, ignores_stop;
	const char *path; /* of the file that is found; NULL: none */
	int error;	  /* where none is */
	sem_t may_answer;
	const atomic_bool *stop;
	atomic_int n_asked, n_open, n_closed;
	atomic_bool signals_blocked;
};

static struct client client;

bool __wrap_dp_debuginfod_client_is_wanted(void);
int __wrap_dp_debuginfod_client_open(struct dp_debuginfod_client **ret, const atomic_bool *stop);
void __wrap_dp_debuginfod_client_close(struct dp_debuginfod_client *opened);
int __wrap_dp_debuginfod_client_find(struct dp_debuginfod_client *opened, const uint8_t *build_id,
				     size_t n_bytes);

bool __wrap_dp_debuginfod_client_is_wanted(void)
{
	return client.is_wanted;
}

int __wrap_dp_debuginfod_client_open(struct dp_debuginfod_client **ret, const atomic_bool *stop)
{
	sigset_t blocked;

	pthread_sigmask(SIG_SETMASK, NULL, &blocked);
	client.signals_blocked = sigismember(&blocked, SIGINT) && sigismember(&blocked, SIGCHLD) &&
				 sigismember(&blocked, SIGPROF);
	if (client.cannot_open)
		return -ENOPKG;
	client.stop = stop;
	client.n_open++;
	*ret = (struct dp_debuginfod_client *)&client;
	return 0;
}

void __wrap_dp_debuginfod_client_close(struct dp_debuginfod_client *opened)
{
	client.n_closed += opened != NULL;
}

int __wrap_dp_debuginfod_client_find(struct dp_debuginfod_client *opened, const uint8_t *build_id,
				     size_t n_bytes)
{
	const struct timespec moment = {.tv_nsec = 1000000};

	(void)build_id;
	(void)n_bytes;
	assert_ptr_equal(opened, &client);
	client.n_asked++;
	while (sem_trywait(&client.may_answer) < 0) {
		if (atomic_load(client.stop) && !client.ignores_stop)
			return -ECANCELED;
		nanosleep(&moment, NULL);
	}
	return client.path ? open(client.path, O_RDONLY | O_CLOEXEC) : -client.error;
}

static struct dp_debuginfod *begin(void)
{
	struct dp_debuginfod *debuginfod;

	memset(&client, 0, sizeof(client));
	client.is_wanted = true;
	client.error = ENOENT;
	sem_init(&client.may_answer, 0, 0);
	assert_int_equal(dp_debuginfod_new(&debuginfod), 0);
	return debuginfod;
}

static void let_answer(unsigned int n)
{
	while (n-- > 0)
		sem_post(&client.may_answer);
}

/* Waits until @n questions are answered. */
static void wait_answered(struct dp_debuginfod *debuginfod, uint64_t n)
{
	const struct timespec moment = {.tv_nsec = 1000000};

	for (int i = 0; i < 20000 && dp_debuginfod_n_answered(debuginfod) < n; i++)
		nanosleep(&moment, NULL);
	assert_true(dp_debuginfod_n_answered(debuginfod) == n);
}

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static enum dp_debuginfod_state ask(struct dp_debuginfod *debuginfod, uint32_t id)
{
	const struct dp_separate_files *files;

	return dp_debuginfod_ask(debuginfod, (const uint8_t *)&id, sizeof(id), &files);
}

/* ---- questions ---- */

static void nothing_is_begun_where_nobody_is_to_be_asked(void **state)
{
	struct dp_debuginfod *debuginfod = (struct dp_debuginfod *)state;

	client.is_wanted = false;
	assert_int_equal(dp_debuginfod_new(&debuginfod), 1);
	assert_ptr_equal(debuginfod, state);
	dp_debuginfod_free(NULL);
}

static void each_build_id_is_asked_for_once(void **state)
{
	struct dp_debuginfod *debuginfod = begin();
	struct dp_debuginfod_stats stats;

	(void)state;
	for (int i = 0; i < 5; i++) {
		assert_int_equal(ask(debuginfod, 1), DP_DEBUGINFOD_PENDING);
		assert_int_equal(ask(debuginfod, 2), DP_DEBUGINFOD_PENDING);
	}
	let_answer(1);
	wait_answered(debuginfod, 1);
	assert_int_equal(ask(debuginfod, 1), DP_DEBUGINFOD_MISSING);
	assert_int_equal(ask(debuginfod, 2), DP_DEBUGINFOD_PENDING);
	client.error = ETIME;
	let_answer(1);
	wait_answered(debuginfod, 2);
	assert_int_equal(ask(debuginfod, 1), DP_DEBUGINFOD_MISSING);
	assert_int_equal(ask(debuginfod, 2), DP_DEBUGINFOD_MISSING);
	assert_int_equal(client.n_asked, 2);
	assert_true(client.signals_blocked);
	dp_debuginfod_get_stats(debuginfod, &stats);
	assert_int_equal(stats.n_asked, 2);
	assert_int_equal(stats.n_missing, 1);
	assert_int_equal(stats.n_failed, 1);
	assert_int_equal(stats.n_found, 0);
	dp_debuginfod_free(debuginfod);
	assert_int_equal(client.n_closed, client.n_open);
}

static void a_file_with_another_build_id_is_no_answer(void **state)
{
	struct dp_debuginfod *debuginfod = begin();
	struct dp_debuginfod_stats stats;

	(void)state;
	client.path = oracle_sample("calls-dwarf5");
	assert_int_equal(ask(debuginfod, 1), DP_DEBUGINFOD_PENDING);
	let_answer(1);
	wait_answered(debuginfod, 1);
	client.path = "/proc/self/status";
	assert_int_equal(ask(debuginfod, 2), DP_DEBUGINFOD_PENDING);
	let_answer(1);
	wait_answered(debuginfod, 2);
	assert_int_equal(ask(debuginfod, 1), DP_DEBUGINFOD_MISSING);
	assert_int_equal(ask(debuginfod, 2), DP_DEBUGINFOD_MISSING);
	dp_debuginfod_get_stats(debuginfod, &stats);
	assert_int_equal(stats.n_failed, 2);
	dp_debuginfod_free(debuginfod);
}

static void without_the_library_every_answer_is_no(void **state)
{
	struct dp_debuginfod *debuginfod = begin();

	(void)state;
	client.cannot_open = true;
	assert_int_equal(ask(debuginfod, 1), DP_DEBUGINFOD_PENDING);
	wait_answered(debuginfod, 1);
	assert_int_equal(ask(debuginfod, 1), DP_DEBUGINFOD_MISSING);
	dp_debuginfod_free(debuginfod);
}

static void a_query_that_runs_is_given_up(void **state)
{
	struct dp_debuginfod *debuginfod = begin();
	double began_s;

	(void)state;
	assert_int_equal(ask(debuginfod, 1), DP_DEBUGINFOD_PENDING);
	began_s = now_s();
	dp_debuginfod_free(debuginfod);
	assert_true(now_s() - began_s < 1.5);
	assert_int_equal(client.n_closed, client.n_open);
}

static void a_query_that_cannot_be_given_up_is_left_behind(void **state)
{
	const struct timespec moment = {.tv_nsec = 1000000};
	struct dp_debuginfod *debuginfod = begin();
	double began_s;

	(void)state;
	client.ignores_stop = true;
	assert_int_equal(ask(debuginfod, 1), DP_DEBUGINFOD_PENDING);
	while (client.n_asked == 0)
		nanosleep(&moment, NULL);
	began_s = now_s();
	dp_debuginfod_free(debuginfod);
	assert_true(now_s() - began_s > 1.5);
	assert_true(now_s() - began_s < 10);
	assert_int_equal(client.n_closed, 0);
	let_answer(1);
	while (client.n_closed == 0)
		nanosleep(&moment, NULL);
	/* It frees all, which the sanitizers look after. */
	nanosleep(&(const struct timespec){.tv_nsec = 50000000}, NULL);
}

static void questions_without_room_are_counted(void **state)
{
	struct dp_debuginfod *debuginfod = begin();
	struct dp_debuginfod_stats stats;
	uint8_t long_id[DP_MODULE_BUILD_ID_MAX + 1] = {0};
	const struct dp_separate_files *files;

	(void)state;
	assert_int_equal(dp_debuginfod_ask(debuginfod, long_id, sizeof(long_id), &files),
			 DP_DEBUGINFOD_MISSING);
	assert_int_equal(dp_debuginfod_ask(debuginfod, long_id, 0, &files), DP_DEBUGINFOD_MISSING);
	for (uint32_t id = 0; id < 4096; id++)
		assert_int_equal(ask(debuginfod, id), DP_DEBUGINFOD_PENDING);
	assert_int_equal(ask(debuginfod, 4096), DP_DEBUGINFOD_MISSING);
	dp_debuginfod_get_stats(debuginfod, &stats);
	assert_int_equal(stats.n_asked, 4096);
	assert_int_equal(stats.n_over_limit, 1);
	dp_debuginfod_free(debuginfod);
}

static int new_and_free(void)
{
	struct dp_debuginfod *debuginfod = NULL;
	int r = dp_debuginfod_new(&debuginfod);

	dp_debuginfod_free(debuginfod);
	return r;
}

static void a_failed_allocation_leaves_nothing(void **state)
{
	(void)state;
	ALLOC_FAIL_EACH(new_and_free());
}

/* ---- names ---- */

struct fixture {
	struct dp_modules *modules;
	struct dp_symbolizer *symbolizer;
	uint32_t module;
	uint64_t frame;
};

/* A function of the sample that is static, so that a stripped file knows nothing of it. */
static struct fixture set_up(const char *sample)
{
	struct oracle_function *functions;
	struct fixture f;
	uint64_t svma;
	size_t n;

	memset(&client, 0, sizeof(client));
	client.is_wanted = true;
	client.error = ENOENT;
	sem_init(&client.may_answer, 0, 0);
	functions = oracle_functions(oracle_sample("calls-dwarf5"), "", &n);
	svma = oracle_function(functions, n, "static_function")->svma;
	free(functions);
	assert_int_equal(dp_modules_new(&f.modules), 0);
	assert_int_equal(dp_symbolizer_new(&f.symbolizer, f.modules), 0);
	assert_int_equal(dp_symbolizer_use_debuginfod(f.symbolizer), 0);
	f.module = oracle_add_module(f.modules, oracle_sample(sample));
	f.frame = dp_frame_make(f.module, oracle_file_off(oracle_sample("calls-dwarf5"), svma));
	return f;
}

static void tear_down(struct fixture *f)
{
	dp_symbolizer_free(f->symbolizer);
	dp_modules_free(f->modules);
}

static struct dp_symbol resolve(const struct fixture *f, uint64_t frame)
{
	struct dp_symbol symbol;

	assert_int_equal(dp_symbolizer_resolve(f->symbolizer, frame, &symbol), 0);
	return symbol;
}

/* Waits until @n questions are answered, then updates. */
static void wait_update(const struct fixture *f, uint64_t n)
{
	const struct timespec moment = {.tv_nsec = 1000000};
	struct dp_debuginfod_stats stats;

	do {
		nanosleep(&moment, NULL);
		assert_true(dp_symbolizer_get_debuginfod_stats(f->symbolizer, &stats));
	} while (stats.n_found + stats.n_missing + stats.n_failed < n);
	dp_symbolizer_update(f->symbolizer);
}

static void a_frame_is_named_anew_when_the_file_has_come(void **state)
{
	struct fixture f = set_up("calls-stripped");
	struct dp_symbol symbol;

	(void)state;
	client.path = oracle_sample("calls-dwarf5");
	assert_int_equal(resolve(&f, f.frame).source, DP_SYMBOL_NONE);
	let_answer(1);
	wait_update(&f, 1);
	symbol = resolve(&f, f.frame);
	assert_int_equal(symbol.source, DP_SYMBOL_DWARF);
	assert_string_equal(symbol.lines[symbol.n_lines - 1].function, "static_function");
	assert_true(symbol.lines[0].line > 0);
	/* A frame that was never asked for before has it at once. */
	assert_int_equal(resolve(&f, f.frame + 1).source, DP_SYMBOL_DWARF);
	assert_int_equal(client.n_asked, 1);
	tear_down(&f);
}

static void names_do_not_change_between_updates(void **state)
{
	struct fixture f = set_up("calls-stripped");

	(void)state;
	client.path = oracle_sample("calls-dwarf5");
	assert_int_equal(resolve(&f, f.frame).source, DP_SYMBOL_NONE);
	let_answer(1);
	nanosleep(&(const struct timespec){.tv_nsec = 200000000}, NULL);
	assert_int_equal(resolve(&f, f.frame).source, DP_SYMBOL_NONE);
	wait_update(&f, 1);
	assert_int_equal(resolve(&f, f.frame).source, DP_SYMBOL_DWARF);
	tear_down(&f);
}

static void two_copies_of_a_file_are_one_question(void **state)
{
	struct fixture f = set_up("calls-stripped");
	uint32_t copy;
	char *path = oracle_run("copy=$(mktemp) && cp %s $copy && echo -n $copy",
				oracle_sample("calls-stripped"));

	(void)state;
	client.path = oracle_sample("calls-dwarf5");
	copy = oracle_add_module(f.modules, path);
	assert_int_not_equal(copy, f.module);
	assert_int_equal(resolve(&f, f.frame).source, DP_SYMBOL_NONE);
	let_answer(1);
	wait_update(&f, 1);
	assert_int_equal(resolve(&f, dp_frame_make(copy, dp_frame_offset(f.frame))).source,
			 DP_SYMBOL_DWARF);
	assert_int_equal(resolve(&f, f.frame).source, DP_SYMBOL_DWARF);
	assert_int_equal(client.n_asked, 1);
	tear_down(&f);
	unlink(path);
	free(path);
}

static void a_module_with_dwarf_is_not_asked_for(void **state)
{
	struct fixture f = set_up("calls-dwarf5");

	(void)state;
	assert_int_equal(resolve(&f, f.frame).source, DP_SYMBOL_DWARF);
	tear_down(&f);
	assert_int_equal(client.n_asked, 0);
}

static void a_module_without_build_id_is_not_asked_for(void **state)
{
	struct fixture f = set_up("calls-stripped");
	char *path = oracle_run("copy=$(mktemp) && strip -o $copy %s && echo -n $copy",
				oracle_sample("calls-no-build-id"));

	(void)state;
	resolve(&f, dp_frame_make(oracle_add_module(f.modules, path), dp_frame_offset(f.frame)));
	tear_down(&f);
	assert_int_equal(client.n_asked, 0);
	unlink(path);
	free(path);
}

static void a_miss_changes_nothing(void **state)
{
	struct fixture f = set_up("calls-stripped");

	(void)state;
	assert_int_equal(resolve(&f, f.frame).source, DP_SYMBOL_NONE);
	let_answer(1);
	wait_update(&f, 1);
	for (int i = 0; i < 3; i++) {
		dp_symbolizer_update(f.symbolizer);
		assert_int_equal(resolve(&f, f.frame + (uint64_t)i).source, DP_SYMBOL_NONE);
	}
	assert_int_equal(client.n_asked, 1);
	tear_down(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_begun_where_nobody_is_to_be_asked),
		cmocka_unit_test(each_build_id_is_asked_for_once),
		cmocka_unit_test(a_file_with_another_build_id_is_no_answer),
		cmocka_unit_test(without_the_library_every_answer_is_no),
		cmocka_unit_test(a_query_that_runs_is_given_up),
		cmocka_unit_test(a_query_that_cannot_be_given_up_is_left_behind),
		cmocka_unit_test(questions_without_room_are_counted),
		cmocka_unit_test(a_failed_allocation_leaves_nothing),
		cmocka_unit_test(a_frame_is_named_anew_when_the_file_has_come),
		cmocka_unit_test(names_do_not_change_between_updates),
		cmocka_unit_test(two_copies_of_a_file_are_one_question),
		cmocka_unit_test(a_module_with_dwarf_is_not_asked_for),
		cmocka_unit_test(a_module_without_build_id_is_not_asked_for),
		cmocka_unit_test(a_miss_changes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
