/* SPDX-License-Identifier: MIT */
#ifndef DP_PROCESS_H
#define DP_PROCESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "src/deltaprof.h"
#include "src/profiler.h"
#include "src/session.h"

/*
 * What the parts of the library share (src/deltaprof.c, cuts.c, profilers.c): an attached process
 * and its profilers.
 */

/* Something that the thread is to do. */
struct call {
	void (*run)(struct deltaprof *process, void *argument);
	void *argument;
	bool done;
	struct call *next;
};

struct deltaprof {
	pid_t pid;
	bool is_own; /* the process is this one */
	char comm[DP_COMM_BYTES];
	pthread_t thread;
	pthread_mutex_t lock; /* of what follows, up to the blank line */
	pthread_cond_t changed;
	struct call *calls, **calls_end;
	enum deltaprof_state state;
	bool quit;

	int wake_fd;  /* a call was added, or quit was set */
	int state_fd; /* the state is no longer RUNNING */

	/* The thread's own. */
	struct dp_session *session;
	struct pollfd *pollfds; /* the session's, and last wake_fd */
	size_t n_pollfds;
	uint64_t started_ns;
	uint64_t cut_ns;     /* nothing younger is taken in yet; UINT64_MAX: no limit */
	uint64_t cut_due_ns; /* when it could be made: it may have been asked for later */
	uint64_t every_ns;   /* from a cut to the next; 0: there is no next */
	uint64_t last_cut_ns;
	uint64_t stopped_ns; /* 0: not stopped */

	pthread_mutex_t profilers_lock;
	struct profiler *profilers; /* all of them, so that they can be cut together */
};

/* Both sorts of profiler. */
struct profiler {
	struct deltaprof *process;
	pthread_mutex_t lock; /* held during a whole profile call; of what follows */
	struct dp_profiler *profiler;
	bool is_set_aside;     /* a cut's profile, not delivered yet */
	uint64_t cut_ns;       /* of the last cut that it has taken part in */
	struct profiler *next; /* in the process's list */
};

struct deltaprof_heap_profiler {
	struct profiler base;
};

struct deltaprof_block_profiler {
	struct profiler base;
};

/* Copies the sentence to where a caller of the library wants it; NULL: nowhere. */
void dp_process_set_error(char *error, const struct dp_error *err);

/* Runs @run in the process's thread and waits for it. */
void dp_process_run(struct deltaprof *process,
		    void (*run)(struct deltaprof *process, void *argument), void *argument);

/* Makes the end of the process, or of our memory, known. */
void dp_process_set_state(struct deltaprof *process, enum deltaprof_state state);

/*
 * The rest is for the process's thread.
 *
 * Every event before the cut has been taken in: sets aside what each profiler holds, and lets
 * events go on to the next cut. @mine: a profiler whose lock is held by who waits for us; NULL:
 * none. @late: what was set aside at the last cut and not asked for is thrown together with it.
 */
void dp_cuts_make(struct deltaprof *process, const struct profiler *mine, bool late);

/* Whether profiles of the last cut have had their time. */
bool dp_cuts_is_late(const struct deltaprof *process);

#endif
