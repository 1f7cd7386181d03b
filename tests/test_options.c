/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/options.h"

#define MAX_WORDS 16

/* Parses "deltaprof-perf" and then @words, ending in NULL. */
static int parse(const char *const *words, struct dp_options *ret, struct dp_error *err)
{
	static char name[] = "deltaprof-perf";
	char *argv[MAX_WORDS + 2] = {name};
	int argc = 1;

	/* getopt_long() may not write to the strings, only move the pointers. */
	for (; words[argc - 1]; argc++) {
		assert_true(argc <= MAX_WORDS);
		argv[argc] = (char *)(uintptr_t)words[argc - 1];
	}
	err->text[0] = '\0';
	return dp_options_parse(argc, argv, ret, err);
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Parses what must be right. */
static struct dp_options right(const char *const *words)
{
	struct dp_options options;
	struct dp_error err;
	int r;

	memset(&options, 0xa5, sizeof(options));
	r = parse(words, &options, &err);
	assert_string_equal(err.text, "");
	assert_int_equal(r, 0);
	return options;
}

/* Parses what must be refused with exactly @sentence, the result untouched. */
static void wrong(const char *const *words, const char *sentence)
{
	struct dp_options options, before;
	struct dp_error err;

	memset(&options, 0xa5, sizeof(options));
	memset(&before, 0xa5, sizeof(before));
	assert_int_equal(parse(words, &options, &err), -EINVAL);
	assert_string_equal(err.text, sentence);
	assert_memory_equal(&options, &before, sizeof(options));
}

static void defaults_are_what_this_version_can_do(void **state)
{
	struct dp_options options = right(WORDS("-p", "1234"));

	(void)state;
	assert_int_equal(options.n_pids, 1);
	assert_int_equal(options.pids[0], 1234);
	assert_int_equal(options.interval_ns, UINT64_C(10000000000));
	assert_int_equal(options.duration_ns, 0);
	assert_int_equal(options.profiles,
			 DP_PROFILE_HEAP | DP_PROFILE_MUTEX | DP_PROFILE_BLOCK | DP_PROFILE_CHEAP);
	assert_string_equal(options.output_dir, ".");
	assert_int_equal(options.heap_rate_bytes, 524288);
	assert_int_equal(options.block_rate_ns, 10000);
	assert_int_equal(options.stacks, DP_STACKS_AUTO);
	assert_int_equal(options.sampler, DP_SAMPLER_AUTO);
	assert_true(options.max_overhead_percent == 100);
	assert_int_equal(options.verbosity, 0);
	assert_null(options.command);
}

static void every_option_is_read_in_its_short_form(void **state)
{
	struct dp_options options =
		right(WORDS("-v", "-p7", "-i", "500ms", "-d1m", "-e", "heap", "-o", "/var/x"));

	(void)state;
	assert_int_equal(options.pids[0], 7);
	assert_int_equal(options.interval_ns, 500000000);
	assert_int_equal(options.duration_ns, UINT64_C(60000000000));
	assert_int_equal(options.profiles, DP_PROFILE_HEAP);
	assert_string_equal(options.output_dir, "/var/x");
	assert_int_equal(options.verbosity, 1);
}

static void every_option_is_read_in_its_long_form(void **state)
{
	struct dp_options options =
		right(WORDS("--pid=7", "--interval", "2s", "--duration=1h", "--profiles=heap",
			    "--output=out", "--heap-rate=1", "--block-rate=1ns", "--stacks=fp",
			    "--sampler", "direct", "--max-overhead=100%", "--quiet"));

	(void)state;
	assert_int_equal(options.pids[0], 7);
	assert_int_equal(options.interval_ns, 2000000000);
	assert_int_equal(options.duration_ns, UINT64_C(3600000000000));
	assert_string_equal(options.output_dir, "out");
	assert_int_equal(options.heap_rate_bytes, 1);
	assert_int_equal(options.block_rate_ns, 1);
	assert_int_equal(options.stacks, DP_STACKS_FP);
	assert_int_equal(options.sampler, DP_SAMPLER_DIRECT);
	assert_true(options.max_overhead_percent == 100);
	assert_int_equal(options.verbosity, -1);
}

static void abbreviations_and_clusters_work_and_the_last_one_wins(void **state)
{
	struct dp_options options =
		right(WORDS("--int", "1s", "--heap", "64KiB", "-qvp", "9", "-i", "3s"));

	(void)state;
	assert_int_equal(options.interval_ns, UINT64_C(3000000000));
	assert_int_equal(options.heap_rate_bytes, 65536);
	assert_int_equal(options.verbosity, 1);
	assert_int_equal(options.pids[0], 9);
}

static void a_pid_given_twice_is_one_process(void **state)
{
	struct dp_options options = right(WORDS("-p", "5,5", "-p", "5"));

	(void)state;
	assert_int_equal(options.n_pids, 1);
}

static void help_and_version_win_over_what_follows(void **state)
{
	struct dp_options options;
	struct dp_error err;

	(void)state;
	assert_int_equal(parse(WORDS("--help"), &options, &err), 1);
	assert_int_equal(parse(WORDS("-h", "--nonsense"), &options, &err), 1);
	assert_int_equal(parse(WORDS("--version"), &options, &err), 2);
	assert_int_equal(parse(WORDS("-p", "1", "--ver"), &options, &err), -EINVAL);
	assert_int_equal(parse(WORDS("-p", "1", "--vers"), &options, &err), 2);
}

static void a_separator_alone_ends_the_options(void **state)
{
	(void)state;
	wrong(WORDS("-p", "1", "--"), "no command behind '--'");
	wrong(WORDS("--"), "no command behind '--'");
	/* Here "--" is the directory's name, and the word behind it is one too many. */
	wrong(WORDS("-p", "1", "-o", "--", "x"),
	      "unexpected argument 'x'; a process is given as -p PID");
	assert_string_equal(right(WORDS("-p", "1", "-o", "--")).output_dir, "--");
}

static void a_missing_process_is_told(void **state)
{
	struct dp_options options;
	struct dp_error err;
	char *none[] = {NULL};

	(void)state;
	wrong(WORDS("-v"), "no process is given; use -p PID, and see --help");
	assert_int_equal(dp_options_parse(0, none, &options, &err), -EINVAL);
	assert_string_equal(err.text, "no process is given; use -p PID, and see --help");
}

static void an_unknown_option_is_quoted(void **state)
{
	(void)state;
	wrong(WORDS("--nonsense"), "unknown option '--nonsense'; --help lists them all");
	wrong(WORDS("--nonsense=5"), "unknown option '--nonsense'; --help lists them all");
	wrong(WORDS("--=5"), "unknown option '--'; --help lists them all");
	wrong(WORDS("-vx", "-p", "1"), "unknown option '-x'; --help lists them all");
	wrong(WORDS("-xv"), "unknown option '-x'; --help lists them all");
	wrong(WORDS("-?"), "unknown option '-?'; --help lists them all");
	wrong(WORDS("-:"), "unknown option '-:'; --help lists them all");
	wrong(WORDS("-\xc3\xa9"), "unknown option '-?'; --help lists them all");
	wrong(WORDS("--a\nb"), "unknown option '--a?b'; --help lists them all");
}

static void an_ambiguous_option_is_told_with_what_it_may_mean(void **state)
{
	(void)state;
	wrong(WORDS("--s", "fp"), "option '--s' is ambiguous: it may mean --stacks or --sampler");
	wrong(WORDS("--ver"), "option '--ver' is ambiguous: it may mean --verbose or --version");
}

static void a_missing_argument_is_told_with_an_example(void **state)
{
	(void)state;
	wrong(WORDS("-p"), "option '--pid' needs an argument, such as --pid 1234");
	wrong(WORDS("-p", "1", "--interval"),
	      "option '--interval' needs an argument, such as --interval 10s");
	wrong(WORDS("-p", "1", "-vi"),
	      "option '--interval' needs an argument, such as --interval 10s");
	wrong(WORDS("--help=5"), "option '--help' takes no argument");
}

static void a_wrong_argument_is_told_with_what_is_right(void **state)
{
	(void)state;
	wrong(WORDS("-p", "0"),
	      "--pid: '0' is not a process id, which is a whole number such as 1234");
	wrong(WORDS("-p", "12,"),
	      "--pid: '12,' is not a process id, which is a whole number such as 1234");
	wrong(WORDS("-p", "99999999999"),
	      "--pid: '99999999999' is not a process id, which is a whole number such as 1234");
	wrong(WORDS("-p", "2147483648"),
	      "--pid: '2147483648' is not a process id, which is a whole number such as 1234");
	wrong(WORDS("-p", "redis"),
	      "--pid: 'redis' is not a process id, which is a whole number such as 1234");
	wrong(WORDS("-i", "10"), "--interval: '10' has no unit; write 10s for seconds, or use ns, "
				 "us, ms, m or h");
	wrong(WORDS("-i", "fast"), "--interval: 'fast' is not a duration, which is a whole number "
				   "and a unit, such as 500ms, 10s or 1m");
	wrong(WORDS("-e", "heap,"), "--profiles: 'heap,' is not a list of heap, mutex, block and "
				    "cheap, separated by commas");
	wrong(WORDS("-e", ""),
	      "--profiles: '' is not a list of heap, mutex, block and cheap, separated by commas");
	wrong(WORDS("-e", "a-profile-with-a-long-name"),
	      "--profiles: 'a-profile-with-a-long-name' is not a list of heap, mutex, block and "
	      "cheap, "
	      "separated by commas");
	wrong(WORDS("-o", ""),
	      "--output: the directory's name is empty; write . for the current one");
	wrong(WORDS("--heap-rate", "1K"),
	      "--heap-rate: '1K' is not a size, which is a whole number with or without a unit, "
	      "such as 4096, 512KiB or 1MB");
	wrong(WORDS("--stacks", "lbr"), "--stacks: 'lbr' is none of auto, fp and dwarf");
	wrong(WORDS("--sampler", "bpf"), "--sampler: 'bpf' is none of auto, kernel and direct");
	wrong(WORDS("--max-overhead", "5 %"),
	      "--max-overhead: '5 %' is not a percentage, such as 5, 0.5% or 100 (no limit)");
	wrong(WORDS("-p", "1", "2"), "unexpected argument '2'; a process is given as -p PID");
}

static void bounds_hold_on_both_sides(void **state)
{
	(void)state;
	assert_int_equal(right(WORDS("-p1", "-i", "100ms")).interval_ns, 100000000);
	wrong(WORDS("-i", "99ms"), "--interval: '99ms' is out of range, which is 100ms to 24h");
	wrong(WORDS("-i", "0"), "--interval: '0' is out of range, which is 100ms to 24h");
	assert_int_equal(right(WORDS("-p1", "-i", "24h")).interval_ns, UINT64_C(86400000000000));
	wrong(WORDS("-i", "1441m"), "--interval: '1441m' is out of range, which is 100ms to 24h");
	assert_int_equal(right(WORDS("-p1", "-d", "0")).duration_ns, 0);
	wrong(WORDS("-d", "2562048h"), "--duration: '2562048h' is out of range, which is 0 (until "
				       "stopped) to 2562047h");
	wrong(WORDS("--block-rate", "0"),
	      "--block-rate: '0' is out of range, which is 1ns (every wait) to 1h");
	wrong(WORDS("--block-rate", "61m"),
	      "--block-rate: '61m' is out of range, which is 1ns (every wait) to 1h");
	wrong(WORDS("--heap-rate", "0"),
	      "--heap-rate: '0' is out of range, which is 1 (every allocation) to 1024GiB");
	assert_int_equal(right(WORDS("-p1", "--heap-rate", "1024GiB")).heap_rate_bytes,
			 UINT64_C(1099511627776));
	wrong(WORDS("--heap-rate", "1025GiB"),
	      "--heap-rate: '1025GiB' is out of range, which is 1 (every allocation) to 1024GiB");
	wrong(WORDS("--max-overhead", "0"),
	      "--max-overhead: '0' is out of range, which is above 0 and up to 100 (no limit)");
	wrong(WORDS("--max-overhead", "101%"),
	      "--max-overhead: '101%' is out of range, which is above 0 and up to 100 (no limit)");
}

static void more_pids_than_there_is_room_for_are_refused(void **state)
{
	char list[DP_OPTIONS_MAX_PIDS * 4 + 8] = "1";

	(void)state;
	list[0] = '\0';
	for (int i = 0; i <= DP_OPTIONS_MAX_PIDS; i++) {
		const char item[] = {(char)('1' + i / 10), (char)('0' + i % 10), ',', '\0'};

		strcat(list, item);
	}
	list[strlen(list) - 1] = '\0';
	wrong(WORDS("-p", list), "--pid: more than 64 processes");
}

static void a_go_programs_profiles_are_switched_on_only_when_asked(void **state)
{
	struct dp_options options;

	(void)state;
	options = right(WORDS("-p1"));
	assert_int_equal(options.go_heap_rate_bytes, 0);
	assert_int_equal(options.go_block_rate_ns, 0);
	assert_int_equal(options.go_mutex_fraction, 0);
	options = right(WORDS("-p1", "--go-heap-rate=64KiB", "--go-block-rate", "1us",
			      "--go-mutex-fraction", "5"));
	assert_int_equal(options.go_heap_rate_bytes, 65536);
	assert_int_equal(options.go_block_rate_ns, 1000);
	assert_int_equal(options.go_mutex_fraction, 5);
	wrong(WORDS("--go-heap-rate", "0"),
	      "--go-heap-rate: '0' is out of range, which is 1 (every allocation) to 1024GiB");
	wrong(WORDS("--go-block-rate", "5"),
	      "--go-block-rate: '5' has no unit; write 5s for seconds, or use ns, us, ms, m or h");
	wrong(WORDS("--go-mutex-fraction", "0"),
	      "--go-mutex-fraction: '0' is not a whole number from 1 (every contention) to "
	      "2147483647");
}

static void several_processes_profiles_and_a_command_are_taken(void **state)
{
	struct dp_options options = right(WORDS("-p", "7,9", "-p", "11", "-e", "mutex,block"));
	char *const *command;

	(void)state;
	assert_int_equal(options.n_pids, 3);
	assert_int_equal(options.pids[1], 9);
	assert_int_equal(options.pids[2], 11);
	assert_int_equal(options.profiles, DP_PROFILE_MUTEX | DP_PROFILE_BLOCK);
	command = right(WORDS("-e", "heap", "--", "sleep", "-p")).command;
	assert_non_null(command);
	assert_string_equal(command[0], "sleep");
	assert_string_equal(command[1], "-p");
	assert_null(command[2]);
}

static void what_this_version_cannot_do_is_one_clear_sentence(void **state)
{
	(void)state;
	wrong(WORDS("-p", "1", "--max-overhead", "5"),
	      "--max-overhead: a limit is not in this version; use --max-overhead 100 and see the "
	      "manual page for what it costs");
	wrong(WORDS("-p", "1", "--", "sleep"),
	      "both a PID and a command are given; only one is possible");
}

static void planned_options_are_known_by_name(void **state)
{
	(void)state;
	wrong(WORDS("--follow"), "--follow is not in this version; attach to each child process by "
				 "its own PID");
	wrong(WORDS("--wait"),
	      "--wait is not in this version; start the process first and give its PID");
	wrong(WORDS("--comm"), "--comm is not in this version; find the PID by name with pgrep(1)");
	wrong(WORDS("--comm=x"),
	      "--comm is not in this version; find the PID by name with pgrep(1)");
	wrong(WORDS("--alloc-function", "x"),
	      "--alloc-function is not in this version; the malloc family is found without it");
	wrong(WORDS("--free-function", "x"),
	      "--free-function is not in this version; the malloc family is found without it");
	wrong(WORDS("--hit-labels"), "--hit-labels is not in this version; leave it out");
}

static void typing_errors_are_told_before_what_is_not_in_this_version(void **state)
{
	(void)state;
	wrong(WORDS("-p", "1", "--stacks", "dwarf", "--intervall", "1s"),
	      "unknown option '--intervall'; --help lists them all");
}

static void an_argument_of_any_length_still_gives_one_sentence(void **state)
{
	char *huge = test_malloc(100000);
	struct dp_options options;
	struct dp_error err;

	(void)state;
	memset(huge, 'x', 99999);
	huge[99999] = '\0';
	assert_int_equal(parse(WORDS("-i", huge), &options, &err), -EINVAL);
	assert_int_equal(strnlen(err.text, sizeof(err.text)), sizeof(err.text) - 1);
	test_free(huge);
}

static void a_sentence_that_nobody_wants_is_not_needed(void **state)
{
	char name[] = "deltaprof-perf", option[] = "--nonsense";
	char *argv[] = {name, option, NULL};
	struct dp_options options;

	(void)state;
	assert_int_equal(dp_options_parse(2, argv, &options, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_are_what_this_version_can_do),
		cmocka_unit_test(every_option_is_read_in_its_short_form),
		cmocka_unit_test(every_option_is_read_in_its_long_form),
		cmocka_unit_test(abbreviations_and_clusters_work_and_the_last_one_wins),
		cmocka_unit_test(a_pid_given_twice_is_one_process),
		cmocka_unit_test(help_and_version_win_over_what_follows),
		cmocka_unit_test(a_separator_alone_ends_the_options),
		cmocka_unit_test(a_missing_process_is_told),
		cmocka_unit_test(an_unknown_option_is_quoted),
		cmocka_unit_test(an_ambiguous_option_is_told_with_what_it_may_mean),
		cmocka_unit_test(a_missing_argument_is_told_with_an_example),
		cmocka_unit_test(a_wrong_argument_is_told_with_what_is_right),
		cmocka_unit_test(bounds_hold_on_both_sides),
		cmocka_unit_test(more_pids_than_there_is_room_for_are_refused),
		cmocka_unit_test(a_go_programs_profiles_are_switched_on_only_when_asked),
		cmocka_unit_test(several_processes_profiles_and_a_command_are_taken),
		cmocka_unit_test(what_this_version_cannot_do_is_one_clear_sentence),
		cmocka_unit_test(planned_options_are_known_by_name),
		cmocka_unit_test(typing_errors_are_told_before_what_is_not_in_this_version),
		cmocka_unit_test(an_argument_of_any_length_still_gives_one_sentence),
		cmocka_unit_test(a_sentence_that_nobody_wants_is_not_needed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
