/* SPDX-License-Identifier: MIT */
/* What the profile builder does when memory runs out; tests/test_pprof.c judges what it writes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "encode/pprof.h"
#include "tests/alloc_fail.h"

static const struct dp_value_type heap_types[] = {
	{"alloc_objects", "count"},
	{"alloc_space", "bytes"},
};

static const struct dp_pprof_header heap_header = {
	.sample_types = heap_types,
	.n_sample_types = 2,
	.period_type = {"space", "bytes"},
	.period = 524288,
	.default_sample_type = "alloc_space",
	.time_nanos = INT64_C(1795368600123000000), /* 2026-11-22 17:30:00.123 UTC */
	.duration_nanos = INT64_C(10500000000),
};

/* Repeats @call once if it met the failure that was asked for, when @again says so. */
#define TRY(call)                                                   \
	do {                                                        \
		r = (call);                                         \
		if (r == -ENOMEM && again && alloc_fail_happened()) \
			r = (call);                                 \
		if (r < 0)                                          \
			goto out;                                   \
	} while (0)

/* Builds a profile with enough of everything that each table grows, and packs it. */
static int build(bool again, uint8_t **ret, size_t *ret_bytes)
{
	struct dp_pprof_mapping mapping = {.limit = 0x1000, .path = "/bin/x", .build_id = "ab"};
	struct dp_pprof_label labels[20];
	struct dp_pprof_line lines[20];
	struct dp_pprof *profile = NULL;
	uint64_t id = 77, before;
	int64_t values[] = {1, 2};
	char name[64];
	int r;

	TRY(dp_pprof_new(&profile, &heap_header));
	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "a name of some length %d", i);
		for (size_t k = 0; k < 20; k++) {
			lines[k] = (struct dp_pprof_line){name, name, "x.c", (int64_t)k % 3, i};
			labels[k] = (struct dp_pprof_label){.key = name, .text = "text"};
		}
		TRY(dp_pprof_add_comment(profile, name));
		TRY(dp_pprof_add_mapping(profile, &mapping, &id));
		before = id;
		r = dp_pprof_add_location(profile, 1, 1, lines, 20, &id);
		if (r < 0)
			assert_int_equal(id, before);
		if (r == -ENOMEM && again)
			r = dp_pprof_add_location(profile, 1, 1, lines, 20, &id);
		if (r < 0)
			goto out;
		assert_int_equal(id, i + 1);
		TRY(dp_pprof_add_sample(profile, &id, 1, values, labels, 20));
	}
	TRY(dp_pprof_pack(profile, ret, ret_bytes));
out:
	dp_pprof_free(profile);
	return r;
}

static int build_once(void)
{
	uint8_t *bytes = NULL;
	size_t n_bytes = 0;
	int r = build(false, &bytes, &n_bytes);

	if (r < 0) {
		assert_null(bytes);
		assert_int_equal(n_bytes, 0);
	}
	free(bytes);
	return r;
}

static void a_failed_allocation_is_reported_and_leaks_nothing(void **state)
{
	(void)state;
	ALLOC_FAIL_EACH(build_once());
}

static void a_call_that_failed_can_be_repeated(void **state)
{
	uint8_t *wanted = NULL, *bytes = NULL;
	size_t n_wanted = 0, n_bytes = 0;
	int happened = 1;

	(void)state;
	assert_int_equal(build(false, &wanted, &n_wanted), 0);
	for (unsigned long k = 1; happened; k++) {
		alloc_fail_at(k);
		assert_int_equal(build(true, &bytes, &n_bytes), 0);
		happened = alloc_fail_happened();
		alloc_fail_at(0);
		assert_int_equal(n_bytes, n_wanted);
		assert_memory_equal(bytes, wanted, n_wanted);
		free(bytes);
	}
	free(wanted);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_failed_allocation_is_reported_and_leaks_nothing),
		cmocka_unit_test(a_call_that_failed_can_be_repeated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
