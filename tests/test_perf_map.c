/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "symbolize/perf_map.h"
#include "symbolize/symbolizer.h"

/* ---- the file: that of this process, or of a child ---- */

struct fixture {
	pid_t pid;
	int pidfd;
	char path[64];
	struct dp_perf_map *map;
};

static void begin(struct fixture *f, pid_t pid)
{
	f->pid = pid;
	f->pidfd = pidfd_open(pid, 0);
	assert_true(f->pidfd >= 0);
	snprintf(f->path, sizeof(f->path), "/tmp/perf-%d.map", pid);
	unlink(f->path);
	assert_int_equal(dp_perf_map_new(&f->map, pid, f->pidfd), 0);
}

static void end(struct fixture *f)
{
	dp_perf_map_free(f->map);
	unlink(f->path);
	close(f->pidfd);
}

static void write_map(const struct fixture *f, int flags, const char *text)
{
	int fd = open(f->path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

/* What the map says of @avma after a look at the file. */
static void assert_found(const struct fixture *f, uint64_t avma, const char *expected)
{
	const char *name;

	assert_int_equal(dp_perf_map_refresh(f->map), 0);
	name = dp_perf_map_find(f->map, avma);
	if (expected) {
		assert_non_null(name);
		assert_string_equal(name, expected);
	} else {
		assert_null(name);
	}
}

static struct dp_perf_map_stats stats_of(const struct fixture *f)
{
	struct dp_perf_map_stats stats;

	dp_perf_map_get_stats(f->map, &stats);
	return stats;
}

static void a_file_that_comes_late_and_grows_is_followed(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f, getpid());
	assert_found(&f, 0x1000, NULL);
	write_map(&f, 0, "1000 10 one\n2000 10 tw");
	assert_found(&f, 0x1000, "one");
	assert_found(&f, 0x2000, NULL);
	write_map(&f, O_APPEND, "o\n1008 8 three\n");
	assert_found(&f, 0x2000, "two");
	assert_found(&f, 0x1000, "one");
	assert_found(&f, 0x1008, "three");
	assert_int_equal(stats_of(&f).n_files, 1);
	assert_int_equal(stats_of(&f).n_rereads, 0);
	assert_int_equal(stats_of(&f).text.n_lines, 3);
	end(&f);
}

static void a_file_written_anew_is_read_anew(void **state)
{
	struct fixture f;
	struct timespec old[2] = {{1, 0}, {1, 0}};

	(void)state;
	begin(&f, getpid());
	write_map(&f, 0, "1000 10 one\n2000 10 two\n");
	assert_found(&f, 0x2000, "two");
	write_map(&f, O_TRUNC, "1000 10 new\n");
	assert_found(&f, 0x1000, "new");
	assert_found(&f, 0x2000, NULL);
	/* Longer than before, but not the same beginning. */
	write_map(&f, O_TRUNC, "3000 10 longer than before\n");
	assert_found(&f, 0x1000, NULL);
	assert_found(&f, 0x3000, "longer than before");
	/* As long as before. */
	assert_int_equal(utimensat(AT_FDCWD, f.path, old, 0), 0);
	assert_found(&f, 0x3000, "longer than before");
	write_map(&f, O_TRUNC, "3000 10 LONGER THAN BEFORE\n");
	assert_found(&f, 0x3000, "LONGER THAN BEFORE");
	assert_int_equal(stats_of(&f).n_files, 1);
	end(&f);
}

static void another_file_of_that_name_replaces_the_first(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f, getpid());
	write_map(&f, 0, "1000 10 one\n");
	assert_found(&f, 0x1000, "one");
	assert_int_equal(unlink(f.path), 0);
	assert_found(&f, 0x1000, "one");
	write_map(&f, O_EXCL, "2000 10 two\n");
	assert_found(&f, 0x1000, NULL);
	assert_found(&f, 0x2000, "two");
	assert_int_equal(stats_of(&f).n_files, 2);
	end(&f);
}

static void what_is_no_file_of_the_target_is_not_believed(void **state)
{
	struct fixture f;
	char other[] = "/tmp/dp-test-map-XXXXXX";
	int fd = mkstemp(other);

	(void)state;
	assert_true(fd >= 0 && write(fd, "1000 10 x\n", 10) == 10);
	close(fd);
	begin(&f, getpid());
	assert_int_equal(symlink(other, f.path), 0);
	assert_found(&f, 0x1000, NULL);
	assert_int_equal(stats_of(&f).n_refused, 1);
	unlink(f.path);
	assert_int_equal(mkfifo(f.path, 0644), 0);
	assert_found(&f, 0x1000, NULL);
	assert_int_equal(stats_of(&f).n_refused, 2);
	unlink(f.path);
	assert_int_equal(mkdir(f.path, 0755), 0);
	assert_found(&f, 0x1000, NULL);
	assert_int_equal(stats_of(&f).n_refused, 3);
	rmdir(f.path);
	write_map(&f, 0, "1000 10 ours\n");
	if (geteuid() == 0) {
		assert_int_equal(chown(f.path, 12345, 0), 0);
		assert_found(&f, 0x1000, NULL);
		assert_int_equal(stats_of(&f).n_refused, 4);
		assert_int_equal(chown(f.path, 0, 0), 0);
	}
	assert_found(&f, 0x1000, "ours");
	end(&f);
	unlink(other);
}

/* Its /tmp was open before; whatever has its number now is another process. */
static void the_map_of_a_process_that_has_ended_is_still_found(void **state)
{
	struct fixture f;
	pid_t pid = fork();

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0) {
		pause();
		_exit(0);
	}
	begin(&f, pid);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	write_map(&f, 0, "1000 10 last words\n");
	assert_found(&f, 0x1000, "last words");
	end(&f);
}

static void no_more_than_64_mib_of_a_file_are_read(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f, getpid());
	write_map(&f, 0, "1000 10 one\n");
	assert_int_equal(truncate(f.path, (64 << 20) + 1000), 0);
	assert_found(&f, 0x1000, "one");
	assert_int_equal(stats_of(&f).n_bytes_over_limit, 1000);
	assert_int_equal(stats_of(&f).text.n_lines, 1);
	end(&f);
}

/* ---- the symbolizer ---- */

static void generated_code_is_named_anew_at_every_update(void **state)
{
	struct dp_symbolizer *symbolizer;
	struct dp_modules *modules;
	struct dp_symbol first, symbol;
	struct fixture f;

	(void)state;
	begin(&f, getpid());
	assert_int_equal(dp_modules_new(&modules), 0);
	assert_int_equal(dp_symbolizer_new(&symbolizer, modules), 0);
	assert_int_equal(dp_symbolizer_resolve_generated(symbolizer, 0x1000, &symbol), 0);
	assert_int_equal(symbol.source, DP_SYMBOL_NONE);
	dp_symbolizer_set_perf_map(symbolizer, f.map);
	assert_int_equal(dp_symbolizer_resolve_generated(symbolizer, 0x1000, &symbol), 0);
	assert_int_equal(symbol.source, DP_SYMBOL_NONE);
	write_map(&f, 0, "1000 10 @a/b@c\n2000 10 _ZN1a1bEv\n");
	/* Not before the next update. */
	assert_int_equal(dp_symbolizer_resolve_generated(symbolizer, 0x1000, &symbol), 0);
	assert_int_equal(symbol.source, DP_SYMBOL_NONE);
	dp_symbolizer_update(symbolizer);
	assert_int_equal(dp_symbolizer_resolve_generated(symbolizer, 0x1008, &first), 0);
	assert_int_equal(first.source, DP_SYMBOL_TABLE);
	assert_int_equal(first.n_lines, 1);
	assert_int_equal(dp_symbolizer_resolve_generated(symbolizer, 0x2000, &symbol), 0);
	assert_string_equal(symbol.lines[0].function, "a::b()");
	assert_string_equal(symbol.lines[0].system_name, "_ZN1a1bEv");
	write_map(&f, O_APPEND, "1000 10 replaced\n");
	dp_symbolizer_update(symbolizer);
	assert_int_equal(dp_symbolizer_resolve_generated(symbolizer, 0x1008, &symbol), 0);
	assert_string_equal(symbol.lines[0].function, "replaced");
	assert_string_equal(first.lines[0].function, "@a/b@c");
	assert_string_equal(first.lines[0].file, "");
	dp_symbolizer_free(symbolizer);
	dp_modules_free(modules);
	end(&f);
}

static void names_of_generated_code_are_bounded(void **state)
{
	struct dp_symbolizer *symbolizer;
	struct dp_modules *modules;
	struct dp_symbol symbol;
	struct fixture f;

	(void)state;
	begin(&f, getpid());
	write_map(&f, 0, "1000 10 a\n2000 10 b\n3000 10 c\n4000 10 a\n");
	assert_int_equal(dp_modules_new(&modules), 0);
	assert_int_equal(dp_symbolizer_new(&symbolizer, modules), 0);
	dp_symbolizer_set_perf_map(symbolizer, f.map);
	dp_symbolizer_set_max_frames(symbolizer, 2);
	for (uint64_t avma = 0x1000; avma <= 0x4000; avma += 0x1000) {
		assert_int_equal(dp_symbolizer_resolve_generated(symbolizer, avma, &symbol), 0);
		assert_int_equal(symbol.n_lines, avma != 0x3000);
	}
	assert_int_equal(dp_symbolizer_over_limit(symbolizer), 1);
	dp_symbolizer_free(symbolizer);
	dp_modules_free(modules);
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_file_that_comes_late_and_grows_is_followed),
		cmocka_unit_test(a_file_written_anew_is_read_anew),
		cmocka_unit_test(another_file_of_that_name_replaces_the_first),
		cmocka_unit_test(what_is_no_file_of_the_target_is_not_believed),
		cmocka_unit_test(the_map_of_a_process_that_has_ended_is_still_found),
		cmocka_unit_test(no_more_than_64_mib_of_a_file_are_read),
		cmocka_unit_test(generated_code_is_named_anew_at_every_update),
		cmocka_unit_test(names_of_generated_code_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
