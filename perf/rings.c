/* SPDX-License-Identifier: MIT */
#include "perf/rings.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "perf/cpus.h"
#include "perf/record.h"

/* All rings together; each at least MIN_RING_BYTES and at most MAX_RING_BYTES, or where every
 * allocation brings a copy of its stack, MAX_STACKS_RING_BYTES. */
#define RINGS_BYTES ((size_t)64 << 20)
#define MIN_RING_BYTES ((size_t)512 << 10)
#define MAX_RING_BYTES ((size_t)8 << 20)
#define MAX_STACKS_RING_BYTES ((size_t)32 << 20)
#define MAX_WATERMARK_BYTES ((size_t)1 << 20)

static size_t choose_ring_bytes(size_t n_cpus, bool with_stacks)
{
	size_t bytes = with_stacks ? MAX_STACKS_RING_BYTES : MAX_RING_BYTES;

	while (bytes > MIN_RING_BYTES && bytes * n_cpus > RINGS_BYTES)
		bytes /= 2;
	return bytes;
}

static int open_one(struct dp_rings *rings, size_t i, size_t ring_bytes, bool sideband,
		    struct dp_error *err)
{
	struct perf_event_attr attr = {
		.size = sizeof(attr),
		.type = PERF_TYPE_SOFTWARE,
		.config = PERF_COUNT_SW_DUMMY,
		.sample_type = DP_SAMPLE_TYPE_BITS,
		.sample_id_all = 1,
		.exclude_kernel = 1,
		.exclude_hv = 1,
		.mmap = sideband,
		.mmap2 = sideband,
		.build_id = sideband,
		.comm = sideband,
		.comm_exec = sideband,
		.task = sideband,
		.use_clockid = 1,
		.clockid = CLOCK_MONOTONIC,
		.watermark = 1,
		.wakeup_watermark =
			(uint32_t)(ring_bytes / 8 < MAX_WATERMARK_BYTES ? ring_bytes / 8
									: MAX_WATERMARK_BYTES),
	};
	long fd = syscall(SYS_perf_event_open, &attr, -1, rings->cpus[i], -1, PERF_FLAG_FD_CLOEXEC);
	int r;

	if (fd < 0)
		return dp_error_set(
			err, -errno,
			"perf_event_open on CPU %d: %s; run as root, or with CAP_PERFMON and "
			"sysctl kernel.perf_event_paranoid at 0 or lower",
			rings->cpus[i], strerror(errno));
	r = dp_ring_map(&rings->rings[i], (int)fd, ring_bytes);
	if (r < 0) {
		close((int)fd);
		return dp_error_set(err, r,
				    "mapping a perf ring of %zu bytes on CPU %d: %s; raise sysctl "
				    "kernel.perf_event_mlock_kb or run with CAP_IPC_LOCK",
				    ring_bytes, rings->cpus[i], strerror(-r));
	}
	rings->fds[i] = (int)fd;
	rings->pollfds[i] = (struct pollfd){.fd = (int)fd, .events = POLLIN};
	rings->n = i + 1;
	return 0;
}

int dp_rings_open(struct dp_rings *ret, size_t ring_bytes, bool with_stacks, bool sideband,
		  struct dp_error *err)
{
	int r = dp_cpus_online(&ret->cpus, &ret->n_cpus);

	if (r < 0)
		return dp_error_set(err, r, "/sys/devices/system/cpu/online: %s", strerror(-r));
	ret->rings = calloc(ret->n_cpus, sizeof(*ret->rings));
	ret->fds = calloc(ret->n_cpus, sizeof(*ret->fds));
	ret->pollfds = calloc(ret->n_cpus, sizeof(*ret->pollfds));
	if (!ret->rings || !ret->fds || !ret->pollfds)
		return dp_error_set(err, -ENOMEM, "rings of %zu CPUs: out of memory", ret->n_cpus);
	if (ring_bytes == 0)
		ring_bytes = choose_ring_bytes(ret->n_cpus, with_stacks);
	for (size_t i = 0; r == 0 && i < ret->n_cpus; i++)
		r = open_one(ret, i, ring_bytes, sideband, err);
	return r;
}

void dp_rings_close(struct dp_rings *rings)
{
	for (size_t i = 0; i < rings->n; i++) {
		dp_ring_unmap(&rings->rings[i]);
		close(rings->fds[i]);
	}
	free(rings->cpus);
	free(rings->rings);
	free(rings->fds);
	free(rings->pollfds);
	*rings = (struct dp_rings){0};
}
