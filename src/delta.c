/* SPDX-License-Identifier: MIT */
#include "src/delta.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "src/base/array.h"
#include "src/base/hash.h"

/*
 * The hard idea: ending a pass only looks. The base of a key moves when the rows were delivered and
 * not before, and it moves to what the pass saw; so a pass that is aborted leaves no trace, and
 * what it would have said is part of the next difference.
 *
 * Keys are never removed: a stack that comes back must meet its base again.
 */

#define MIN_SLOTS ((size_t)64)

struct key {
	uint32_t stack;
	uint64_t tag;
	uint64_t pass; /* the last one that it was added in */
	int64_t now[DP_DELTA_MAX_VALUES];
	int64_t base[DP_DELTA_MAX_VALUES];
};

enum state {
	STATE_IDLE,  /* nothing to commit */
	STATE_OPEN,  /* between begin and end */
	STATE_ENDED, /* rows are out, neither committed nor aborted */
};

struct dp_delta {
	struct dp_delta_spec spec;
	enum state state;
	uint64_t pass;

	struct key *keys;
	size_t keys_capacity;
	size_t n_keys;
	uint32_t *slots; /* index into keys + 1, 0: empty */
	size_t n_slots;	 /* a power of two */

	uint32_t *added; /* keys of this pass in the order of first addition */
	size_t added_capacity;
	size_t n_added;
	struct dp_delta_row *rows;
	size_t rows_capacity;

	uint64_t n_suppressed;
	uint64_t n_overflowed;
};

int dp_delta_new(struct dp_delta **ret, const struct dp_delta_spec *spec)
{
	struct dp_delta *delta;

	if (spec->n_values < 1 || spec->n_values > DP_DELTA_MAX_VALUES ||
	    spec->delta_mask >> spec->n_values || spec->max_rows < 1 ||
	    spec->max_rows >= UINT32_MAX)
		return -EINVAL;
	delta = calloc(1, sizeof(*delta));
	if (!delta)
		return -ENOMEM;
	delta->spec = *spec;
	delta->slots = calloc(MIN_SLOTS, sizeof(*delta->slots));
	if (!delta->slots) {
		dp_delta_free(delta);
		return -ENOMEM;
	}
	delta->n_slots = MIN_SLOTS;
	*ret = delta;
	return 0;
}

void dp_delta_free(struct dp_delta *delta)
{
	if (!delta)
		return;
	free(delta->keys);
	free(delta->slots);
	free(delta->added);
	free(delta->rows);
	free(delta);
}

void dp_delta_begin(struct dp_delta *delta)
{
	delta->state = STATE_OPEN;
	delta->pass++;
	delta->n_added = 0;
}

static size_t first_slot(uint32_t stack, uint64_t tag, size_t n_slots)
{
	return (size_t)dp_hash_words((uint64_t[]){stack, tag}, 2) & (n_slots - 1);
}

/* The slot that holds the key, or the empty one where it belongs. */
static uint32_t *find_slot(const struct dp_delta *delta, uint32_t stack, uint64_t tag)
{
	size_t i = first_slot(stack, tag, delta->n_slots);

	while (delta->slots[i]) {
		const struct key *key = &delta->keys[delta->slots[i] - 1];

		if (key->stack == stack && key->tag == tag)
			break;
		i = (i + 1) & (delta->n_slots - 1);
	}
	return &delta->slots[i];
}

/* Makes room for one key more, at most three quarters full. */
static int reserve_slots(struct dp_delta *delta)
{
	size_t n_slots = delta->n_slots * 2;
	uint32_t *slots;

	if (delta->n_keys + 1 <= delta->n_slots / 4 * 3)
		return 0;
	slots = calloc(n_slots, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	for (size_t k = 0; k < delta->n_keys; k++) {
		size_t i = first_slot(delta->keys[k].stack, delta->keys[k].tag, n_slots);

		while (slots[i])
			i = (i + 1) & (n_slots - 1);
		slots[i] = (uint32_t)k + 1;
	}
	free(delta->slots);
	delta->slots = slots;
	delta->n_slots = n_slots;
	return 0;
}

/* Adds a key that is not there. */
static int add_key(struct dp_delta *delta, uint32_t stack, uint64_t tag, struct key **ret)
{
	int r;

	if (delta->n_keys >= delta->spec.max_rows) {
		delta->n_overflowed++;
		return -ENOSPC;
	}
	r = reserve_slots(delta);
	if (r < 0)
		return r;
	r = dp_array_reserve((void **)&delta->keys, &delta->keys_capacity, delta->n_keys + 1,
			     sizeof(*delta->keys));
	if (r < 0)
		return r;
	/* Each key is added to a pass once, so this is room for every later pass too. */
	r = dp_array_reserve((void **)&delta->added, &delta->added_capacity, delta->n_keys + 1,
			     sizeof(*delta->added));
	if (r < 0)
		return r;
	delta->keys[delta->n_keys] = (struct key){.stack = stack, .tag = tag};
	*find_slot(delta, stack, tag) = (uint32_t)delta->n_keys + 1;
	*ret = &delta->keys[delta->n_keys++];
	return 0;
}

/* Counters come out of another process's memory, so a sum may be anything. */
static int64_t add_saturated(int64_t a, int64_t b)
{
	int64_t sum;

	if (__builtin_add_overflow(a, b, &sum))
		return b > 0 ? INT64_MAX : INT64_MIN;
	return sum;
}

static int64_t subtract_saturated(int64_t a, int64_t b)
{
	int64_t difference;

	if (__builtin_sub_overflow(a, b, &difference))
		return b < 0 ? INT64_MAX : INT64_MIN;
	return difference;
}

int dp_delta_add(struct dp_delta *delta, uint32_t stack, uint64_t tag, const int64_t *values)
{
	uint32_t slot = *find_slot(delta, stack, tag);
	struct key *key;
	int r;

	assert(delta->state == STATE_OPEN);
	if (slot) {
		key = &delta->keys[slot - 1];
	} else {
		r = add_key(delta, stack, tag, &key);
		if (r < 0)
			return r;
	}
	if (key->pass != delta->pass) {
		key->pass = delta->pass;
		for (size_t i = 0; i < delta->spec.n_values; i++)
			key->now[i] = 0;
		delta->added[delta->n_added++] = (uint32_t)(key - delta->keys);
	}
	for (size_t i = 0; i < delta->spec.n_values; i++)
		key->now[i] = add_saturated(key->now[i], values[i]);
	return 0;
}

/*
 * What the key's row says in this pass: 1 and *@ret when it is shown, 0 when it is all zero, -1
 * when a value is negative.
 */
static int make_row(const struct dp_delta *delta, const struct key *key, struct dp_delta_row *ret)
{
	int shown = 0;

	*ret = (struct dp_delta_row){.stack = key->stack, .tag = key->tag};
	for (size_t i = 0; i < delta->spec.n_values; i++) {
		int64_t value = key->now[i];

		if (delta->spec.delta_mask >> i & 1)
			value = subtract_saturated(value, key->base[i]);
		if (value < 0)
			return -1;
		if (value > 0)
			shown = 1;
		ret->values[i] = value;
	}
	return shown;
}

int dp_delta_end(struct dp_delta *delta, const struct dp_delta_row **ret_rows, size_t *ret_n)
{
	size_t n = 0;
	int r;

	assert(delta->state == STATE_OPEN);
	r = dp_array_reserve((void **)&delta->rows, &delta->rows_capacity, delta->n_added,
			     sizeof(*delta->rows));
	if (r < 0)
		return r;
	for (size_t i = 0; i < delta->n_added; i++) {
		int shown = make_row(delta, &delta->keys[delta->added[i]], &delta->rows[n]);

		if (shown < 0)
			delta->n_suppressed++;
		else if (shown > 0)
			n++;
	}
	delta->state = STATE_ENDED;
	*ret_rows = delta->rows;
	*ret_n = n;
	return 0;
}

void dp_delta_commit(struct dp_delta *delta)
{
	assert(delta->state == STATE_ENDED);
	for (size_t i = 0; i < delta->n_added; i++) {
		struct key *key = &delta->keys[delta->added[i]];
		struct dp_delta_row row;

		if (!delta->spec.negative_moves_base && make_row(delta, key, &row) < 0)
			continue;
		for (size_t v = 0; v < delta->spec.n_values; v++)
			key->base[v] = key->now[v];
	}
	delta->state = STATE_IDLE;
}

void dp_delta_abort(struct dp_delta *delta)
{
	delta->state = STATE_IDLE;
}

uint64_t dp_delta_suppressed(const struct dp_delta *delta)
{
	return delta->n_suppressed;
}

uint64_t dp_delta_overflowed(const struct dp_delta *delta)
{
	return delta->n_overflowed;
}
