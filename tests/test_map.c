/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/base/map.h"
#include "tests/alloc_fail.h"

#define N_KEYS 512

static void map_agrees_with_an_array_over_many_random_operations(void **state)
{
	struct dp_map map = {0};
	uint64_t values[N_KEYS] = {0}; /* 0: absent */
	uint64_t random = 1;
	size_t n = 0;

	(void)state;
	for (uint64_t step = 1; step < 200000; step++) {
		uint64_t key, value = 0;

		random = random * 6364136223846793005ULL + 1442695040888963407ULL;
		key = (random >> 33) % N_KEYS;
		if (random >> 63) {
			assert_int_equal(dp_map_set(&map, key, step), 0);
			n += values[key] == 0;
			values[key] = step;
		} else {
			dp_map_remove(&map, key);
			n -= values[key] != 0;
			values[key] = 0;
		}
		key = (random >> 20) % N_KEYS;
		assert_int_equal(dp_map_get(&map, key, &value), values[key] != 0);
		assert_int_equal(value, values[key]);
		assert_int_equal(map.n, n);
	}
	dp_map_clear(&map);
	assert_false(dp_map_get(&map, 1, NULL));
}

static int fill(struct dp_map *map)
{
	int r = 0;

	for (uint64_t key = 0; r == 0 && key < 100; key++)
		r = dp_map_set(map, key, key + 1);
	return r;
}

static int fill_and_clear(void)
{
	struct dp_map map = {0};
	int r = fill(&map);
	uint64_t value;

	for (uint64_t key = 0; key < map.n; key++) {
		assert_true(dp_map_get(&map, key, &value));
		assert_int_equal(value, key + 1);
	}
	dp_map_clear(&map);
	return r;
}

static void map_is_whole_after_a_failed_allocation(void **state)
{
	(void)state;
	ALLOC_FAIL_EACH(fill_and_clear());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(map_agrees_with_an_array_over_many_random_operations),
		cmocka_unit_test(map_is_whole_after_a_failed_allocation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
