/* SPDX-License-Identifier: MIT */
#ifndef DELTAPROF_H
#define DELTAPROF_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * deltaprof: heap, block and mutex profiles of a running process, from outside, as differences.
 *
 * Of a Go program they are what its runtime has sampled: the rates are the program's own.
 *
 * Attach to a process, make a profiler for each sort of profile that is wanted, and call its
 * profile function whenever the change since its last call is wanted, as a gzipped pprof profile
 * (profile.proto).
 *
 *     struct deltaprof *process;
 *     struct deltaprof_heap_profiler *heap;
 *     char error[DELTAPROF_ERROR_BYTES];
 *
 *     if (deltaprof_attach(&process, pid, NULL, error) == 0 &&
 *         deltaprof_heap_profiler_new(&heap, process) == 0) {
 *             sleep(10);
 *             deltaprof_heap_profiler_profile(heap, write_somewhere, context, error);
 *     }
 *
 * Threads: every function may be called from any thread at any time, but that an object must not be
 * freed while another thread uses it, and must be freed before the process that it belongs to is
 * detached from. Calls of one profiler's profile function wait for one another. The library runs
 * one thread of its own per attach.
 *
 * Errors: functions return 0 or a negative errno. Where they take @error it has room for
 * DELTAPROF_ERROR_BYTES or is NULL, and holds one sentence on failure: what failed, on what, why,
 * and what to do.
 *
 * Not promised: the memory layout of any struct but those defined here; that figures of two
 * profilers, taken one after the other, are of the same moment.
 */

#define DELTAPROF_ERROR_BYTES 768

/* Everything with this mark is the library's interface; all else is hidden. */
#define DELTAPROF_API __attribute__((visibility("default")))

enum deltaprof_profiles {
	DELTAPROF_HEAP = 1 << 0,
	DELTAPROF_CONTENTION = 1 << 1, /* block and mutex */
	DELTAPROF_CHEAP = 1 << 2,      /* of a Go program: the heap of its C code */
};

/* How the stacks of allocations are found; those of waits are always unwound. */
enum deltaprof_stacks {
	DELTAPROF_STACKS_AUTO, /* as DWARF; deeper stacks than can be copied go on as FP */
	DELTAPROF_STACKS_FP, /* the kernel follows frame pointers: only for code that keeps them */
	DELTAPROF_STACKS_DWARF, /* unwound with the files' CFI from a copy of the stack */
};

/* Who decides which allocations and waits are kept. */
enum deltaprof_sampler {
	DELTAPROF_SAMPLER_AUTO,	  /* KERNEL where it can be had, else DIRECT */
	DELTAPROF_SAMPLER_KERNEL, /* BPF programs: nothing else leaves the kernel */
	DELTAPROF_SAMPLER_DIRECT, /* the library: every call is delivered to it */
};

struct deltaprof_options {
	size_t size;	   /* sizeof(struct deltaprof_options), for versions to come */
	unsigned profiles; /* enum deltaprof_profiles, ORed: what is to be observed; 0: all */
	uint64_t heap_rate_bytes; /* mean bytes between sampled allocations; 1: every one; 0: 524288
				   */
	uint64_t block_rate_ns;	  /* waits as long as this are all kept; 1: every one; 0: 10000 */
	uint64_t seed;		  /* of the sampling; 0: from the system */
	enum deltaprof_stacks stacks;
	/*
	 * 1: where this machine's disks have no debug file, the servers in DEBUGINFOD_URLS are
	 * asked for one, by a thread more per attach that detaching waits for up to two seconds;
	 * profiles wait for nothing, names are better from the next one on. Never of the caller's
	 * own process, whose allocations and waits the thread would add to. 0: no network is used.
	 */
	uint64_t debuginfod;
	enum deltaprof_sampler sampler;
	/*
	 * Of a Go program, what its runtime is to sample from the attach on and until detaching:
	 * these are written into its memory, and are the only thing that ever is. 0: it is left as
	 * it is. Each only where the program has that profile off, the heap's from Go 1.24 on; no
	 * other process is changed. After a kill of the caller they stay.
	 */
	uint64_t go_heap_rate_bytes; /* as runtime.MemProfileRate */
	uint64_t go_block_rate_ns;   /* as runtime.SetBlockProfileRate() */
	uint64_t go_mutex_fraction;  /* as runtime.SetMutexProfileFraction() */
};

struct deltaprof;

/*
 * A child that the caller forks, and that does not execute another program, holds what is attached
 * too: it goes when both have detached or ended.
 *
 * Attaches to process @pid, which may be the caller's own: the library's thread, and what it
 * allocates, is then left out.
 *
 * @options: NULL for the defaults. Blocks until every probe is live (some 0.1 ms per thread and CPU
 * of the process). Returns 0; -ESRCH no such process, -EINVAL kernel thread, zombie, a thread's
 * id, or options of the wrong size or with unknown profiles, -EPERM/-EACCES no privilege, -ENOENT
 * no allocator that it knows, -EOPNOTSUPP what must not be used there (the sentence says it),
 * -EMFILE, -ENOMEM, or another negative errno of the kernel.
 */
DELTAPROF_API int deltaprof_attach(struct deltaprof **ret, pid_t pid,
				   const struct deltaprof_options *options, char *error);

/* Detaches; no breakpoint is left in the process. Free its profilers first. NULL is allowed. */
DELTAPROF_API void deltaprof_detach(struct deltaprof *process);

/*
 * Stops observing and takes in every event so far, later than deltaprof_cut_at() or not; profilers
 * can still be asked. Returns 0 or -ENOMEM.
 */
DELTAPROF_API int deltaprof_stop(struct deltaprof *process);

/*
 * Fixes the moments up to which the profiles reach that are asked for next, so that those of
 * several profilers cover the very same time. When one comes, what each is to hold is set aside,
 * and events go on being taken in up to the next moment. There it waits for profiles of the last
 * one that have not been asked for or are still being written, 2 s longer than the time between the
 * two; then they are thrown together.
 *
 * @monotonic_ns: the first moment, on CLOCK_MONOTONIC; a profile that is asked for earlier reaches
 * up to its call. 0: there are none. @every_ns: from one to the next; 0: there is no next.
 */
DELTAPROF_API void deltaprof_cut_at(struct deltaprof *process, uint64_t monotonic_ns,
				    uint64_t every_ns);

enum deltaprof_state {
	DELTAPROF_RUNNING,
	DELTAPROF_ENDED,  /* the process has ended */
	DELTAPROF_EXECED, /* it has executed another program, which is not observed */
	DELTAPROF_FAILED, /* out of memory: what is observed is no longer whole */
};

DELTAPROF_API enum deltaprof_state deltaprof_state(struct deltaprof *process);

/* A descriptor that is readable once the state is no longer RUNNING; poll it, do not read or close
 * it. */
DELTAPROF_API int deltaprof_state_fd(struct deltaprof *process);

struct deltaprof_stats {
	size_t size;	   /* set by the caller to sizeof(struct deltaprof_stats) */
	uint64_t n_events; /* records taken in since the attach */
	uint64_t n_lost;   /* records that the kernel had no room for, or that we had none for */
	uint64_t n_allocations, n_allocations_sampled;
	uint64_t n_waits, n_waits_sampled;
	uint64_t n_threads; /* that events were opened on; their descendants are covered too */
	uint64_t n_fds;	    /* file descriptors held */
	uint64_t cpu_ns;    /* used by the library's thread */
};

/* Fills @ret as far as ret->size reaches. */
DELTAPROF_API void deltaprof_get_stats(struct deltaprof *process, struct deltaprof_stats *ret);

/*
 * Calls @line for each line of a description of what is observed and where: each probe, the number
 * of threads and descriptors.
 */
DELTAPROF_API void deltaprof_describe(struct deltaprof *process,
				      void (*line)(void *context, const char *text), void *context);

/*
 * Calls @line for each sentence about what the profiles cannot have, on this kernel or of this
 * process, and why: what whoever reads them should be told. Mostly there is none. They read
 * on from "PID (NAME): " and are valid during the call.
 */
DELTAPROF_API void deltaprof_describe_limits(struct deltaprof *process,
					     void (*line)(void *context, const char *text),
					     void *context);

/*
 * Takes a finished profile: @n_bytes of gzipped pprof at @data, valid during the call.
 * Returns 0 if it was delivered, or a negative errno, with a sentence in @error if it likes to.
 */
typedef int deltaprof_writer(void *context, const void *data, size_t n_bytes,
			     char error[DELTAPROF_ERROR_BYTES]);

/*
 * Heap: alloc_objects, alloc_space as differences; inuse_objects, inuse_space as they are, of what
 * was allocated since the attach (of a Go program: since its start); or 0 where they cannot be
 * known (deltaprof_describe_limits()).
 */
struct deltaprof_heap_profiler;

/* Returns 0, -ENOMEM, or -EINVAL when the attach does not observe the heap. */
DELTAPROF_API int deltaprof_heap_profiler_new(struct deltaprof_heap_profiler **ret,
					      struct deltaprof *process);

/* NULL is allowed. */
DELTAPROF_API void deltaprof_heap_profiler_free(struct deltaprof_heap_profiler *profiler);

/*
 * Writes the change since the profiler's last profile that was delivered (at first: since the
 * attach). When @write fails, the next profile has the same change in it and what came on top.
 * @write is called in the caller's thread, at most once.
 *
 * Returns 0, -ENOMEM, or what @write returned.
 */
DELTAPROF_API int deltaprof_heap_profiler_profile(struct deltaprof_heap_profiler *profiler,
						  deltaprof_writer *write, void *context,
						  char *error);

/*
 * The heap of the C code in a Go program, whose own heap is the one above: what goes through malloc
 * there. Everything else is as for the other. Returns 0, -ENOMEM, or -EINVAL when the process is no
 * Go program, has no C allocator, or the attach does not observe it.
 */
DELTAPROF_API int deltaprof_cheap_profiler_new(struct deltaprof_heap_profiler **ret,
					       struct deltaprof *process);

/*
 * Where the profiler's next profile begins, in nanoseconds since the Unix epoch: for naming it.
 */
DELTAPROF_API int64_t deltaprof_heap_profiler_start(struct deltaprof_heap_profiler *profiler);

/*
 * Block and mutex: contentions and delay as differences. One type with two constructors: block is
 * charged to the stack that waited, mutex to the stack that released the lock and so ended the
 * wait.
 */
struct deltaprof_block_profiler;

/* Return 0, -ENOMEM, or -EINVAL when the attach does not observe contention. */
DELTAPROF_API int deltaprof_block_profiler_new(struct deltaprof_block_profiler **ret,
					       struct deltaprof *process);
DELTAPROF_API int deltaprof_mutex_profiler_new(struct deltaprof_block_profiler **ret,
					       struct deltaprof *process);

/* NULL is allowed. */
DELTAPROF_API void deltaprof_block_profiler_free(struct deltaprof_block_profiler *profiler);

/* As deltaprof_heap_profiler_profile() and deltaprof_heap_profiler_start(). */
DELTAPROF_API int deltaprof_block_profiler_profile(struct deltaprof_block_profiler *profiler,
						   deltaprof_writer *write, void *context,
						   char *error);
DELTAPROF_API int64_t deltaprof_block_profiler_start(struct deltaprof_block_profiler *profiler);

/* The process's id and name, as they were at the attach; the name lives as long as @process. */
DELTAPROF_API pid_t deltaprof_pid(const struct deltaprof *process);
DELTAPROF_API const char *deltaprof_comm(const struct deltaprof *process);

#ifdef __cplusplus
}
#endif

#endif
