/* SPDX-License-Identifier: MIT */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <inttypes.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/frame.h"
#include "symbolize/maps.h"
#include "symbolize/proc.h"
#include "symbolize/space.h"
#include "symbolize/symbolizer.h"
#include "tests/alloc_fail.h"
#include "tests/sym_oracle.h"

/* A process that does not exist: its ranges are what the test adds. */
#define NO_PID INT_MAX

struct fixture {
	struct dp_modules *modules;
	struct dp_space *space;
};

static struct fixture set_up(pid_t pid)
{
	struct fixture f;

	assert_int_equal(dp_modules_new(&f.modules), 0);
	assert_int_equal(dp_space_new(&f.space, f.modules, pid), 0);
	return f;
}

static void tear_down(struct fixture *f)
{
	dp_space_free(f->space);
	dp_modules_free(f->modules);
}

static void load(struct fixture *f)
{
	struct dp_error err = {""};

	if (dp_space_load(f->space, &err) < 0)
		fail_msg("%s", err.text);
}

static struct dp_module_info module_at(struct fixture *f, uint64_t avma)
{
	struct dp_module_info info = {.path = ""};

	dp_module_get(f->modules, dp_frame_module(dp_space_frame(f->space, avma)), &info);
	return info;
}

static void assert_range(const struct dp_space *space, size_t i, uint64_t start, uint64_t end,
			 uint64_t file_off, uint32_t module)
{
	size_t n;
	const struct dp_space_range *ranges = dp_space_ranges(space, &n);

	assert_true(i < n);
	assert_int_equal(ranges[i].start, start);
	assert_int_equal(ranges[i].end, end);
	assert_int_equal(ranges[i].file_off, file_off);
	assert_int_equal(ranges[i].module, module);
}

static size_t n_ranges(const struct dp_space *space)
{
	size_t n;

	dp_space_ranges(space, &n);
	return n;
}

/* tests/targets/sym_host.c, and how to talk to it. */
struct host {
	pid_t pid;
	FILE *commands, *answers;
};

static void expect_ready(struct host *host)
{
	char line[64];

	assert_non_null(fgets(line, sizeof(line), host->answers));
	assert_string_equal(line, "ready\n");
}

static struct host start_host(const char *path)
{
	int commands[2], answers[2];
	struct host host;

	assert_int_equal(pipe2(commands, O_CLOEXEC), 0);
	assert_int_equal(pipe2(answers, O_CLOEXEC), 0);
	host.pid = fork();
	assert_true(host.pid >= 0);
	if (host.pid == 0) {
		dup2(commands[0], STDIN_FILENO);
		dup2(answers[1], STDOUT_FILENO);
		execl(path, path, NULL);
		_exit(127);
	}
	close(commands[0]);
	close(answers[1]);
	host.commands = fdopen(commands[1], "w");
	host.answers = fdopen(answers[0], "r");
	expect_ready(&host);
	return host;
}

static void tell(struct host *host, const char *command, const char *argument)
{
	fprintf(host->commands, "%s%s\n", command, argument);
	fflush(host->commands);
}

static uint64_t ask(struct host *host, const char *command, const char *argument)
{
	char line[64];

	tell(host, command, argument);
	assert_non_null(fgets(line, sizeof(line), host->answers));
	return strtoull(line, NULL, 16);
}

static void stop_host(struct host *host)
{
	int status;

	fclose(host->commands);
	assert_int_equal(waitpid(host->pid, &status, 0), host->pid);
	assert_int_equal(status, 0);
	fclose(host->answers);
}

static char *copy_of(const char *name)
{
	char *path = strdup("/tmp/dp-space-XXXXXX");
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	fchmod(fd, 0755);
	close(fd);
	free(oracle_run("cp '%s' '%s'", oracle_sample(name), path));
	return path;
}

/* The line of the process's maps that holds @avma. */
static struct dp_maps_line line_at(pid_t pid, uint64_t avma, char *text, size_t n_bytes)
{
	struct dp_maps_line line;
	char path[64];
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "r");
	assert_non_null(maps);
	while (fgets(text, (int)n_bytes, maps)) {
		assert_int_equal(dp_maps_parse_line(text, strlen(text), &line), 0);
		if (avma >= line.start && avma < line.end)
			break;
	}
	fclose(maps);
	assert_true(avma >= line.start && avma < line.end);
	return line;
}

static int add_as_kernel_would(struct fixture *f, pid_t pid, uint64_t avma)
{
	char text[4096], path[4096];
	struct dp_maps_line line = line_at(pid, avma, text, sizeof(text));

	snprintf(path, sizeof(path), "%.*s%s", (int)line.path_bytes, line.path,
		 line.deleted ? " (deleted)" : "");
	return dp_space_add(f->space, line.start, line.end, line.file_off, path, NULL);
}

/* The frame of @avma must lie at the place in the file that nm and readelf know of @function. */
static void assert_is_function(struct fixture *f, uint64_t avma, const char *file,
			       const char *nm_options, const char *function)
{
	uint64_t frame = dp_space_frame(f->space, avma);
	size_t n;
	struct oracle_function *functions = oracle_functions(file, nm_options, &n);

	assert_int_not_equal(dp_frame_module(frame), 0);
	assert_int_equal(dp_frame_offset(frame),
			 oracle_file_off(file, oracle_function(functions, n, function)->svma));
	free(functions);
}

static void space_of_this_process_has_every_executable_mapping(void **state)
{
	struct fixture f = set_up(getpid());
	FILE *maps = fopen("/proc/self/maps", "r");
	char text[4096];
	size_t i = 0;

	(void)state;
	load(&f);
	while (fgets(text, sizeof(text), maps)) {
		size_t n;
		const struct dp_space_range *range = dp_space_ranges(f.space, &n) + i;
		uint64_t start, end, file_off;
		char execute;

		assert_int_equal(sscanf(text, "%" SCNx64 "-%" SCNx64 " %*c%*c%c%*c %" SCNx64,
					&start, &end, &execute, &file_off),
				 4);
		if (execute != 'x')
			continue;
		assert_true(i < n);
		assert_int_equal(range->start, start);
		assert_int_equal(range->end, end);
		assert_int_equal(range->file_off, file_off);
		assert_int_equal(range->module == 0, !strchr(text, '/') && !strstr(text, "[vdso]"));
		i++;
	}
	assert_true(i >= 4);
	assert_int_equal(i, n_ranges(f.space));
	fclose(maps);
	tear_down(&f);
}

static void space_of_this_process_normalises_its_functions(void **state)
{
	struct fixture f = set_up(getpid());
	uint64_t in_libc = (uintptr_t)gnu_get_libc_version;
	uint64_t here = (uintptr_t)space_of_this_process_normalises_its_functions;
	char exe[PATH_MAX] = "";
	Dl_info info;

	(void)state;
	load(&f);
	assert_int_not_equal(dladdr((void *)gnu_get_libc_version, &info), 0);
	assert_is_function(&f, in_libc, info.dli_fname, "-D", "gnu_get_libc_version");
	assert_int_equal(module_at(&f, in_libc).kind, DP_MODULE_ELF);
	assert_true(readlink("/proc/self/exe", exe, sizeof(exe) - 1) > 0);
	assert_is_function(&f, here, exe, "", "space_of_this_process_normalises_its_functions");
	assert_string_equal(module_at(&f, here).path, exe);
	assert_true(dp_space_holds(f.space, here));
	assert_false(dp_space_holds(f.space, (uintptr_t)&f));
	assert_int_equal(dp_space_frame(f.space, (uintptr_t)&f), (uintptr_t)&f);
	tear_down(&f);
}

static void space_copies_the_vdso(void **state)
{
	static const char *const names[] = {"clock_gettime"};
	uint64_t vdso = getauxval(AT_SYSINFO_EHDR);
	struct fixture f = set_up(getpid());
	struct dp_found_symbol *found;
	struct dp_symbolizer *symbolizer;
	struct dp_symbol symbol;
	uint64_t frame;
	size_t n;

	(void)state;
	load(&f);
	frame = dp_space_frame(f.space, vdso + 1);
	assert_int_equal(module_at(&f, vdso).kind, DP_MODULE_VDSO);
	assert_int_equal(dp_frame_offset(frame), 1);
	assert_int_equal(
		dp_module_find_functions(f.modules, dp_frame_module(frame), names, 1, &found, &n),
		0);
	assert_int_equal(n, 1);
	assert_int_equal(dp_symbolizer_new(&symbolizer, f.modules), 0);
	frame = dp_space_frame(f.space, vdso + found[0].file_off);
	assert_int_equal(dp_symbolizer_resolve(symbolizer, frame, &symbol), 0);
	assert_string_equal(symbol.lines[0].function, "clock_gettime");
	free(found);
	dp_symbolizer_free(symbolizer);
	tear_down(&f);
}

static void space_of_another_process_is_read(void **state)
{
	struct host host = start_host(oracle_sample("host"));
	struct fixture f = set_up(host.pid);
	uint64_t avma = ask(&host, "where", "");

	(void)state;
	load(&f);
	assert_is_function(&f, avma, oracle_sample("host"), "", "sym_host_function");
	assert_string_equal(module_at(&f, avma).path, oracle_sample("host"));
	stop_host(&host);
	tear_down(&f);
}

static void space_keeps_modules_and_generation_while_nothing_changes(void **state)
{
	struct host host = start_host(oracle_sample("host"));
	struct fixture f = set_up(host.pid);
	uint64_t avma = ask(&host, "where", ""), generation, frame;
	uint32_t n_modules;
	struct dp_space_range range;

	(void)state;
	assert_int_equal(dp_space_generation(f.space), 0);
	load(&f);
	generation = dp_space_generation(f.space);
	n_modules = dp_modules_count(f.modules);
	frame = dp_space_frame(f.space, avma);
	assert_true(generation > 0);
	load(&f);
	assert_int_equal(dp_space_generation(f.space), generation);
	assert_int_equal(dp_modules_count(f.modules), n_modules);
	assert_int_equal(dp_space_frame(f.space, avma), frame);
	assert_int_equal(dp_space_mapping_of(f.space, frame, &range), 0);
	assert_true(avma >= range.start && avma < range.end);
	ask(&host, "jit", "");
	load(&f);
	assert_true(dp_space_generation(f.space) > generation);
	assert_int_equal(dp_space_frame(f.space, avma), frame);
	stop_host(&host);
	tear_down(&f);
}

/* Skips the test if map_files may not be followed (it takes CAP_CHECKPOINT_RESTORE). */
static void need_map_files(void)
{
	uint64_t avma = (uintptr_t)gnu_get_libc_version;
	char text[4096], path[128];
	struct dp_maps_line line = line_at(getpid(), avma, text, sizeof(text));

	snprintf(path, sizeof(path), "/proc/self/map_files/%" PRIx64 "-%" PRIx64, line.start,
		 line.end);
	if (access(path, R_OK) < 0) {
		print_message("no CAP_CHECKPOINT_RESTORE\n");
		skip();
	}
}

static void check_takes_in_a_library_that_is_opened_late(void)
{
	struct host host = start_host(oracle_sample("host"));
	char *library = copy_of("library.so");
	struct fixture f = set_up(host.pid);
	uint64_t avma, generation;

	load(&f);
	generation = dp_space_generation(f.space);
	avma = ask(&host, "open ", library);
	assert_int_equal(dp_frame_module(dp_space_frame(f.space, avma)), 0);
	assert_false(dp_space_holds(f.space, avma));
	/* The file goes away at once: what is mapped is still the right one. */
	unlink(library);
	assert_int_equal(add_as_kernel_would(&f, host.pid, avma), 0);
	assert_true(dp_space_generation(f.space) > generation);
	assert_is_function(&f, avma, oracle_sample("library.so"), "", "sym_library_function");
	assert_int_equal(module_at(&f, avma).kind, DP_MODULE_ELF);
	assert_string_equal(module_at(&f, avma).path, library);
	/* The whole map, read again, says the same. */
	generation = dp_space_generation(f.space);
	load(&f);
	assert_int_equal(dp_space_generation(f.space), generation);
	stop_host(&host);
	free(library);
	tear_down(&f);
}

static void space_takes_in_a_library_that_is_opened_late(void **state)
{
	(void)state;
	need_map_files();
	check_takes_in_a_library_that_is_opened_late();
}

static void space_remembers_a_library_that_was_closed(void **state)
{
	struct host host = start_host(oracle_sample("host"));
	char *library = copy_of("library.so");
	struct fixture f = set_up(host.pid);
	uint64_t avma = ask(&host, "open ", library), frame;
	struct dp_symbolizer *symbolizer;
	struct dp_space_range range;
	struct dp_symbol symbol;

	(void)state;
	load(&f);
	frame = dp_space_frame(f.space, avma);
	ask(&host, "close", "");
	unlink(library);
	load(&f);
	assert_false(dp_space_holds(f.space, avma));
	assert_int_equal(dp_space_mapping_of(f.space, frame, &range), 0);
	assert_true(avma >= range.start && avma < range.end);
	assert_int_equal(range.module, dp_frame_module(frame));
	stop_host(&host);
	assert_int_equal(dp_symbolizer_new(&symbolizer, f.modules), 0);
	assert_int_equal(dp_symbolizer_resolve(symbolizer, frame, &symbol), 0);
	assert_string_equal(symbol.lines[0].function, "sym_library_function");
	dp_symbolizer_free(symbolizer);
	free(library);
	tear_down(&f);
}

static void space_calls_a_library_that_is_gone_already_opaque(void **state)
{
	struct host host = start_host(oracle_sample("host"));
	struct fixture f = set_up(host.pid);

	(void)state;
	load(&f);
	assert_int_equal(dp_space_add(f.space, 0x10000, 0x20000, 0x1000, "/lib/gone.so", NULL), 0);
	assert_int_equal(module_at(&f, 0x10800).kind, DP_MODULE_OPAQUE);
	assert_string_equal(module_at(&f, 0x10800).path, "/lib/gone.so");
	assert_int_equal(dp_frame_offset(dp_space_frame(f.space, 0x10800)), 0x1800);
	stop_host(&host);
	tear_down(&f);
}

static void check_opens_the_mapped_file_and_not_its_successor(void)
{
	char *program = copy_of("host");
	struct host host = start_host(program);
	struct fixture f = set_up(host.pid);
	uint64_t avma = ask(&host, "where", "");
	struct dp_symbolizer *symbolizer;
	struct dp_symbol symbol;

	free(oracle_run("cp '%s' '%s.new' && mv '%s.new' '%s'", oracle_sample("calls-o0"), program,
			program, program));
	load(&f);
	assert_is_function(&f, avma, oracle_sample("host"), "", "sym_host_function");
	assert_string_equal(module_at(&f, avma).path, program);
	assert_int_equal(dp_symbolizer_new(&symbolizer, f.modules), 0);
	assert_int_equal(dp_symbolizer_resolve(symbolizer, dp_space_frame(f.space, avma), &symbol),
			 0);
	assert_string_equal(symbol.lines[0].function, "sym_host_function");
	dp_symbolizer_free(symbolizer);
	stop_host(&host);
	unlink(program);
	free(program);
	tear_down(&f);
}

static void space_opens_the_mapped_file_and_not_its_successor(void **state)
{
	(void)state;
	need_map_files();
	check_opens_the_mapped_file_and_not_its_successor();
}

static void space_gives_anonymous_code_no_module(void **state)
{
	struct host host = start_host(oracle_sample("host"));
	struct fixture f = set_up(host.pid);
	uint64_t jit = ask(&host, "jit", "");
	struct dp_space_range range;

	(void)state;
	load(&f);
	assert_true(dp_space_holds(f.space, jit + 8191));
	assert_int_equal(dp_space_frame(f.space, jit + 8191), jit + 8191);
	assert_int_equal(dp_space_mapping_of(f.space, jit + 5, &range), 0);
	assert_int_equal(range.module, 0);
	assert_true(jit >= range.start && jit < range.end);
	stop_host(&host);
	tear_down(&f);
}

static void space_is_read_through_a_thread_when_the_main_one_has_left(void **state)
{
	struct host host = start_host(oracle_sample("host"));
	struct fixture f = set_up(host.pid);
	uint64_t avma = ask(&host, "where", "");
	struct dp_error err;
	char *maps;

	(void)state;
	tell(&host, "leave", "");
	expect_ready(&host);
	maps = oracle_run("cat /proc/%d/maps 2>/dev/null || true", host.pid);
	assert_string_equal(maps, "");
	free(maps);
	assert_int_equal(dp_space_load(f.space, &err), 0);
	assert_is_function(&f, avma, oracle_sample("host"), "", "sym_host_function");
	assert_int_equal(module_at(&f, avma).kind, DP_MODULE_ELF);
	/* And so is what comes later. */
	avma = ask(&host, "open ", oracle_sample("library.so"));
	assert_int_equal(dp_space_load(f.space, NULL), 0);
	assert_is_function(&f, avma, oracle_sample("library.so"), "", "sym_library_function");
	stop_host(&host);
	tear_down(&f);
}

static void space_says_that_a_process_is_gone(void **state)
{
	struct host host = start_host(oracle_sample("host"));
	struct fixture f = set_up(host.pid);
	struct dp_error err = {""};
	size_t n;

	(void)state;
	load(&f);
	n = n_ranges(f.space);
	stop_host(&host);
	assert_int_equal(dp_space_load(f.space, &err), -ESRCH);
	assert_non_null(strstr(err.text, "gone"));
	assert_int_equal(n_ranges(f.space), n);
	tear_down(&f);
	f = set_up(NO_PID);
	assert_int_equal(dp_space_load(f.space, &err), -ESRCH);
	tear_down(&f);
}

static void space_believes_a_path_only_with_the_inode(void **state)
{
	const char *path = oracle_sample("library.so");
	struct dp_maps_line line = {.start = 1, .end = 2, .path = path, .path_bytes = strlen(path)};
	struct stat st;
	int fd;

	(void)state;
	assert_int_equal(stat(path, &st), 0);
	line.inode = st.st_ino;
	fd = dp_proc_open_mapping(getpid(), &line);
	assert_true(fd >= 0);
	close(fd);
	line.inode = st.st_ino + 1;
	assert_int_equal(dp_proc_open_mapping(getpid(), &line), -ESTALE);
	line.inode = st.st_ino;
	line.deleted = true;
	assert_true(dp_proc_open_mapping(getpid(), &line) < 0);
	/* No path at all, and what is no regular file. */
	line.deleted = false;
	line.path_bytes = 0;
	assert_true(dp_proc_open_mapping(getpid(), &line) < 0);
	line.path = "/dev/null";
	line.path_bytes = strlen(line.path);
	assert_int_equal(dp_proc_open_mapping(getpid(), &line), -ENODEV);
}

/* Runs @body in a child that is nobody; its result is the exit status. */
static int as_nobody(int (*body)(void))
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		if (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0))
			_exit(99);
		prctl(PR_SET_DUMPABLE, 1);
		_exit(body());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int load_init(void)
{
	struct dp_modules *modules;
	struct dp_space *space;
	struct dp_error err;
	int r;

	if (dp_modules_new(&modules) < 0 || dp_space_new(&space, modules, 1) < 0)
		return 1;
	r = dp_space_load(space, &err);
	dp_space_free(space);
	dp_modules_free(modules);
	return (r == -EACCES || r == -EPERM) && strstr(err.text, "CAP_SYS_PTRACE") ? 0 : 2;
}

static void space_says_that_it_may_not_look(void **state)
{
	(void)state;
	assert_int_equal(as_nobody(load_init), 0);
}

/* Without the capability that map_files needs, libc is found by its path and inode. */
static int load_self(void)
{
	struct dp_module_info info;
	struct dp_modules *modules;
	struct dp_space *space;
	uint32_t module;
	int r = 0;

	if (dp_modules_new(&modules) < 0 || dp_space_new(&space, modules, getpid()) < 0)
		return 1;
	if (dp_space_load(space, NULL) < 0)
		r = 2;
	module = dp_frame_module(dp_space_frame(space, (uintptr_t)gnu_get_libc_version));
	if (r == 0 && (!dp_module_get(modules, module, &info) || info.kind != DP_MODULE_ELF))
		r = 3;
	dp_space_free(space);
	dp_modules_free(modules);
	return r;
}

static void space_is_read_without_privilege_where_it_is_ours(void **state)
{
	(void)state;
	assert_int_equal(as_nobody(load_self), 0);
}

static void space_makes_do_without_file_descriptors(void **state)
{
	struct fixture f = set_up(getpid());
	struct rlimit before, few;
	struct dp_modules_stats stats;
	int fd = dup(0), r;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	close(fd);
	few = before;
	few.rlim_cur = (rlim_t)fd + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	r = dp_space_load(f.space, NULL);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(r, 0);
	dp_modules_get_stats(f.modules, &stats);
	assert_true(stats.n_without_fd >= 2);
	assert_true(n_ranges(f.space) >= 4);
	assert_int_equal(module_at(&f, (uintptr_t)gnu_get_libc_version).kind, DP_MODULE_OPAQUE);
	tear_down(&f);
}

static void space_puts_a_new_mapping_over_what_it_overlaps(void **state)
{
	struct fixture f = set_up(NO_PID);
	struct dp_space_range range;
	uint64_t generation;

	(void)state;
	assert_int_equal(dp_space_add(f.space, 0x1000, 0x9000, 0x100000, "/a", NULL), 0);
	assert_int_equal(dp_space_add(f.space, 0x3000, 0x5000, 0x7000, "/b", NULL), 0);
	assert_int_equal(n_ranges(f.space), 3);
	assert_range(f.space, 0, 0x1000, 0x3000, 0x100000, 1);
	assert_range(f.space, 1, 0x3000, 0x5000, 0x7000, 2);
	assert_range(f.space, 2, 0x5000, 0x9000, 0x104000, 1);
	/* Over several, with both ends sticking out. */
	assert_int_equal(dp_space_add(f.space, 0x2000, 0x6000, 0, "//anon", NULL), 0);
	assert_int_equal(n_ranges(f.space), 3);
	assert_range(f.space, 0, 0x1000, 0x2000, 0x100000, 1);
	assert_range(f.space, 1, 0x2000, 0x6000, 0, 0);
	assert_range(f.space, 2, 0x6000, 0x9000, 0x105000, 1);
	/* What was replaced is remembered. */
	assert_int_equal(dp_space_mapping_of(f.space, dp_frame_make(2, 0x7800), &range), 0);
	assert_int_equal(range.start, 0x3000);
	/* Touching is not overlapping; order of addition does not matter. */
	assert_int_equal(dp_space_add(f.space, 0x9000, 0xa000, 0, "/c", NULL), 0);
	assert_int_equal(dp_space_add(f.space, 0x0800, 0x1000, 0, "/c", NULL), 0);
	assert_int_equal(n_ranges(f.space), 5);
	assert_range(f.space, 0, 0x0800, 0x1000, 0, 3);
	assert_range(f.space, 4, 0x9000, 0xa000, 0, 3);
	/* The same again changes nothing; nothing is no mapping. */
	generation = dp_space_generation(f.space);
	assert_int_equal(dp_space_add(f.space, 0x9000, 0xa000, 0, "/c", NULL), 0);
	assert_int_equal(dp_space_add(f.space, 0x9000, 0x9000, 0, "/d", NULL), 0);
	assert_int_equal(dp_space_generation(f.space), generation);
	/* Over everything. */
	assert_int_equal(dp_space_add(f.space, 0, 0x100000, 0, "/all", NULL), 0);
	assert_int_equal(n_ranges(f.space), 1);
	assert_true(dp_space_generation(f.space) > generation);
	tear_down(&f);
}

static void space_takes_the_special_names_for_what_they_are(void **state)
{
	static const char *const anonymous[] = {"//anon", "[vsyscall]", "[uprobes]",
						"[heap]", "[anon:jit]", ""};
	struct fixture f = set_up(NO_PID);

	(void)state;
	for (size_t i = 0; i < sizeof(anonymous) / sizeof(*anonymous); i++) {
		uint64_t start = 0x10000 * (i + 1);

		assert_int_equal(
			dp_space_add(f.space, start, start + 0x1000, 0, anonymous[i], NULL), 0);
		assert_true(dp_space_holds(f.space, start));
		assert_int_equal(dp_space_frame(f.space, start), start);
	}
	assert_int_equal(dp_modules_count(f.modules), 0);
	assert_int_equal(dp_space_add(f.space, 0x1000, 0x2000, 0, "/x y (deleted)", NULL), 0);
	assert_string_equal(module_at(&f, 0x1000).path, "/x y");
	assert_int_equal(dp_space_add(f.space, 0x2000, 0x3000, 0, "[vdso]", NULL), 0);
	assert_string_equal(module_at(&f, 0x2000).path, "[vdso]");
	assert_int_equal(module_at(&f, 0x2000).kind, DP_MODULE_OPAQUE);
	tear_down(&f);
}

static void space_gives_the_latest_of_several_mappings(void **state)
{
	struct fixture f = set_up(NO_PID);
	uint64_t frame = dp_frame_make(1, 0x1800);
	struct dp_space_range range;

	(void)state;
	assert_int_equal(dp_space_mapping_of(f.space, frame, &range), -ENOENT);
	dp_space_add(f.space, 0x20000, 0x21000, 0x1000, "/a", NULL);
	dp_space_add(f.space, 0x30000, 0x31000, 0x1000, "/a", NULL);
	assert_int_equal(dp_space_mapping_of(f.space, frame, &range), 0);
	assert_int_equal(range.start, 0x30000);
	dp_space_add(f.space, 0x10000, 0x11000, 0x1000, "/a", NULL);
	dp_space_add(f.space, 0x20000, 0x21000, 0, "/b", NULL);
	assert_int_equal(dp_space_mapping_of(f.space, frame, &range), 0);
	assert_int_equal(range.start, 0x10000);
	/* Both closed, in the other order. */
	dp_space_add(f.space, 0x10000, 0x11000, 0, "/b", NULL);
	assert_int_equal(dp_space_mapping_of(f.space, frame, &range), 0);
	assert_int_equal(range.start, 0x30000);
	dp_space_add(f.space, 0x30000, 0x31000, 0, "/b", NULL);
	assert_int_equal(dp_space_mapping_of(f.space, frame, &range), 0);
	assert_int_equal(range.start, 0x30000);
	assert_int_equal(dp_space_mapping_of(f.space, dp_frame_make(1, 0x2000), &range), -ENOENT);
	tear_down(&f);
}

static void space_forgets_anonymous_code_before_libraries(void **state)
{
	struct fixture f = set_up(NO_PID);
	struct dp_space_range range;
	struct dp_space_stats stats;

	(void)state;
	dp_space_add(f.space, 0x1000, 0x2000, 0, "/a", NULL);
	dp_space_add(f.space, 0x1000, 0x2000, 0, "/b", NULL);
	for (uint64_t i = 0; i < 5000; i++)
		dp_space_add(f.space, 0x10000, 0x20000 + i, 0, "//anon", NULL);
	dp_space_get_stats(f.space, &stats);
	assert_int_equal(stats.n_history_lost, 4999 + 1 - 4096);
	assert_int_equal(dp_space_mapping_of(f.space, dp_frame_make(1, 0x800), &range), 0);
	assert_int_equal(range.start, 0x1000);
	/* A library that comes and goes takes one place, wherever it was. */
	for (uint64_t i = 0; i < 5000; i++) {
		uint64_t start = 0x1000000 + 0x10000 * (i % 7);

		dp_space_add(f.space, start, start + 0x1000, 0, "/a", NULL);
		dp_space_add(f.space, start, start + 0x1000, 0, "/b", NULL);
	}
	dp_space_get_stats(f.space, &stats);
	assert_int_equal(stats.n_history_lost, 4999 + 1 - 4096 + 1);
	tear_down(&f);
}

static void space_counts_mappings_beyond_its_bound(void **state)
{
	struct fixture f = set_up(NO_PID);
	struct dp_space_stats stats;

	(void)state;
	for (uint64_t i = 0; i < (1u << 17) + 10; i++)
		assert_int_equal(dp_space_add(f.space, 0x1000 + i * 0x2000, 0x2000 + i * 0x2000, 0,
					      "//anon", NULL),
				 0);
	dp_space_get_stats(f.space, &stats);
	assert_true(stats.n_ranges_over_limit >= 10);
	assert_int_equal(n_ranges(f.space) + stats.n_ranges_over_limit, (1u << 17) + 10);
	tear_down(&f);
}

static struct fixture failing;

static int load_again(void)
{
	size_t n = n_ranges(failing.space);
	uint64_t generation = dp_space_generation(failing.space);
	int r = dp_space_load(failing.space, NULL);

	if (r < 0) {
		assert_int_equal(n_ranges(failing.space), n);
		assert_int_equal(dp_space_generation(failing.space), generation);
	}
	return r;
}

static int add_again(void)
{
	uint64_t generation = dp_space_generation(failing.space);
	int r = dp_space_add(failing.space, 0x3000, 0x4000, 0, "/new", NULL);

	assert_int_equal(dp_space_generation(failing.space) > generation, r == 0);
	return r;
}

static int new_again(void)
{
	struct dp_space *space = (void *)1;
	int r = dp_space_new(&space, failing.modules, 1);

	if (r < 0)
		assert_ptr_equal(space, (void *)1);
	else
		dp_space_free(space);
	return r;
}

static void space_leaves_all_as_it_was_when_memory_is_out(void **state)
{
	(void)state;
	failing = set_up(getpid());
	ALLOC_FAIL_EACH(new_again());
	ALLOC_FAIL_EACH(load_again());
	tear_down(&failing);
	failing = set_up(NO_PID);
	/* 15 and 2: the arrays are full, and have to grow. */
	for (uint64_t i = 1; i <= 15; i++)
		dp_space_add(failing.space, 0x10000 * i, 0x10000 * i + 0x1000, 0, "//anon", NULL);
	ALLOC_FAIL_EACH(add_again());
	assert_int_equal(n_ranges(failing.space), 16);
	tear_down(&failing);
	dp_space_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(space_of_this_process_has_every_executable_mapping),
		cmocka_unit_test(space_of_this_process_normalises_its_functions),
		cmocka_unit_test(space_copies_the_vdso),
		cmocka_unit_test(space_of_another_process_is_read),
		cmocka_unit_test(space_keeps_modules_and_generation_while_nothing_changes),
		cmocka_unit_test(space_takes_in_a_library_that_is_opened_late),
		cmocka_unit_test(space_remembers_a_library_that_was_closed),
		cmocka_unit_test(space_calls_a_library_that_is_gone_already_opaque),
		cmocka_unit_test(space_opens_the_mapped_file_and_not_its_successor),
		cmocka_unit_test(space_gives_anonymous_code_no_module),
		cmocka_unit_test(space_is_read_through_a_thread_when_the_main_one_has_left),
		cmocka_unit_test(space_says_that_a_process_is_gone),
		cmocka_unit_test(space_believes_a_path_only_with_the_inode),
		cmocka_unit_test(space_says_that_it_may_not_look),
		cmocka_unit_test(space_is_read_without_privilege_where_it_is_ours),
		cmocka_unit_test(space_makes_do_without_file_descriptors),
		cmocka_unit_test(space_puts_a_new_mapping_over_what_it_overlaps),
		cmocka_unit_test(space_takes_the_special_names_for_what_they_are),
		cmocka_unit_test(space_gives_the_latest_of_several_mappings),
		cmocka_unit_test(space_forgets_anonymous_code_before_libraries),
		cmocka_unit_test(space_counts_mappings_beyond_its_bound),
		cmocka_unit_test(space_leaves_all_as_it_was_when_memory_is_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
