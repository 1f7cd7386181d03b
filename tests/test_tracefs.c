/* SPDX-License-Identifier: MIT */
/* Probe definitions in the real tracefs. Nothing is opened on them: they are idle throughout. */
#include "perf/tracefs.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/perf_fixture.h"

#define TRACING "/sys/kernel/tracing"
#define ARGUMENTS "a0=%di:u64 sp=%sp:u64"

static void define(struct dp_tracefs *tracefs, const char *event, bool is_return, int fd,
		   uint64_t file_off)
{
	struct dp_error err = {0};

	if (dp_tracefs_define(tracefs, event, is_return, fd, file_off,
			      is_return ? "ret=$retval:u64" : ARGUMENTS, &err) < 0)
		fail_msg("%s", err.text);
}

static struct dp_tracefs *open_tracefs(void)
{
	struct dp_tracefs *tracefs = NULL;
	struct dp_error err = {0};

	if (dp_tracefs_open(&tracefs, &err) < 0)
		fail_msg("%s", err.text);
	return tracefs;
}

/* One definition of this program. */
static void define_one(struct dp_tracefs *tracefs)
{
	int fd = program_fd();

	define(tracefs, "entry", false, fd, program_file_off(probed_alloc));
	close(fd);
}

/* A definition "deltaprof_…/left" in the name of someone else; removed again by remove_by_hand().
 */
static unsigned count_left(const char *group)
{
	char prefix[128];

	snprintf(prefix, sizeof(prefix), "%s/", group);
	return count_definitions(prefix);
}

static void define_as(const char *group)
{
	char command[256];

	snprintf(command, sizeof(command), "p:%s/left /proc/self/exe:0x%llx %s\n", group,
		 (unsigned long long)program_file_off(probed_alloc), ARGUMENTS);
	assert_int_equal(define_by_hand(command), 0);
	assert_int_equal(count_left(group), 1);
}

static void remove_by_hand(const char *group)
{
	char command[256];

	snprintf(command, sizeof(command), "-:%s/left\n", group);
	define_by_hand(command);
}

static void definitions_name_their_owner_and_vanish_on_close(void **state)
{
	unsigned before = count_own_definitions();
	struct dp_tracefs *tracefs = open_tracefs();
	int fd = program_fd();

	(void)state;
	define(tracefs, "entry", false, fd, program_file_off(probed_alloc));
	define(tracefs, "ret", true, fd, program_file_off(probed_alloc));
	define(tracefs, "free", false, fd, program_file_off(probed_free));
	close(fd);
	assert_int_equal(count_own_definitions(), before + 3);
	dp_tracefs_close(tracefs);
	assert_int_equal(count_own_definitions(), before);
	dp_tracefs_close(NULL);
}

static void two_handles_of_one_process_do_not_meet(void **state)
{
	unsigned before = count_own_definitions();
	struct dp_tracefs *first = open_tracefs();
	struct dp_tracefs *second;

	(void)state;
	define_one(first);
	second = open_tracefs();
	define_one(second);
	assert_int_equal(count_own_definitions(), before + 2);
	dp_tracefs_close(first);
	assert_int_equal(count_own_definitions(), before + 1);
	dp_tracefs_close(second);
	assert_int_equal(count_own_definitions(), before);
}

static void several_files_share_one_event(void **state)
{
	static const char *const fields[5] = {"a0", NULL, NULL, "sp", NULL};
	struct dp_tracefs *tracefs = open_tracefs();
	unsigned before = count_own_definitions();
	struct dp_raw_layout layout = {0};
	struct dp_error err = {0};
	int program = program_fd();
	int shell = open("/bin/sh", O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_true(shell >= 0);
	define(tracefs, "entry", false, program, program_file_off(probed_alloc));
	define(tracefs, "entry", false, program, program_file_off(probed_free));
	define(tracefs, "entry", false, shell, 0x4000);
	assert_int_equal(count_own_definitions(), before + 3);
	assert_int_equal(dp_tracefs_layout(tracefs, NULL, "entry", DP_EVENT_FREE, "__probe_ip",
					   fields, &layout, &err),
			 0);
	assert_int_equal(layout.type, DP_EVENT_FREE);
	assert_true(layout.id > 0);
	assert_int_equal(layout.probe.offset_bytes, 8); /* after the common fields */
	assert_int_equal(layout.probe.size_bytes, 8);
	assert_int_equal(layout.fields[0].offset_bytes, 16);
	assert_int_equal(layout.fields[3].offset_bytes, 24);
	assert_int_equal(layout.fields[3].size_bytes, 8);
	assert_int_equal(layout.fields[1].size_bytes, 0);
	close(program);
	close(shell);
	dp_tracefs_close(tracefs);
	assert_int_equal(count_own_definitions(), before);
}

static void a_file_that_was_deleted_can_be_probed(void **state)
{
	char path[] = "/tmp/dp_test_tracefs_XXXXXX";
	struct dp_tracefs *tracefs = open_tracefs();
	unsigned before = count_own_definitions();
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(unlink(path), 0);
	define(tracefs, "entry", false, fd, 64);
	assert_int_equal(count_own_definitions(), before + 1);
	close(fd);
	dp_tracefs_close(tracefs);
	assert_int_equal(count_own_definitions(), before);
}

#define N_DEAD_EVENTS 3
#define N_DEAD_PROBES 12

/* Leaves as many definitions as a profiler that is killed at work does. */
static void define_and_be_killed(struct shared *shared)
{
	struct dp_tracefs *tracefs = open_tracefs();
	int fd = program_fd();

	sem_post(&shared->ready);
	await(&shared->go);
	for (int i = 0; i < N_DEAD_EVENTS; i++) {
		for (int k = 0; k < N_DEAD_PROBES; k++) {
			char event[] = {'e', (char)('0' + i), '\0'};

			define(tracefs, event, false, fd,
			       program_file_off(probed_alloc) + (uint64_t)k);
		}
	}
	raise(SIGKILL);
}

static unsigned count_definitions_of(pid_t pid)
{
	char prefix[64];

	snprintf(prefix, sizeof(prefix), "deltaprof_%d_", pid);
	return count_definitions(prefix);
}

static void await_death(pid_t pid)
{
	siginfo_t info;

	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(info.si_code, CLD_KILLED);
}

static void what_dead_owners_left_is_swept_by_the_next_open(void **state)
{
	enum { N_OWNERS = 6 }; /* more text than one read of uprobe_events gives */
	struct target owners[N_OWNERS];
	pid_t pids[N_OWNERS];

	(void)state;
	for (int i = 0; i < N_OWNERS; i++) {
		target_start(&owners[i], define_and_be_killed);
		pids[i] = owners[i].pid;
	}
	for (int i = 0; i < N_OWNERS; i++) /* none of them sweeps from here on */
		await(&owners[i].shared->ready);
	for (int i = 0; i < N_OWNERS; i++)
		sem_post(&owners[i].shared->go);
	for (int i = 0; i < N_OWNERS; i++) {
		await_death(pids[i]);
		assert_int_equal(count_definitions_of(pids[i]), N_DEAD_EVENTS * N_DEAD_PROBES);
		target_kill(&owners[i]);
	}
	dp_tracefs_close(open_tracefs());
	for (int i = 0; i < N_OWNERS; i++)
		assert_int_equal(count_definitions_of(pids[i]), 0);
}

static void an_owner_that_nobody_has_waited_for_is_dead_too(void **state)
{
	struct target owner;

	(void)state;
	target_start(&owner, define_and_be_killed);
	sem_post(&owner.shared->go);
	await_death(owner.pid);
	assert_int_equal(count_definitions_of(owner.pid), N_DEAD_EVENTS * N_DEAD_PROBES);
	dp_tracefs_close(open_tracefs());
	assert_int_equal(count_definitions_of(owner.pid), 0);
	target_kill(&owner);
}

static void own_until_told(struct shared *shared)
{
	struct dp_tracefs *tracefs = open_tracefs();

	define_one(tracefs);
	sem_post(&shared->ready);
	await(&shared->go);
	dp_tracefs_close(tracefs);
}

static void *own_in_thread(void *context)
{
	while (!main_thread_has_ended(getpid()))
		sched_yield();
	own_until_told(context);
	_exit(0);
}

static void own_after_the_main_thread(struct shared *shared)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, own_in_thread, shared))
		abort();
	pthread_exit(NULL);
}

static void expect_left_alone(void (*owner_body)(struct shared *shared))
{
	struct target owner;

	target_start(&owner, owner_body);
	await(&owner.shared->ready);
	dp_tracefs_close(open_tracefs());
	assert_int_equal(count_definitions_of(owner.pid), 1);
	sem_post(&owner.shared->go);
	target_join(&owner);
}

static void a_live_owners_definitions_are_left_alone(void **state)
{
	(void)state;
	expect_left_alone(own_until_told);
}

static void an_owner_whose_main_thread_has_ended_lives(void **state)
{
	(void)state;
	expect_left_alone(own_after_the_main_thread);
}

static void a_reused_pid_is_not_the_owner(void **state)
{
	char group[64];

	(void)state;
	snprintf(group, sizeof(group), "deltaprof_%d_1_0", getpid()); /* we began later than that */
	define_as(group);
	dp_tracefs_close(open_tracefs());
	assert_int_equal(count_left(group), 0);
}

static void groups_of_others_are_left_alone(void **state)
{
	static const char *const groups[] = {"deltaprof_x_1_0", "deltaprof", "dptest_1_1_0",
					     "deltaprof_99999999_0"};
	size_t n = sizeof(groups) / sizeof(groups[0]);

	(void)state;
	for (size_t i = 0; i < n; i++)
		define_as(groups[i]);
	dp_tracefs_close(open_tracefs());
	for (size_t i = 0; i < n; i++) {
		unsigned n_left = count_left(groups[i]);

		remove_by_hand(groups[i]);
		assert_int_equal(n_left, 1);
	}
}

static void expect_refused(struct dp_tracefs *tracefs, int fd, uint64_t file_off,
			   const char *arguments, const char *in_sentence)
{
	struct dp_error err = {0};
	int r = dp_tracefs_define(tracefs, "bad", false, fd, file_off, arguments, &err);

	assert_true(r < 0);
	assert_non_null(strstr(err.text, in_sentence));
}

static void what_the_kernel_refuses_gives_a_sentence_and_leaves_nothing(void **state)
{
	struct dp_tracefs *tracefs = open_tracefs();
	unsigned before = count_own_definitions();
	int directory = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int fd = program_fd();

	(void)state;
	expect_refused(tracefs, fd, 0x1000, "a0=%nosuchregister:u64", "Invalid argument");
	expect_refused(tracefs, directory, 0x1000, ARGUMENTS, "0x1000");
	expect_refused(tracefs, 12345, 0x1000, ARGUMENTS, "0x1000");
	assert_int_equal(count_own_definitions(), before);
	close(fd);
	close(directory);
	dp_tracefs_close(tracefs);
	assert_int_equal(count_own_definitions(), before);
}

static void a_probe_that_does_not_fit_its_event_leaves_the_event_as_it_was(void **state)
{
	struct dp_tracefs *tracefs = open_tracefs();
	unsigned before = count_own_definitions();
	struct dp_error err = {0};
	int fd = program_fd();

	(void)state;
	define(tracefs, "entry", false, fd, program_file_off(probed_alloc));
	assert_true(dp_tracefs_define(tracefs, "entry", false, fd, program_file_off(probed_free),
				      "other=%di:u64", &err) < 0);
	assert_int_not_equal(err.text[0], '\0');
	assert_int_equal(count_own_definitions(), before + 1);
	close(fd);
	dp_tracefs_close(tracefs);
	assert_int_equal(count_own_definitions(), before);
}

static void more_events_or_text_than_there_is_room_for_are_refused(void **state)
{
	struct dp_tracefs *tracefs = open_tracefs();
	unsigned before = count_own_definitions();
	char arguments[1024];
	struct dp_error err = {0};
	int fd = program_fd();

	(void)state;
	for (int i = 0; i < 256; i++) {
		char event[16];

		snprintf(event, sizeof(event), "e%d", i);
		define(tracefs, event, false, fd, program_file_off(probed_alloc));
	}
	assert_int_equal(dp_tracefs_define(tracefs, "e256", false, fd, 0x1000, ARGUMENTS, &err),
			 -ENOSPC);
	memset(arguments, 'x', sizeof(arguments));
	arguments[sizeof(arguments) - 1] = '\0';
	assert_int_equal(dp_tracefs_define(tracefs, "e0", false, fd, 0x1000, arguments, &err),
			 -E2BIG);
	assert_int_equal(count_own_definitions(), before + 256);
	close(fd);
	dp_tracefs_close(tracefs);
	assert_int_equal(count_own_definitions(), before);
}

/* The number that a shell command prints. */
static unsigned number_of(const char *command)
{
	FILE *pipe = popen(command, "re");
	unsigned number = 0;

	assert_non_null(pipe);
	assert_int_equal(fscanf(pipe, "%u", &number), 1);
	pclose(pipe);
	return number;
}

#define AWK_FIELD(event, name, part)                                                               \
	"awk -F'[:;]' '$2 ~ /[ *]" name "$/ {print $" part "}' " TRACING "/events/" event "/forma" \
	"t"

static void a_real_tracepoints_layout_is_the_kernels(void **state)
{
	static const char *const pid_field[5] = {"pid"};
	static const char *const futex_fields[5] = {"uaddr", "op", "val"};
	struct dp_tracefs *tracefs = open_tracefs();
	struct dp_raw_layout layout;
	struct dp_error err;

	(void)state;
	assert_int_equal(dp_tracefs_layout(tracefs, "sched", "sched_waking", DP_EVENT_WAKING, NULL,
					   pid_field, &layout, &err),
			 0);
	assert_int_equal(layout.id, number_of("cat " TRACING "/events/sched/sched_waking/id"));
	assert_int_equal(layout.type, DP_EVENT_WAKING);
	assert_int_equal(layout.probe.size_bytes, 0);
	assert_int_equal(layout.fields[0].offset_bytes,
			 number_of(AWK_FIELD("sched/sched_waking", "pid", "4")));
	assert_int_equal(layout.fields[0].size_bytes,
			 number_of(AWK_FIELD("sched/sched_waking", "pid", "6")));
	assert_int_equal(dp_tracefs_layout(tracefs, "syscalls", "sys_enter_futex",
					   DP_EVENT_FUTEX_ENTER, NULL, futex_fields, &layout, &err),
			 0);
	assert_int_equal(layout.fields[0].offset_bytes,
			 number_of(AWK_FIELD("syscalls/sys_enter_futex", "uaddr", "4")));
	assert_int_equal(layout.fields[2].offset_bytes,
			 number_of(AWK_FIELD("syscalls/sys_enter_futex", "val", "4")));
	assert_int_equal(layout.fields[2].size_bytes,
			 number_of(AWK_FIELD("syscalls/sys_enter_futex", "val", "6")));
	dp_tracefs_close(tracefs);
}

static void a_layout_that_is_not_as_asked_for_is_refused(void **state)
{
	static const char *const none[5] = {0};
	static const char *const unknown[5] = {"pid", "nosuch"};
	static const char *const too_wide[5] = {"comm"}; /* an array of 16 */
	struct dp_tracefs *tracefs = open_tracefs();
	struct dp_raw_layout layout = {.id = 77};
	struct dp_error err = {0};

	(void)state;
	assert_int_equal(dp_tracefs_layout(tracefs, "sched", "sched_waking", DP_EVENT_WAKING, NULL,
					   unknown, &layout, &err),
			 -EBADMSG);
	assert_int_equal(dp_tracefs_layout(tracefs, "sched", "sched_waking", DP_EVENT_WAKING, NULL,
					   too_wide, &layout, &err),
			 -EBADMSG);
	assert_int_equal(dp_tracefs_layout(tracefs, "sched", "sched_waking", DP_EVENT_WAKING,
					   "__probe_ip", none, &layout, &err),
			 -EBADMSG);
	assert_non_null(strstr(err.text, "sched_waking"));
	assert_int_equal(dp_tracefs_layout(tracefs, "sched", "nosuch", DP_EVENT_WAKING, NULL, none,
					   &layout, &err),
			 -ENOENT);
	assert_int_equal(dp_tracefs_layout(tracefs, NULL, "undefined", DP_EVENT_FREE, NULL, none,
					   &layout, &err),
			 -ENOENT);
	assert_int_equal(layout.id, 77);
	dp_tracefs_close(tracefs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(definitions_name_their_owner_and_vanish_on_close),
		cmocka_unit_test(two_handles_of_one_process_do_not_meet),
		cmocka_unit_test(several_files_share_one_event),
		cmocka_unit_test(a_file_that_was_deleted_can_be_probed),
		cmocka_unit_test(what_dead_owners_left_is_swept_by_the_next_open),
		cmocka_unit_test(an_owner_that_nobody_has_waited_for_is_dead_too),
		cmocka_unit_test(a_live_owners_definitions_are_left_alone),
		cmocka_unit_test(an_owner_whose_main_thread_has_ended_lives),
		cmocka_unit_test(a_reused_pid_is_not_the_owner),
		cmocka_unit_test(groups_of_others_are_left_alone),
		cmocka_unit_test(what_the_kernel_refuses_gives_a_sentence_and_leaves_nothing),
		cmocka_unit_test(a_probe_that_does_not_fit_its_event_leaves_the_event_as_it_was),
		cmocka_unit_test(more_events_or_text_than_there_is_room_for_are_refused),
		cmocka_unit_test(a_real_tracepoints_layout_is_the_kernels),
		cmocka_unit_test(a_layout_that_is_not_as_asked_for_is_refused),
	};
	int r = perf_must_skip();

	return r ? r : cmocka_run_group_tests(tests, NULL, NULL);
}
