/* SPDX-License-Identifier: MIT */
#include "src/describe.h"

#include <stdarg.h>
#include <stdio.h>

#include "src/base/frame.h"
#include "src/deltaprof.h"

struct describe {
	dp_describe_line *line;
	void *context;
};

static void say(const struct describe *describe, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void say(const struct describe *describe, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	describe->line(describe->context, text);
}

static void describe_probe(const struct dp_session *session, const struct dp_probe *probe,
			   const struct describe *describe)
{
	struct dp_module_info info = {.path = "?"};

	dp_module_get(dp_session_source(session)->modules, dp_frame_module(probe->frame), &info);
	say(describe, "probe on %s+%u, file offset 0x%llx of %s%s", probe->function->name,
	    probe->offset_bytes, (unsigned long long)dp_frame_offset(probe->frame), info.path,
	    probe->emulated ? "" : " (single-stepped)");
}

static void describe_go(const struct dp_session *session, const struct dp_session_stats *stats,
			const struct describe *describe)
{
	static const char *const names[] = {
		[DP_GO_HEAP] = "heap", [DP_GO_BLOCK] = "block", [DP_GO_MUTEX] = "mutex"};
	static const enum dp_kind kinds[] = {[DP_GO_HEAP] = DP_KIND_HEAP,
					     [DP_GO_BLOCK] = DP_KIND_BLOCK,
					     [DP_GO_MUTEX] = DP_KIND_MUTEX};
	const struct dp_go_runtime *runtime = dp_session_go_runtime(session);

	say(describe, "Go program, %s%s, the runtime's variables found by %s", runtime->version,
	    runtime->has_cgo ? " with C code" : "",
	    runtime->is_stripped ? "its code" : "their symbols");
	for (int i = 0; i < 3; i++) {
		if (dp_session_has(session, kinds[i]) && dp_session_go_source(session, kinds[i]))
			say(describe, "%s: read from the runtime, %llu stacks so far", names[i],
			    (unsigned long long)stats->go.lists[i].n_buckets);
		else if (dp_session_has(session, kinds[i]) && !dp_session_why_no_go_waits(session))
			say(describe,
			    "%s: probes on runtime.gopark and runtime.ready, as the program has "
			    "this profile off",
			    names[i]);
	}
}

static void describe_sampler(const struct dp_session *session, const struct describe *describe)
{
	const char *why = dp_session_why_direct(session);

	say(describe, "sampler: %s%s%s", dp_session_is_kernel(session) ? "kernel" : "direct",
	    why ? "; " : "", why ? why : "");
}

void dp_describe(struct dp_session *session, dp_describe_line *line, void *context)
{
	const struct describe describe = {.line = line, .context = context};
	size_t n_probes = 0, n_threads, n_fds;
	const struct dp_probe *probes = NULL;
	struct dp_session_stats stats;

	dp_session_get_stats(session, &stats);
	if (dp_session_go_runtime(session))
		describe_go(session, &stats, &describe);
	if (dp_session_probes(session))
		probes = dp_probes_list(dp_session_probes(session), &n_probes);
	for (size_t i = 0; i < n_probes; i++)
		describe_probe(session, &probes[i], &describe);
	if (dp_session_options(session)->contention && !dp_session_go_runtime(session))
		say(&describe, "tracepoints on futex calls and wake-ups");
	describe_sampler(session, &describe);
	dp_session_get_size(session, &n_threads, &n_fds);
	say(&describe, "%zu threads, %zu file descriptors", n_threads, n_fds);
}

/* What a Go program's own heap profile lacks. */
static void describe_go_limits(const struct dp_session *session,
			       const struct dp_session_stats *stats,
			       const struct describe *describe)
{
	const struct dp_go_rates *rates = &stats->go.rates;

	if (dp_session_why_no_go_waits(session))
		say(describe, "its block and mutex profiles stay empty: %s",
		    dp_session_why_no_go_waits(session));
	if (!dp_session_has(session, DP_KIND_HEAP))
		return;
	if (rates->heap_bytes > 0)
		return;
	say(describe, "its heap profile stays empty: %s%s",
	    rates->heap_disabled
		    ? "nothing in the program reads one, so Go's linker has switched memory "
		      "profiling off; build it with an import of net/http/pprof or runtime/pprof"
		    : "the program has set runtime.MemProfileRate to 0",
	    dp_session_go_runtime(session)->layout.minor >= DP_GO_HEAP_RATE_MINOR
		    ? ", or switch it on with --go-heap-rate"
		    : "");
}

/* What a process that is no Go program is told where it has to do with Go. */
static void describe_no_go(const struct dp_session *session, const struct describe *describe)
{
	const struct dp_go_wishes *wishes = &dp_session_options(session)->go_wishes;
	const char *library = dp_session_go_library(session);

	if (library)
		say(describe,
		    "has Go code in a library, %s, whose own heap and goroutines are not profiled; "
		    "what its C code allocates is, and where its scheduler waits is in block",
		    library);
	if (wishes->heap_bytes || wishes->block_ns || wishes->mutex_fraction)
		say(describe, "it is no Go program: --go-heap-rate, --go-block-rate and "
			      "--go-mutex-fraction do nothing");
}

void dp_describe_limits(struct dp_session *session, dp_describe_line *line, void *context)
{
	const struct describe describe = {.line = line, .context = context};
	const struct dp_safety *safety = dp_session_safety(session);
	struct dp_session_stats stats;

	dp_session_get_stats(session, &stats);
	if (dp_session_go_runtime(session))
		describe_go_limits(session, &stats, &describe);
	else
		describe_no_go(session, &describe);
	if (stats.no_returns)
		say(&describe, "%s; what is in use is not known (inuse_* are 0)", stats.no_returns);
	if (safety->off & DP_OFF_CALLCHAINS)
		say(&describe, "%s", dp_safety_why(safety, DP_OFF_CALLCHAINS));
}
