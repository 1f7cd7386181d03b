/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_APART_H
#define DP_PERF_APART_H

/*
 * Runs @run in a process of its own that shares our memory and our file descriptors, while the
 * calling thread waits. Killed in the midst of putting in a uprobe or taking it out, the kernel
 * leaves breakpoints behind; what runs apart is not killed with us, goes on to its end, and then
 * takes everything with it.
 *
 * @run: gets @context. It must not end its thread, unlock what others hold, or ask for its own
 * process id.
 * Blocks until it is done. Where no process can be made it runs in the calling thread.
 * Source: the kernel's kernel/events/uprobes.c, uprobe_unregister_nosync(): "leaking uprobe".
 */
void dp_run_apart(void (*run)(void *context), void *context);

#endif
