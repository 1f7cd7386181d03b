/* SPDX-License-Identifier: MIT */
#include "src/tracked.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "encode/sink.h"
#include "src/base/clock.h"

/* What a writer needs to know. */
struct file {
	const char *dir;
	char name[DP_SINK_NAME_MAX];
	size_t n_bytes; /* written */
};

void dp_say(const char *text)
{
	char line[1280];
	int n = snprintf(line, sizeof(line), "deltaprof-perf: %s\n", text);
	size_t n_bytes = n < (int)sizeof(line) ? (size_t)n : sizeof(line) - 1;

	/* Nothing can be done about a stderr that is gone. */
	if (n > 0 && write(STDERR_FILENO, line, n_bytes) < 0)
		return;
}

void dp_tracked_say(const struct dp_tracked *tracked, const char *text)
{
	char line[1200];

	snprintf(line, sizeof(line), "%d (%s): %s", deltaprof_pid(tracked->process),
		 deltaprof_comm(tracked->process), text);
	dp_say(line);
}

/* For deltaprof_describe() and deltaprof_describe_limits(). */
static void say_description(void *context, const char *text)
{
	dp_tracked_say(context, text);
}

void dp_tracked_close(struct dp_tracked *tracked)
{
	deltaprof_heap_profiler_free(tracked->heap);
	deltaprof_heap_profiler_free(tracked->cheap);
	deltaprof_block_profiler_free(tracked->block);
	deltaprof_block_profiler_free(tracked->mutex);
	deltaprof_detach(tracked->process);
	*tracked = (struct dp_tracked){0};
}

/* Most processes have no such profile; that is an error only for who asks for nothing else. */
static int open_cheap(struct dp_tracked *tracked, pid_t pid, struct dp_error *err)
{
	int r = deltaprof_cheap_profiler_new(&tracked->cheap, tracked->process);

	if (r == -EINVAL && tracked->options->profiles == DP_PROFILE_CHEAP)
		return dp_error_set(err, r,
				    "pid %d: it has no profile cheap, which is of the C code in Go "
				    "programs; a C program's heap is the profile heap",
				    pid);
	return r == -EINVAL ? 0 : r;
}

int dp_tracked_open(struct dp_tracked *tracked, const struct dp_options *options, pid_t pid,
		    struct dp_error *err)
{
	const bool waits = options->profiles & (DP_PROFILE_BLOCK | DP_PROFILE_MUTEX);
	const bool heap = options->profiles & DP_PROFILE_HEAP;
	const bool cheap = options->profiles & DP_PROFILE_CHEAP;
	static const enum deltaprof_stacks stacks[] = {[DP_STACKS_AUTO] = DELTAPROF_STACKS_AUTO,
						       [DP_STACKS_FP] = DELTAPROF_STACKS_FP,
						       [DP_STACKS_DWARF] = DELTAPROF_STACKS_DWARF};
	static const enum deltaprof_sampler samplers[] = {
		[DP_SAMPLER_AUTO] = DELTAPROF_SAMPLER_AUTO,
		[DP_SAMPLER_KERNEL] = DELTAPROF_SAMPLER_KERNEL,
		[DP_SAMPLER_DIRECT] = DELTAPROF_SAMPLER_DIRECT};
	const struct deltaprof_options attach = {.size = sizeof(attach),
						 .profiles = (heap ? DELTAPROF_HEAP : 0u) |
							     (cheap ? DELTAPROF_CHEAP : 0u) |
							     (waits ? DELTAPROF_CONTENTION : 0u),
						 .heap_rate_bytes = options->heap_rate_bytes,
						 .block_rate_ns = options->block_rate_ns,
						 .stacks = stacks[options->stacks],
						 .go_heap_rate_bytes = options->go_heap_rate_bytes,
						 .go_block_rate_ns = options->go_block_rate_ns,
						 .go_mutex_fraction = options->go_mutex_fraction,
						 .debuginfod = 1,
						 .sampler = samplers[options->sampler]};
	int r = deltaprof_attach(&tracked->process, pid, &attach, err->text);

	tracked->options = options;
	if (r < 0)
		return r;
	err->text[0] = '\0';
	if (r == 0 && heap)
		r = deltaprof_heap_profiler_new(&tracked->heap, tracked->process);
	if (r == 0 && cheap)
		r = open_cheap(tracked, pid, err);
	if (r == 0 && options->profiles & DP_PROFILE_BLOCK)
		r = deltaprof_block_profiler_new(&tracked->block, tracked->process);
	if (r == 0 && options->profiles & DP_PROFILE_MUTEX)
		r = deltaprof_mutex_profiler_new(&tracked->mutex, tracked->process);
	if (r < 0)
		return err->text[0] ? r : dp_error_set(err, r, "pid %d: %s", pid, strerror(-r));
	if (options->verbosity >= 0)
		deltaprof_describe_limits(tracked->process, say_description, tracked);
	tracked->shown.size = sizeof(tracked->shown);
	deltaprof_get_stats(tracked->process, &tracked->shown);
	tracked->shown_ns = dp_monotonic_ns();
	return 0;
}

/* deltaprof_writer */
static int write_file(void *context, const void *data, size_t n_bytes,
		      char error[DELTAPROF_ERROR_BYTES])
{
	struct file *file = context;
	struct dp_error err;
	int r = dp_sink_write(file->dir, file->name, data, n_bytes, &err);

	if (r < 0)
		memcpy(error, err.text, DELTAPROF_ERROR_BYTES);
	else
		file->n_bytes += n_bytes;
	return r;
}

/* A profile that may be written: of one sort of profiler or the other, or of neither. */
struct wanted {
	const char *name;
	struct deltaprof_heap_profiler *heap;
	struct deltaprof_block_profiler *block;
};

/* Writes one profile of a process. Returns 1; 0 if it is not wanted; or a negative errno. */
static int write_one(const struct dp_tracked *tracked, const struct wanted *wanted,
		     struct file *file, struct dp_error *err)
{
	int64_t start_ns;
	int r;

	if (!wanted->heap && !wanted->block)
		return 0;
	start_ns = wanted->heap ? deltaprof_heap_profiler_start(wanted->heap)
				: deltaprof_block_profiler_start(wanted->block);
	file->dir = tracked->options->output_dir;
	dp_sink_name(file->name, deltaprof_comm(tracked->process), deltaprof_pid(tracked->process),
		     wanted->name, start_ns);
	if (wanted->heap)
		r = deltaprof_heap_profiler_profile(wanted->heap, write_file, file, err->text);
	else
		r = deltaprof_block_profiler_profile(wanted->block, write_file, file, err->text);
	return r < 0 ? r : 1;
}

/* What of it changed since the last status line: "N KIND sampled of M, ". */
static size_t show_sampled(char *ret, size_t n_bytes, const char *kind, uint64_t sampled,
			   uint64_t of)
{
	int n = snprintf(ret, n_bytes, "%llu %s sampled of %llu, ", (unsigned long long)sampled,
			 kind, (unsigned long long)of);

	return n > 0 && (size_t)n < n_bytes ? (size_t)n : 0;
}

static void show_status(const struct dp_tracked *tracked, const struct deltaprof_stats *now,
			uint64_t at_ns, const char *names, size_t n_bytes)
{
	const struct deltaprof_stats *before = &tracked->shown;
	char sampled[256] = "";
	char text[1024];
	size_t n = 0;

	if (tracked->heap)
		n += show_sampled(sampled, sizeof(sampled), "allocations",
				  now->n_allocations_sampled - before->n_allocations_sampled,
				  now->n_allocations - before->n_allocations);
	if (tracked->block || tracked->mutex)
		show_sampled(sampled + n, sizeof(sampled) - n, "waits",
			     now->n_waits_sampled - before->n_waits_sampled,
			     now->n_waits - before->n_waits);
	snprintf(text, sizeof(text),
		 "%llu events, %s%llu records lost, own CPU %.1f %%, %s(%zu bytes)",
		 (unsigned long long)(now->n_events - before->n_events), sampled,
		 (unsigned long long)(now->n_lost - before->n_lost),
		 100.0 * (double)(now->cpu_ns - before->cpu_ns) /
			 (double)(at_ns - tracked->shown_ns + 1),
		 names, n_bytes);
	dp_tracked_say(tracked, text);
}

/* Where there is no status line to tell it. */
static void warn_of_losses(const struct dp_tracked *tracked, const struct deltaprof_stats *now)
{
	unsigned long long n_lost = now->n_lost - tracked->shown.n_lost;
	unsigned long long n_events = now->n_events - tracked->shown.n_events;
	char text[256];

	if (n_lost == 0)
		return;
	snprintf(text, sizeof(text),
		 "%llu of %llu records were lost, the interval's figures are too low; "
		 "keep less (a higher --heap-rate or --block-rate, fewer --profiles)",
		 n_lost, n_events + n_lost);
	dp_tracked_say(tracked, text);
}

int dp_tracked_write(struct dp_tracked *tracked, bool status_line, struct dp_error *err)
{
	const struct wanted profiles[] = {{"heap", tracked->heap, NULL},
					  {"cheap", tracked->cheap, NULL},
					  {"block", NULL, tracked->block},
					  {"mutex", NULL, tracked->mutex}};
	char names[4 * (DP_SINK_NAME_MAX + 1) + 1] = "";
	struct deltaprof_stats now = {.size = sizeof(now)};
	struct file file = {0};
	uint64_t at_ns;
	int failure = 0;
	size_t n = 0;

	for (size_t i = 0; i < sizeof(profiles) / sizeof(*profiles); i++) {
		struct dp_error one;
		int r = write_one(tracked, &profiles[i], &file, &one);

		if (r < 0) {
			if (failure < 0)
				dp_say(err->text);
			*err = one;
			failure = r;
		} else if (r > 0) {
			n += (size_t)snprintf(names + n, sizeof(names) - n, "%s ", file.name);
		}
	}
	deltaprof_get_stats(tracked->process, &now);
	at_ns = dp_monotonic_ns();
	if (status_line)
		show_status(tracked, &now, at_ns, names, file.n_bytes);
	else
		warn_of_losses(tracked, &now);
	tracked->shown = now;
	tracked->shown_ns = at_ns;
	return failure;
}

void dp_tracked_describe(struct dp_tracked *tracked)
{
	deltaprof_describe(tracked->process, say_description, tracked);
	dp_tracked_say(tracked, "attached");
}
