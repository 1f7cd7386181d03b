/* SPDX-License-Identifier: MIT */
#include "tests/sampling_target.h"

#include <linux/futex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/sampler_fixture.h"

#define OBSERVED_STACK_BYTES 64 /* as little as there is: nobody looks at it */

void sampling_target_say(const struct sampling_target *target, const char *line)
{
	assert_int_equal(write(target->in, line, strlen(line)), strlen(line));
}

void sampling_target_hear(const struct sampling_target *target)
{
	char byte = 0;

	while (byte != '\n')
		assert_int_equal(read(target->out, &byte, 1), 1);
}

static void execute(const int in[2], const int out[2], const char *path)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* How long a woken thread waits for a processor is no part of the law, so others come after
	 * it; without the privilege as it is. */
	setpriority(PRIO_PROCESS, 0, -20);
	dup2(in[0], STDIN_FILENO);
	dup2(out[1], STDOUT_FILENO);
	for (int i = 0; i < 2; i++) {
		close(in[i]);
		close(out[i]);
	}
	execl(path, path, (char *)NULL);
	_exit(127);
}

void sampling_target_observe(struct sampling_target *target)
{
	const struct dp_sampler_options options = {.pid = target->pid,
						   .mode = DP_SAMPLER_DIRECT,
						   .contention = true,
						   .stack_bytes = OBSERVED_STACK_BYTES};
	struct dp_error err = {0};

	if (dp_sampler_open(&target->observer, &options, &err) < 0)
		fail_msg("%s", err.text);
	dp_sampler_enable(target->observer);
}

void sampling_target_start(struct sampling_target *target, const char *path)
{
	int in[2], out[2];

	*target = (struct sampling_target){0};
	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	target->pid = fork();
	assert_true(target->pid >= 0);
	if (target->pid == 0)
		execute(in, out, path);
	close(in[0]);
	close(out[1]);
	target->in = in[1];
	target->out = out[0];
	sampling_target_hear(target);
}

void sampling_target_end(struct sampling_target *target)
{
	int status = -1;

	close(target->in);
	assert_int_equal(waitpid(target->pid, &status, 0), target->pid);
	assert_int_equal(status, 0);
	close(target->out);
}

static void end_wait(struct sampling_waits *waits, uint64_t now_ns)
{
	uint64_t drawn_ns = (waits->release_ns ? waits->release_ns : now_ns) - waits->enter_ns;

	assert_true(waits->n < SAMPLING_ALL_WAITS);
	waits->list[waits->n++] = (struct sampling_wait_time){drawn_ns, now_ns - waits->enter_ns};
	waits->enter_ns = waits->release_ns = 0;
}

/* One thread waits, one wait at a time; the other one releases it from inside a futex call only. */
static void take(void *context, const struct dp_event *event)
{
	struct sampling_target *target = context;
	struct sampling_waits *waits = &target->waits;
	int op = (int)event->futex_enter.op & FUTEX_CMD_MASK;

	if (event->type == DP_EVENT_LOST)
		fail_msg("the observer has lost records");
	if (event->pid != (uint32_t)target->pid)
		return;
	if (event->type == DP_EVENT_FUTEX_ENTER && op == FUTEX_WAIT) {
		waits->tid = event->tid;
		waits->enter_ns = event->time_ns;
	} else if (event->type == DP_EVENT_FUTEX_ENTER) {
		waits->waker_is_inside = true;
	} else if (event->type == DP_EVENT_FUTEX_EXIT && event->tid != waits->tid) {
		waits->waker_is_inside = false;
	} else if (event->type == DP_EVENT_FUTEX_EXIT && waits->enter_ns > 0) {
		end_wait(waits, event->time_ns);
	} else if (event->type == DP_EVENT_WAKING && event->tid != waits->tid &&
		   event->waking.wakee_tid == waits->tid && waits->enter_ns > 0 &&
		   waits->waker_is_inside) {
		waits->release_ns = event->time_ns;
	}
}

void sampling_target_read_waits(struct sampling_target *target)
{
	target->waits.n = 0;
	dp_sampler_disable(target->observer);
	sampler_drain(target->observer, take, target);
	dp_sampler_close(target->observer);
	target->observer = NULL;
}
