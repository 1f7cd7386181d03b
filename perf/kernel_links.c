/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "perf/apart.h"
#include "perf/kernel_probes.h"
#include "perf/refused.h"

/* The part of union bpf_attr that creates such a link. Source: the kernel's
 * include/uapi/linux/bpf.h. */
struct link_create {
	uint32_t program_fd;
	uint32_t target_fd;
	uint32_t attach_type;
	uint32_t flags;
	uint64_t path;
	uint64_t offsets;
	uint64_t reference_counter_offsets;
	uint64_t cookies;
	uint32_t n;
	uint32_t uprobe_flags;
	uint32_t pid;
	uint32_t pad;
};

uint64_t dp_kernel_cookie(uint32_t slot, const struct dp_probe_site *sites, size_t i)
{
	return (uint64_t)slot << DP_KERNEL_COOKIE_SLOT | (uint64_t)i << DP_KERNEL_COOKIE_SITE |
	       (uint64_t)sites[i].kind << DP_KERNEL_COOKIE_KIND |
	       (uint64_t)(uint8_t)sites[i].i_size << DP_KERNEL_COOKIE_SIZE |
	       (uint64_t)(uint8_t)sites[i].i_count << DP_KERNEL_COOKIE_COUNT |
	       (uint64_t)(uint8_t)sites[i].i_pointer << DP_KERNEL_COOKIE_POINTER |
	       (uint64_t)(uint8_t)sites[i].i_align << DP_KERNEL_COOKIE_ALIGN |
	       (uint64_t)sites[i].aligned << DP_KERNEL_COOKIE_ALIGNED;
}

/* What one link serves; in the order in which they are opened. Frees come first: no object is seen
 * whose free would be missed. */
enum group { GROUP_FREES, GROUP_ALLOCATIONS, GROUP_GO, N_GROUPS };

static enum group group_of(enum dp_kernel_kind kind)
{
	switch (kind) {
	case DP_KERNEL_FREE:
		return GROUP_FREES;
	case DP_KERNEL_GO_PARK:
	case DP_KERNEL_GO_READY:
	case DP_KERNEL_GO_ACQUIRE:
		return GROUP_GO;
	default:
		return GROUP_ALLOCATIONS;
	}
}

/* Links the sites of one file that are of @group. Returns 1 if it has none. */
static int open_link(struct dp_kernel_links *links, const struct dp_kernel_programs *programs,
		     uint32_t slot, const struct dp_sampler_options *options, int file_fd,
		     enum group group, struct dp_error *err)
{
	static const enum dp_kernel_program program_of[N_GROUPS] = {
		[GROUP_FREES] = DP_KERNEL_PROGRAM_FREED_LINK,
		[GROUP_ALLOCATIONS] = DP_KERNEL_PROGRAM_SESSION,
		[GROUP_GO] = DP_KERNEL_PROGRAM_GO_LINK};
	uint64_t offsets[DP_KERNEL_MAX_SITES], cookies[DP_KERNEL_MAX_SITES];
	struct link_create attr = {.offsets = (uintptr_t)offsets,
				   .cookies = (uintptr_t)cookies,
				   .pid = (uint32_t)options->pid};
	enum dp_kernel_program program = program_of[group];
	char path[64];
	int fd;

	for (size_t i = 0; i < options->n_sites; i++) {
		const struct dp_probe_site *site = &options->sites[i];

		if (site->fd != file_fd || group_of(site->kind) != group)
			continue;
		offsets[attr.n] = site->file_off;
		cookies[attr.n++] = dp_kernel_cookie(slot, options->sites, i);
	}
	if (attr.n == 0)
		return 1;
	/* A deleted file and one in another mount namespace have no other path. */
	snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", file_fd);
	attr.path = (uintptr_t)path;
	if (program == DP_KERNEL_PROGRAM_SESSION && options->without_returns)
		program = DP_KERNEL_PROGRAM_ALONE_LINK;
	attr.attach_type = program == DP_KERNEL_PROGRAM_SESSION ? DP_ATTACH_UPROBE_SESSION
								: DP_ATTACH_UPROBE_MULTI;
	attr.program_fd = (uint32_t)dp_kernel_programs_fd(programs, program);
	fd = (int)syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));
	if (fd < 0)
		return dp_probe_refused(-errno, options->pid, "putting BPF probes into it", err);
	links->fds[links->n++] = fd;
	return 0;
}

/* Whether an earlier site is in the same file. */
static bool is_known_file(const struct dp_probe_site *sites, size_t i)
{
	for (size_t j = 0; j < i; j++) {
		if (sites[j].fd == sites[i].fd)
			return true;
	}
	return false;
}

/* The arguments of dp_kernel_links_open(), and its result. */
struct opening {
	struct dp_kernel_links *links;
	const struct dp_kernel_programs *programs;
	uint32_t slot;
	const struct dp_sampler_options *options;
	struct dp_error *err;
	int r;
};

static void open_links(void *context)
{
	struct opening *opening = context;
	const struct dp_sampler_options *options = opening->options;
	int r = 0;

	for (enum group group = options->without_returns ? GROUP_ALLOCATIONS : GROUP_FREES;
	     group < N_GROUPS; group++) {
		for (size_t i = 0; r >= 0 && i < options->n_sites; i++) {
			if (!is_known_file(options->sites, i))
				r = open_link(opening->links, opening->programs, opening->slot,
					      options, options->sites[i].fd, group, opening->err);
		}
	}
	opening->r = r < 0 ? r : 0;
}

int dp_kernel_links_open(struct dp_kernel_links *ret, const struct dp_kernel_programs *programs,
			 uint32_t slot, const struct dp_sampler_options *options,
			 struct dp_error *err)
{
	struct opening opening = {ret, programs, slot, options, err, -ECANCELED};

	ret->fds = calloc(options->n_sites, sizeof(*ret->fds));
	if (!ret->fds)
		return dp_error_set(err, -ENOMEM, "pid %d: out of memory", options->pid);
	dp_run_apart(open_links, &opening);
	return opening.r;
}

/* Allocations first, for the same reason. */
static void close_links(void *context)
{
	struct dp_kernel_links *links = context;

	while (links->n > 0)
		close(links->fds[--links->n]);
}

void dp_kernel_links_close(struct dp_kernel_links *links)
{
	if (links->n > 0)
		dp_run_apart(close_links, links);
	free(links->fds);
	*links = (struct dp_kernel_links){0};
}
