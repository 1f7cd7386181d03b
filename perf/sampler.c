/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: three trace events (entry, return, free) carry all probed functions, so a thread
 * costs four perf events per CPU however many functions are probed; and all records of a CPU share
 * one ring, whose owner is a dummy event of that CPU that lives as long as we do. How much of the
 * stack an event copies cannot be changed, so to copy more a second set of events is opened beside
 * the first, and while both record each hit is taken once (perf/twins.h).
 */
#include "perf/sampler.h"

#include <errno.h>
#include <stdlib.h>

#include "perf/event_set.h"
#include "perf/merge.h"
#include "perf/rings.h"
#include "perf/sorts.h"
#include "perf/tracefs.h"
#include "perf/twins.h"
#include "src/base/clock.h"

/* Per ring, of records that wait for their turn. */
#define MAX_QUEUE_BYTES ((size_t)128 << 20)

/* Copied of the user's stack, if the caller does not say. */
#define DEFAULT_STACK_BYTES 8192
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

struct dp_sampler {
	struct dp_sampler_options options; /* without sites, once they are probed */
	struct dp_tracefs *tracefs;
	struct dp_merge *merge;
	struct dp_record_layout layout;
	struct dp_event_set shared; /* events without a copy of the stack */
	struct dp_event_set stacks; /* with one */
	struct dp_event_set old;    /* what stacks is taking over from */
	uint32_t old_stack_bytes;
	enum takeover takeover;
	uint64_t takeover_ns; /* when its last step was made */
	struct dp_twins twins;
	uint64_t retired_hits[DP_N_SORTS], retired_lost[DP_N_SORTS]; /* of sets no longer read */
	struct dp_rings rings;
	uint64_t round_ns;			/* start of the last round */
	uint64_t horizon_ns;			/* start of the one before */
	uint64_t given_ns;			/* all that is older has been given */
	_Alignas(uint64_t) uint8_t slim[16384]; /* a record without its copy of the stack */
	unsigned n_enable_again;
	uint64_t enabled_ns; /* last */
	struct dp_sampler_stats stats;
};

/* What a record with a copy of the stack has at least. */
static size_t smallest_copy(const struct dp_sampler *sampler)
{
	if (sampler->takeover != TAKEOVER_NONE &&
	    sampler->old_stack_bytes < sampler->options.stack_bytes)
		return sampler->old_stack_bytes;
	return sampler->options.stack_bytes < MAX_COPY_BYTES ? sampler->options.stack_bytes
							     : MAX_COPY_BYTES;
}

/* Leaves the copy of the stack out of @record if it is not wanted. Returns what is to be kept. */
static const void *slim(struct dp_sampler *sampler, const void *record, size_t *n_bytes)
{
	size_t n_slim;
	struct dp_event event;

	if (!sampler->options.wants_stack || *n_bytes < smallest_copy(sampler) ||
	    dp_record_parse(&sampler->layout, record, *n_bytes, &event) != 0 ||
	    event.type != DP_EVENT_ALLOC_ENTRY || !event.entry.user.stack ||
	    sampler->options.wants_stack(sampler->options.context, &event))
		return record;
	n_slim = dp_record_leave_out_stack(record, &event, sampler->slim, sizeof(sampler->slim));
	if (n_slim == 0)
		return record;
	*n_bytes = n_slim;
	return sampler->slim;
}

static void read_ring(struct dp_sampler *sampler, size_t i)
{
	struct dp_ring *ring = &sampler->rings.rings[i];
	const void *record;
	uint64_t time_ns;
	size_t n_bytes;
	int r;

	dp_ring_refresh(ring);
	while ((r = dp_ring_next(ring, &record, &n_bytes)) != 0) {
		if (r < 0 || dp_record_time(record, n_bytes, &time_ns) < 0) {
			sampler->stats.n_malformed++;
			continue;
		}
		record = slim(sampler, record, &n_bytes);
		if (dp_merge_push(sampler->merge, (unsigned)i, record, n_bytes, time_ns) < 0)
			sampler->stats.n_dropped++;
	}
	dp_ring_release(ring);
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

static int add_sort(struct dp_sampler *sampler, enum dp_sort sort, struct dp_error *err)
{
	struct dp_raw_layout layout = {0};
	struct dp_event_spec spec;
	int r = dp_sort_define(sort, sampler->tracefs, &sampler->options, &spec, &layout, err);

	if (r < 0)
		return r;
	if (!spec.sideband && !has_layout(&sampler->layout, layout.id))
		sampler->layout.raw[sampler->layout.n_raw++] = layout;
	dp_event_set_add(spec.stack_bytes ? &sampler->stacks : &sampler->shared, sort, &spec);
	return 0;
}

static void read_rings(void *context)
{
	struct dp_sampler *sampler = context;

	for (size_t i = 0; i < sampler->rings.n; i++)
		read_ring(sampler, i);
}

static int open_set(struct dp_sampler *sampler, struct dp_event_set *set, struct dp_error *err)
{
	const struct dp_attach_options options = {.pid = sampler->options.pid,
						  .cpus = sampler->rings.cpus,
						  .ring_fds = sampler->rings.fds,
						  .n_cpus = sampler->rings.n_cpus,
						  .except_tid = sampler->options.except_tid,
						  .between = read_rings,
						  .context = sampler};

	return set->n_specs > 0 ? dp_event_set_open(set, &options, err) : 0;
}

/* The sideband first: from then on new mappings are reported. */
static int open_events(struct dp_sampler *sampler, struct dp_error *err)
{
	int r = 0;

	for (enum dp_sort sort = 0; r == 0 && sort < DP_N_SORTS; sort++) {
		if (dp_sort_is_wanted(sort, &sampler->options))
			r = add_sort(sampler, sort, err);
	}
	sampler->options.sites = NULL;
	if (r == 0)
		r = open_set(sampler, &sampler->shared, err);
	if (r == 0)
		r = open_set(sampler, &sampler->stacks, err);
	return r;
}

int dp_sampler_open(struct dp_sampler **ret, const struct dp_sampler_options *options,
		    struct dp_error *err)
{
	struct dp_sampler *sampler = calloc(1, sizeof(*sampler));
	int r;

	if (!sampler)
		return dp_error_set(err, -ENOMEM, "pid %d: out of memory", options->pid);
	sampler->options = *options;
	if (sampler->options.stack_bytes == 0)
		sampler->options.stack_bytes = DEFAULT_STACK_BYTES;
	r = dp_tracefs_open(&sampler->tracefs, err);
	if (r == 0)
		r = dp_rings_open(&sampler->rings, options->ring_bytes, options->heap_stacks, err);
	if (r == 0 &&
	    dp_merge_new(&sampler->merge, (unsigned)sampler->rings.n, MAX_QUEUE_BYTES) < 0)
		r = dp_error_set(err, -ENOMEM, "pid %d: out of memory", options->pid);
	if (r == 0)
		r = open_events(sampler, err);
	if (r < 0) {
		dp_sampler_close(sampler);
		return r;
	}
	*ret = sampler;
	return 0;
}

static void enable_all(struct dp_sampler *sampler)
{
	for (enum dp_sort sort = 0; sort < DP_N_SORTS; sort++) {
		dp_event_set_enable(&sampler->shared, sort);
		dp_event_set_enable(&sampler->stacks, sort);
	}
}

/*
 * A thread that is just being created while its creator's events are enabled may get them disabled
 * (the kernel's inherit_event() reads the state long before the new event can be found from its
 * parent), and so would all its descendants. Done again once such creations are over, enabling
 * finds them; it costs next to nothing then.
 */
void dp_sampler_enable(struct dp_sampler *sampler)
{
	for (int i = 0; i < 3; i++)
		enable_all(sampler);
	sampler->n_enable_again = 3;
	sampler->enabled_ns = dp_monotonic_ns();
}

void dp_sampler_disable(struct dp_sampler *sampler)
{
	sampler->n_enable_again = 0;
	/* The sideband, first of all, goes on. */
	for (enum dp_sort sort = DP_N_SORTS; sort-- > DP_SORT_SIDEBAND + 1;) {
		dp_event_set_disable(&sampler->old, sort);
		dp_event_set_disable(&sampler->stacks, sort);
		dp_event_set_disable(&sampler->shared, sort);
	}
}

/* The old set records no longer; what it has counted stays known. */
static void retire_old(struct dp_sampler *sampler)
{
	for (enum dp_sort sort = 0; sort < DP_N_SORTS; sort++)
		dp_event_set_disable(&sampler->old, sort);
	for (enum dp_sort sort = 0; sort < DP_N_SORTS; sort++)
		dp_event_set_count(&sampler->old, sort, &sampler->retired_hits[sort],
				   &sampler->retired_lost[sort]);
	sampler->takeover = TAKEOVER_CLOSING;
	sampler->takeover_ns = dp_monotonic_ns();
}

/* Closes old events for @budget_ns at most, looking at the rings meanwhile. Returns whether there
 * are more. */
static bool close_old(struct dp_sampler *sampler, uint64_t budget_ns)
{
	uint64_t begin_ns = dp_monotonic_ns();

	while (dp_attach_close_some(sampler->old.attach, CLOSES_AT_ONCE)) {
		read_rings(sampler);
		if (dp_monotonic_ns() - begin_ns >= budget_ns)
			return true;
	}
	return false;
}

/* Ends in that all of the old set's records have been given. */
static void go_on_with_takeover(struct dp_sampler *sampler, uint64_t budget_ns)
{
	if (sampler->takeover == TAKEOVER_BOTH && sampler->n_enable_again == 0) {
		retire_old(sampler);
		return;
	}
	if (sampler->takeover != TAKEOVER_CLOSING || close_old(sampler, budget_ns) ||
	    sampler->given_ns <= sampler->takeover_ns)
		return;
	dp_event_set_close(&sampler->old);
	dp_twins_clear(&sampler->twins);
	sampler->takeover = TAKEOVER_NONE;
}

bool dp_sampler_is_changing(const struct dp_sampler *sampler)
{
	return sampler->takeover != TAKEOVER_NONE || sampler->n_enable_again > 0;
}

int dp_sampler_resize(struct dp_sampler *sampler, uint32_t stack_bytes, bool callchain,
		      struct dp_error *err)
{
	struct dp_event_set set = {.n_specs = 0};
	int r;

	/* Whoever wants more now has waited long enough. */
	if (sampler->takeover == TAKEOVER_CLOSING)
		go_on_with_takeover(sampler, UINT64_MAX);
	if (sampler->takeover != TAKEOVER_NONE || sampler->stacks.n_specs == 0)
		return 1;
	for (enum dp_sort sort = 0; sort < DP_N_SORTS; sort++) {
		struct dp_event_spec spec;

		if (sampler->stacks.i_spec[sort] == 0)
			continue;
		spec = sampler->stacks.specs[sampler->stacks.i_spec[sort] - 1];
		spec.stack_bytes = stack_bytes;
		spec.callchain = callchain;
		dp_event_set_add(&set, sort, &spec);
	}
	r = open_set(sampler, &set, err);
	if (r < 0) {
		dp_event_set_close(&set);
		return r;
	}
	sampler->old = sampler->stacks;
	sampler->old_stack_bytes = sampler->options.stack_bytes;
	sampler->stacks = set;
	sampler->options.stack_bytes = stack_bytes;
	sampler->takeover = TAKEOVER_BOTH;
	dp_sampler_enable(sampler);
	return 0;
}

void dp_sampler_close(struct dp_sampler *sampler)
{
	if (!sampler)
		return;
	dp_event_set_close(&sampler->old);
	dp_event_set_close(&sampler->stacks);
	dp_event_set_close(&sampler->shared);
	dp_twins_clear(&sampler->twins);
	dp_tracefs_close(sampler->tracefs);
	dp_rings_close(&sampler->rings);
	dp_merge_free(sampler->merge);
	free(sampler);
}

const struct pollfd *dp_sampler_pollfds(const struct dp_sampler *sampler, size_t *ret_n)
{
	*ret_n = sampler->rings.n;
	return sampler->rings.pollfds;
}

void dp_sampler_round(struct dp_sampler *sampler)
{
	uint64_t now_ns = dp_monotonic_ns();

	if (sampler->n_enable_again > 0 && now_ns - sampler->enabled_ns >= ENABLE_AGAIN_NS) {
		sampler->n_enable_again--;
		sampler->enabled_ns = now_ns;
		enable_all(sampler);
	}
	read_rings(sampler);
	sampler->horizon_ns = sampler->round_ns;
	sampler->round_ns = now_ns;
	go_on_with_takeover(sampler, CLOSE_BUDGET_NS);
}

uint64_t dp_sampler_horizon_ns(const struct dp_sampler *sampler)
{
	return sampler->horizon_ns;
}

/* The set that a sample is of, told apart by what only one of them copies. */
static const struct dp_event_set *set_of(const struct dp_sampler *sampler, uint32_t asked_bytes)
{
	if (asked_bytes == 0)
		return &sampler->shared;
	if (sampler->takeover != TAKEOVER_NONE && asked_bytes == sampler->old_stack_bytes)
		return &sampler->old;
	return &sampler->stacks;
}

/* Whether a sample is another one's double, see perf/attach.h and perf/twins.h. */
static bool is_duplicate(struct dp_sampler *sampler, const struct dp_event *event)
{
	const struct dp_user_state *user = dp_event_user(event);
	const struct dp_event_set *set = set_of(sampler, user ? user->asked_bytes : 0);

	if (dp_event_set_is_duplicate(set, event))
		return true;
	if (sampler->takeover == TAKEOVER_NONE)
		return false;
	if (set != &sampler->shared)
		return dp_twins_is_second(&sampler->twins, event, set == &sampler->stacks);
	dp_twins_separate(&sampler->twins, event);
	return false;
}

/* Returns whether the event is for the caller. */
static bool account(struct dp_sampler *sampler, const struct dp_event *event)
{
	switch (event->type) {
	case DP_EVENT_ALLOC_ENTRY:
	case DP_EVENT_ALLOC_RETURN:
	case DP_EVENT_FREE:
	case DP_EVENT_FUTEX_ENTER:
	case DP_EVENT_FUTEX_EXIT:
	case DP_EVENT_WAKING:
		if (is_duplicate(sampler, event)) {
			sampler->stats.n_duplicates++;
			sampler->stats.n_entry_duplicates += event->type == DP_EVENT_ALLOC_ENTRY;
			return false;
		}
		sampler->stats.n_delivered++;
		return true;
	case DP_EVENT_LOST:
		sampler->stats.n_lost += event->lost.n_records;
		return true;
	default:
		dp_event_set_follow(&sampler->shared, event);
		dp_event_set_follow(&sampler->stacks, event);
		dp_event_set_follow(&sampler->old, event);
		return true;
	}
}

int dp_sampler_next(struct dp_sampler *sampler, uint64_t before_ns, struct dp_event *ret)
{
	uint64_t limit_ns = before_ns < sampler->horizon_ns ? before_ns : sampler->horizon_ns;
	const void *record;
	size_t n_bytes;

	while (dp_merge_pop(sampler->merge, limit_ns, &record, &n_bytes)) {
		int r = dp_record_parse(&sampler->layout, record, n_bytes, ret);

		if (r < 0)
			sampler->stats.n_malformed++;
		else if (r == 0 && account(sampler, ret))
			return 1;
	}
	sampler->given_ns = limit_ns;
	return 0;
}

static void count(const struct dp_sampler *sampler, enum dp_sort sort, uint64_t *ret_hits,
		  uint64_t *ret_lost)
{
	*ret_hits = sampler->retired_hits[sort];
	*ret_lost = sampler->retired_lost[sort];
	dp_event_set_count(&sampler->shared, sort, ret_hits, ret_lost);
	dp_event_set_count(&sampler->stacks, sort, ret_hits, ret_lost);
	if (sampler->takeover == TAKEOVER_BOTH)
		dp_event_set_count(&sampler->old, sort, ret_hits, ret_lost);
}

void dp_sampler_get_stats(struct dp_sampler *sampler, struct dp_sampler_stats *ret)
{
	struct dp_sampler_stats *stats = &sampler->stats;
	uint64_t hits[DP_N_SORTS], lost[DP_N_SORTS];

	stats->n_hits = stats->n_hits_lost = 0;
	for (enum dp_sort sort = DP_SORT_SIDEBAND + 1; sort < DP_N_SORTS; sort++) {
		count(sampler, sort, &hits[sort], &lost[sort]);
		stats->n_hits += hits[sort];
		stats->n_hits_lost += lost[sort];
	}
	stats->n_entry_hits = hits[DP_SORT_ENTRY];
	stats->n_entry_lost = lost[DP_SORT_ENTRY];
	stats->n_return_hits = hits[DP_SORT_RETURN];
	stats->n_return_lost = lost[DP_SORT_RETURN];
	stats->n_free_hits = hits[DP_SORT_FREE];
	stats->n_free_lost = lost[DP_SORT_FREE];
	stats->n_out_of_order = dp_merge_get_stats(sampler->merge)->n_released_late;
	*ret = *stats;
}

uint32_t dp_sampler_stack_bytes(const struct dp_sampler *sampler)
{
	return sampler->options.stack_bytes;
}

void dp_sampler_get_size(const struct dp_sampler *sampler, size_t *ret_threads, size_t *ret_fds)
{
	const struct dp_attach *attaches[] = {sampler->shared.attach, sampler->stacks.attach,
					      sampler->old.attach};

	*ret_fds = sampler->rings.n;
	for (size_t i = 0; i < 3; i++)
		*ret_fds += attaches[i] ? dp_attach_n_fds(attaches[i]) : 0;
	*ret_threads = dp_attach_n_threads(sampler->shared.attach);
}
