/* SPDX-License-Identifier: MIT */
/*
 * getopt_long() finds the options; what it would say itself is switched off, because "exactly one
 * line that says what is wrong and what would be right" needs the table below. Syntax is checked
 * while reading, what this version can do only at the end, so that a typing error is told first.
 */
#include "src/options.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <string.h>

#include "src/units.h"

#define ITEM_BYTES 16

enum {
	OPT_PID = 'p',
	OPT_INTERVAL = 'i',
	OPT_DURATION = 'd',
	OPT_PROFILES = 'e',
	OPT_OUTPUT = 'o',
	OPT_QUIET = 'q',
	OPT_VERBOSE = 'v',
	OPT_HELP = 'h',
	OPT_VERSION = 256, /* beyond every char: these have no short form */
	OPT_HEAP_RATE,
	OPT_BLOCK_RATE,
	OPT_GO_HEAP_RATE,
	OPT_GO_BLOCK_RATE,
	OPT_GO_MUTEX_FRACTION,
	OPT_STACKS,
	OPT_SAMPLER,
	OPT_MAX_OVERHEAD,
	OPT_FOLLOW,
	OPT_WAIT,
	OPT_COMM,
	OPT_ALLOC_FUNCTION,
	OPT_FREE_FUNCTION,
	OPT_HIT_LABELS,
};

/* '+' stops at the first word that is no option, ':' tells a missing argument from the unknown. */
static const char short_options[] = "+:p:i:d:e:o:qvh";

/*
 * One option. @example: what its argument may be; NULL if it takes none. @instead: not in this
 * version, and what to do until it is; NULL for an option that works.
 */
struct spec {
	const char *name;
	int value;
	const char *example;
	const char *instead;
};

static const struct spec specs[] = {
	{"pid", OPT_PID, "1234", NULL},
	{"interval", OPT_INTERVAL, "10s", NULL},
	{"duration", OPT_DURATION, "1m", NULL},
	{"profiles", OPT_PROFILES, "heap,mutex,block", NULL},
	{"output", OPT_OUTPUT, ".", NULL},
	{"heap-rate", OPT_HEAP_RATE, "512KiB", NULL},
	{"block-rate", OPT_BLOCK_RATE, "10us", NULL},
	{"go-heap-rate", OPT_GO_HEAP_RATE, "512KiB", NULL},
	{"go-block-rate", OPT_GO_BLOCK_RATE, "10us", NULL},
	{"go-mutex-fraction", OPT_GO_MUTEX_FRACTION, "10", NULL},
	{"stacks", OPT_STACKS, "auto", NULL},
	{"sampler", OPT_SAMPLER, "auto", NULL},
	{"max-overhead", OPT_MAX_OVERHEAD, "100", NULL},
	{"quiet", OPT_QUIET, NULL, NULL},
	{"verbose", OPT_VERBOSE, NULL, NULL},
	{"help", OPT_HELP, NULL, NULL},
	{"version", OPT_VERSION, NULL, NULL},
	{"follow", OPT_FOLLOW, NULL, "attach to each child process by its own PID"},
	{"wait", OPT_WAIT, NULL, "start the process first and give its PID"},
	{"comm", OPT_COMM, "NAME", "find the PID by name with pgrep(1)"},
	{"alloc-function", OPT_ALLOC_FUNCTION, "NAME", "the malloc family is found without it"},
	{"free-function", OPT_FREE_FUNCTION, "NAME", "the malloc family is found without it"},
	{"hit-labels", OPT_HIT_LABELS, NULL, "leave it out"},
};

#define N_SPECS (sizeof(specs) / sizeof(specs[0]))

static const char help[] =
	"Usage: deltaprof-perf [OPTIONS] -p PID[,PID...]\n"
	"       deltaprof-perf [OPTIONS] -- COMMAND [ARG...]\n"
	"Attach to running processes, or start one, and write for every interval a heap, a mutex\n"
	"and a block profile of what changed, as pprof files. The process is not changed.\n"
	"\n"
	"  -p, --pid PID[,PID...]   the processes to attach to\n"
	"  -i, --interval DUR       one profile each DUR, 100ms to 24h (default 10s)\n"
	"  -d, --duration DUR       stop after DUR (default: when stopped, or the process ends)\n"
	"  -e, --profiles LIST      which profiles (default heap,mutex,block,cheap); cheap: of Go\n"
	"                           programs, the heap of their C code\n"
	"  -o, --output DIR         where the files go (default: the current directory)\n"
	"      --heap-rate SIZE     mean bytes between samples; 1: every allocation\n"
	"                           (default 512KiB)\n"
	"      --block-rate DUR     waits this long are all kept, shorter ones sampled by their\n"
	"                           length; 1ns: every wait (default 10us)\n"
	"      --go-heap-rate SIZE  switch a Go program's own heap profile on until detaching, by\n"
	"                           writing its rate into its memory (default: nothing is "
	"written)\n"
	"      --go-block-rate DUR  the same for its block profile\n"
	"      --go-mutex-fraction N  the same for its mutex profile, of which 1 in N is kept\n"
	"      --stacks MODE        how allocations' stacks are found: fp, by frame pointers;\n"
	"                           dwarf, unwound from a copy of the stack; auto: both, each\n"
	"                           where it is right (default auto)\n"
	"      --sampler MODE       auto, kernel (BPF programs decide what is delivered) or\n"
	"                           direct (every call is) (default auto: kernel if it can be)\n"
	"      --max-overhead PCT   bound of the slowdown; this version has none: 100 only\n"
	"  -q, --quiet              nothing but errors on stderr\n"
	"  -v, --verbose            say when attached, and what was found\n"
	"  -h, --help               this text\n"
	"      --version            the version\n"
	"\n"
	"DUR is a whole number with ns, us, ms, s, m or h: 500ms, 10s, 1m. SIZE is a whole number\n"
	"of bytes or with kB, MB, GB, KiB, MiB, GiB: 4096, 64KiB, 1MB.\n"
	"Files are named COMM-PID-PROFILE-START.pb.gz; read them with: go tool pprof FILE...\n"
	"Exit status: 0 done, 1 failed while running, 2 wrong command line; with a command its\n"
	"own, or 127 not found, 126 not executable, 125 another failure of ours.\n"
	"The manual page deltaprof-perf(1) says what the numbers mean and what they cost.\n";

const char *dp_options_help(void)
{
	return help;
}

static const struct spec *find_spec(int value)
{
	for (size_t i = 0; i < N_SPECS; i++) {
		if (specs[i].value == value)
			return &specs[i];
	}
	return NULL;
}

/*
 * Copies the next item of a comma-separated list and moves *@list behind it; NULL there means that
 * the list has ended. Returns false for an empty item, or one that is too long to be valid.
 */
static bool next_item(const char **list, char ret[ITEM_BYTES])
{
	size_t n = strcspn(*list, ",");

	if (n == 0 || n >= ITEM_BYTES)
		return false;
	memcpy(ret, *list, n);
	ret[n] = '\0';
	*list = (*list)[n] == ',' ? *list + n + 1 : NULL;
	return true;
}

static void add_pid(struct dp_options *options, pid_t pid)
{
	for (size_t i = 0; i < options->n_pids; i++) {
		if (options->pids[i] == pid)
			return;
	}
	options->pids[options->n_pids++] = pid;
}

static int parse_pids(const char *list, struct dp_options *options, struct dp_error *err)
{
	const char *rest = list;
	char item[ITEM_BYTES];
	uint64_t pid;

	while (rest) {
		if (!next_item(&rest, item) || dp_parse_number(item, &pid) < 0 || pid == 0 ||
		    pid > INT32_MAX)
			return dp_error_set(err, -EINVAL,
					    "--pid: '%s' is not a process id, which is a whole "
					    "number such as 1234",
					    list);
		if (options->n_pids == DP_OPTIONS_MAX_PIDS)
			return dp_error_set(err, -EINVAL, "--pid: more than %d processes",
					    DP_OPTIONS_MAX_PIDS);
		add_pid(options, (pid_t)pid);
	}
	return 0;
}

static int parse_profiles(const char *list, unsigned *ret, struct dp_error *err)
{
	static const char *const names[] = {"heap", "mutex", "block", "cheap"};
	const size_t n_names = sizeof(names) / sizeof(names[0]);
	unsigned profiles = 0;
	const char *rest = list;
	char item[ITEM_BYTES];
	size_t i;

	while (rest) {
		if (!next_item(&rest, item))
			item[0] = '\0';
		for (i = 0; i < n_names && strcmp(item, names[i]) != 0; i++)
			;
		if (i == n_names)
			return dp_error_set(err, -EINVAL,
					    "--profiles: '%s' is not a list of heap, mutex, "
					    "block and cheap, separated by commas",
					    list);
		profiles |= 1u << i;
	}
	*ret = profiles;
	return 0;
}

/* The index of @text in @names, which the enum that it stands for counts alike; or -EINVAL. */
static int parse_mode(const char *option, const char *text, const char *const names[3],
		      struct dp_error *err)
{
	for (int i = 0; i < 3; i++) {
		if (strcmp(text, names[i]) == 0)
			return i;
	}
	return dp_error_set(err, -EINVAL, "--%s: '%s' is none of %s, %s and %s", option, text,
			    names[0], names[1], names[2]);
}

static int parse_stacks(const char *text, enum dp_stacks_mode *ret, struct dp_error *err)
{
	int r;

	r = parse_mode("stacks", text, (const char *const[]){"auto", "fp", "dwarf"}, err);
	if (r < 0)
		return r;
	*ret = (enum dp_stacks_mode)r;
	return 0;
}

static int parse_sampler(const char *text, enum dp_sampler_mode *ret, struct dp_error *err)
{
	int r;

	r = parse_mode("sampler", text, (const char *const[]){"auto", "kernel", "direct"}, err);
	if (r < 0)
		return r;
	*ret = (enum dp_sampler_mode)r;
	return 0;
}

/* @range: how the bounds @min_ns and @max_ns are written. */
static int parse_duration(const char *option, const char *text, uint64_t min_ns, uint64_t max_ns,
			  const char *range, uint64_t *ret, struct dp_error *err)
{
	uint64_t ns;
	int r;

	r = dp_parse_duration(text, &ns);
	if (r == -ENODATA)
		return dp_error_set(err, -EINVAL,
				    "--%s: '%s' has no unit; write %ss for seconds, or use ns, us, "
				    "ms, m or h",
				    option, text, text);
	if (r == -EINVAL)
		return dp_error_set(err, -EINVAL,
				    "--%s: '%s' is not a duration, which is a whole number and a "
				    "unit, such as 500ms, 10s or 1m",
				    option, text);
	if (r == -ERANGE || ns < min_ns || ns > max_ns)
		return dp_error_set(err, -EINVAL, "--%s: '%s' is out of range, which is %s", option,
				    text, range);
	*ret = ns;
	return 0;
}

static int parse_heap_rate(const char *option, const char *text, uint64_t *ret,
			   struct dp_error *err)
{
	uint64_t bytes;
	int r;

	r = dp_parse_size(text, &bytes);
	if (r == -EINVAL)
		return dp_error_set(err, -EINVAL,
				    "--%s: '%s' is not a size, which is a whole number with or "
				    "without a unit, such as 4096, 512KiB or 1MB",
				    option, text);
	if (r == -ERANGE || bytes < 1 || bytes > DP_MAX_HEAP_RATE_BYTES)
		return dp_error_set(err, -EINVAL,
				    "--%s: '%s' is out of range, which is 1 (every allocation) to "
				    "1024GiB",
				    option, text);
	*ret = bytes;
	return 0;
}

static int parse_fraction(const char *text, uint64_t *ret, struct dp_error *err)
{
	uint64_t number;

	if (dp_parse_number(text, &number) < 0 || number < 1 || number > INT32_MAX)
		return dp_error_set(err, -EINVAL,
				    "--go-mutex-fraction: '%s' is not a whole number from 1 (every "
				    "contention) to %d",
				    text, INT32_MAX);
	*ret = number;
	return 0;
}

static int parse_max_overhead(const char *text, double *ret, struct dp_error *err)
{
	double percent;
	int r;

	r = dp_parse_percent(text, &percent);
	if (r == -EINVAL)
		return dp_error_set(err, -EINVAL,
				    "--max-overhead: '%s' is not a percentage, such as 5, 0.5%% or "
				    "100 (no limit)",
				    text);
	if (r == -ERANGE || percent <= 0)
		return dp_error_set(err, -EINVAL,
				    "--max-overhead: '%s' is out of range, which is above 0 and up "
				    "to 100 (no limit)",
				    text);
	*ret = percent;
	return 0;
}

static int parse_output(const char *text, const char **ret, struct dp_error *err)
{
	if (text[0] == '\0')
		return dp_error_set(err, -EINVAL,
				    "--output: the directory's name is empty; write . for the "
				    "current one");
	*ret = text;
	return 0;
}

/* Takes one option that getopt_long() found, with its argument in optarg. */
static int take_option(int value, struct dp_options *options, struct dp_error *err)
{
	switch (value) {
	case OPT_PID:
		return parse_pids(optarg, options, err);
	case OPT_INTERVAL:
		return parse_duration("interval", optarg, DP_MIN_INTERVAL_NS, DP_MAX_INTERVAL_NS,
				      "100ms to 24h", &options->interval_ns, err);
	case OPT_DURATION:
		return parse_duration("duration", optarg, 0, INT64_MAX,
				      "0 (until stopped) to 2562047h", &options->duration_ns, err);
	case OPT_PROFILES:
		return parse_profiles(optarg, &options->profiles, err);
	case OPT_OUTPUT:
		return parse_output(optarg, &options->output_dir, err);
	case OPT_HEAP_RATE:
		return parse_heap_rate("heap-rate", optarg, &options->heap_rate_bytes, err);
	case OPT_GO_HEAP_RATE:
		return parse_heap_rate("go-heap-rate", optarg, &options->go_heap_rate_bytes, err);
	case OPT_GO_BLOCK_RATE:
		return parse_duration("go-block-rate", optarg, 1, DP_MAX_BLOCK_RATE_NS,
				      "1ns (every wait) to 1h", &options->go_block_rate_ns, err);
	case OPT_GO_MUTEX_FRACTION:
		return parse_fraction(optarg, &options->go_mutex_fraction, err);
	case OPT_BLOCK_RATE:
		return parse_duration("block-rate", optarg, 1, DP_MAX_BLOCK_RATE_NS,
				      "1ns (every wait) to 1h", &options->block_rate_ns, err);
	case OPT_STACKS:
		return parse_stacks(optarg, &options->stacks, err);
	case OPT_SAMPLER:
		return parse_sampler(optarg, &options->sampler, err);
	case OPT_MAX_OVERHEAD:
		return parse_max_overhead(optarg, &options->max_overhead_percent, err);
	case OPT_QUIET:
		options->verbosity = -1;
		return 0;
	case OPT_VERBOSE:
		options->verbosity = 1;
		return 0;
	case OPT_HELP:
		return 1;
	case OPT_VERSION:
		return 2;
	default:
		assert(false); /* every option of the table is above */
		return -EINVAL;
	}
}

/* @word begins like several options, or like none: says which. */
static int refuse_long(const char *word, struct dp_error *err)
{
	size_t n = strcspn(word + 2, "=");
	const char *first = NULL;

	for (size_t i = 0; i < N_SPECS; i++) {
		if (n == 0 || strncmp(specs[i].name, word + 2, n) != 0)
			continue;
		if (first)
			return dp_error_set(err, -EINVAL,
					    "option '--%.*s' is ambiguous: it may mean --%s or "
					    "--%s",
					    (int)n, word + 2, first, specs[i].name);
		first = specs[i].name;
	}
	return dp_error_set(err, -EINVAL, "unknown option '--%.*s'; --help lists them all", (int)n,
			    word + 2);
}

/* getopt_long() answered '?': from optopt and the word before optind, says why. */
static int refuse_option(char *const *argv, struct dp_error *err)
{
	const struct spec *spec = find_spec(optopt);

	if (optopt == 0)
		return refuse_long(argv[optind - 1], err);
	if (spec)
		return dp_error_set(err, -EINVAL, "option '--%s' takes no argument", spec->name);
	return dp_error_set(err, -EINVAL, "unknown option '-%c'; --help lists them all",
			    optopt > 0 && optopt < 0x7f ? optopt : '?');
}

/* Well-formed, but can this version do it? */
static int check_supported(const struct dp_options *options, struct dp_error *err)
{
	if (options->max_overhead_percent < 100)
		return dp_error_set(err, -EINVAL,
				    "--max-overhead: a limit is not in this version; use "
				    "--max-overhead 100 and see the manual page for what it costs");
	return 0;
}

/*
 * Takes what stands behind the options. @had_separator: a "--" ended them.
 */
static int take_rest(char **argv, bool had_separator, struct dp_options *options,
		     struct dp_error *err)
{
	if (argv[optind] && !had_separator)
		return dp_error_set(err, -EINVAL,
				    "unexpected argument '%s'; a process is given as -p PID",
				    argv[optind]);
	if (argv[optind])
		options->command = argv + optind;
	else if (had_separator)
		return dp_error_set(err, -EINVAL, "no command behind '--'");
	if (options->n_pids > 0 && options->command)
		return dp_error_set(err, -EINVAL,
				    "both a PID and a command are given; only one is possible");
	if (options->n_pids == 0 && !options->command)
		return dp_error_set(err, -EINVAL,
				    "no process is given; use -p PID, and see --help");
	return check_supported(options, err);
}

/* What getopt_long() returned, other than the end: 0, or as dp_options_parse(). */
static int handle(int value, char *const *argv, struct dp_options *options, struct dp_error *err)
{
	const struct spec *spec = find_spec(value == ':' ? optopt : value);

	if (!spec)
		return refuse_option(argv, err);
	if (spec->instead)
		return dp_error_set(err, -EINVAL, "--%s is not in this version; %s", spec->name,
				    spec->instead);
	if (value == ':')
		return dp_error_set(err, -EINVAL,
				    "option '--%s' needs an argument, such as --%s %s", spec->name,
				    spec->name, spec->example);
	return take_option(value, options, err);
}

static int parse(int argc, char **argv, struct dp_options *options, struct dp_error *err)
{
	struct option long_options[N_SPECS + 1] = {0};
	int value, before, r;

	for (size_t i = 0; i < N_SPECS; i++) {
		long_options[i].name = specs[i].name;
		long_options[i].has_arg = specs[i].example ? required_argument : no_argument;
		long_options[i].val = specs[i].value;
	}
	opterr = 0;
	optind = 0; /* glibc: forget an earlier scan altogether. Source: getopt(3), NOTES */
	do {
		before = optind ? optind : 1;
		value = getopt_long(argc, argv, short_options, long_options, NULL);
		if (value == -1)
			return take_rest(argv, optind > before, options, err);
		r = handle(value, argv, options, err);
	} while (r == 0);
	return r;
}

int dp_options_parse(int argc, char **argv, struct dp_options *ret, struct dp_error *err)
{
	struct dp_options options = {
		.interval_ns = UINT64_C(10) * 1000 * 1000 * 1000,
		.profiles =
			DP_PROFILE_HEAP | DP_PROFILE_MUTEX | DP_PROFILE_BLOCK | DP_PROFILE_CHEAP,
		.output_dir = ".",
		.heap_rate_bytes = 512 * 1024,
		.block_rate_ns = 10 * 1000,
		.stacks = DP_STACKS_AUTO,
		.sampler = DP_SAMPLER_AUTO,
		.max_overhead_percent = 100,
	};
	int r;

	r = parse(argc, argv, &options, err);
	if (r == 0)
		*ret = options;
	else if (r < 0 && err) {
		/* What the user typed is quoted: a newline in it must not make a second line. */
		for (char *p = err->text; *p; p++) {
			if ((unsigned char)*p < 0x20 || *p == 0x7f)
				*p = '?';
		}
	}
	return r;
}
