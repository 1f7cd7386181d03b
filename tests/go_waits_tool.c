/* SPDX-License-Identifier: MIT */
/*
 * Observes the waits of a Go process by itself: `go_waits_tool PID direct|kernel|events RATE_NS`.
 * Says "ready", goes on until its standard input ends, then prints each row: which profile,
 * contentions, nanoseconds, and the stack; and what was counted.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "perf/sampler.h"
#include "src/base/frame.h"
#include "src/contention.h"
#include "src/go_names.h"
#include "src/go_runtime.h"
#include "src/go_waits.h"
#include "src/interner.h"

struct tool {
	struct dp_modules *modules;
	struct dp_space *space;
	struct dp_stacks *stacks;
	struct dp_go_places *places;
	struct dp_go_waits *waits;
	struct dp_sampler *sampler;
	struct dp_go_table *table;
	struct dp_go_table_names names;
	uint64_t n_lost_records;
};

static void check(int r, const struct dp_error *err, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "%s: %s: %s\n", what, strerror(-r), err->text);
	exit(1);
}

static void take_events(struct tool *tool)
{
	struct dp_event event;

	dp_sampler_round(tool->sampler);
	while (dp_sampler_next(tool->sampler, UINT64_MAX, &event) == 1) {
		if (event.type == DP_EVENT_LOST) {
			tool->n_lost_records += event.lost.n_records;
			dp_go_waits_gap(tool->waits);
		}
		dp_go_waits_event(tool->waits, &event);
	}
}

/* The calls at @frame, innermost first. */
static void print_frame(const struct tool *tool, uint64_t frame, bool is_first)
{
	struct dp_go_line lines[DP_GO_MAX_LINES];
	size_t n = dp_go_table_lines(tool->table,
				     dp_frame_offset(frame) + tool->names.svma_minus_offset, lines);

	for (size_t i = 0; i < n; i++)
		printf("%s%s:%" PRId64, is_first && i == 0 ? "" : ";", lines[i].function,
		       lines[i].line);
	if (n == 0)
		printf("%s0x%" PRIx64, is_first ? "" : ";", frame);
}

static void print_rows(struct tool *tool, const char *kind,
		       int (*feed)(const struct dp_go_waits *, struct dp_delta *))
{
	const struct dp_delta_spec spec = dp_contention_delta_spec(1u << 20);
	const struct dp_delta_row *rows;
	struct dp_delta *delta;
	size_t n;

	if (dp_delta_new(&delta, &spec) < 0)
		exit(1);
	dp_delta_begin(delta);
	feed(tool->waits, delta);
	dp_delta_end(delta, &rows, &n);
	for (size_t i = 0; i < n; i++) {
		size_t n_frames;
		const uint64_t *frames = dp_stacks_get(tool->stacks, rows[i].stack, &n_frames);

		printf("%s %" PRId64 " %" PRId64, kind, rows[i].values[0], rows[i].values[1]);
		putchar(' ');
		for (size_t j = 0; j < n_frames; j++)
			print_frame(tool, frames[j], j == 0);
		putchar('\n');
	}
	dp_delta_free(delta);
}

static void print_stats(struct tool *tool)
{
	const struct dp_go_waits_stats *stats = dp_go_waits_get_stats(tool->waits);
	struct dp_sampler_stats s;

	dp_sampler_get_stats(tool->sampler, &s);
	printf("stats parks=%" PRIu64 " waits=%" PRIu64 " kept=%" PRIu64 " skipped=%" PRIu64
	       " internal=%" PRIu64 " forgotten=%" PRIu64 " other_readies=%" PRIu64
	       " no_room=%" PRIu64 " locks_otherwise=%" PRIu64 " pending=%zu lost=%" PRIu64 "\n",
	       stats->n_parks, stats->n_waits, stats->n_kept, stats->n_skipped, stats->n_internal,
	       stats->n_forgotten, stats->n_other_readies, stats->n_no_room,
	       stats->n_locks_otherwise, dp_go_waits_pending(tool->waits), tool->n_lost_records);
	printf("sampler hits=%" PRIu64 " hits_lost=%" PRIu64 " delivered=%" PRIu64
	       " duplicates=%" PRIu64 " malformed=%" PRIu64 " dropped=%" PRIu64 "\n",
	       s.n_hits, s.n_hits_lost, s.n_delivered, s.n_duplicates, s.n_malformed, s.n_dropped);
	printf("kernel parks=%llu other=%llu forgotten=%llu no_room=%llu readies=%llu waits=%llu "
	       "kept=%llu kept_lost=%llu\n",
	       s.kernel.n_go_parks, s.kernel.n_go_other, s.kernel.n_go_forgotten,
	       s.kernel.n_go_no_room, s.kernel.n_go_readies, s.kernel.n_go_waits,
	       s.kernel.n_go_kept, s.kernel.n_go_kept_lost);
}

int main(int argc, char **argv)
{
	struct tool tool = {.n_lost_records = 0};
	struct dp_go_names names;
	struct dp_go_waits_options waits = {
		.max_parked = 1u << 20, .seed = 1, .max_callchain = dp_interner_max_callchain()};
	struct dp_sampler_options options = {.block_rate_ns = 1, .heap_rate_bytes = 1, .seed = 1};
	struct dp_probe_site sites[DP_GO_WAITS_N_SITES];
	struct dp_go_runtime runtime;
	struct dp_error err = {.text = ""};
	pid_t pid;

	if (argc != 4)
		return 2;
	pid = atoi(argv[1]);
	waits.pid = (uint64_t)pid;
	waits.rate_ns = strtoull(argv[3], NULL, 10);
	check(dp_modules_new(&tool.modules), &err, "modules");
	check(dp_space_new(&tool.space, tool.modules, pid), &err, "space");
	check(dp_space_load(tool.space, &err), &err, "load");
	check(dp_stacks_new(&tool.stacks, 1u << 20, 1u << 24), &err, "stacks");
	check(dp_go_runtime_find(&runtime, tool.modules, tool.space, pid, &err), &err, "runtime");
	check(dp_go_table_open(&tool.table, dp_module_fd(tool.modules, runtime.module)), &err,
	      "table");
	check(dp_go_table_names(&names, &tool.names, tool.table, tool.space, runtime.bias), &err,
	      "names");
	waits.reasons = runtime.layout.wait_reasons;
	check(dp_go_waits_find_sites(sites, &waits.gopark_has_frame, &names, tool.modules,
				     runtime.module, runtime.layout.minor, &err),
	      &err, "sites");
	check(dp_go_places_new(&tool.places, &names), &err, "places");
	check(dp_go_waits_new(&tool.waits, &waits, tool.places, tool.space, tool.stacks), &err,
	      "waits");
	options.pid = pid;
	options.mode = strcmp(argv[2], "direct") == 0	? DP_SAMPLER_DIRECT
		       : strcmp(argv[2], "events") == 0 ? DP_SAMPLER_KERNEL_EVENTS
							: DP_SAMPLER_KERNEL;
	options.block_rate_ns = waits.rate_ns;
	options.sites = sites;
	options.n_sites = DP_GO_WAITS_N_SITES;
	options.go.reasons = dp_go_waits_reason_mask(runtime.layout.wait_reasons);
	options.go.semaphores = dp_go_waits_semaphore_mask(runtime.layout.wait_reasons);
	options.go.g_pc_offset = runtime.layout.g_sched_pc;
	options.go.g_bp_offset = runtime.layout.g_sched_bp;
	check(dp_sampler_open(&tool.sampler, &options, &err), &err, "sampler");
	dp_sampler_enable(tool.sampler);
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct pollfd in = {.fd = 0, .events = POLLIN};

		take_events(&tool);
		if (poll(&in, 1, 5) > 0)
			break;
	}
	dp_sampler_disable(tool.sampler);
	for (int i = 0; i < 3; i++) {
		usleep(2000);
		take_events(&tool);
	}
	print_rows(&tool, "block", dp_go_waits_feed_block);
	print_rows(&tool, "mutex", dp_go_waits_feed_mutex);
	print_stats(&tool);
	dp_sampler_close(tool.sampler);
	dp_go_waits_free(tool.waits);
	dp_go_places_free(tool.places);
	dp_go_table_free(tool.table);
	dp_stacks_free(tool.stacks);
	dp_space_free(tool.space);
	dp_modules_free(tool.modules);
	return 0;
}
