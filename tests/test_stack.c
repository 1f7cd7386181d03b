/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "src/base/hash.h"
#include "src/stack.h"
#include "tests/alloc_fail.h"

static struct dp_stacks *new_stacks(uint32_t max_stacks, size_t max_frames)
{
	struct dp_stacks *stacks = NULL;

	assert_int_equal(dp_stacks_new(&stacks, max_stacks, max_frames), 0);
	return stacks;
}

static void assert_frames(const struct dp_stacks *stacks, uint32_t id, const uint64_t *frames,
			  size_t n_frames)
{
	size_t n = 12345;
	const uint64_t *got = dp_stacks_get(stacks, id, &n);

	assert_int_equal(n, n_frames);
	if (n)
		assert_memory_equal(got, frames, n * sizeof(*frames));
}

/* Frames that depend on @seed and the length only. */
static size_t make_frames(uint64_t seed, uint64_t *ret)
{
	size_t n = 1 + (size_t)(dp_hash_u64(seed) % 60);

	for (size_t i = 0; i < n; i++)
		ret[i] = dp_hash_u64(seed * 64 + i) & 0xffff00ffffffffffULL;
	return n;
}

static void the_same_frames_give_the_same_id(void **state)
{
	struct dp_stacks *stacks = new_stacks(100, 1000);
	const uint64_t a[] = {1, 2, 3}, same[] = {1, 2, 3};
	uint32_t id = dp_stacks_intern(stacks, a, 3);

	(void)state;
	assert_int_not_equal(id, DP_STACK_OVERFLOW);
	assert_int_equal(dp_stacks_intern(stacks, same, 3), id);
	assert_int_equal(dp_stacks_count(stacks), 1);
	assert_frames(stacks, id, a, 3);
	dp_stacks_free(stacks);
}

static void order_length_and_a_single_bit_tell_stacks_apart(void **state)
{
	struct dp_stacks *stacks = new_stacks(100, 1000);
	const uint64_t abc[] = {1, 2, 3}, cba[] = {3, 2, 1}, zero[] = {1, 2, 3, 0};
	const uint64_t bit[] = {1, 2, UINT64_C(3) | UINT64_C(1) << 63};
	uint32_t ids[6];

	(void)state;
	ids[0] = dp_stacks_intern(stacks, abc, 3);
	ids[1] = dp_stacks_intern(stacks, cba, 3);
	ids[2] = dp_stacks_intern(stacks, zero, 4);
	ids[3] = dp_stacks_intern(stacks, bit, 3);
	ids[4] = dp_stacks_intern(stacks, abc, 2);
	ids[5] = dp_stacks_intern(stacks, NULL, 0);
	for (size_t i = 0; i < 6; i++) {
		assert_int_not_equal(ids[i], DP_STACK_OVERFLOW);
		for (size_t j = 0; j < i; j++)
			assert_int_not_equal(ids[i], ids[j]);
	}
	assert_frames(stacks, ids[2], zero, 4);
	assert_frames(stacks, ids[4], abc, 2);
	assert_frames(stacks, ids[5], NULL, 0);
	dp_stacks_free(stacks);
}

/*
 * Two one-frame stacks with one hash: dp_hash_words() of two words is (((s ^ a) C + t) ^ b) C + …,
 * so for any first word there is a second that brings the sum back. Solved here for b.
 */
static void stacks_whose_hashes_are_equal_stay_apart(void **state)
{
	struct dp_stacks *stacks = new_stacks(100, 1000);
	const uint64_t multiplier = 0x9fb21c651e98df25ULL;
	const uint64_t start = 0x9e3779b97f4a7c15ULL ^ 2;
	uint64_t one[2] = {0x1000, 0x2000}, two[2] = {0x3000, 0};
	uint64_t inverse = multiplier, after_one, after_two;
	uint32_t id;

	(void)state;
	for (int i = 0; i < 6; i++) /* Newton's iteration for the inverse modulo 2^64 */
		inverse *= 2 - multiplier * inverse;
	assert_true(inverse * multiplier == 1);
	after_one = (start ^ one[0]) * multiplier + (start >> 29);
	after_two = (start ^ two[0]) * multiplier + (start >> 29);
	two[1] = after_two ^
		 (((after_one ^ one[1]) * multiplier + (after_one >> 29) - (after_two >> 29)) *
		  inverse);
	assert_int_equal(dp_hash_words(one, 2), dp_hash_words(two, 2));

	id = dp_stacks_intern(stacks, one, 2);
	assert_int_not_equal(dp_stacks_intern(stacks, two, 2), id);
	assert_int_equal(dp_stacks_intern(stacks, one, 2), id);
	assert_int_equal(dp_stacks_count(stacks), 2);
	dp_stacks_free(stacks);
}

static void many_stacks_keep_their_ids_and_frames_as_the_table_grows(void **state)
{
	const uint32_t n = 20000;
	struct dp_stacks *stacks = new_stacks(n, SIZE_MAX);
	uint64_t frames[64];

	(void)state;
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(dp_stacks_intern(stacks, frames, make_frames(i, frames)), i + 1);
	for (uint32_t i = 0; i < n; i++) {
		size_t n_frames = make_frames(i, frames);

		assert_int_equal(dp_stacks_intern(stacks, frames, n_frames), i + 1);
		assert_frames(stacks, i + 1, frames, n_frames);
	}
	assert_int_equal(dp_stacks_count(stacks), n);
	assert_int_equal(dp_stacks_overflowed(stacks), 0);
	dp_stacks_free(stacks);
}

static void a_stack_longer_than_a_chunk_is_kept_whole(void **state)
{
	const size_t n = 100000;
	struct dp_stacks *stacks = new_stacks(10, 2 * n);
	uint64_t *frames = calloc(n, sizeof(*frames));
	uint32_t id;

	(void)state;
	assert_non_null(frames);
	for (size_t i = 0; i < n; i++)
		frames[i] = i;
	id = dp_stacks_intern(stacks, frames, n);
	assert_frames(stacks, id, frames, n);
	assert_frames(stacks, dp_stacks_intern(stacks, frames, 5), frames, 5);
	assert_frames(stacks, id, frames, n);
	free(frames);
	dp_stacks_free(stacks);
}

static void stacks_beyond_the_bound_overflow_and_are_counted(void **state)
{
	struct dp_stacks *stacks = new_stacks(2, 1000);
	uint64_t frame = 1;

	(void)state;
	assert_int_equal(dp_stacks_intern(stacks, &frame, 1), 1);
	frame = 2;
	assert_int_equal(dp_stacks_intern(stacks, &frame, 1), 2);
	frame = 3;
	assert_int_equal(dp_stacks_intern(stacks, &frame, 1), DP_STACK_OVERFLOW);
	assert_int_equal(dp_stacks_intern(stacks, &frame, 1), DP_STACK_OVERFLOW);
	frame = 1;
	assert_int_equal(dp_stacks_intern(stacks, &frame, 1), 1);
	assert_int_equal(dp_stacks_overflowed(stacks), 2);
	assert_int_equal(dp_stacks_count(stacks), 2);
	dp_stacks_free(stacks);
}

static void frames_beyond_the_bound_overflow_and_shorter_stacks_still_fit(void **state)
{
	struct dp_stacks *stacks = new_stacks(100, 5);
	const uint64_t frames[] = {1, 2, 3, 4, 5, 6};

	(void)state;
	assert_int_equal(dp_stacks_intern(stacks, frames, 6), DP_STACK_OVERFLOW);
	assert_int_equal(dp_stacks_intern(stacks, frames, 3), 1);
	assert_int_equal(dp_stacks_intern(stacks, frames + 1, 3), DP_STACK_OVERFLOW);
	assert_int_equal(dp_stacks_intern(stacks, frames + 1, 2), 2);
	assert_int_equal(dp_stacks_overflowed(stacks), 2);
	dp_stacks_free(stacks);
}

static void an_id_that_was_never_given_has_no_frames(void **state)
{
	struct dp_stacks *stacks = new_stacks(100, 1000);
	uint64_t frame = 1;

	(void)state;
	dp_stacks_intern(stacks, &frame, 1);
	assert_frames(stacks, DP_STACK_OVERFLOW, NULL, 0);
	assert_frames(stacks, 2, NULL, 0);
	assert_frames(stacks, UINT32_MAX, NULL, 0);
	dp_stacks_free(stacks);
}

static int try_new_stacks(void)
{
	struct dp_stacks *const untouched = (struct dp_stacks *)&errno;
	struct dp_stacks *stacks = untouched;
	int r = dp_stacks_new(&stacks, 10, 10);

	if (r < 0)
		assert_ptr_equal(stacks, untouched);
	else
		dp_stacks_free(stacks);
	return r;
}

/* Fails each allocation while 2000 stacks are interned: what was given an id keeps it. */
static void a_stack_that_no_memory_is_left_for_overflows_and_fits_later(void **state)
{
	const uint64_t n = 2000;
	bool happened = true;

	(void)state;
	ALLOC_FAIL_EACH(try_new_stacks());
	for (unsigned long k = 1; happened; k++) {
		struct dp_stacks *stacks = new_stacks((uint32_t)n, SIZE_MAX);
		uint64_t frames[64], n_overflowed = 0;

		alloc_fail_at(k);
		for (uint64_t i = 0; i < n; i++) {
			size_t n_frames = make_frames(i, frames);
			uint32_t id = dp_stacks_intern(stacks, frames, n_frames);

			if (id == DP_STACK_OVERFLOW)
				n_overflowed++;
			else
				assert_frames(stacks, id, frames, n_frames);
		}
		happened = alloc_fail_happened();
		alloc_fail_at(0);
		assert_int_equal(n_overflowed, happened);
		assert_int_equal(dp_stacks_overflowed(stacks), n_overflowed);
		for (uint64_t i = 0; i < n; i++)
			assert_int_not_equal(
				dp_stacks_intern(stacks, frames, make_frames(i, frames)),
				DP_STACK_OVERFLOW);
		assert_int_equal(dp_stacks_count(stacks), n);
		dp_stacks_free(stacks);
	}
}

static struct dp_stack_cache *new_cache(size_t n_slots)
{
	struct dp_stack_cache *cache = NULL;

	assert_int_equal(dp_stack_cache_new(&cache, n_slots), 0);
	return cache;
}

static void the_cache_knows_what_was_put_and_nothing_else(void **state)
{
	struct dp_stack_cache *cache = new_cache(16);
	const uint64_t words[] = {1, 2, 3}, other[] = {1, 2, 4};
	uint32_t id = 77;

	(void)state;
	assert_int_equal(dp_stack_cache_get(cache, 1, words, 3, &id), 0);
	assert_int_equal(id, 77);
	dp_stack_cache_put(cache, 1, words, 3, 5);
	assert_int_equal(dp_stack_cache_get(cache, 1, words, 3, &id), 1);
	assert_int_equal(id, 5);
	assert_int_equal(dp_stack_cache_get(cache, 1, other, 3, &id), 0);
	assert_int_equal(dp_stack_cache_get(cache, 1, words, 2, &id), 0);
	dp_stack_cache_free(cache);
}

static void an_address_space_that_changed_misses(void **state)
{
	struct dp_stack_cache *cache = new_cache(16);
	const uint64_t words[] = {1, 2, 3};
	uint32_t id;

	(void)state;
	dp_stack_cache_put(cache, 1, words, 3, 5);
	assert_int_equal(dp_stack_cache_get(cache, 2, words, 3, &id), 0);
	dp_stack_cache_put(cache, 2, words, 3, 6);
	assert_int_equal(dp_stack_cache_get(cache, 2, words, 3, &id), 1);
	assert_int_equal(id, 6);
	dp_stack_cache_free(cache);
}

static void putting_a_known_key_again_replaces_its_id(void **state)
{
	struct dp_stack_cache *cache = new_cache(1);
	const uint64_t words[] = {1, 2, 3};
	uint32_t id;

	(void)state;
	dp_stack_cache_put(cache, 1, words, 3, 5);
	dp_stack_cache_put(cache, 1, words, 3, 6);
	assert_int_equal(dp_stack_cache_get(cache, 1, words, 3, &id), 1);
	assert_int_equal(id, 6);
	dp_stack_cache_free(cache);
}

static void a_set_keeps_the_last_two_keys(void **state)
{
	struct dp_stack_cache *cache = new_cache(2);
	uint64_t words[3] = {10, 20, 30};
	uint32_t id;

	(void)state;
	for (uint32_t i = 0; i < 3; i++)
		dp_stack_cache_put(cache, 1, &words[i], 1, i);
	assert_int_equal(dp_stack_cache_get(cache, 1, &words[0], 1, &id), 0);
	assert_int_equal(dp_stack_cache_get(cache, 1, &words[1], 1, &id), 1);
	assert_int_equal(id, 1);
	assert_int_equal(dp_stack_cache_get(cache, 1, &words[2], 1, &id), 1);
	assert_int_equal(id, 2);
	dp_stack_cache_free(cache);
}

static void words_beyond_an_entrys_room_are_not_remembered(void **state)
{
	struct dp_stack_cache *cache = new_cache(16);
	uint64_t words[DP_STACK_CACHE_WORDS + 1] = {1};
	uint32_t id;

	(void)state;
	dp_stack_cache_put(cache, 1, words, DP_STACK_CACHE_WORDS + 1, 5);
	assert_int_equal(dp_stack_cache_get(cache, 1, words, DP_STACK_CACHE_WORDS + 1, &id), 0);
	dp_stack_cache_put(cache, 1, words, DP_STACK_CACHE_WORDS, 5);
	assert_int_equal(dp_stack_cache_get(cache, 1, words, DP_STACK_CACHE_WORDS, &id), 1);
	dp_stack_cache_put(cache, 1, words, 0, 5);
	assert_int_equal(dp_stack_cache_get(cache, 1, words, 0, &id), 0);
	dp_stack_cache_free(cache);
}

/* Random keys of random lengths in few slots: a hit always has the id of that very key. */
static void a_crowded_cache_forgets_but_never_confuses(void **state)
{
	struct dp_stack_cache *cache = new_cache(64);
	uint64_t words[64];
	size_t n_hits = 0;

	(void)state;
	for (uint64_t i = 0; i < 50000; i++) {
		uint64_t key = dp_hash_u64(i) % 200;
		uint64_t generation = key % 3;
		size_t n = make_frames(key, words);
		uint32_t id;

		if (dp_stack_cache_get(cache, generation, words, n, &id)) {
			n_hits++;
			assert_int_equal(id, key);
		} else {
			dp_stack_cache_put(cache, generation, words, n, (uint32_t)key);
		}
	}
	assert_true(n_hits > 5000);
	dp_stack_cache_free(cache);
}

static void the_number_of_slots_must_be_a_power_of_two(void **state)
{
	struct dp_stack_cache *cache = NULL;

	(void)state;
	assert_int_equal(dp_stack_cache_new(&cache, 0), -EINVAL);
	assert_int_equal(dp_stack_cache_new(&cache, 24), -EINVAL);
	assert_null(cache);
}

static int try_new_cache(void)
{
	struct dp_stack_cache *const untouched = (struct dp_stack_cache *)&errno;
	struct dp_stack_cache *cache = untouched;
	int r = dp_stack_cache_new(&cache, 8);

	if (r < 0)
		assert_ptr_equal(cache, untouched);
	else
		dp_stack_cache_free(cache);
	return r;
}

static void a_key_that_no_memory_is_left_for_is_not_remembered(void **state)
{
	struct dp_stack_cache *cache;
	const uint64_t words[] = {1, 2, 3};
	uint64_t longer[64] = {1};
	uint32_t id;

	(void)state;
	ALLOC_FAIL_EACH(try_new_cache());
	cache = new_cache(1);
	alloc_fail_at(1);
	dp_stack_cache_put(cache, 1, words, 3, 5);
	assert_int_equal(dp_stack_cache_get(cache, 1, words, 3, &id), 0);
	dp_stack_cache_put(cache, 1, words, 3, 5);
	alloc_fail_at(1);
	dp_stack_cache_put(cache, 1, longer, 64, 6);
	alloc_fail_at(0);
	assert_int_equal(dp_stack_cache_get(cache, 1, longer, 64, &id), 0);
	assert_int_equal(dp_stack_cache_get(cache, 1, words, 3, &id), 1);
	assert_int_equal(id, 5);
	dp_stack_cache_free(cache);
}

static void nothing_can_be_freed(void **state)
{
	(void)state;
	dp_stacks_free(NULL);
	dp_stack_cache_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_frames_give_the_same_id),
		cmocka_unit_test(order_length_and_a_single_bit_tell_stacks_apart),
		cmocka_unit_test(stacks_whose_hashes_are_equal_stay_apart),
		cmocka_unit_test(many_stacks_keep_their_ids_and_frames_as_the_table_grows),
		cmocka_unit_test(a_stack_longer_than_a_chunk_is_kept_whole),
		cmocka_unit_test(stacks_beyond_the_bound_overflow_and_are_counted),
		cmocka_unit_test(frames_beyond_the_bound_overflow_and_shorter_stacks_still_fit),
		cmocka_unit_test(an_id_that_was_never_given_has_no_frames),
		cmocka_unit_test(a_stack_that_no_memory_is_left_for_overflows_and_fits_later),
		cmocka_unit_test(the_cache_knows_what_was_put_and_nothing_else),
		cmocka_unit_test(an_address_space_that_changed_misses),
		cmocka_unit_test(putting_a_known_key_again_replaces_its_id),
		cmocka_unit_test(a_set_keeps_the_last_two_keys),
		cmocka_unit_test(words_beyond_an_entrys_room_are_not_remembered),
		cmocka_unit_test(a_crowded_cache_forgets_but_never_confuses),
		cmocka_unit_test(the_number_of_slots_must_be_a_power_of_two),
		cmocka_unit_test(a_key_that_no_memory_is_left_for_is_not_remembered),
		cmocka_unit_test(nothing_can_be_freed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
