/* SPDX-License-Identifier: MIT */
/*
 * The reader of perf maps, fed any bytes. The first byte says how the rest is cut into pieces, what
 * must make no difference: each address has the name that the last line of it says, by a reader
 * that remembers every line.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "symbolize/jit_names.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void feed(struct dp_jit_names *names, const char *text, size_t n_bytes, size_t n_piece,
		 bool commit_often)
{
	while (n_bytes > 0) {
		size_t n = n_piece < n_bytes ? n_piece : n_bytes;

		assert(dp_jit_names_feed(names, text, n) == 0);
		if (commit_often)
			assert(dp_jit_names_commit(names) == 0);
		text += n;
		n_bytes -= n;
	}
	assert(dp_jit_names_commit(names) == 0);
}

static void check_order(const struct dp_jit_names *names)
{
	for (size_t i = 0; i < names->n_segments; i++) {
		const struct dp_jit_segment *segment = &names->segments[i];

		assert(segment->start < segment->end && segment->name < names->n_text);
		assert(i == 0 || segment[-1].end <= segment->start);
		assert(strlen(names->text + segment->name) <= DP_JIT_NAME_MAX);
	}
}

/* Every edge of every segment, in both readings. */
static void check_same(const struct dp_jit_names *a, const struct dp_jit_names *b)
{
	for (size_t i = 0; i < a->n_segments; i++) {
		const uint64_t edges[] = {a->segments[i].start, a->segments[i].end - 1,
					  a->segments[i].end};

		for (size_t k = 0; k < 3; k++) {
			const char *x = dp_jit_names_find(a, edges[k]);
			const char *y = dp_jit_names_find(b, edges[k]);

			assert(!x == !y && (!x || strcmp(x, y) == 0));
		}
	}
}

/* The lines alone, from the last one back: the first that holds @avma. */
static const char *last_said(const struct dp_jit_names *lines, uint64_t avma)
{
	for (size_t i = lines->n_lines; i > 0; i--) {
		const struct dp_jit_segment *line = &lines->lines[i - 1];

		if (avma >= line->start && avma < line->end)
			return lines->text + line->name;
	}
	return NULL;
}

static void check_against_lines(const struct dp_jit_names *names, const struct dp_jit_names *lines)
{
	for (size_t i = 0; i < lines->n_lines; i++) {
		const uint64_t edges[] = {lines->lines[i].start - 1, lines->lines[i].start,
					  lines->lines[i].end - 1, lines->lines[i].end};

		for (size_t k = 0; k < 4; k++) {
			const char *x = dp_jit_names_find(names, edges[k]);
			const char *y = last_said(lines, edges[k]);

			assert(!x == !y && (!x || strcmp(x, y) == 0));
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	struct dp_jit_names whole = {0}, pieces = {0}, lines = {0};
	const char *text = (const char *)data + 1;

	if (n_bytes < 2)
		return 0;
	n_bytes--;
	feed(&whole, text, n_bytes, n_bytes, false);
	feed(&pieces, text, n_bytes, 1 + data[0] / 2, data[0] % 2);
	assert(dp_jit_names_feed(&lines, text, n_bytes) == 0);
	check_order(&whole);
	check_order(&pieces);
	check_same(&whole, &pieces);
	check_same(&pieces, &whole);
	check_against_lines(&whole, &lines);
	assert(memcmp(&whole.stats, &pieces.stats, sizeof(whole.stats)) == 0);
	dp_jit_names_clear(&whole);
	dp_jit_names_clear(&pieces);
	dp_jit_names_clear(&lines);
	return 0;
}
