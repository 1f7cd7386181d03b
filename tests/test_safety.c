/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/safety.h"

/* Facts of which every row of a release applies. */
static struct dp_safety_facts all_of(const char *release)
{
	return (struct dp_safety_facts){.release = release, .filtered_by_seccomp = true};
}

static unsigned off(const struct dp_safety_facts *facts)
{
	struct dp_safety safety;
	unsigned sum = 0;

	memset(&safety, 0xff, sizeof(safety));
	dp_safety_judge(facts, &safety);
	for (size_t i = 0; i < safety.n_reasons; i++) {
		sum |= safety.reasons[i].off;
		assert_non_null(safety.reasons[i].text);
	}
	assert_int_equal(safety.off, sum);
	return safety.off;
}

static unsigned off_on(const char *release)
{
	const struct dp_safety_facts facts = all_of(release);

	return off(&facts);
}

static void a_return_is_a_system_call_that_filters_kill_for_up_to_its_repair(void **state)
{
	static const char *const bad[] = {"6.11.0", "6.11.11", "6.11.0-19-generic",
					  "6.12.0", "6.12.13", "6.12.3-amd64",
					  "6.13",   "6.13.2"};
	static const char *const good[] = {"6.10.14", "6.12.14", "6.12.48+deb13-amd64",
					   "6.13.3",  "6.14.0",	 "6.18.44-fc-v782",
					   "5.11.0",  "7.12.1"};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_true(off_on(bad[i]) & DP_OFF_RETURN_PROBES);
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
		assert_false(off_on(good[i]) & DP_OFF_RETURN_PROBES);
}

static void without_a_filter_returns_are_probed_on_every_kernel(void **state)
{
	struct dp_safety_facts facts = all_of("6.12.3");

	(void)state;
	facts.filtered_by_seccomp = false;
	assert_false(off(&facts) & DP_OFF_RETURN_PROBES);
}

static void callchains_are_off_between_the_defect_and_its_repair(void **state)
{
	static const char *const bad[] = {"6.1.113",	       "6.1.130", "6.6.55",
					  "6.6.58-talos",      "6.6.82",  "6.10.14",
					  "6.11.0-19-generic", "6.12.0",  "6.12.18"};
	static const char *const good[] = {"6.1.112", "6.1.131", "6.6.54", "6.6.83",   "6.7.0",
					   "6.9.12",  "6.12.19", "6.13.0", "5.15.170", "6.18.44"};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_true(off_on(bad[i]) & DP_OFF_CALLCHAINS);
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
		assert_false(off_on(good[i]) & DP_OFF_CALLCHAINS);
}

static void debians_stable_release_is_read_from_its_version(void **state)
{
	struct dp_safety_facts facts = all_of("6.1.0-28-amd64");

	(void)state;
	assert_int_equal(off(&facts), 0);
	facts.version = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 (2024-11-22)";
	assert_int_equal(off(&facts), DP_OFF_CALLCHAINS);
	facts.version = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.137-1 (2025-05-07)";
	assert_int_equal(off(&facts), 0);
	facts.version = "#1 SMP PREEMPT_DYNAMIC Debian of some sort";
	assert_int_equal(off(&facts), 0);
}

static void a_go_program_has_no_return_probes_on_any_kernel(void **state)
{
	struct dp_safety_facts facts = {.release = "5.10.0", .is_go = true};

	(void)state;
	assert_int_equal(off(&facts), DP_OFF_RETURN_PROBES);
	facts.release = "unknown";
	assert_int_equal(off(&facts), DP_OFF_RETURN_PROBES);
	facts.release = NULL;
	assert_int_equal(off(&facts), DP_OFF_RETURN_PROBES);
}

static void a_release_that_is_no_number_is_in_no_row(void **state)
{
	(void)state;
	assert_int_equal(off_on("unknown"), 0);
	assert_int_equal(off_on(""), 0);
	assert_int_equal(off_on("6"), 0);
	assert_int_equal(off_on("6.99999.1"), 0);
}

static void each_thing_that_is_off_has_its_reason(void **state)
{
	struct dp_safety_facts facts = all_of("6.12.3");
	struct dp_safety safety;

	(void)state;
	dp_safety_judge(&facts, &safety);
	assert_int_equal(safety.off, DP_OFF_RETURN_PROBES | DP_OFF_CALLCHAINS);
	assert_non_null(strstr(dp_safety_why(&safety, DP_OFF_RETURN_PROBES), "seccomp"));
	assert_non_null(strstr(dp_safety_why(&safety, DP_OFF_CALLCHAINS), "frame pointers"));
	facts.is_go = true;
	dp_safety_judge(&facts, &safety);
	assert_non_null(strstr(dp_safety_why(&safety, DP_OFF_RETURN_PROBES), "Go program"));
}

static void we_ourselves_are_no_go_program_and_may_be_looked_at(void **state)
{
	struct dp_safety safety;

	(void)state;
	memset(&safety, 0xff, sizeof(safety));
	assert_int_equal(dp_safety_look(getpid(), &safety), 0);
	assert_null(strstr(safety.n_reasons ? safety.reasons[0].text : "", "Go program"));
}

static void a_process_that_is_not_there_is_an_error(void **state)
{
	struct dp_safety safety;
	pid_t pid = fork();

	(void)state;
	if (pid == 0)
		_exit(0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(dp_safety_look(pid, &safety), -ENOENT);
}

/* Allows everything, but is a filter. In the calling thread alone. */
static void install_filter(void)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = {1, &allow};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
		_exit(77);
}

static void *filtered_thread(void *ready_fd)
{
	install_filter();
	if (write(*(int *)ready_fd, "x", 1) != 1)
		_exit(1);
	pause();
	return NULL;
}

static void a_filter_of_one_thread_counts(void **state)
{
	pthread_t thread;
	int fds[2];
	char byte;
	pid_t pid;

	(void)state;
	assert_int_equal(dp_safety_is_filtered(getpid()), 0);
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		close(fds[0]);
		if (pthread_create(&thread, NULL, filtered_thread, &fds[1]))
			_exit(1);
		pause();
	}
	close(fds[1]);
	if (read(fds[0], &byte, 1) == 1)
		assert_int_equal(dp_safety_is_filtered(pid), 1);
	close(fds[0]);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_return_is_a_system_call_that_filters_kill_for_up_to_its_repair),
		cmocka_unit_test(without_a_filter_returns_are_probed_on_every_kernel),
		cmocka_unit_test(callchains_are_off_between_the_defect_and_its_repair),
		cmocka_unit_test(debians_stable_release_is_read_from_its_version),
		cmocka_unit_test(a_go_program_has_no_return_probes_on_any_kernel),
		cmocka_unit_test(a_release_that_is_no_number_is_in_no_row),
		cmocka_unit_test(each_thing_that_is_off_has_its_reason),
		cmocka_unit_test(we_ourselves_are_no_go_program_and_may_be_looked_at),
		cmocka_unit_test(a_process_that_is_not_there_is_an_error),
		cmocka_unit_test(a_filter_of_one_thread_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
