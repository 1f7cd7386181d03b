/* SPDX-License-Identifier: MIT */
/*
 * In place of the kernel sampler where the build had no libbpf, bpftool or clang.
 */
#include <errno.h>
#include <stddef.h>

#include "perf/kernel.h"

int dp_kernel_open(struct dp_kernel **ret, const struct dp_sampler_options *options,
		   const struct dp_rings *rings, struct dp_record_layout *layout,
		   struct dp_error *err)
{
	(void)ret;
	(void)options;
	(void)rings;
	(void)layout;
	return dp_error_set(
		err, -EOPNOTSUPP,
		"this deltaprof-perf was built without libbpf, bpftool or clang and has "
		"no kernel sampler; use --sampler direct, or install them and build again");
}

void dp_kernel_close(struct dp_kernel *kernel)
{
	(void)kernel;
}

void dp_kernel_enable(struct dp_kernel *kernel)
{
	(void)kernel;
}

void dp_kernel_disable(struct dp_kernel *kernel)
{
	(void)kernel;
}

int dp_kernel_resize(struct dp_kernel *kernel, uint32_t stack_bytes, bool callchain,
		     struct dp_error *err)
{
	(void)kernel;
	(void)stack_bytes;
	(void)callchain;
	return dp_error_set(err, -EOPNOTSUPP, "no kernel sampler");
}

uint32_t dp_kernel_stack_bytes(const struct dp_kernel *kernel)
{
	(void)kernel;
	return 0;
}

void dp_kernel_follow(struct dp_kernel *kernel, const struct dp_event *event)
{
	(void)kernel;
	(void)event;
}

bool dp_kernel_is_anchored(const struct dp_kernel *kernel)
{
	(void)kernel;
	return false;
}

uint64_t dp_kernel_n_gaps(const struct dp_kernel *kernel)
{
	(void)kernel;
	return 0;
}

void dp_kernel_count(const struct dp_kernel *kernel, struct dp_kernel_counts *ret)
{
	(void)kernel;
	*ret = (struct dp_kernel_counts){0};
}

void dp_kernel_get_size(const struct dp_kernel *kernel, size_t *ret_threads, size_t *ret_fds)
{
	(void)kernel;
	*ret_threads = *ret_fds = 0;
}
