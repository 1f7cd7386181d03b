/* SPDX-License-Identifier: MIT */
#include "symbolize/jit_names.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/array.h"

/*
 * The one hard idea: a just-in-time compiler puts new code where old code was, so a line hides what
 * earlier lines say about the same addresses. Runs of segments that do not overlap are laid over
 * each other, the later one on top: first single lines, then pairs, and so on as in a merge sort;
 * at last all new lines over all that was known.
 */

#define MAX_LINES (1u << 20)
#define MAX_TEXT_BYTES (64u << 20)

void dp_jit_names_clear(struct dp_jit_names *names)
{
	free(names->segments);
	free(names->lines);
	free(names->text);
	*names = (struct dp_jit_names){0};
}

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Takes a hexadecimal number and the space behind it off the text at *@at. */
static bool take_number(const char **at, const char *end, uint64_t *ret)
{
	const char *p = *at;
	uint64_t value = 0;

	for (; p < end && digit_value(*p) >= 0; p++) {
		if (value >> 60)
			return false;
		value = value << 4 | (uint64_t)digit_value(*p);
	}
	if (p == *at || p == end || *p != ' ')
		return false;
	*at = p + 1;
	*ret = value;
	return true;
}

static int add_line(struct dp_jit_names *names, uint64_t start, uint64_t end, const char *name,
		    size_t n_bytes)
{
	int r;

	if (names->stats.n_lines - names->stats.n_over_limit >= MAX_LINES ||
	    n_bytes + 1 > MAX_TEXT_BYTES - names->n_text) {
		names->stats.n_lines++;
		names->stats.n_over_limit++;
		return 0;
	}
	r = dp_array_reserve((void **)&names->text, &names->text_capacity,
			     names->n_text + n_bytes + 1, 1);
	if (r == 0)
		r = dp_array_reserve((void **)&names->lines, &names->lines_capacity,
				     names->n_lines + 1, sizeof(*names->lines));
	if (r < 0)
		return -ENOMEM;
	names->lines[names->n_lines++] =
		(struct dp_jit_segment){start, end, (uint32_t)names->n_text};
	memcpy(names->text + names->n_text, name, n_bytes);
	names->text[names->n_text + n_bytes] = '\0';
	names->n_text += n_bytes + 1;
	names->stats.n_lines++;
	return 0;
}

/* Takes in a line without its newline. */
static int take_line(struct dp_jit_names *names, const char *line, size_t n_bytes)
{
	const char *at = line, *end = line + n_bytes;
	uint64_t start, size, stop;

	if (!take_number(&at, end, &start) || !take_number(&at, end, &size) || size == 0 ||
	    __builtin_add_overflow(start, size, &stop) || at == end ||
	    (size_t)(end - at) > DP_JIT_NAME_MAX || memchr(at, '\0', (size_t)(end - at))) {
		names->stats.n_bad++;
		return 0;
	}
	return add_line(names, start, stop, at, (size_t)(end - at));
}

/* Keeps the beginning of a line, or begins to skip it. */
static void keep(struct dp_jit_names *names, const char *bytes, size_t n_bytes)
{
	if (names->skipping)
		return;
	if (n_bytes > sizeof(names->carry) - names->n_carry) {
		names->skipping = true;
		names->n_carry = 0;
		return;
	}
	memcpy(names->carry + names->n_carry, bytes, n_bytes);
	names->n_carry += n_bytes;
}

int dp_jit_names_feed(struct dp_jit_names *names, const char *bytes, size_t n_bytes)
{
	const char *end = bytes + n_bytes, *newline;
	int r = 0;

	for (; r == 0 && (newline = memchr(bytes, '\n', (size_t)(end - bytes)));
	     bytes = newline + 1) {
		if (names->n_carry == 0 && !names->skipping) {
			r = take_line(names, bytes, (size_t)(newline - bytes));
			continue;
		}
		keep(names, bytes, (size_t)(newline - bytes));
		if (names->skipping)
			names->stats.n_bad++;
		else
			r = take_line(names, names->carry, names->n_carry);
		names->skipping = false;
		names->n_carry = 0;
	}
	if (r == 0)
		keep(names, bytes, (size_t)(end - bytes));
	return r;
}

/*
 * Lays @n_top segments over @n_bottom, each sorted and without overlaps, and writes the result to
 * @out, unless that is NULL. Returns how many segments it has: at most @n_bottom + 2 * @n_top.
 */
static size_t overlay(const struct dp_jit_segment *bottom, size_t n_bottom,
		      const struct dp_jit_segment *top, size_t n_top, struct dp_jit_segment *out)
{
	uint64_t from = 0;
	size_t n = 0, i = 0;

	for (size_t j = 0; j <= n_top; j++) {
		const struct dp_jit_segment *next = top && j < n_top ? &top[j] : NULL;
		uint64_t to = next ? next->start : UINT64_MAX;

		for (; i < n_bottom && bottom[i].start < to; i++) {
			uint64_t start = bottom[i].start > from ? bottom[i].start : from;
			uint64_t end = bottom[i].end < to ? bottom[i].end : to;

			if (start < end && out)
				out[n] = (struct dp_jit_segment){start, end, bottom[i].name};
			n += start < end;
			if (bottom[i].end > to)
				break;
		}
		if (next) {
			if (out)
				out[n] = *next;
			n++;
			from = next->end;
		}
	}
	return n;
}

/*
 * Lays @n lines over each other, the first one lowest. @a and @b have room for 2 * @n segments
 * (that many lines have no more than that many pieces less one), @lengths for @n. A run begins at
 * twice the number of its first line. Returns the buffer of the two that holds the result, of
 * @lengths[0] segments.
 */
static struct dp_jit_segment *paint(const struct dp_jit_segment *lines, size_t n,
				    struct dp_jit_segment *a, struct dp_jit_segment *b,
				    size_t *lengths)
{
	for (size_t i = 0; i < n; i++) {
		a[2 * i] = lines[i];
		lengths[i] = 1;
	}
	for (size_t width = 1; width < n; width *= 2) {
		struct dp_jit_segment *swapped = a;

		for (size_t i = 0; i < n; i += 2 * width) {
			size_t k = i + width;

			lengths[i] = overlay(a + 2 * i, lengths[i], k < n ? a + 2 * k : NULL,
					     k < n ? lengths[k] : 0, b + 2 * i);
		}
		a = b;
		b = swapped;
	}
	return a;
}

/* Lays @n_top segments over all that is known. */
static int add_on_top(struct dp_jit_names *names, const struct dp_jit_segment *top, size_t n_top)
{
	size_t n = overlay(names->segments, names->n_segments, top, n_top, NULL);
	struct dp_jit_segment *segments;

	assert(n >= n_top && n_top > 0);
	segments = calloc(n, sizeof(*segments));
	if (!segments)
		return -ENOMEM;
	overlay(names->segments, names->n_segments, top, n_top, segments);
	free(names->segments);
	names->segments = segments;
	names->n_segments = n;
	return 0;
}

int dp_jit_names_commit(struct dp_jit_names *names)
{
	size_t n = names->n_lines;
	struct dp_jit_segment *a, *b;
	size_t *lengths;
	int r = -ENOMEM;

	if (n == 0)
		return 0;
	a = calloc(2 * n, sizeof(*a));
	b = calloc(2 * n, sizeof(*b));
	lengths = calloc(n, sizeof(*lengths));
	if (a && b && lengths) {
		const struct dp_jit_segment *top = paint(names->lines, n, a, b, lengths);

		r = add_on_top(names, top, lengths[0]);
	}
	if (r == 0)
		names->n_lines = 0;
	free(a);
	free(b);
	free(lengths);
	return r;
}

const char *dp_jit_names_find(const struct dp_jit_names *names, uint64_t avma)
{
	size_t low = 0, high = names->n_segments;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (names->segments[middle].end <= avma)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == names->n_segments || avma < names->segments[low].start)
		return NULL;
	return names->text + names->segments[low].name;
}
