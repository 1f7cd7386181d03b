/* SPDX-License-Identifier: MIT */
#include "symbolize/maps.h"

#include <errno.h>
#include <string.h>

/*
 * The one hard idea: a cursor that never passes its end, and numbers that are refused rather than
 * wrapped. Every field is taken by a helper that returns false when the text is not what the kernel
 * writes, so that a line is either understood whole or not at all.
 */

struct cursor {
	const char *at, *end;
};

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* Takes a number of @base (10 or 16) that is at most @max. */
static bool take_number(struct cursor *c, unsigned int base, uint64_t max, uint64_t *ret)
{
	const char *start = c->at;
	uint64_t value = 0;

	for (; c->at < c->end; c->at++) {
		int digit = digit_value(*c->at);

		if (digit < 0 || (unsigned int)digit >= base)
			break;
		if (__builtin_mul_overflow(value, (uint64_t)base, &value) ||
		    __builtin_add_overflow(value, (uint64_t)digit, &value) || value > max)
			return false;
	}
	if (c->at == start)
		return false;
	*ret = value;
	return true;
}

static bool take_char(struct cursor *c, char wanted)
{
	if (c->at == c->end || *c->at != wanted)
		return false;
	c->at++;
	return true;
}

/* Takes @letter or '-'. */
static bool take_flag(struct cursor *c, char letter, bool *ret)
{
	*ret = take_char(c, letter);
	return *ret || take_char(c, '-');
}

static bool take_permissions(struct cursor *c, struct dp_maps_line *line)
{
	return take_flag(c, 'r', &line->readable) && take_flag(c, 'w', &line->writable) &&
	       take_flag(c, 'x', &line->executable) && (take_char(c, 'p') || take_char(c, 's'));
}

static bool take_device(struct cursor *c, struct dp_maps_line *line)
{
	uint64_t major, minor;

	if (!take_number(c, 16, UINT32_MAX, &major) || !take_char(c, ':') ||
	    !take_number(c, 16, UINT32_MAX, &minor))
		return false;
	line->major = (uint32_t)major;
	line->minor = (uint32_t)minor;
	return true;
}

/* The kernel pads with spaces up to a column and then writes the path as it is. */
static bool take_path(struct cursor *c, struct dp_maps_line *line)
{
	static const char deleted[] = " (deleted)";
	const size_t n_deleted = sizeof(deleted) - 1;

	if (c->at < c->end && *c->at != ' ')
		return false;
	while (c->at < c->end && *c->at == ' ')
		c->at++;
	if (memchr(c->at, '\n', (size_t)(c->end - c->at)) ||
	    memchr(c->at, '\0', (size_t)(c->end - c->at)))
		return false;
	line->path = c->at;
	line->path_bytes = (size_t)(c->end - c->at);
	line->deleted = line->path_bytes >= n_deleted &&
			memcmp(c->end - n_deleted, deleted, n_deleted) == 0;
	if (line->deleted)
		line->path_bytes -= n_deleted;
	return true;
}

int dp_maps_parse_line(const char *line, size_t n_bytes, struct dp_maps_line *ret)
{
	struct cursor c = {line, line + n_bytes};
	struct dp_maps_line parsed = {0};

	if (n_bytes > 0 && c.end[-1] == '\n')
		c.end--;
	if (!take_number(&c, 16, UINT64_MAX, &parsed.start) || !take_char(&c, '-') ||
	    !take_number(&c, 16, UINT64_MAX, &parsed.end) || !take_char(&c, ' ') ||
	    !take_permissions(&c, &parsed) || !take_char(&c, ' ') ||
	    !take_number(&c, 16, UINT64_MAX, &parsed.file_off) || !take_char(&c, ' ') ||
	    !take_device(&c, &parsed) || !take_char(&c, ' ') ||
	    !take_number(&c, 10, UINT64_MAX, &parsed.inode) || !take_path(&c, &parsed))
		return -EBADMSG;
	if (parsed.start >= parsed.end)
		return -EBADMSG;
	*ret = parsed;
	return 0;
}
