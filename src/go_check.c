/* SPDX-License-Identifier: MIT */
/*
 * The one hard idea: a cycle with bytes has in its third word its first one times the size. Where
 * that holds of every record that is not empty there are bytes, and where the words are small and
 * never that, there are none.
 */
#include "src/go_check.h"

#include <string.h>

#include "src/go_bucket_list.h"
#include "src/go_figures.h"
#include "src/go_memory.h"

#define N_PCS_CHECKED 4
#define MAX_CHECKED 256
#define MIN_USED 1
#define LOGICAL_STACK_SENTINEL UINT64_MAX
/* No program has allocated so many objects under one stack. */
#define MAX_COUNT (1ULL << 48)

struct header {
	uint64_t next, allnext, type, hash, size, n_stack;
	uint64_t pcs[N_PCS_CHECKED];
};

static bool is_in_text(const struct dp_go_runtime *runtime, uint64_t pc)
{
	return pc == LOGICAL_STACK_SENTINEL ||
	       (pc >= runtime->text_start && pc <= runtime->text_end);
}

/* Whether the list at @head_avma is empty or begins with a bucket of @type. */
static bool is_head(const struct dp_go_runtime *runtime, uint64_t head_avma, uint64_t type)
{
	struct header h;
	uint64_t head;
	bool any = false;

	if (head_avma == 0 || head_avma % 8 != 0 ||
	    dp_go_memory_read(runtime->pid, head_avma, &head, sizeof(head)) < 0)
		return false;
	if (head == 0)
		return true;
	if (head % 8 != 0 || dp_go_memory_read(runtime->pid, head, &h, sizeof(h)) < 0 ||
	    h.type != type || h.n_stack > DP_GO_MAX_STACK)
		return false;
	/* C code and plugins may lie elsewhere, but not all of a stack. */
	for (size_t i = 0; i < h.n_stack && i < N_PCS_CHECKED; i++)
		any = any || is_in_text(runtime, h.pcs[i]);
	return any || h.n_stack == 0;
}

bool dp_go_check_heads(struct dp_go_runtime *runtime)
{
	uint64_t *heads = runtime->variables.buckets;
	uint64_t block = heads[DP_GO_BLOCK], mutex = heads[DP_GO_MUTEX];

	/* The types are the lists' numbers from 1 on. */
	if (!is_head(runtime, block, DP_GO_BLOCK + 1) && is_head(runtime, block, DP_GO_MUTEX + 1) &&
	    is_head(runtime, mutex, DP_GO_BLOCK + 1)) {
		heads[DP_GO_BLOCK] = mutex;
		heads[DP_GO_MUTEX] = block;
	}
	for (unsigned i = 0; i < 3; i++) {
		if (!is_head(runtime, heads[i], i + 1))
			heads[i] = 0;
	}
	return heads[DP_GO_HEAP] != 0;
}

/* Whether the record with bytes would make sense. Empty cycles say nothing. */
static bool has_bytes(const uint64_t *words, uint64_t size)
{
	bool any = false;

	for (unsigned i = 0; i < DP_GO_N_CYCLES + 1; i++, words += 4) {
		if (words[2] != words[0] * size || words[3] != words[1] * size)
			return false;
		any = any || words[0] || words[1];
	}
	return any;
}

static bool has_no_bytes(const uint64_t *words)
{
	uint64_t allocs = 0, frees = 0;

	for (unsigned i = 0; i < DP_GO_N_CYCLES + 1; i++) {
		allocs += words[2 * i];
		frees += words[2 * i + 1];
	}
	return allocs > 0 && allocs < MAX_COUNT && frees <= allocs;
}

bool dp_go_check_records(const struct dp_go_runtime *runtime)
{
	size_t n_with = 0, n_without = 0, n_used = 0;
	uint64_t at;

	if (dp_go_memory_read(runtime->pid, runtime->variables.buckets[DP_GO_HEAP], &at,
			      sizeof(at)) < 0)
		return false;
	for (size_t i = 0; i < MAX_CHECKED && at != 0; i++) {
		uint64_t words[4 * (DP_GO_N_CYCLES + 1)];
		struct header h;

		if (dp_go_memory_read(runtime->pid, at, &h, sizeof(h)) < 0 ||
		    h.type != DP_GO_HEAP + 1 || h.n_stack > DP_GO_MAX_STACK || h.size == 0 ||
		    dp_go_memory_read(runtime->pid, at + DP_GO_HEADER_BYTES + 8 * h.n_stack, words,
				      sizeof(words)) < 0)
			return false;
		at = h.allnext;
		/* Nothing at all in what is the record in every layout. */
		if (!memcmp(words, (const uint64_t[8]){0}, sizeof(uint64_t[8])))
			continue;
		n_used++;
		n_with += has_bytes(words, h.size);
		n_without += has_no_bytes(words);
	}
	if (n_used < MIN_USED)
		return false;
	/* One may have been changed while it was read. */
	if (runtime->layout.cycle_bytes == 32)
		return n_with > n_used / 2;
	return n_with == 0 && n_without > n_used / 2;
}
