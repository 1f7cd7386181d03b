/* SPDX-License-Identifier: MIT */
#ifndef DP_GO_MEMORY_H
#define DP_GO_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/*
 * Bounded reads of another process's memory, many small pieces at once, without stopping it.
 */

/*
 * Copies @n pieces of the memory of process @pid, in their order: @remote[i] (avma, length) to
 * @local[i], of the same length. A process whose main thread has ended is read through another;
 * where process_vm_readv() is refused, through /proc/PID/mem.
 *
 * *@ret_n: always set: so many were read whole, the next one was not.
 * Returns 0 (all), -EFAULT (the next one is not mapped), -ESRCH (the process is gone), -EPERM or
 * another negative errno. Blocks on pages that must be brought in; does not allocate. Source:
 * process_vm_readv(2), proc_pid_mem(5).
 */
int dp_go_memory_read_all(pid_t pid, const struct iovec *local, const struct iovec *remote,
			  size_t n, size_t *ret_n);

/* One piece: @n_bytes at @avma to @ret. Returns 0 or as above. */
int dp_go_memory_read(pid_t pid, uint64_t avma, void *ret, size_t n_bytes);

#endif
