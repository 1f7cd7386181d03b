/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: three trace events (entry, return, free) carry all probed functions, so a thread
 * costs four perf events per CPU however many functions are probed. How much of the
 * stack an event copies cannot be changed, so to copy more a second set of events is opened beside
 * the first, and while both record each hit is taken once (perf/twins.h).
 */
#include "perf/direct.h"

#include <errno.h>
#include <stdlib.h>

#include "perf/anchors.h"
#include "perf/event_set.h"
#include "perf/tracefs.h"
#include "perf/twins.h"
#include "src/base/clock.h"
#include "src/base/proc_stat.h"

/* Events closed between two looks at the rings, where a close takes up to a millisecond, and how
 * long a round goes on with it. */
#define CLOSES_AT_ONCE 16
#define CLOSE_BUDGET_NS 20000000

/* A record has less than 64 KiB, so the kernel copies less where more is asked for. */
#define MAX_COPY_BYTES 32768

/* Longer than it takes to create a thread. */
#define ENABLE_AGAIN_NS 10000000

/* Taking over from one set of events to another, see dp_sampler_resize(). */
enum takeover {
	TAKEOVER_NONE,
	TAKEOVER_BOTH,	  /* both record */
	TAKEOVER_CLOSING, /* the old one no longer does */
};

struct dp_direct {
	struct dp_sampler_options options; /* without sites, once they are probed */
	const struct dp_rings *rings;
	void (*between)(void *context);
	void *context;
	struct dp_tracefs *tracefs;
	struct dp_event_set shared; /* events without a copy of the stack */
	struct dp_event_set stacks; /* with one */
	struct dp_event_set old;    /* what stacks is taking over from */
	uint32_t old_stack_bytes;
	enum takeover takeover;
	uint64_t takeover_ns; /* when its last step was made */
	struct dp_twins twins;
	uint64_t retired_hits[DP_N_SORTS], retired_lost[DP_N_SORTS]; /* of sets no longer read */
	unsigned n_enable_again;
	uint64_t enabled_ns;	    /* last */
	struct dp_anchors *anchors; /* once the main thread has ended */
	char filter[DP_SORT_FILTER_BYTES];
};

size_t dp_direct_smallest_copy(const struct dp_direct *direct)
{
	if (direct->takeover != TAKEOVER_NONE &&
	    direct->old_stack_bytes < direct->options.stack_bytes)
		return direct->old_stack_bytes;
	return direct->options.stack_bytes < MAX_COPY_BYTES ? direct->options.stack_bytes
							    : MAX_COPY_BYTES;
}

/* Whether the parser knows the layout already: two sorts may be of one tracepoint. */
static bool has_layout(const struct dp_record_layout *layout, uint16_t id)
{
	for (size_t i = 0; i < layout->n_raw; i++) {
		if (layout->raw[i].id == id)
			return true;
	}
	return false;
}

static int add_sort(struct dp_direct *direct, enum dp_sort sort, struct dp_record_layout *layouts,
		    struct dp_error *err)
{
	struct dp_raw_layout layout = {0};
	struct dp_event_spec spec;
	int r = dp_sort_define(sort, direct->tracefs, &direct->options, direct->filter, &spec,
			       &layout, err);

	if (r < 0)
		return r;
	if (!spec.sideband && !has_layout(layouts, layout.id))
		layouts->raw[layouts->n_raw++] = layout;
	dp_event_set_add(spec.stack_bytes ? &direct->stacks : &direct->shared, sort, &spec);
	return 0;
}

static int open_set(struct dp_direct *direct, struct dp_event_set *set, struct dp_error *err)
{
	const struct dp_attach_options options = {.pid = direct->options.pid,
						  .cpus = direct->rings->cpus,
						  .ring_fds = direct->rings->fds,
						  .n_cpus = direct->rings->n_cpus,
						  .except_tid = direct->options.except_tid,
						  .between = direct->between,
						  .context = direct->context};

	return set->n_specs > 0 ? dp_event_set_open(set, &options, err) : 0;
}

/* The sideband first: from then on new mappings are reported. */
static int open_events(struct dp_direct *direct, struct dp_record_layout *layout,
		       struct dp_error *err)
{
	int r = 0;

	for (enum dp_sort sort = 0; r == 0 && sort < DP_N_SORTS; sort++) {
		if (dp_sort_is_wanted(sort, &direct->options))
			r = add_sort(direct, sort, layout, err);
	}
	direct->options.sites = NULL;
	if (r == 0)
		r = open_set(direct, &direct->shared, err);
	if (r == 0)
		r = open_set(direct, &direct->stacks, err);
	return r;
}

/* The main thread has ended: the probes are kept in by others. Where that fails the process has
 * ended too. */
static void anchor(struct dp_direct *direct)
{
	static const enum dp_sort sorts[] = {DP_SORT_FREE,     DP_SORT_RETURN,	   DP_SORT_ENTRY,
					     DP_SORT_GO_READY, DP_SORT_GO_ACQUIRE, DP_SORT_GO_PARK};
	uint64_t ids[sizeof(sorts) / sizeof(sorts[0])];
	size_t n = 0;

	for (size_t i = 0; i < sizeof(sorts) / sizeof(sorts[0]); i++) {
		const struct dp_event_set *set =
			direct->shared.i_spec[sorts[i]] > 0 ? &direct->shared : &direct->stacks;

		if (set->i_spec[sorts[i]] > 0)
			ids[n++] = set->specs[set->i_spec[sorts[i]] - 1].tracepoint_id;
	}
	if (n > 0 && dp_anchors_new(&direct->anchors, direct->options.pid, ids, n) == 0)
		dp_anchors_bind(direct->anchors);
}

int dp_direct_open(struct dp_direct **ret, const struct dp_sampler_options *options,
		   const struct dp_rings *rings, struct dp_record_layout *layout,
		   void (*between)(void *context), void *context, struct dp_error *err)
{
	struct dp_direct *direct = calloc(1, sizeof(*direct));
	int r;

	if (!direct)
		return dp_error_set(err, -ENOMEM, "pid %d: out of memory", options->pid);
	direct->options = *options;
	direct->rings = rings;
	direct->between = between;
	direct->context = context;
	r = dp_tracefs_open(&direct->tracefs, err);
	if (r == 0)
		r = open_events(direct, layout, err);
	if (r == 0 && !dp_thread_is_alive(options->pid, options->pid))
		anchor(direct);
	if (r < 0) {
		dp_direct_close(direct);
		return r;
	}
	*ret = direct;
	return 0;
}

static void enable_all(struct dp_direct *direct)
{
	for (enum dp_sort sort = 0; sort < DP_N_SORTS; sort++) {
		dp_event_set_enable(&direct->shared, sort);
		dp_event_set_enable(&direct->stacks, sort);
	}
}

/*
 * A thread that is just being created while its creator's events are enabled may get them disabled
 * (the kernel's inherit_event() reads the state long before the new event can be found from its
 * parent), and so would all its descendants. Done again once such creations are over, enabling
 * finds them; it costs next to nothing then.
 */
void dp_direct_enable(struct dp_direct *direct)
{
	for (int i = 0; i < 3; i++)
		enable_all(direct);
	direct->n_enable_again = 3;
	direct->enabled_ns = dp_monotonic_ns();
}

void dp_direct_disable(struct dp_direct *direct)
{
	direct->n_enable_again = 0;
	/* The sideband, first of all, goes on. */
	for (enum dp_sort sort = DP_N_SORTS; sort-- > DP_SORT_SIDEBAND + 1;) {
		dp_event_set_disable(&direct->old, sort);
		dp_event_set_disable(&direct->stacks, sort);
		dp_event_set_disable(&direct->shared, sort);
	}
}

/* The old set records no longer; what it has counted stays known. */
static void retire_old(struct dp_direct *direct)
{
	for (enum dp_sort sort = 0; sort < DP_N_SORTS; sort++)
		dp_event_set_disable(&direct->old, sort);
	for (enum dp_sort sort = 0; sort < DP_N_SORTS; sort++)
		dp_event_set_count(&direct->old, sort, &direct->retired_hits[sort],
				   &direct->retired_lost[sort]);
	direct->takeover = TAKEOVER_CLOSING;
	direct->takeover_ns = dp_monotonic_ns();
}

/* Closes old events for @budget_ns at most, looking at the rings meanwhile. Returns whether there
 * are more. */
static bool close_old(struct dp_direct *direct, uint64_t budget_ns)
{
	uint64_t begin_ns = dp_monotonic_ns();

	while (dp_attach_close_some(direct->old.attach, CLOSES_AT_ONCE)) {
		direct->between(direct->context);
		if (dp_monotonic_ns() - begin_ns >= budget_ns)
			return true;
	}
	return false;
}

/* Ends in that all of the old set's records have been given. */
static void go_on_with_takeover(struct dp_direct *direct, uint64_t budget_ns, uint64_t given_ns)
{
	if (direct->takeover == TAKEOVER_BOTH && direct->n_enable_again == 0) {
		retire_old(direct);
		return;
	}
	if (direct->takeover != TAKEOVER_CLOSING || close_old(direct, budget_ns) ||
	    given_ns <= direct->takeover_ns)
		return;
	dp_event_set_close(&direct->old);
	dp_twins_clear(&direct->twins);
	direct->takeover = TAKEOVER_NONE;
}

bool dp_direct_is_changing(const struct dp_direct *direct)
{
	return direct->takeover != TAKEOVER_NONE || direct->n_enable_again > 0 || direct->anchors;
}

int dp_direct_resize(struct dp_direct *direct, uint32_t stack_bytes, bool callchain,
		     uint64_t given_ns, struct dp_error *err)
{
	struct dp_event_set set = {.n_specs = 0};
	int r;

	/* Whoever wants more now has waited long enough. */
	if (direct->takeover == TAKEOVER_CLOSING)
		go_on_with_takeover(direct, UINT64_MAX, given_ns);
	if (direct->takeover != TAKEOVER_NONE || direct->stacks.n_specs == 0)
		return 1;
	for (enum dp_sort sort = 0; sort < DP_N_SORTS; sort++) {
		struct dp_event_spec spec;

		if (direct->stacks.i_spec[sort] == 0)
			continue;
		spec = direct->stacks.specs[direct->stacks.i_spec[sort] - 1];
		spec.stack_bytes = stack_bytes;
		spec.callchain = callchain;
		dp_event_set_add(&set, sort, &spec);
	}
	r = open_set(direct, &set, err);
	if (r < 0) {
		dp_event_set_close(&set);
		return r;
	}
	direct->old = direct->stacks;
	direct->old_stack_bytes = direct->options.stack_bytes;
	direct->stacks = set;
	direct->options.stack_bytes = stack_bytes;
	direct->takeover = TAKEOVER_BOTH;
	dp_direct_enable(direct);
	return 0;
}

void dp_direct_close(struct dp_direct *direct)
{
	if (!direct)
		return;
	dp_anchors_free(direct->anchors);
	dp_event_set_close(&direct->old);
	dp_event_set_close(&direct->stacks);
	dp_event_set_close(&direct->shared);
	dp_twins_clear(&direct->twins);
	dp_tracefs_close(direct->tracefs);
	free(direct);
}

void dp_direct_before_round(struct dp_direct *direct, uint64_t now_ns)
{
	if (direct->n_enable_again == 0 || now_ns - direct->enabled_ns < ENABLE_AGAIN_NS)
		return;
	direct->n_enable_again--;
	direct->enabled_ns = now_ns;
	enable_all(direct);
}

void dp_direct_after_round(struct dp_direct *direct, uint64_t given_ns)
{
	go_on_with_takeover(direct, CLOSE_BUDGET_NS, given_ns);
}

/* The set that a sample is of, told apart by what only one of them copies. */
static const struct dp_event_set *set_of(const struct dp_direct *direct, uint32_t asked_bytes)
{
	if (asked_bytes == 0)
		return &direct->shared;
	if (direct->takeover != TAKEOVER_NONE && asked_bytes == direct->old_stack_bytes)
		return &direct->old;
	return &direct->stacks;
}

bool dp_direct_is_duplicate(struct dp_direct *direct, const struct dp_event *event)
{
	const struct dp_user_state *user = dp_event_user(event);
	const struct dp_event_set *set = set_of(direct, user ? user->asked_bytes : 0);

	if (dp_event_set_is_duplicate(set, event))
		return true;
	if (direct->takeover == TAKEOVER_NONE)
		return false;
	if (set != &direct->shared)
		return dp_twins_is_second(&direct->twins, event, set == &direct->stacks);
	dp_twins_separate(&direct->twins, event);
	return false;
}

uint64_t dp_direct_n_gaps(const struct dp_direct *direct)
{
	return direct->anchors ? dp_anchors_n_gaps(direct->anchors) : 0;
}

void dp_direct_follow(struct dp_direct *direct, const struct dp_event *event)
{
	if (direct->anchors)
		dp_anchors_follow(direct->anchors, event);
	else if (event->type == DP_EVENT_EXIT && event->tid == event->pid &&
		 event->pid == (uint32_t)direct->options.pid)
		anchor(direct);
	dp_event_set_follow(&direct->shared, event);
	dp_event_set_follow(&direct->stacks, event);
	dp_event_set_follow(&direct->old, event);
}

void dp_direct_count(const struct dp_direct *direct, enum dp_sort sort, uint64_t *ret_hits,
		     uint64_t *ret_lost)
{
	*ret_hits = direct->retired_hits[sort];
	*ret_lost = direct->retired_lost[sort];
	dp_event_set_count(&direct->shared, sort, ret_hits, ret_lost);
	dp_event_set_count(&direct->stacks, sort, ret_hits, ret_lost);
	if (direct->takeover == TAKEOVER_BOTH)
		dp_event_set_count(&direct->old, sort, ret_hits, ret_lost);
}

uint32_t dp_direct_stack_bytes(const struct dp_direct *direct)
{
	return direct->options.stack_bytes;
}

void dp_direct_get_size(const struct dp_direct *direct, size_t *ret_threads, size_t *ret_fds)
{
	const struct dp_attach *attaches[] = {direct->shared.attach, direct->stacks.attach,
					      direct->old.attach};

	*ret_fds = direct->anchors ? dp_anchors_n_fds(direct->anchors) : 0;
	for (size_t i = 0; i < 3; i++)
		*ret_fds += attaches[i] ? dp_attach_n_fds(attaches[i]) : 0;
	*ret_threads = dp_attach_n_threads(direct->shared.attach);
}
