/* SPDX-License-Identifier: MIT */
/*
 * Each variable is one aligned word, which the runtime itself reads and writes as one. The
 * descriptor of the memory belongs to the program that it was opened for: what is written back
 * never reaches another one that the process has executed since.
 */
#include "src/go_rates.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* One of the three. */
struct wish {
	const char *option;
	uint64_t avma, value;
	bool is_on;
};

static int write_word(struct dp_go_changes *changes, const struct wish *wish)
{
	uint64_t before;

	if (pread(changes->memory_fd, &before, sizeof(before), (off_t)wish->avma) !=
		    sizeof(before) ||
	    pwrite(changes->memory_fd, &wish->value, sizeof(wish->value), (off_t)wish->avma) !=
		    sizeof(wish->value))
		return errno ? -errno : -EIO;
	changes->words[changes->n].avma = wish->avma;
	changes->words[changes->n].before = before;
	changes->words[changes->n].now = wish->value;
	changes->n++;
	return 0;
}

static int change(struct dp_go_changes *changes, const struct wish *wish, pid_t pid,
		  struct dp_error *err)
{
	int r;

	if (wish->is_on)
		return dp_error_set(err, -EBUSY,
				    "pid %d: --%s: the program has this profile on already, at a "
				    "rate of its own or one that was left behind; leave the option "
				    "out",
				    pid, wish->option);
	if (wish->avma == 0)
		return dp_error_set(err, -ENOENT,
				    "pid %d: --%s: the variable was not found in the program; "
				    "leave the option out",
				    pid, wish->option);
	errno = 0;
	r = write_word(changes, wish);
	return r == 0 ? 0
		      : dp_error_set(err, r, "pid %d: --%s: writing to its memory: %s", pid,
				     wish->option, strerror(-r));
}

static int open_memory(const struct dp_go_runtime *runtime, struct dp_error *err)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", runtime->pid);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	return dp_error_set(err, -errno, "pid %d: opening its memory for writing: %s; run as root",
			    runtime->pid, strerror(errno));
}

static uint64_t to_ticks(uint64_t ns, const struct dp_go_rates *rates)
{
	uint64_t ticks = (uint64_t)((double)ns * rates->ticks_per_ns);

	return ticks ? ticks : 1;
}

static int change_all(struct dp_go_changes *changes, const struct dp_go_runtime *runtime,
		      const struct dp_go_wishes *wishes, const struct dp_go_rates *rates,
		      struct dp_error *err)
{
	const struct dp_go_variables *variables = &runtime->variables;
	const struct wish all[] = {
		{"go-heap-rate", variables->heap_rate, wishes->heap_bytes, rates->heap_bytes > 0},
		{"go-block-rate", variables->block_rate,
		 wishes->block_ns ? to_ticks(wishes->block_ns, rates) : 0, rates->block_ticks > 0},
		{"go-mutex-fraction", variables->mutex_fraction, wishes->mutex_fraction,
		 rates->mutex_fraction > 0}};
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(all) / sizeof(*all); i++) {
		if (all[i].value)
			r = change(changes, &all[i], runtime->pid, err);
	}
	return r;
}

int dp_go_rates_change(const struct dp_go_runtime *runtime, const struct dp_go_wishes *wishes,
		       struct dp_go_changes *ret, struct dp_error *err)
{
	struct dp_go_rates rates;
	int r;

	*ret = (struct dp_go_changes){0};
	if (!wishes->heap_bytes && !wishes->block_ns && !wishes->mutex_fraction)
		return 0;
	r = dp_go_read_rates(runtime, &rates);
	if (r < 0)
		return dp_error_set(err, r, "pid %d: reading its memory: %s", runtime->pid,
				    strerror(-r));
	if (wishes->heap_bytes && runtime->layout.minor < DP_GO_HEAP_RATE_MINOR)
		return dp_error_set(err, -EOPNOTSUPP,
				    "pid %d: --go-heap-rate: a program of %s takes no rate over "
				    "while it runs, only those from Go 1.%d on do; leave it out",
				    runtime->pid, runtime->version, DP_GO_HEAP_RATE_MINOR);
	r = open_memory(runtime, err);
	if (r < 0)
		return r;
	ret->memory_fd = r;
	return change_all(ret, runtime, wishes, &rates, err);
}

void dp_go_rates_restore(struct dp_go_changes *changes)
{
	for (unsigned i = 0; i < changes->n; i++) {
		uint64_t now;

		/* A program that is gone, or that has set it anew, is left as it is. */
		if (pread(changes->memory_fd, &now, sizeof(now), (off_t)changes->words[i].avma) !=
			    sizeof(now) ||
		    now != changes->words[i].now)
			continue;
		if (pwrite(changes->memory_fd, &changes->words[i].before, sizeof(now),
			   (off_t)changes->words[i].avma) < 0)
			continue;
	}
	if (changes->memory_fd > 0)
		close(changes->memory_fd);
	*changes = (struct dp_go_changes){0};
}
