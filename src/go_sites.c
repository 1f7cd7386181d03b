/* SPDX-License-Identifier: MIT */
/*
 * A Go function checks its stack first and begins again once it has made that larger, so where
 * exactly a probe goes decides whether a wait is counted once (perf/arch.h).
 */
#include <errno.h>
#include <string.h>

#include "perf/arch.h"
#include "src/base/frame.h"
#include "src/go_waits.h"

/* So much of a function is looked at for branches back to where it is probed. */
#define MAX_CODE_BYTES 4096

/* The first version whose functions take their arguments in registers. */
#define FIRST_MINOR 17

static int find_site(struct dp_probe_site *ret, bool *ret_has_frame, const char *name,
		     const struct dp_go_names *names, struct dp_modules *modules, uint32_t module,
		     struct dp_error *err)
{
	uint8_t code[MAX_CODE_BYTES];
	struct dp_go_placement placement;
	uint64_t frame, n_bytes;
	ptrdiff_t n;

	if (!names->find(names->context, name, &frame, &n_bytes) ||
	    dp_frame_module(frame) != module)
		return dp_error_set(err, -ENOEXEC, "the Go program has no function %s", name);
	n = dp_module_read(modules, module, dp_frame_offset(frame), code,
			   n_bytes < sizeof(code) ? (size_t)n_bytes : sizeof(code));
	if (n <= 0)
		return dp_error_set(err, n < 0 ? (int)n : -ENOEXEC,
				    "reading the code of %s of the Go program: %s", name,
				    n < 0 ? strerror((int)-n) : "it ends before");
	if (dp_arch_place_go(code, (size_t)n, &placement) < 0)
		return dp_error_set(err, -ENOEXEC,
				    "%s of the Go program does not begin as in any known version",
				    name);
	*ret = (struct dp_probe_site){.fd = dp_module_fd(modules, module),
				      .file_off =
					      dp_frame_offset(frame) + placement.place.offset_bytes,
				      .i_size = -1,
				      .i_count = -1,
				      .i_pointer = -1};
	*ret_has_frame = placement.has_frame;
	return 0;
}

int dp_go_waits_find_sites(struct dp_probe_site ret_sites[DP_GO_WAITS_N_SITES],
			   bool *ret_gopark_has_frame, const struct dp_go_names *names,
			   struct dp_modules *modules, uint32_t module, unsigned minor,
			   struct dp_error *err)
{
	struct dp_probe_site park, ready, acquire;
	bool park_has_frame = false, unused;
	int r;

	if (minor < FIRST_MINOR)
		return dp_error_set(err, -ENOTSUP,
				    "it is a Go 1.%u program: its goroutines' waits cannot be "
				    "observed before Go 1.%d, only read where it has switched its "
				    "own block and mutex profiling on",
				    minor, FIRST_MINOR);
	r = find_site(&park, &park_has_frame, "runtime.gopark", names, modules, module, err);
	if (r == 0)
		r = find_site(&ready, &unused, "runtime.ready", names, modules, module, err);
	if (r == 0)
		r = find_site(&acquire, &unused, "runtime.semacquire1", names, modules, module,
			      err);
	if (r != 0)
		return r;
	park.kind = DP_KERNEL_GO_PARK;
	ready.kind = DP_KERNEL_GO_READY;
	acquire.kind = DP_KERNEL_GO_ACQUIRE;
	ret_sites[0] = park;
	ret_sites[1] = ready;
	ret_sites[2] = acquire;
	*ret_gopark_has_frame = park_has_frame;
	return 0;
}
