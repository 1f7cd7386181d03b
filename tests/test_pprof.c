/* SPDX-License-Identifier: MIT */
/*
 * What is written is judged by others: Go's pprof, and protoc for what pprof does not show. A tool
 * that is missing fails the test.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "encode/pprof.h"

/* $f is the profile. */
#define PPROF "go tool pprof -symbolize=none "
#define PPROF_RAW PPROF "-raw $f"
#define PROTOC "protoc -I " DP_PROTO_DIR " --decode=perftools.profiles.Profile profile.proto <$f"

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

/* What shell @command, which must succeed, says about the file $f that holds @bytes. */
static char *ask(const char *command, const void *bytes, size_t n_bytes)
{
	char path[] = "/tmp/deltaprof-test-XXXXXX", line[1024], *output = NULL;
	int fd = mkstemp(path), status;
	size_t capacity = 0;
	FILE *pipe;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n_bytes), n_bytes);
	close(fd);
	snprintf(line, sizeof(line), "exec 2>&1; export TZ=UTC f=%s; %s", path, command);
	pipe = popen(line, "r");
	if (!pipe || getdelim(&output, &capacity, '\0', pipe) < 0 || !output)
		abort();
	status = pclose(pipe);
	unlink(path);
	if (status != 0)
		fail_msg("'%s' failed (status %d) and said: %s", line, status, output);
	return output;
}

static char *ask_about(const char *command, const struct dp_pprof *profile)
{
	uint8_t *bytes = NULL;
	size_t n_bytes = 0;
	char *output;

	assert_int_equal(dp_pprof_pack(profile, &bytes, &n_bytes), 0);
	output = ask(command, bytes, n_bytes);
	free(bytes);
	return output;
}

static void assert_has(const char *output, const char *wanted)
{
	if (!strstr(output, wanted))
		fail_msg("no '%s' in: %s", wanted, output);
}

static void assert_has_not(const char *output, const char *unwanted)
{
	if (strstr(output, unwanted))
		fail_msg("'%s' is in: %s", unwanted, output);
}

static struct dp_pprof *new_profile(const struct dp_pprof_header *header)
{
	struct dp_pprof *profile = NULL;

	assert_int_equal(dp_pprof_new(&profile, header), 0);
	assert_non_null(profile);
	return profile;
}

/* A location without a mapping whose one line is in @function. */
static uint64_t add_plain(struct dp_pprof *profile, const char *function)
{
	struct dp_pprof_line line = {function, function, "plain.c", 1, 2};
	uint64_t id = 0;

	assert_int_equal(dp_pprof_add_location(profile, 0, 0x1000, &line, 1, &id), 0);
	return id;
}

static void add_one(struct dp_pprof *profile, uint64_t location, int64_t count, int64_t bytes)
{
	int64_t values[] = {count, bytes};

	assert_int_equal(dp_pprof_add_sample(profile, &location, 1, values, NULL, 0), 0);
}

static void a_profile_needs_a_sample_type(void **state)
{
	struct dp_pprof_header header = heap_header;
	struct dp_pprof *profile = (void *)1;

	(void)state;
	header.n_sample_types = 0;
	assert_int_equal(dp_pprof_new(&profile, &header), -EINVAL);
	assert_ptr_equal(profile, (void *)1);
	dp_pprof_free(NULL);
}

static void a_profile_without_samples_is_valid(void **state)
{
	struct dp_pprof *profile = new_profile(&heap_header);
	char *raw = ask_about(PPROF_RAW, profile);

	(void)state;
	assert_has(raw, "PeriodType: space bytes\nPeriod: 524288\n");
	assert_has(raw, "Time: 2026-11-22 17:30:00.123 +0000 UTC\nDuration: 10.5\n");
	assert_has(raw, "Samples:\nalloc_objects/count alloc_space/bytes[dflt]\nLocations\n");
	free(raw);
	dp_pprof_free(profile);
}

static void header_and_comments_reach_the_reader(void **state)
{
	struct dp_pprof *profile = new_profile(&heap_header);
	char *raw, *decoded;

	(void)state;
	assert_int_equal(dp_pprof_add_comment(profile, "sampler: direct"), 0);
	assert_int_equal(dp_pprof_add_comment(profile, "lost: 0"), 0);
	raw = ask_about(PPROF_RAW, profile);
	assert_has(raw, "sampler: direct\n");
	assert_has(raw, "lost: 0\n");
	decoded = ask_about(PROTOC, profile);
	assert_has(decoded, "string_table: \"\"\nstring_table: \"space\"\n");
	assert_has(decoded, "time_nanos: 1795368600123000000\nduration_nanos: 10500000000\n");
	free(decoded);
	free(raw);
	dp_pprof_free(profile);
}

static void a_mapping_keeps_its_range_file_and_flags(void **state)
{
	struct dp_pprof_mapping program = {.start = 0x400000,
					   .limit = 0x452000,
					   .file_off = 0x1000,
					   .path = "/usr/bin/some program",
					   .build_id = "0123abcd"};
	struct dp_pprof_mapping library = {.start = 0x7f0000000000,
					   .limit = 0x7f0000001000,
					   .path = "/usr/lib/libx.so",
					   .build_id = "",
					   .has_functions = true,
					   .has_line_numbers = true};
	struct dp_pprof *profile = new_profile(&heap_header);
	uint64_t first = 0, second = 0, location = 0;
	char *raw;

	(void)state;
	assert_int_equal(dp_pprof_add_mapping(profile, &program, &first), 0);
	assert_int_equal(dp_pprof_add_mapping(profile, &library, &second), 0);
	assert_int_equal(first, 1);
	assert_int_equal(second, 2);
	dp_pprof_set_mapping_flags(profile, first, true, true, false, true);
	assert_int_equal(dp_pprof_add_location(profile, 2, 0x7f0000000010, NULL, 0, &location), 0);
	add_one(profile, location, 1, 16);

	raw = ask_about(PPROF_RAW, profile);
	assert_has(raw, "Mappings\n"
			"1: 0x400000/0x452000/0x1000 /usr/bin/some program 0123abcd [FN][FL][IN]\n"
			"2: 0x7f0000000000/0x7f0000001000/0x0 /usr/lib/libx.so  [FN][LN]\n");
	assert_has(raw, "1: 0x7f0000000010 M=2");
	free(raw);
	dp_pprof_free(profile);
}

static void inlined_calls_are_lines_of_one_location(void **state)
{
	const struct dp_pprof_line lines[] = {
		{"copy", "_Z4copyv", "copy.h", 10, 12},
		{"fill", "_Z4fillv", "fill.c", 20, 29},
		{"main", "main", "main.c", 1, 44},
	};
	struct dp_pprof *profile = new_profile(&heap_header);
	static const char *const parts[] = {
		" copy copy.h:12",   " s=10(_Z4copyv)\n", " fill fill.c:29",
		" s=20(_Z4fillv)\n", " main main.c:44",	  " s=1\nMappings\n",
	};
	uint64_t location = 0;
	const char *at;
	char *raw;

	(void)state;
	assert_int_equal(dp_pprof_add_location(profile, 0, 0x1234, lines, 3, &location), 0);
	add_one(profile, location, 3, 96);
	raw = ask_about(PPROF_RAW, profile);
	assert_has(raw, "          3         96: 1 \n");
	/* Newer versions of pprof put a column between the line and the start line. */
	at = strstr(raw, "\nLocations\n     1: 0x1234 M=1 ");
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		at = at ? strstr(at, parts[i]) : NULL;
		if (!at)
			fail_msg("no '%s', or not there, in: %s", parts[i], raw);
	}
	free(raw);
	dp_pprof_free(profile);
}

static void functions_are_one_only_if_everything_is_equal(void **state)
{
	const struct dp_pprof_line lines[] = {
		{"f", "f", "a.c", 1, 1},  {"f", "f", "a.c", 1, 99}, {"g", "f", "a.c", 1, 1},
		{"f", "_f", "a.c", 1, 1}, {"f", "f", "b.c", 1, 1},  {"f", "f", "a.c", 2, 1},
	};
	struct dp_pprof *profile = new_profile(&heap_header);
	uint64_t location = 0;
	size_t n_functions = 0;
	char *decoded;

	(void)state;
	for (int i = 0; i < 2; i++)
		assert_int_equal(dp_pprof_add_location(profile, 0, 1, lines, 6, &location), 0);
	assert_int_equal(location, 2);
	decoded = ask_about(PROTOC, profile);
	for (const char *at = decoded; (at = strstr(at, "\nfunction {")); at++)
		n_functions++;
	assert_int_equal(n_functions, 5);
	free(decoded);
	dp_pprof_free(profile);
}

static void labels_are_text_or_numbers(void **state)
{
	const struct dp_pprof_label labels[] = {
		{.key = "wait", .text = "rwlock"},
		{.key = "size", .number = 4096, .unit = "bytes"},
		{.key = "thread", .number = -7},
	};
	struct dp_pprof *profile = new_profile(&heap_header);
	uint64_t location = add_plain(profile, "f");
	int64_t values[] = {1, 2};
	char *raw, *decoded;

	(void)state;
	assert_int_equal(dp_pprof_add_sample(profile, &location, 1, values, labels, 3), 0);
	raw = ask_about(PPROF_RAW, profile);
	assert_has(raw, "wait:[rwlock]\n");
	assert_has(raw, "size:[4096 bytes]");
	assert_has(raw, "thread:[-7]");
	decoded = ask_about(PROTOC, profile);
	assert_has(decoded, "    num: -7\n  }\n");
	free(decoded);
	free(raw);
	dp_pprof_free(profile);
}

static void drop_frames_makes_pprof_remove_them(void **state)
{
	struct dp_pprof_header header = heap_header;
	struct dp_pprof *profile;
	uint64_t ids[3];
	int64_t values[] = {5, 80};
	char *raw;

	(void)state;
	header.drop_frames = "malloc|operator new.*";
	profile = new_profile(&header);
	ids[0] = add_plain(profile, "malloc");
	ids[1] = add_plain(profile, "operator new(unsigned long)");
	ids[2] = add_plain(profile, "malloc_user");
	assert_int_equal(dp_pprof_add_sample(profile, ids, 3, values, NULL, 0), 0);
	raw = ask_about(PPROF_RAW, profile);
	assert_has(raw, "3: 0x1000 M=1 malloc_user plain.c:2");
	assert_has(raw, "          5         80: 3 \n");
	free(raw);
	dp_pprof_free(profile);
}

static void a_stack_is_written_leaf_first(void **state)
{
	struct dp_pprof *profile = new_profile(&heap_header);
	uint64_t ids[] = {add_plain(profile, "leaf"), add_plain(profile, "middle"),
			  add_plain(profile, "root")};
	int64_t values[] = {1, 8};
	char *traces;

	(void)state;
	assert_int_equal(dp_pprof_add_sample(profile, ids, 3, values, NULL, 0), 0);
	traces = ask_about(PPROF "-traces $f", profile);
	assert_has(traces, "8B   leaf\n             middle\n             root\n");
	free(traces);
	dp_pprof_free(profile);
}

static void values_of_any_size_and_sign_survive(void **state)
{
	static const int64_t extremes[] = {
		0, -1, INT64_MAX, INT64_MIN, INT64_C(1) << 53, (INT64_C(1) << 53) + 1};
	struct dp_pprof *profile = new_profile(&heap_header);
	char *raw, wanted[64];

	(void)state;
	/* pprof adds up equal stacks. */
	for (size_t i = 0; i < 6; i++) {
		snprintf(wanted, sizeof(wanted), "f%zu", i);
		add_one(profile, add_plain(profile, wanted), extremes[i], (int64_t)i + 1);
	}
	raw = ask_about(PPROF_RAW, profile);
	for (size_t i = 0; i < 6; i++) {
		snprintf(wanted, sizeof(wanted), " %10" PRId64 " %10zu: %zu \n", extremes[i], i + 1,
			 i + 1);
		assert_has(raw, wanted);
	}
	free(raw);
	dp_pprof_free(profile);
}

static void bytes_that_are_not_utf8_become_question_marks(void **state)
{
	static const struct {
		const char *raw, *clean;
	} names[] = {
		{"a\x80z", "a?z"},			    /* a continuation alone */
		{"b\xc3", "b?"},			    /* cut at the end */
		{"c\xc0\xaf", "c??"},			    /* overlong */
		{"d\xe0\x9f\xbf", "d???"},		    /* overlong */
		{"e\xed\xa0\x80", "e???"},		    /* a surrogate */
		{"f\xf4\x90\x80\x80", "f????"},		    /* above U+10FFFF */
		{"g\xe2\x82z", "g??z"},			    /* cut in the middle */
		{"h\xff\xfe", "h??"},			    /* never in UTF-8 */
		{"i\xf0\x8f\xbf\xbf", "i????"},		    /* overlong */
		{"j\xc3\xa9", "j\xc3\xa9"},		    /* U+00E9 */
		{"k\xe2\x82\xac", "k\xe2\x82\xac"},	    /* U+20AC */
		{"l\xf0\x9f\x98\x80", "l\xf0\x9f\x98\x80"}, /* U+1F600 */
		{"m\xf4\x8f\xbf\xbf", "m\xf4\x8f\xbf\xbf"}, /* U+10FFFF */
		{"n\xed\x9f\xbf", "n\xed\x9f\xbf"},	    /* U+D7FF */
	};
	struct dp_pprof *profile = new_profile(&heap_header);
	char *raw, *decoded, wanted[64];

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		add_one(profile, add_plain(profile, names[i].raw), 1, 1);
	raw = ask_about(PPROF_RAW, profile);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(wanted, sizeof(wanted), " %s plain.c:2", names[i].clean);
		assert_has(raw, wanted);
	}
	decoded = ask_about(PROTOC, profile);
	assert_has_not(decoded, "UTF-8");
	free(decoded);
	free(raw);
	dp_pprof_free(profile);
}

static void texts_that_clean_to_the_same_are_one_string(void **state)
{
	struct dp_pprof *profile = new_profile(&heap_header);
	char *decoded, *first;

	(void)state;
	assert_int_equal(dp_pprof_add_comment(profile, "same\xff"), 0);
	assert_int_equal(dp_pprof_add_comment(profile, "same?"), 0);
	assert_int_equal(dp_pprof_add_comment(profile, "same\xfe"), 0);
	decoded = ask_about(PROTOC, profile);
	first = strstr(decoded, "string_table: \"same?\"");
	assert_non_null(first);
	assert_null(strstr(first + 1, "string_table: \"same"));
	free(decoded);
	dp_pprof_free(profile);
}

/* Sums the first number of each sample line of `pprof -raw` and counts the lines. */
static int64_t sum_samples(const char *raw, size_t *ret_n_samples)
{
	const char *line = strstr(raw, "[dflt]\n");
	int64_t sum = 0;

	*ret_n_samples = 0;
	assert_non_null(line);
	while ((line = strchr(line, '\n')) && strncmp(line, "\nLocations", 10) != 0) {
		line++;
		sum += strtoll(line, NULL, 10);
		++*ret_n_samples;
	}
	return sum;
}

static void ten_thousand_stacks_of_sixty_frames_parse(void **state)
{
	enum { n_stacks = 10000, n_frames = 60, n_locations = 20000 };
	struct dp_pprof *profile = new_profile(&heap_header);
	uint64_t ids[n_frames];
	size_t n_samples;
	char name[64], *raw;

	(void)state;
	for (int i = 0; i < n_locations; i++) {
		snprintf(name, sizeof(name), "function_%d", i);
		assert_int_equal(add_plain(profile, name), i + 1);
	}
	for (int i = 0; i < n_stacks; i++) {
		int64_t values[] = {i + 1, 1};

		for (int frame = 0; frame < n_frames; frame++)
			ids[frame] = (uint64_t)((i * 7919 + frame * 331) % n_locations) + 1;
		assert_int_equal(dp_pprof_add_sample(profile, ids, n_frames, values, NULL, 0), 0);
	}
	raw = ask_about(PPROF_RAW, profile);
	assert_true(sum_samples(raw, &n_samples) == INT64_C(10000) * 10001 / 2);
	assert_int_equal(n_samples, n_stacks);
	assert_has(raw, " function_19999 plain.c:2");
	free(raw);
	dp_pprof_free(profile);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_profile_needs_a_sample_type),
		cmocka_unit_test(a_profile_without_samples_is_valid),
		cmocka_unit_test(header_and_comments_reach_the_reader),
		cmocka_unit_test(a_mapping_keeps_its_range_file_and_flags),
		cmocka_unit_test(inlined_calls_are_lines_of_one_location),
		cmocka_unit_test(functions_are_one_only_if_everything_is_equal),
		cmocka_unit_test(labels_are_text_or_numbers),
		cmocka_unit_test(drop_frames_makes_pprof_remove_them),
		cmocka_unit_test(a_stack_is_written_leaf_first),
		cmocka_unit_test(values_of_any_size_and_sign_survive),
		cmocka_unit_test(bytes_that_are_not_utf8_become_question_marks),
		cmocka_unit_test(texts_that_clean_to_the_same_are_one_string),
		cmocka_unit_test(ten_thousand_stacks_of_sixty_frames_parse),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
