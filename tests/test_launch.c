/* SPDX-License-Identifier: MIT */
/*
 * Where a command is stopped, proved by what other tools and the kernel say of the stopped process:
 * ldd, nm, its memory map, its text beside its files, and what it has printed.
 */
#include "src/launch.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/launch_fixture.h"
#include "tests/launch_proc.h"
#include "tests/sym_oracle.h"

#define LOADER "/lib64/ld-linux-x86-64.so.2"

static char *const *program(const char *name, char *argument)
{
	static char *argv[3];

	argv[0] = (char *)oracle_sample(name);
	argv[1] = argument;
	argv[2] = NULL;
	return argv;
}

/* Samples of musl are there where its compiler driver is (Debian: musl-tools). */
static bool is_missing(const char *name)
{
	bool missing = access(oracle_sample(name), X_OK) != 0;

	if (missing && !strstr(name, "musl"))
		fail_msg("%s has not been built", name);
	return missing;
}

static void
constructors_of_libraries_and_globals_have_not_run_at_the_stop_and_all_run_after_it(void **state)
{
	(void)state;
	command_must_print(program("launch-stages", NULL), "library\nglobal\nmain\n", 0);
	command_must_print(program("launch-pie", "exit"), "constructor\nmain\n", 0);
}

static void every_library_that_ldd_lists_is_mapped_at_the_stop(void **state)
{
	static const char *const paths[] = {"/usr/bin/python3", "/usr/bin/redis-server",
					    "/usr/bin/sqlite3", "/bin/true"};
	const char *sample = oracle_sample("launch-stages");

	(void)state;
	for (size_t i = 0; i < 5; i++) {
		const char *path = i < 4 ? paths[i] : sample;
		char *argv[] = {(char *)path, "--version", NULL};
		struct command command;

		assert_int_equal(command_start(&command, argv, NULL), 0);
		assert_true(proc_check_mapped(dp_launch_pid(command.launch), path) >= 2);
		assert_true(proc_is_mapped(dp_launch_pid(command.launch),
					   realpath(LOADER, (char[4096]){0})));
		command_drop(&command);
	}
}

static void no_c_library_has_allocated_anything_at_the_stop(void **state)
{
	static const char *const names[] = {"launch-pie", "launch-nopie", "launch-static",
					    "launch-static-pie"};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		struct command command;
		int in_fd, status;
		char byte;

		assert_int_equal(command_start_fed(&command, program(names[i], "cat"), &in_fd), 0);
		assert_false(proc_has_heap(dp_launch_pid(command.launch)));
		assert_int_equal(dp_launch_release(command.launch, &command.err), 0);
		assert_int_equal(read(command.fd, &byte, 1), 1);
		assert_true(proc_has_heap(dp_launch_pid(command.launch)));
		close(in_fd);
		free(command_finish(&command, &status));
		assert_int_equal(status, 0);
	}
}

static void the_loader_is_about_to_tell_debuggers_that_its_map_is_consistent(void **state)
{
	struct command command;
	char *nm = oracle_run("nm -D " LOADER " | sed -n 's/ T _dl_debug_state.*//p'");
	uint64_t base, function = strtoull(nm, NULL, 16);

	(void)state;
	assert_int_equal(command_start(&command, program("launch-pie", NULL), NULL), 0);
	base = proc_auxiliary(dp_launch_pid(command.launch), AT_BASE);
	assert_int_equal(proc_stopped_at(dp_launch_pid(command.launch)), base + function);
	assert_false(dp_launch_is_late(command.launch));
	command_drop(&command);
	free(nm);
}

static void a_static_program_is_stopped_at_its_entry_point(void **state)
{
	static const char *const names[] = {"launch-static", "launch-static-pie",
					    "launch-static-pie-exports", "launch-musl-static"};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		struct command command;
		int status;
		char *text;

		if (is_missing(names[i]))
			continue;
		assert_int_equal(command_start(&command, program(names[i], NULL), NULL), 0);
		assert_int_equal(proc_stopped_at(dp_launch_pid(command.launch)),
				 proc_auxiliary(dp_launch_pid(command.launch), AT_ENTRY));
		assert_int_equal(proc_auxiliary(dp_launch_pid(command.launch), AT_BASE), 0);
		assert_false(dp_launch_is_late(command.launch));
		assert_string_equal(command_printed(&command), "");
		text = command_finish(&command, &status);
		assert_string_equal(text, "constructor\nmain\n");
		assert_int_equal(status, 0);
		free(text);
	}
}

static void programs_of_every_linkage_run_as_they_do_alone(void **state)
{
	static const char *const names[] = {"launch-pie", "launch-nopie", "launch-static",
					    "launch-static-pie", "launch-musl"};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (!is_missing(names[i]))
			command_must_print(program(names[i], NULL), "constructor\nmain\n", 0);
	}
}

static void a_musl_program_is_stopped_with_its_loader_done(void **state)
{
	struct command command;

	(void)state;
	if (is_missing("launch-musl"))
		skip();
	assert_int_equal(command_start(&command, program("launch-musl", NULL), NULL), 0);
	assert_true(proc_is_mapped(dp_launch_pid(command.launch),
				   realpath("/lib/ld-musl-x86_64.so.1", (char[4096]){0})));
	assert_int_not_equal(proc_stopped_at(dp_launch_pid(command.launch)),
			     proc_auxiliary(dp_launch_pid(command.launch), AT_ENTRY));
	assert_false(dp_launch_is_late(command.launch));
	assert_string_equal(command_printed(&command), "");
	command_drop(&command);
}

/* The process's text is compared while it is stopped and while it runs. */
static void no_breakpoint_stays_in_the_text(void **state)
{
	static const char *const names[] = {"launch-pie", "launch-nopie", "launch-static",
					    "launch-static-pie", "launch-musl"};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		struct command command;
		int in_fd, status;

		if (is_missing(names[i]))
			continue;
		assert_int_equal(command_start_fed(&command, program(names[i], "cat"), &in_fd), 0);
		assert_true(proc_check_text(dp_launch_pid(command.launch)) > 0);
		assert_int_equal(dp_launch_release(command.launch, &command.err), 0);
		assert_true(proc_check_text(dp_launch_pid(command.launch)) > 0);
		close(in_fd);
		free(command_finish(&command, &status));
		assert_int_equal(status, 0);
	}
}

static void a_released_command_has_no_tracer_and_the_callers_streams(void **state)
{
	char *argv[] = {"cat", NULL};
	struct command command;
	int in_fd, status;
	char *text;

	(void)state;
	assert_int_equal(command_start_fed(&command, argv, &in_fd), 0);
	assert_int_equal(proc_status_number(dp_launch_pid(command.launch), "TracerPid:"), getpid());
	assert_int_equal(dp_launch_wait(command.launch, &status), -EBUSY);
	assert_int_equal(dp_launch_poll(command.launch, &status), 0);
	assert_int_equal(dp_launch_release(command.launch, &command.err), 0);
	assert_int_equal(proc_status_number(dp_launch_pid(command.launch), "TracerPid:"), 0);
	assert_int_equal(dp_launch_poll(command.launch, &status), 0);
	assert_int_equal(write(in_fd, "to and fro\n", 11), 11);
	close(in_fd);
	text = command_finish(&command, &status);
	assert_string_equal(text, "to and fro\n");
	assert_int_equal(status, 0);
	free(text);
}

static void the_command_has_only_the_descriptors_that_are_left_open_for_it(void **state)
{
	struct command command;
	struct dirent *entry;
	unsigned n = 0;
	char path[64];
	DIR *dir;

	(void)state;
	assert_int_equal(command_start(&command, program("launch-pie", NULL), NULL), 0);
	snprintf(path, sizeof(path), "/proc/%d/fd", dp_launch_pid(command.launch));
	dir = opendir(path);
	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		int fd = atoi(entry->d_name);

		if (entry->d_name[0] == '.')
			continue;
		assert_int_equal(fcntl(fd, F_GETFD), 0);
		n++;
	}
	closedir(dir);
	assert_true(n >= 3);
	command_drop(&command);
}

static void a_scripts_interpreter_is_what_is_stopped(void **state)
{
	static const char script[] = "#!/bin/sh\necho \"$0 $1\"\nexit 3\n";
	char *path = (char *)scratch_file("script", script, sizeof(script) - 1, 0755);
	char *argv[] = {path, "argument", NULL};
	char expected[256];
	struct command command;

	(void)state;
	snprintf(expected, sizeof(expected), "%s argument\n", path);
	assert_int_equal(command_start(&command, argv, NULL), 0);
	assert_true(proc_is_mapped(dp_launch_pid(command.launch),
				   realpath("/bin/sh", (char[4096]){0})));
	command_drop(&command);
	command_must_print(argv, expected, 3);
}

static void a_command_that_executes_another_is_itself_what_is_stopped(void **state)
{
	char *through_env[] = {"env", (char *)oracle_sample("launch-pie"), "exit", "4", NULL};
	char *through_sh[] = {"sh", "-c", "echo $0; exec true", "zero", NULL};
	struct command command;

	(void)state;
	assert_int_equal(command_start(&command, through_env, NULL), 0);
	assert_true(proc_is_mapped(dp_launch_pid(command.launch), "/usr/bin/env"));
	command_drop(&command);
	command_must_print(through_env, "constructor\nmain\n", 4);
	command_must_print(through_sh, "zero\n", 0);
}

static void a_loader_that_is_run_by_name_has_the_program_mapped_at_the_stop(void **state)
{
	char *argv[] = {LOADER, (char *)oracle_sample("launch-stages"), NULL};
	char *musl[] = {"/lib/ld-musl-x86_64.so.1", (char *)oracle_sample("launch-musl"), NULL};
	struct command command;

	(void)state;
	assert_int_equal(command_start(&command, argv, NULL), 0);
	assert_int_equal(proc_auxiliary(dp_launch_pid(command.launch), AT_BASE), 0);
	assert_true(proc_is_mapped(dp_launch_pid(command.launch), argv[1]));
	assert_true(proc_check_mapped(dp_launch_pid(command.launch), argv[1]) >= 3);
	assert_true(proc_check_text(dp_launch_pid(command.launch)) >= 4);
	command_drop(&command);
	command_must_print(argv, "library\nglobal\nmain\n", 0);
	if (!is_missing("launch-musl"))
		command_must_print(musl, "constructor\nmain\n", 0);
}

static void a_loader_that_only_lists_has_ended_already(void **state)
{
	char *argv[] = {LOADER, "--list", (char *)oracle_sample("launch-stages"), NULL};
	struct command command;
	int status = -1;
	char *text;

	(void)state;
	assert_int_equal(command_start(&command, argv, NULL), 1);
	assert_int_equal(dp_launch_poll(command.launch, &status), 1);
	assert_int_equal(status, 0);
	text = command_finish(&command, &status);
	assert_non_null(strstr(text, "launch-library.so => "));
	assert_int_equal(status, 0);
	free(text);
}

/* Their loading is notified too, and before the program's own is begun. */
static void audit_modules_do_not_stop_the_command_too_early(void **state)
{
	struct command command;
	int status;
	char *text;

	(void)state;
	setenv("LD_AUDIT", oracle_sample("launch-audit.so"), 1);
	assert_int_equal(command_start(&command, program("launch-stages", NULL), NULL), 0);
	unsetenv("LD_AUDIT");
	assert_true(
		proc_is_mapped(dp_launch_pid(command.launch), oracle_sample("launch-audit.so")));
	proc_check_mapped(dp_launch_pid(command.launch), oracle_sample("launch-stages"));
	assert_false(dp_launch_is_late(command.launch));
	assert_string_equal(command_printed(&command), "");
	text = command_finish(&command, &status);
	assert_string_equal(text, "library\nglobal\nmain\n");
	assert_int_equal(status, 0);
	free(text);
}

static char *read_file(const char *path, size_t *ret_bytes)
{
	FILE *file = fopen(path, "re");
	char *bytes = malloc(16 << 20);

	assert_true(file && bytes);
	*ret_bytes = fread(bytes, 1, 16 << 20, file);
	fclose(file);
	return bytes;
}

static void replace(char *bytes, size_t n_bytes, const char *old, const char *new, size_t n)
{
	char *at = memmem(bytes, n_bytes, old, n);

	assert_non_null(at);
	while (at) {
		memcpy(at, new, n);
		at = memmem(bytes, n_bytes, old, n);
	}
}

/* A copy of the loader without _dl_debug_state, and a program that wants that loader. */
static void a_loader_that_tells_nothing_leaves_the_entry_point_and_that_is_said(void **state)
{
	char interpreter[sizeof(LOADER)] = {0};
	const char *path;
	struct command command;
	size_t n_bytes;
	char *bytes, *text;
	int status;

	(void)state;
	bytes = read_file(LOADER, &n_bytes);
	replace(bytes, n_bytes, "\0_dl_debug_state", "\0_dl_debug_quiet", 17);
	path = scratch_file("ld.so", bytes, n_bytes, 0755);
	assert_true(strlen(path) < sizeof(LOADER));
	memcpy(interpreter, path, strlen(path));
	free(bytes);
	bytes = read_file(oracle_sample("launch-stages"), &n_bytes);
	replace(bytes, n_bytes, LOADER, interpreter, sizeof(LOADER));
	path = scratch_file("quiet", bytes, n_bytes, 0755);
	free(bytes);
	setenv("LD_LIBRARY_PATH", oracle_sample(""), 1);
	assert_int_equal(command_start(&command, (char *[]){(char *)path, NULL}, NULL), 0);
	unsetenv("LD_LIBRARY_PATH");
	assert_true(dp_launch_is_late(command.launch));
	assert_int_equal(proc_stopped_at(dp_launch_pid(command.launch)),
			 proc_auxiliary(dp_launch_pid(command.launch), AT_ENTRY));
	assert_string_equal(command_printed(&command), "library\n");
	assert_true(proc_check_text(dp_launch_pid(command.launch)) >= 4);
	text = command_finish(&command, &status);
	assert_string_equal(text, "global\nmain\n");
	assert_int_equal(status, 0);
	free(text);
}

static void real_programs_do_their_work(void **state)
{
	char *python[] = {"/usr/bin/python3", "-c", "print(6 * 7)", NULL};
	char *sqlite[] = {"sqlite3", ":memory:", "select 6 * 7;", NULL};
	char *redis[] = {"redis-server", "--version", NULL};
	struct command command;
	int status;
	char *text;

	(void)state;
	command_must_print(python, "42\n", 0);
	command_must_print(sqlite, "42\n", 0);
	assert_int_equal(command_start(&command, redis, NULL), 0);
	text = command_finish(&command, &status);
	assert_int_equal(strncmp(text, "Redis server v=", 15), 0);
	assert_int_equal(status, 0);
	free(text);
}

static void arguments_arrive_as_they_were_given(void **state)
{
	char *argv[] = {(char *)oracle_sample("launch-pie"), "args", "", "a b", "$HOME *", NULL};
	char expected[512];

	(void)state;
	snprintf(expected, sizeof(expected), "constructor\nmain\n%s\nargs\n\na b\n$HOME *\n",
		 argv[0]);
	command_must_print(argv, expected, 0);
}

static void two_hundred_launches_leave_nothing_behind(void **state)
{
	char *argv[] = {"true", NULL};

	(void)state;
	for (int i = 0; i < 200; i++) {
		struct command command;

		assert_int_equal(command_start(&command, argv, NULL), 0);
		if (i % 2) {
			int status = -1;
			char *text = command_finish(&command, &status);

			assert_int_equal(status, 0);
			free(text);
		} else {
			command_drop(&command);
		}
	}
}

#define test(function) cmocka_unit_test_setup_teardown(function, launch_setup, launch_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(constructors_of_libraries_and_globals_have_not_run_at_the_stop_and_all_run_after_it),
		test(every_library_that_ldd_lists_is_mapped_at_the_stop),
		test(no_c_library_has_allocated_anything_at_the_stop),
		test(the_loader_is_about_to_tell_debuggers_that_its_map_is_consistent),
		test(a_static_program_is_stopped_at_its_entry_point),
		test(programs_of_every_linkage_run_as_they_do_alone),
		test(a_musl_program_is_stopped_with_its_loader_done),
		test(no_breakpoint_stays_in_the_text),
		test(a_released_command_has_no_tracer_and_the_callers_streams),
		test(the_command_has_only_the_descriptors_that_are_left_open_for_it),
		test(a_scripts_interpreter_is_what_is_stopped),
		test(a_command_that_executes_another_is_itself_what_is_stopped),
		test(a_loader_that_is_run_by_name_has_the_program_mapped_at_the_stop),
		test(a_loader_that_only_lists_has_ended_already),
		test(audit_modules_do_not_stop_the_command_too_early),
		test(a_loader_that_tells_nothing_leaves_the_entry_point_and_that_is_said),
		test(real_programs_do_their_work),
		test(arguments_arrive_as_they_were_given),
		test(two_hundred_launches_leave_nothing_behind),
	};
	int r = cmocka_run_group_tests(tests, NULL, NULL);

	scratch_remove();
	return r;
}
