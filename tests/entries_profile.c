/* SPDX-License-Identifier: MIT */
/*
 * entries_profile PID DIRECTORY STACKS SAMPLER RATE: the heap profile of a process without return
 * probes, which the command line leaves out only where it must. STACKS: "copied", or "callchain".
 * SAMPLER: "", the one of choice, "direct", "kernel" or "kernel events". RATE: in bytes, 1 is
 * exact. Says "attached", and writes the profile when its input ends.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "encode/sink.h"
#include "src/base/clock.h"
#include "src/profiler.h"
#include "src/session.h"

#define MAX_POLLFDS 1024

/* Takes events in until the input ends. */
static int watch(struct dp_session *session)
{
	struct pollfd pollfds[MAX_POLLFDS];
	size_t n;
	const struct pollfd *known = dp_session_pollfds(session, &n);
	int r = 0;

	if (n >= MAX_POLLFDS)
		return -1;
	memcpy(pollfds, known, n * sizeof(*known));
	pollfds[n] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
	while (r == 0 && pollfds[n].revents == 0) {
		poll(pollfds, n + 1, dp_session_sleep_ms(session));
		r = dp_session_pump(session, UINT64_MAX);
	}
	return r;
}

static int write_profile(struct dp_session *session, struct dp_profiler *profiler, const char *dir,
			 struct dp_error *err)
{
	uint8_t *data = NULL;
	size_t n_bytes = 0;
	int r = dp_session_stop(session);

	if (r == 0)
		r = dp_profiler_collect(profiler, dp_monotonic_ns());
	if (r == 0)
		r = dp_profiler_build(profiler, &data, &n_bytes);
	if (r == 0)
		r = dp_sink_write(dir, "entries.pb.gz", data, n_bytes, err);
	free(data);
	return r;
}

static int mode_of(const char *name)
{
	static const char *const names[] = {[DP_SAMPLER_AUTO] = "",
					    [DP_SAMPLER_KERNEL] = "kernel",
					    [DP_SAMPLER_DIRECT] = "direct",
					    [DP_SAMPLER_KERNEL_EVENTS] = "kernel events"};

	for (int i = 0; i < (int)(sizeof(names) / sizeof(names[0])); i++) {
		if (strcmp(names[i], name) == 0)
			return i;
	}
	return -1;
}

int main(int argc, char **argv)
{
	struct dp_session_options options = {
		.heap = true, .block_rate_ns = 1, .without_returns = true};
	struct dp_profiler *profiler = NULL;
	struct dp_session *session = NULL;
	struct dp_error err = {""};
	int r;

	if (argc != 6 || mode_of(argv[4]) < 0)
		return 2;
	options.pid = (pid_t)atoi(argv[1]);
	options.sampler = (enum dp_sampler_mode)mode_of(argv[4]);
	options.heap_rate_bytes = strtoull(argv[5], NULL, 10);
	options.heap_unwound = strcmp(argv[3], "copied") == 0;
	r = dp_session_open(&session, &options, &err);
	if (r == 0)
		r = dp_profiler_new(&profiler, session, DP_KIND_HEAP, dp_monotonic_ns());
	if (r == 0 && (puts("attached") < 0 || fflush(stdout)))
		r = -1;
	if (r == 0)
		r = watch(session);
	if (r == 0)
		r = write_profile(session, profiler, argv[2], &err);
	if (r < 0)
		fprintf(stderr, "entries_profile: %d: %s\n", r, err.text);
	dp_profiler_free(profiler);
	dp_session_close(session);
	return r < 0;
}
