/* SPDX-License-Identifier: MIT */
#ifndef DP_ENCODE_SINK_H
#define DP_ENCODE_SINK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "src/base/error.h"

/*
 * Files on disk: written under a temporary name in the same directory, fsynced, renamed, the
 * directory fsynced. A reader sees a whole file or none.
 */

/*
 * Makes the name COMM-PID-PROFILE-STARTUTC.pb.gz, e.g.
 * redis-server-812-heap-20261122T173000.123Z.pb.gz. Bytes of @comm that are not letters, digits,
 * '.', '_', '+' or '-' become '_'; a leading '.' or '-' too; an empty one becomes "unknown".
 * At most 64 bytes of @comm and 16 of @profile are taken, so a name is never cut.
 *
 * @start_ns: nanoseconds since the Unix epoch.
 * @ret: at least DP_SINK_NAME_MAX bytes.
 */
#define DP_SINK_NAME_MAX 128
void dp_sink_name(char ret[DP_SINK_NAME_MAX], const char *comm, pid_t pid, const char *profile,
		  int64_t start_ns);

/*
 * Checks that files can be made in directory @dir (by making and removing one).
 * Returns 0 or a negative errno with a sentence in @err.
 */
int dp_sink_check(const char *dir, struct dp_error *err);

/*
 * Writes @n_bytes as @dir/@name, readable for all that the umask allows. An existing file of that
 * name is kept and the new one gets "-2", "-3" … up to "-1000" before ".pb.gz". On failure nothing
 * is left behind (after a SIGKILL, or a crash of the machine, a hidden .deltaprof-*.tmp may be).
 *
 * @name: without '/', at most 255 bytes with its number. @data: may be NULL if @n_bytes is 0.
 *
 * Blocks on the disk; safe from any thread. A file size limit (ulimit -f) is an error (-EFBIG) only
 * if the process ignores SIGXFSZ; else the kernel kills it. Returns 0 or a negative errno with a
 * sentence in @err (may be NULL).
 */
int dp_sink_write(const char *dir, const char *name, const void *data, size_t n_bytes,
		  struct dp_error *err);

#endif
