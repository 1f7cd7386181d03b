/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "src/base/random.h"
#include "src/delta.h"
#include "src/scale.h"
#include "src/stack.h"

/*
 * godeltaprof's own acceptance tests, with its numbers, on our stacks, delta and scale. Each test
 * is named after the Go test that it stands for. What a Go source does before the delta (skip fresh
 * records, take the object size for the tag, sort contention records by cycles, merge duplicates
 * before cycles become nanoseconds) is done by the two helpers here, in the order that the library
 * does it.
 *
 * Left out, since they test the Go runtime in the process, the compiler or the encoder, not the
 * delta:
 * - TestScaleHeap, TestScaleMutex, TestScaleBlock, TestDeepStackHeap, TestBlock, TestMutex: need a
 *   running Go program whose runtime does the sampling.
 * - TestGenericsShape, TestGenericsHashKeyInPprofBuilder, TestGenericsInlineLocations: names that
 *   the Go symbolizer makes.
 * - TestRuntimeProfileRecordLayout, TestRuntimeFrameSymbolName, TestRuntimeFrameStartLine,
 *   TestRuntimeExpandFinalInlineFrame, TestRuntimeCyclesPerSecond: hooks into the Go toolchain.
 * - TestGz, and "less than 1000 bytes compressed" of TestHeapReject and TestMutexReject: the
 *   encoder's tests. That a rejected stack gives no row, and so no location, is tested here.
 */

#define RATE 524288
#define MAX_ROWS 1024

/* ---- heap ---- */

struct heap_record {
	int64_t alloc_objects, alloc_bytes, free_objects, free_bytes;
	uint32_t stack;
};

struct heap_sample {
	uint32_t stack;
	int64_t block_size;
	int64_t values[4];
};

/* Values of the delta: objects allocated (a difference) and objects in use. */
static struct dp_delta *new_heap_delta(void)
{
	const struct dp_delta_spec spec = {.n_values = 2, .delta_mask = 1, .max_rows = MAX_ROWS};
	struct dp_delta *delta = NULL;

	assert_int_equal(dp_delta_new(&delta, &spec), 0);
	return delta;
}

/* One profile: what HeapProfiler.Profile() would write for @records. */
static size_t dump_heap(struct dp_delta *delta, const struct heap_record *records, size_t n_records,
			struct heap_sample *ret)
{
	const struct dp_delta_row *rows;
	size_t n_rows, n = 0;

	dp_delta_begin(delta);
	for (size_t i = 0; i < n_records; i++) {
		const struct heap_record *r = &records[i];
		int64_t block_size = r->alloc_objects ? r->alloc_bytes / r->alloc_objects : 0;
		int64_t values[] = {r->alloc_objects, r->alloc_objects - r->free_objects};

		if (!r->alloc_objects && !r->alloc_bytes && !r->free_objects && !r->free_bytes)
			continue;
		assert_int_equal(dp_delta_add(delta, r->stack, (uint64_t)block_size, values), 0);
	}
	assert_int_equal(dp_delta_end(delta, &rows, &n_rows), 0);
	for (size_t i = 0; i < n_rows; i++) {
		struct heap_sample *s = &ret[n];
		int64_t size = (int64_t)rows[i].tag;

		s->stack = rows[i].stack;
		s->block_size = size;
		dp_scale_go_heap(rows[i].values[0], rows[i].values[0] * size, RATE, &s->values[0],
				 &s->values[1]);
		dp_scale_go_heap(rows[i].values[1], rows[i].values[1] * size, RATE, &s->values[2],
				 &s->values[3]);
		if (s->values[0] || s->values[1] || s->values[2] || s->values[3])
			n++;
	}
	dp_delta_commit(delta);
	return n;
}

#define HEAP(...)                                    \
	((const struct heap_record[]){__VA_ARGS__}), \
		sizeof((const struct heap_record[]){__VA_ARGS__}) / sizeof(struct heap_record)

static void assert_heap_sample(const struct heap_sample *sample, uint32_t stack, int64_t block_size,
			       const int64_t *values)
{
	assert_int_equal(sample->stack, stack);
	assert_int_equal(sample->block_size, block_size);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(sample->values[i], values[i]);
}

static void TestDeltaHeap(void **state)
{
	const int64_t size = 327680;
	struct dp_delta *delta = new_heap_delta();
	struct heap_sample s[4];

	(void)state;
	assert_int_equal(dump_heap(delta, HEAP({0, 0, 0, 0, 0}, {0, 0, 0, 0, 1}), s), 0);

	assert_int_equal(
		dump_heap(delta, HEAP({5, 5 * size, 0, 0, 0}, {3, 3 * size, 3, 3 * size, 1}), s),
		2);
	assert_heap_sample(&s[0], 0, size, (int64_t[]){10, 3525422, 10, 3525422});
	assert_heap_sample(&s[1], 1, size, (int64_t[]){6, 2115253, 0, 0});

	for (int i = 0; i < 3; i++) {
		assert_int_equal(
			dump_heap(delta,
				  HEAP({5, 5 * size, 0, 0, 0}, {3, 3 * size, 3, 3 * size, 1}), s),
			1);
		assert_heap_sample(&s[0], 0, size, (int64_t[]){0, 0, 10, 3525422});
	}

	assert_int_equal(
		dump_heap(delta, HEAP({5, 5 * size, 5, 5 * size, 0}, {3, 3 * size, 3, 3 * size, 1}),
			  s),
		0);

	/* The difference is scaled, not the scaled values subtracted: 6, not 17 - 10. */
	assert_int_equal(
		dump_heap(delta, HEAP({8, 8 * size, 5, 5 * size, 0}, {3, 3 * size, 3, 3 * size, 1}),
			  s),
		1);
	assert_heap_sample(&s[0], 0, size, (int64_t[]){6, 2115253, 6, 2115253});
	dp_delta_free(delta);
}

static void TestHeapDuplicates(void **state)
{
	/* Two stacks, and three more that differ from the first in a frame of the runtime, or by
	 * one in an address. */
	static const uint64_t stacks_frames[5][2] = {{0x1000, 0x2000},
						     {0x3000, 0x4000},
						     {0x9000, 0x2000},
						     {0x1000, 0x9000},
						     {0x1001, 0x2000}};
	const int64_t size = 1024;
	struct dp_delta *delta = new_heap_delta();
	struct dp_stacks *stacks = NULL;
	struct heap_record records[] = {
		{239, 239 * size, 239, 239 * size, 0}, {3, 3 * 2048, 3, 3 * 2048, 0},
		{42, 42 * size, 42, 42 * size, 1},     {7, 7 * size, 7, 7 * size, 0},
		{3, 3 * size, 3, 3 * size, 2},	       {5, 5 * size, 5, 5 * size, 3},
		{11, 11 * size, 11, 11 * size, 4},
	};
	uint32_t ids[5];
	struct heap_sample s[8];

	(void)state;
	assert_int_equal(dp_stacks_new(&stacks, 100, 1000), 0);
	for (size_t i = 0; i < 5; i++)
		ids[i] = dp_stacks_intern(stacks, stacks_frames[i], 2);
	for (size_t i = 0; i < 7; i++)
		records[i].stack = ids[records[i].stack];

	assert_int_equal(dump_heap(delta, records, 7, s), 6);
	assert_heap_sample(&s[0], ids[0], 1024, (int64_t[]){126075, 129100841, 0, 0}); /* 239 + 7 */
	assert_heap_sample(&s[1], ids[0], 2048, (int64_t[]){769, 1575937, 0, 0});
	assert_heap_sample(&s[2], ids[1], 1024, (int64_t[]){21525, 22041607, 0, 0});
	assert_heap_sample(&s[3], ids[2], 1024, (int64_t[]){1537, 1574400, 0, 0});
	assert_heap_sample(&s[4], ids[3], 1024, (int64_t[]){2562, 2624000, 0, 0});
	assert_heap_sample(&s[5], ids[4], 1024, (int64_t[]){5637, 5772801, 0, 0});

	assert_int_equal(dump_heap(delta, records, 7, s), 0);
	dp_stacks_free(stacks);
	dp_delta_free(delta);
}

#define N_RECORDS 512
#define N_FUNCTIONS 141
#define DEPTH 32

/* 512 random stacks of depth 32 over 141 addresses. */
static struct dp_stacks *random_stacks(struct dp_random *random, uint32_t *ret_ids)
{
	struct dp_stacks *stacks = NULL;

	assert_int_equal(dp_stacks_new(&stacks, N_RECORDS, (size_t)N_RECORDS * DEPTH), 0);
	for (size_t i = 0; i < N_RECORDS; i++) {
		uint64_t frames[DEPTH];

		for (size_t f = 0; f < DEPTH; f++)
			frames[f] = 0x400000 + 0x40 * (dp_random_u64(random) % N_FUNCTIONS);
		ret_ids[i] = dp_stacks_intern(stacks, frames, DEPTH);
	}
	return stacks;
}

/* Different addresses in the stacks that a profile's samples name. */
static size_t count_locations(const struct dp_stacks *stacks, const uint32_t *ids, size_t n_ids)
{
	bool seen[N_FUNCTIONS] = {false};
	size_t n_locations = 0;

	for (size_t i = 0; i < n_ids; i++) {
		size_t n;
		const uint64_t *frames = dp_stacks_get(stacks, ids[i], &n);

		assert_int_equal(n, DEPTH);
		for (size_t f = 0; f < n; f++) {
			size_t function = (frames[f] - 0x400000) / 0x40;

			n_locations += !seen[function];
			seen[function] = true;
		}
	}
	return n_locations;
}

static void TestHeapReject(void **state)
{
	struct dp_delta *delta = new_heap_delta();
	struct heap_record records[N_RECORDS];
	struct heap_sample samples[N_RECORDS];
	uint32_t ids[N_RECORDS];
	struct dp_random random;
	struct dp_stacks *stacks;

	(void)state;
	dp_random_seed(&random, 239);
	stacks = random_stacks(&random, ids);
	assert_int_equal(dp_stacks_count(stacks), N_RECORDS);
	for (size_t i = 0; i < N_RECORDS; i++) {
		int64_t n = 1 + (int64_t)(dp_random_u64(&random) % 999999);

		records[i] = (struct heap_record){n, n * 1024, n, n * 1024, ids[i]};
	}

	assert_int_equal(dump_heap(delta, records, N_RECORDS, samples), N_RECORDS);
	for (size_t i = 0; i < N_RECORDS; i++)
		assert_int_equal(samples[i].stack, ids[i]); /* in the order of the records */
	assert_int_equal(count_locations(stacks, ids, N_RECORDS), N_FUNCTIONS);
	assert_int_equal(dump_heap(delta, records, N_RECORDS, samples), 0);
	dp_stacks_free(stacks);
	dp_delta_free(delta);
}

/* Every value of scaleHeapSample that was taken from the library itself. */
static void scaleHeapSample(void **state)
{
	static const int64_t golden[][4] = {
		/* objects, size of each, scaled objects, scaled bytes */
		{1, 16, 32768, 524296},
		{1, 64, 8192, 524320},
		{1, 96, 5461, 524336},
		{1, 1024, 512, 524800},
		{3, 1024, 1537, 1574400},
		{5, 1024, 2562, 2624000},
		{11, 1024, 5637, 5772801},
		{42, 1024, 21525, 22041607},
		{246, 1024, 126075, 129100841},
		{3, 2048, 769, 1575937},
		{1, 327680, 2, 705084},
		{2, 327680, 4, 1410169},
		{3, 327680, 6, 2115253},
		{4, 327680, 8, 2820338},
		{5, 327680, 10, 3525422},
		{6, 327680, 12, 4230507},
		{7, 327680, 15, 4935592},
		{8, 327680, 17, 5640676},
		{9, 327680, 19, 6345761},
		{69, 262144, 175, 45970382},
		{1, 524288, 1, 829411},
		{1, 1048576, 1, 1212696},
		{10, 4194304, 10, 41957115},
		{0, 327680, 0, 0},
		{5, 0, 0, 0},
	};
	int64_t objects, bytes;

	(void)state;
	for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++) {
		dp_scale_go_heap(golden[i][0], golden[i][0] * golden[i][1], RATE, &objects, &bytes);
		assert_int_equal(objects, golden[i][2]);
		assert_int_equal(bytes, golden[i][3]);
		for (int64_t rate = 0; rate <= 1; rate++) {
			dp_scale_go_heap(golden[i][0], golden[i][0] * golden[i][1], rate, &objects,
					 &bytes);
			assert_int_equal(objects, golden[i][1] ? golden[i][0] : 0);
			assert_int_equal(bytes, golden[i][0] * golden[i][1]);
		}
	}
}

/* A counter that goes back is suppressed and its base stays; what follows is told from that base.
 */
static void a_heap_counter_that_goes_back_is_suppressed_until_it_catches_up(void **state)
{
	const int64_t size = 327680;
	struct dp_delta *delta = new_heap_delta();
	struct heap_sample s[2];

	(void)state;
	assert_int_equal(dump_heap(delta, HEAP({5, 5 * size, 0, 0, 0}), s), 1);
	assert_int_equal(dump_heap(delta, HEAP({4, 4 * size, 0, 0, 0}), s), 0);
	assert_int_equal(dump_heap(delta, HEAP({6, 6 * size, 6, 6 * size, 0}), s), 1);
	assert_heap_sample(&s[0], 0, size, (int64_t[]){2, 705084, 0, 0}); /* 6 - 5 */
	dp_delta_free(delta);
}

/* ---- mutex and block ---- */

struct contention_record {
	int64_t count, cycles;
	uint32_t stack;
};

struct contention {
	struct dp_delta *merge; /* no differences: sums up duplicates */
	struct dp_delta *delta;
	int64_t cycles_per_second;
};

static void open_contention(struct contention *c, int64_t cycles_per_second)
{
	const struct dp_delta_spec merge = {.n_values = 2, .max_rows = MAX_ROWS};
	const struct dp_delta_spec delta = {
		.n_values = 2, .delta_mask = 3, .negative_moves_base = true, .max_rows = MAX_ROWS};

	c->cycles_per_second = cycles_per_second;
	assert_int_equal(dp_delta_new(&c->merge, &merge), 0);
	assert_int_equal(dp_delta_new(&c->delta, &delta), 0);
}

static void close_contention(struct contention *c)
{
	dp_delta_free(c->merge);
	dp_delta_free(c->delta);
}

static int by_cycles_descending(const void *left, const void *right)
{
	const struct contention_record *a = left, *b = right;

	return (a->cycles < b->cycles) - (a->cycles > b->cycles);
}

/* One profile: what BlockProfiler.Profile() would write for @records. *@ret_rows: borrowed. */
static size_t dump_contention(struct contention *c, const struct contention_record *records,
			      size_t n_records, const struct dp_delta_row **ret_rows)
{
	struct contention_record sorted[N_RECORDS];
	const struct dp_delta_row *merged;
	size_t n_merged, n_rows;

	for (size_t i = 0; i < n_records; i++)
		sorted[i] = records[i];
	qsort(sorted, n_records, sizeof(sorted[0]), by_cycles_descending);
	dp_delta_begin(c->merge);
	for (size_t i = 0; i < n_records; i++)
		assert_int_equal(dp_delta_add(c->merge, sorted[i].stack, 0,
					      (int64_t[]){sorted[i].count, sorted[i].cycles}),
				 0);
	assert_int_equal(dp_delta_end(c->merge, &merged, &n_merged), 0);
	dp_delta_begin(c->delta);
	for (size_t i = 0; i < n_merged; i++) {
		int64_t values[] = {merged[i].values[0],
				    dp_scale_go_delay(merged[i].values[1], c->cycles_per_second)};

		assert_int_equal(dp_delta_add(c->delta, merged[i].stack, 0, values), 0);
	}
	assert_int_equal(dp_delta_end(c->delta, ret_rows, &n_rows), 0);
	dp_delta_commit(c->delta);
	return n_rows;
}

#define CONTENTION(...)                                                   \
	((const struct contention_record[]){__VA_ARGS__}),                \
		sizeof((const struct contention_record[]){__VA_ARGS__}) / \
			sizeof(struct contention_record)

static void assert_contention(const struct dp_delta_row *row, uint32_t stack, int64_t count,
			      int64_t ns)
{
	assert_int_equal(row->stack, stack);
	assert_int_equal(row->values[0], count);
	assert_int_equal(row->values[1], ns);
}

/*
 * The library's two scalers, for mutex and block profiles, are the same function since Go 1.20;
 * what is left to differ is the clock. At 2.4 GHz 239 x 42 cycles are 4182.5 ns and 240 x 42 are
 * 4200, so the interval has 18 ns: the difference of what was truncated.
 */
static void check_delta_of_contention(int64_t cycles_per_second, int64_t ns_239, int64_t ns_240)
{
	const int64_t cycles = 42;
	const struct dp_delta_row *rows;
	struct contention c;

	open_contention(&c, cycles_per_second);
	assert_int_equal(dump_contention(&c, CONTENTION({0, 0, 0}, {0, 0, 1}), &rows), 0);

	assert_int_equal(dump_contention(&c, CONTENTION({239, 239 * cycles, 0}, {0, 0, 1}), &rows),
			 1);
	assert_contention(&rows[0], 0, 239, ns_239);

	for (int i = 0; i < 2; i++)
		assert_int_equal(
			dump_contention(&c, CONTENTION({239, 239 * cycles, 0}, {0, 0, 1}), &rows),
			0);

	/* The record of stack 1 is not there any more. */
	assert_int_equal(dump_contention(&c, CONTENTION({240, 240 * cycles, 0}), &rows), 1);
	assert_contention(&rows[0], 0, 1, ns_240 - ns_239);
	close_contention(&c);
}

static void TestDeltaBlockProfile_ScalerMutexProfile(void **state)
{
	(void)state;
	check_delta_of_contention(2400000000, 4182, 4200);
}

static void TestDeltaBlockProfile_ScalerBlockProfile(void **state)
{
	(void)state;
	check_delta_of_contention(1000000000, 239 * 42, 240 * 42);
}

static void TestMutexDuplicates(void **state)
{
	const int64_t cycles = 42;
	const struct dp_delta_row *rows;
	struct contention c;

	(void)state;
	open_contention(&c, 2400000000);
	assert_int_equal(dump_contention(&c,
					 CONTENTION({239, 239 * cycles, 0}, {42, 42 * cycles, 1},
						    {7, 7 * cycles, 0}),
					 &rows),
			 2);
	/* (239 + 7) x 42 cycles are 4305 ns; truncated one by one they would be 4182 + 122. */
	assert_contention(&rows[0], 0, 239 + 7, 4305);
	assert_contention(&rows[1], 1, 42, 735);
	assert_int_equal(dump_contention(&c,
					 CONTENTION({239, 239 * cycles, 0}, {42, 42 * cycles, 1},
						    {7, 7 * cycles, 0}),
					 &rows),
			 0);
	close_contention(&c);
}

static void check_rejection_of_contention(int64_t cycles_per_second)
{
	struct contention_record records[N_RECORDS];
	const struct dp_delta_row *rows;
	uint32_t ids[N_RECORDS];
	struct dp_random random;
	struct dp_stacks *stacks;
	struct contention c;

	open_contention(&c, cycles_per_second);
	dp_random_seed(&random, 239);
	stacks = random_stacks(&random, ids);
	for (size_t i = 0; i < N_RECORDS; i++) {
		int64_t n = 1 + (int64_t)(dp_random_u64(&random) % 999999);

		records[i] = (struct contention_record){n, n * 10, ids[i]};
	}
	assert_int_equal(dump_contention(&c, records, N_RECORDS, &rows), N_RECORDS);
	for (size_t i = 0; i < N_RECORDS; i++) {
		ids[i] = rows[i].stack;
		if (i > 0) /* the biggest comes first */
			assert_true(rows[i].values[1] <= rows[i - 1].values[1]);
	}
	assert_int_equal(count_locations(stacks, ids, N_RECORDS), N_FUNCTIONS);
	assert_int_equal(dump_contention(&c, records, N_RECORDS, &rows), 0);
	dp_stacks_free(stacks);
	close_contention(&c);
}

static void TestMutexReject_ScalerMutexProfile(void **state)
{
	(void)state;
	check_rejection_of_contention(2400000000);
}

static void TestMutexReject_ScalerBlockProfile(void **state)
{
	(void)state;
	check_rejection_of_contention(1000000000);
}

/* If one half goes back the whole sample is lost, and the new values are the base all the same. */
static void a_contention_counter_that_goes_back_is_suppressed_and_becomes_the_base(void **state)
{
	const struct dp_delta_row *rows;
	struct contention c;

	(void)state;
	open_contention(&c, 1000000000);
	assert_int_equal(dump_contention(&c, CONTENTION({10, 1000, 0}), &rows), 1);
	assert_int_equal(dump_contention(&c, CONTENTION({12, 900, 0}), &rows), 0);
	assert_int_equal(dump_contention(&c, CONTENTION({13, 950, 0}), &rows), 1);
	assert_contention(&rows[0], 0, 1, 50);
	close_contention(&c);
}

static void a_contention_sample_may_have_one_half_zero(void **state)
{
	const struct dp_delta_row *rows;
	struct contention c;

	(void)state;
	open_contention(&c, 1000000000);
	assert_int_equal(dump_contention(&c, CONTENTION({10, 1000, 0}), &rows), 1);
	assert_int_equal(dump_contention(&c, CONTENTION({11, 1000, 0}), &rows), 1);
	assert_contention(&rows[0], 0, 1, 0);
	assert_int_equal(dump_contention(&c, CONTENTION({11, 1001, 0}), &rows), 1);
	assert_contention(&rows[0], 0, 0, 1);
	close_contention(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(TestDeltaHeap),
		cmocka_unit_test(TestHeapDuplicates),
		cmocka_unit_test(TestHeapReject),
		cmocka_unit_test(scaleHeapSample),
		cmocka_unit_test(a_heap_counter_that_goes_back_is_suppressed_until_it_catches_up),
		cmocka_unit_test(TestDeltaBlockProfile_ScalerMutexProfile),
		cmocka_unit_test(TestDeltaBlockProfile_ScalerBlockProfile),
		cmocka_unit_test(TestMutexDuplicates),
		cmocka_unit_test(TestMutexReject_ScalerMutexProfile),
		cmocka_unit_test(TestMutexReject_ScalerBlockProfile),
		cmocka_unit_test(
			a_contention_counter_that_goes_back_is_suppressed_and_becomes_the_base),
		cmocka_unit_test(a_contention_sample_may_have_one_half_zero),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
