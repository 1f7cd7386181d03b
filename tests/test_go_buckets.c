/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/go_buckets.h"
#include "tests/alloc_fail.h"
#include "tests/go_memory_fixture.h"

static const uint64_t stack[] = {0x401001, 0x402002, 0x403003};
static const unsigned minors[] = {16, 18, 19, 22, 26, 27};

#define N_MINORS (sizeof(minors) / sizeof(*minors))

static struct dp_go_buckets *open_list(struct go_fake *fake, enum dp_go_list list)
{
	struct dp_go_buckets *buckets;

	assert_int_equal(dp_go_buckets_new(&buckets, &fake->runtime, list), 0);
	return buckets;
}

static struct dp_go_bucket get(const struct dp_go_buckets *buckets, size_t i)
{
	struct dp_go_bucket b;

	dp_go_buckets_get(buckets, i, &b);
	return b;
}

static void expect(const struct dp_go_buckets *buckets, size_t i, uint64_t allocs, uint64_t frees)
{
	struct dp_go_bucket b = get(buckets, i);

	assert_int_equal(b.allocs, allocs);
	assert_int_equal(b.frees, frees);
}

static void set_cycle(struct go_fake *fake, uint32_t cycle)
{
	fake->cycle = fake->runtime.layout.minor >= 19 ? cycle << 1 : cycle;
}

static void published_figures_are_the_active_and_the_due_ones_in_every_version(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_MINORS; i++) {
		struct go_fake *fake = go_fake_new(minors[i]);
		struct dp_go_buckets *buckets = open_list(fake, DP_GO_HEAP);
		uint64_t *record = go_fake_add(fake, DP_GO_HEAP, 96, stack, 3);
		struct dp_go_bucket b;

		set_cycle(fake, 7);
		go_fake_set(fake, record, -1, 96, 100, 40);
		go_fake_set(fake, record, 1, 96, 5, 2); /* 7 % 3 */
		go_fake_set(fake, record, 2, 96, 0, 9);
		go_fake_set(fake, record, 0, 96, 70, 0);
		assert_int_equal(dp_go_buckets_read(buckets), 0);
		assert_int_equal(dp_go_buckets_count(buckets), 1);
		expect(buckets, 0, 105, 42);
		b = get(buckets, 0);
		assert_int_equal(b.size, 96);
		assert_int_equal(b.n_pcs, 3);
		assert_memory_equal(b.pcs, stack, sizeof(stack));
		dp_go_buckets_free(buckets);
		go_fake_free(fake);
	}
}

static void before_the_first_collection_all_cycles_count(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_MINORS; i++) {
		struct go_fake *fake = go_fake_new(minors[i]);
		struct dp_go_buckets *buckets = open_list(fake, DP_GO_HEAP);
		uint64_t *a = go_fake_add(fake, DP_GO_HEAP, 16, stack, 1);
		uint64_t *b = go_fake_add(fake, DP_GO_HEAP, 32, stack, 2);

		go_fake_set(fake, a, 2, 16, 5, 1);
		go_fake_set(fake, b, 2, 32, 4, 0);
		assert_int_equal(dp_go_buckets_read(buckets), 0);
		expect(buckets, 0, 5, 1);
		expect(buckets, 1, 4, 0);
		/* Now one bucket is published: for the other its cycles say nothing any more. */
		go_fake_set(fake, b, -1, 32, 4, 0);
		go_fake_set(fake, b, 2, 32, 0, 0);
		set_cycle(fake, 1);
		assert_int_equal(dp_go_buckets_read(buckets), 0);
		expect(buckets, 0, 0, 0);
		expect(buckets, 1, 4, 0);
		dp_go_buckets_free(buckets);
		go_fake_free(fake);
	}
}

static void only_new_buckets_are_added_and_numbers_stay(void **state)
{
	struct go_fake *fake = go_fake_new(24);
	struct dp_go_buckets *buckets = open_list(fake, DP_GO_HEAP);

	(void)state;
	for (uint64_t i = 0; i < 2000; i++) {
		uint64_t *record = go_fake_add(fake, DP_GO_HEAP, i + 1, stack, i % 4);

		go_fake_set(fake, record, -1, i + 1, i + 7, i);
		if (i % 500 == 499)
			assert_int_equal(dp_go_buckets_read(buckets), 0);
	}
	assert_int_equal(dp_go_buckets_count(buckets), 2000);
	for (size_t i = 0; i < 2000; i++) {
		expect(buckets, i, i + 7, i);
		assert_int_equal(get(buckets, i).size, i + 1);
		assert_int_equal(get(buckets, i).n_pcs, i % 4);
	}
	assert_int_equal(dp_go_buckets_get_stats(buckets)->n_refused, 0);
	assert_int_equal(dp_go_buckets_get_stats(buckets)->n_reads, 4);
	dp_go_buckets_free(buckets);
	go_fake_free(fake);
}

static void the_sentinel_of_logical_stacks_is_left_out(void **state)
{
	static const uint64_t pcs[] = {UINT64_MAX, 0x401001, 0x402002};
	struct go_fake *fake = go_fake_new(25);
	struct dp_go_buckets *buckets = open_list(fake, DP_GO_MUTEX);
	uint64_t *record = go_fake_add(fake, DP_GO_MUTEX, 0, pcs, 3);

	(void)state;
	memcpy(record, &(double){3.9}, 8);
	record[1] = 77;
	assert_int_equal(dp_go_buckets_read(buckets), 0);
	assert_int_equal(get(buckets, 0).n_pcs, 2);
	assert_memory_equal(get(buckets, 0).pcs, pcs + 1, 16);
	assert_int_equal(get(buckets, 0).count, 3);
	assert_int_equal(get(buckets, 0).cycles, 77);
	dp_go_buckets_free(buckets);
	go_fake_free(fake);
}

static void counts_are_reported_as_the_runtime_does(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_MINORS; i++) {
		struct go_fake *fake = go_fake_new(minors[i]);
		struct dp_go_buckets *block = open_list(fake, DP_GO_BLOCK);
		struct dp_go_buckets *mutex = open_list(fake, DP_GO_MUTEX);
		uint64_t *a = go_fake_add(fake, DP_GO_BLOCK, 0, stack, 2);
		uint64_t *b = go_fake_add(fake, DP_GO_MUTEX, 0, stack, 2);

		a[1] = b[1] = 900;
		if (minors[i] >= 17)
			a[0] = 0x3fe0000000000000; /* 0.5 */
		assert_int_equal(dp_go_buckets_read(block), 0);
		assert_int_equal(dp_go_buckets_read(mutex), 0);
		assert_int_equal(get(block, 0).count, 1);
		assert_int_equal(get(mutex, 0).count, 0);
		if (minors[i] >= 17)
			b[0] = 0x4059200000000000; /* 100.5 */
		else
			b[0] = 100;
		assert_int_equal(dp_go_buckets_read(mutex), 0);
		assert_int_equal(get(mutex, 0).count, 100);
		assert_int_equal(get(mutex, 0).cycles, 900);
		dp_go_buckets_free(block);
		dp_go_buckets_free(mutex);
		go_fake_free(fake);
	}
}

static void figures_whose_bytes_do_not_fit_are_kept_back(void **state)
{
	struct go_fake *fake = go_fake_new(24);
	struct dp_go_buckets *buckets = open_list(fake, DP_GO_HEAP);
	uint64_t *record = go_fake_add(fake, DP_GO_HEAP, 64, stack, 3);

	(void)state;
	go_fake_set(fake, record, -1, 64, 10, 4);
	assert_int_equal(dp_go_buckets_read(buckets), 0);
	record[0] = 12; /* the bytes are still to come */
	assert_int_equal(dp_go_buckets_read(buckets), 0);
	expect(buckets, 0, 10, 4);
	assert_int_equal(dp_go_buckets_get_stats(buckets)->n_kept, 1);
	go_fake_set(fake, record, -1, 64, 12, 4);
	assert_int_equal(dp_go_buckets_read(buckets), 0);
	expect(buckets, 0, 12, 4);
	dp_go_buckets_free(buckets);
	go_fake_free(fake);
}

/* The cycle has been added to the published figures and is not cleared yet. */
static void a_flush_that_was_preempted_in_the_middle_is_kept_back(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_MINORS; i++) {
		struct go_fake *fake = go_fake_new(minors[i]);
		struct dp_go_buckets *buckets = open_list(fake, DP_GO_HEAP);
		uint64_t *record = go_fake_add(fake, DP_GO_HEAP, 64, stack, 3);

		go_fake_set(fake, record, -1, 64, 10, 4);
		assert_int_equal(dp_go_buckets_read(buckets), 0);
		fake->heap_lock = 1;
		go_fake_set(fake, record, -1, 64, 17, 4);
		go_fake_set(fake, record, 0, 64, 7, 0);
		assert_int_equal(dp_go_buckets_read(buckets), 0);
		expect(buckets, 0, 10, 4);
		go_fake_set(fake, record, 0, 64, 0, 0);
		fake->heap_lock = 0;
		assert_int_equal(dp_go_buckets_read(buckets), 0);
		expect(buckets, 0, 17, 4);
		dp_go_buckets_free(buckets);
		go_fake_free(fake);
	}
}

/* Without bytes nothing shows that only the first of two words was added. */
static void half_an_addition_is_kept_back_also_without_bytes(void **state)
{
	struct go_fake *fake = go_fake_new(27);
	struct dp_go_buckets *buckets = open_list(fake, DP_GO_HEAP);
	uint64_t *record = go_fake_add(fake, DP_GO_HEAP, 64, stack, 3);

	(void)state;
	go_fake_set(fake, record, -1, 64, 10, 4);
	go_fake_set(fake, record, 1, 64, 7, 3);
	assert_int_equal(dp_go_buckets_read(buckets), 0);
	expect(buckets, 0, 10, 4);
	fake->heap_lock = 1;
	go_fake_set(fake, record, -1, 64, 17, 4);
	assert_int_equal(dp_go_buckets_read(buckets), 0);
	expect(buckets, 0, 10, 4);
	go_fake_set(fake, record, -1, 64, 17, 7);
	go_fake_set(fake, record, 1, 64, 0, 0);
	assert_int_equal(dp_go_buckets_read(buckets), 0);
	expect(buckets, 0, 17, 7);
	dp_go_buckets_free(buckets);
	go_fake_free(fake);
}

static void published_figures_that_go_down_are_kept_back(void **state)
{
	struct go_fake *fake = go_fake_new(27);
	struct dp_go_buckets *buckets = open_list(fake, DP_GO_HEAP);
	uint64_t *record = go_fake_add(fake, DP_GO_HEAP, 64, stack, 3);

	(void)state;
	go_fake_set(fake, record, -1, 64, 10, 4);
	assert_int_equal(dp_go_buckets_read(buckets), 0);
	go_fake_set(fake, record, -1, 64, 9, 4);
	assert_int_equal(dp_go_buckets_read(buckets), 0);
	expect(buckets, 0, 10, 4);
	go_fake_set(fake, record, -1, 64, 10, 11); /* more freed than allocated */
	assert_int_equal(dp_go_buckets_read(buckets), 0);
	expect(buckets, 0, 10, 4);
	assert_int_equal(dp_go_buckets_get_stats(buckets)->n_kept, 2);
	dp_go_buckets_free(buckets);
	go_fake_free(fake);
}

struct flusher {
	struct go_fake *fake;
	uint64_t **records;
	size_t n;
	volatile int is_over;
};

/* As the runtime does: under the lock, each record's cycle is added and then cleared. */
static void *flush_for_ever(void *data)
{
	struct flusher *f = data;

	for (uint64_t round = 1; !f->is_over; round++) {
		__atomic_store_n(&f->fake->heap_lock, 1, __ATOMIC_SEQ_CST);
		for (size_t i = 0; i < f->n; i++) {
			volatile uint64_t *r = f->records[i];

			for (unsigned k = 0; k < 2; k++) {
				r[2 + k] = 1; /* counted in the cycle that is due */
				__atomic_signal_fence(__ATOMIC_SEQ_CST);
			}
			r[0] += r[2];
			r[1] += r[3];
			r[2] = 0;
			r[3] = 0;
		}
		__atomic_store_n(&f->fake->heap_lock, 0, __ATOMIC_SEQ_CST);
		for (unsigned i = 0; i < 2000; i++)
			__asm__ volatile("pause");
	}
	return NULL;
}

/* Each flush adds one to both words of each record: whatever is read, they must be equal. */
static void no_figure_that_a_second_thread_is_changing_is_taken_torn(void **state)
{
	struct go_fake *fake = go_fake_new(27);
	struct dp_go_buckets *buckets = open_list(fake, DP_GO_HEAP);
	uint64_t *records[300], before[300] = {0};
	struct flusher f = {fake, records, 300, 0};
	pthread_t thread;

	(void)state;
	for (size_t i = 0; i < 300; i++) {
		records[i] = go_fake_add(fake, DP_GO_HEAP, 8, stack, 3);
		go_fake_set(fake, records[i], -1, 8, 1, 1);
	}
	assert_int_equal(pthread_create(&thread, NULL, flush_for_ever, &f), 0);
	for (unsigned round = 0; round < 2000; round++) {
		assert_int_equal(dp_go_buckets_read(buckets), 0);
		for (size_t i = 0; i < 300; i++) {
			struct dp_go_bucket b = get(buckets, i);

			assert_int_equal(b.allocs, b.frees);
			assert_true(b.allocs >= before[i]);
			before[i] = b.allocs;
		}
	}
	f.is_over = 1;
	pthread_join(thread, NULL);
	assert_int_equal(dp_go_buckets_read(buckets), 0);
	for (size_t i = 0; i < 300; i++)
		expect(buckets, i, records[i][0], records[i][1]);
	dp_go_buckets_free(buckets);
	go_fake_free(fake);
}

/* Spoils the newest of three buckets' header and returns how many are then read. */
static size_t read_spoilt(size_t word, uint64_t value, uint64_t *ret_refused)
{
	struct go_fake *fake = go_fake_new(24);
	struct dp_go_buckets *buckets = open_list(fake, DP_GO_HEAP);
	size_t n;

	for (unsigned i = 0; i < 3; i++) {
		go_fake_add(fake, DP_GO_HEAP, 8, stack, 3);
		if (i == 1)
			go_fake_newest(fake, DP_GO_HEAP)[word] = value;
	}
	assert_int_equal(dp_go_buckets_read(buckets), 0);
	n = dp_go_buckets_count(buckets);
	*ret_refused = dp_go_buckets_get_stats(buckets)->n_refused;
	dp_go_buckets_free(buckets);
	go_fake_free(fake);
	return n;
}

static void nodes_that_make_no_sense_end_the_list(void **state)
{
	/* word, value, how many remain */
	static const uint64_t spoilt[][3] = {
		{2, 2, 1},	    /* another list's type */
		{2, UINT64_MAX, 1}, /* no type */
		{5, 1025, 1},	    /* too long a stack */
		{5, UINT64_MAX, 1}, /* absurd */
		{4, 0, 1},	    /* objects of no size */
		{4, UINT64_MAX, 1}, /* or an absurd one */
		{1, 8, 2},	    /* next: unmapped */
		{1, 0x123457, 2},   /* not aligned */
		{1, UINT64_MAX & ~7ull, 2},
		{1, 0x7ffffffff000, 2},
	};
	uint64_t n_refused;

	(void)state;
	for (size_t i = 0; i < sizeof(spoilt) / sizeof(*spoilt); i++) {
		assert_int_equal(read_spoilt(spoilt[i][0], spoilt[i][1], &n_refused), spoilt[i][2]);
		assert_int_equal(n_refused, 1);
	}
}

static void a_list_that_bites_its_tail_ends(void **state)
{
	struct go_fake *fake = go_fake_new(24);
	struct dp_go_buckets *buckets = open_list(fake, DP_GO_HEAP);
	uint64_t *oldest;

	(void)state;
	go_fake_add(fake, DP_GO_HEAP, 8, stack, 3);
	oldest = go_fake_newest(fake, DP_GO_HEAP);
	for (unsigned i = 0; i < 5; i++)
		go_fake_add(fake, DP_GO_HEAP, 8, stack, 3);
	oldest[1] = fake->heads[DP_GO_HEAP];
	assert_int_equal(dp_go_buckets_read(buckets), 0);
	assert_int_equal(dp_go_buckets_count(buckets), 6);
	assert_int_equal(dp_go_buckets_get_stats(buckets)->n_refused, 1);
	dp_go_buckets_free(buckets);
	go_fake_free(fake);
}

static void figures_in_memory_that_went_away_are_kept(void **state)
{
	struct go_fake *fake = go_fake_new(24);
	struct dp_go_buckets *buckets = open_list(fake, DP_GO_HEAP);
	uint64_t *record = go_fake_add(fake, DP_GO_HEAP, 8, stack, 3);

	(void)state;
	go_fake_set(fake, record, -1, 8, 5, 1);
	assert_int_equal(dp_go_buckets_read(buckets), 0);
	assert_int_equal(mprotect(fake->arena, GO_FAKE_BYTES, PROT_NONE), 0);
	assert_int_equal(dp_go_buckets_read(buckets), 0);
	expect(buckets, 0, 5, 1);
	assert_true(dp_go_buckets_get_stats(buckets)->n_unreadable > 0);
	dp_go_buckets_free(buckets);
	go_fake_free(fake);
}

static void a_process_that_is_gone_is_said_and_the_figures_stay(void **state)
{
	struct go_fake *fake = go_fake_new(24);
	uint64_t *record = go_fake_add(fake, DP_GO_HEAP, 8, stack, 3);
	struct dp_go_buckets *buckets;
	pid_t pid;

	(void)state;
	go_fake_set(fake, record, -1, 8, 5, 1);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		pause();
		_exit(0);
	}
	fake->runtime.pid = pid;
	buckets = open_list(fake, DP_GO_HEAP);
	assert_int_equal(dp_go_buckets_read(buckets), 0);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_int_equal(dp_go_buckets_read(buckets), -ESRCH);
	expect(buckets, 0, 5, 1);
	dp_go_buckets_free(buckets);
	go_fake_free(fake);
}

static void a_list_that_was_not_found_cannot_be_opened(void **state)
{
	struct go_fake *fake = go_fake_new(24);
	struct dp_go_buckets *buckets = NULL;

	(void)state;
	fake->runtime.variables.buckets[DP_GO_MUTEX] = 0;
	assert_int_equal(dp_go_buckets_new(&buckets, &fake->runtime, DP_GO_MUTEX), -ENOENT);
	assert_null(buckets);
	dp_go_buckets_free(NULL);
	go_fake_free(fake);
}

static int read_anew(struct go_fake *fake)
{
	struct dp_go_buckets *buckets = NULL;
	int r = dp_go_buckets_new(&buckets, &fake->runtime, DP_GO_HEAP);

	if (r < 0) {
		assert_null(buckets);
		return r;
	}
	r = dp_go_buckets_read(buckets);
	if (r < 0) /* nothing is lost: the next time it is all there */
		assert_int_equal(dp_go_buckets_read(buckets), 0);
	assert_int_equal(dp_go_buckets_count(buckets), 100);
	for (size_t i = 0; i < 100; i++)
		expect(buckets, i, i + 1, 0);
	dp_go_buckets_free(buckets);
	return r;
}

static void every_allocation_may_fail(void **state)
{
	struct go_fake *fake = go_fake_new(24);

	(void)state;
	for (uint64_t i = 0; i < 100; i++)
		go_fake_set(fake, go_fake_add(fake, DP_GO_HEAP, 8, stack, 3), -1, 8, i + 1, 0);
	ALLOC_FAIL_EACH(read_anew(fake));
	go_fake_free(fake);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			published_figures_are_the_active_and_the_due_ones_in_every_version),
		cmocka_unit_test(before_the_first_collection_all_cycles_count),
		cmocka_unit_test(only_new_buckets_are_added_and_numbers_stay),
		cmocka_unit_test(the_sentinel_of_logical_stacks_is_left_out),
		cmocka_unit_test(counts_are_reported_as_the_runtime_does),
		cmocka_unit_test(figures_whose_bytes_do_not_fit_are_kept_back),
		cmocka_unit_test(a_flush_that_was_preempted_in_the_middle_is_kept_back),
		cmocka_unit_test(half_an_addition_is_kept_back_also_without_bytes),
		cmocka_unit_test(published_figures_that_go_down_are_kept_back),
		cmocka_unit_test(no_figure_that_a_second_thread_is_changing_is_taken_torn),
		cmocka_unit_test(nodes_that_make_no_sense_end_the_list),
		cmocka_unit_test(a_list_that_bites_its_tail_ends),
		cmocka_unit_test(figures_in_memory_that_went_away_are_kept),
		cmocka_unit_test(a_process_that_is_gone_is_said_and_the_figures_stay),
		cmocka_unit_test(a_list_that_was_not_found_cannot_be_opened),
		cmocka_unit_test(every_allocation_may_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
