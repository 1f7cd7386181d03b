/* SPDX-License-Identifier: MIT */
#ifndef DP_SESSION_PARTS_H
#define DP_SESSION_PARTS_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/go_watch.h"
#include "src/interner.h"
#include "src/locks.h"
#include "src/session.h"
#include "src/stack.h"
#include "symbolize/space.h"
#include "symbolize/symbolizer.h"

/*
 * What the halves of a session share: its beginning and end (src/session_open.c), and what lies
 * between (src/session.c).
 */

struct dp_session {
	struct dp_session_options options;
	struct dp_safety safety;
	struct dp_target target;
	struct dp_modules *modules;
	struct dp_space *space;
	struct dp_probes *probes;
	struct dp_sampler *sampler;
	struct dp_stacks *stacks;
	struct dp_stack_cache *cache;
	struct dp_heap *heap;
	struct dp_pairing *pairing;
	struct dp_contention *contention;
	struct dp_go_source *go; /* NULL: it is no Go program */
	uint32_t go_library; /* a module with Go code in a process that is no Go program; 0: none */
	struct dp_go_changes go_changes;
	struct dp_go_watch go_watch;	 /* its waits, where the runtime keeps no profile of them */
	struct dp_error why_no_go_waits; /* why there are none; "" otherwise */
	struct dp_locks *locks;
	struct dp_unwinder *unwinder;
	struct dp_perf_map *perf_map;
	struct dp_symbolizer *symbolizer;
	struct dp_report_source source;
	struct pollfd *pollfds;
	size_t n_pollfds;
	struct dp_interner interner;
	uint64_t n_unknown_probes;
	bool callchain;
	bool probes_heap; /* allocation functions are probed */
	enum dp_session_state state;
};

/* Why something is off (enum dp_off, ORed) that is. Static. */
const char *dp_session_why_off(const struct dp_session *session, unsigned off);

#endif
