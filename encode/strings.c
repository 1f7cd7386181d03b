/* SPDX-License-Identifier: MIT */
/*
 * A text is first cleaned into the free end of the byte array and looked up there; only if it is
 * new does the end move. So two raw texts that clean to the same one share an entry, and nothing
 * is copied twice.
 *
 * The target's files choose the names, so the hash is seeded: they cannot be made to collide.
 */
#include "encode/strings.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "encode/reserve.h"
#include "src/base/hash.h"

/* The length of the well-formed sequence at the start of NUL-terminated @s, or 0. */
static size_t utf8_sequence(const unsigned char *s)
{
	unsigned char low = 0x80, high = 0xbf;
	size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;

	if (s[0] < 0x80)
		return 1;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	/* The second byte rules out overlong forms, surrogates and what is above U+10FFFF. */
	if (s[0] == 0xe0)
		low = 0xa0;
	else if (s[0] == 0xf0)
		low = 0x90;
	else if (s[0] == 0xed)
		high = 0x9f;
	else if (s[0] == 0xf4)
		high = 0x8f;
	if (s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++) {
		if (s[i] < 0x80 || s[i] > 0xbf)
			return 0;
	}
	return n;
}

static void copy_clean(char *to, const char *from)
{
	while (*from) {
		size_t n = utf8_sequence((const unsigned char *)from);

		if (n == 0) {
			*to++ = '?';
			from++;
			continue;
		}
		memcpy(to, from, n);
		to += n;
		from += n;
	}
	*to = '\0';
}

static uint64_t hash_text(uint64_t seed, const char *text, size_t n_bytes)
{
	uint64_t h = dp_hash_u64(seed ^ n_bytes);

	for (size_t i = 0; i < n_bytes; i += sizeof(uint64_t)) {
		uint64_t word = 0;
		size_t left = n_bytes - i;

		memcpy(&word, text + i, left < sizeof(word) ? left : sizeof(word));
		h = dp_hash_u64(h ^ word);
	}
	return h;
}

int dp_strings_init(struct dp_strings *strings)
{
	int64_t number;

	*strings = (struct dp_strings){0};
	/* Without random bytes the seed is 0, which costs safety from collisions only. */
	if (getrandom(&strings->seed, sizeof(strings->seed), GRND_NONBLOCK) < 0)
		strings->seed = 0;
	return dp_strings_add(strings, "", &number);
}

void dp_strings_clear(struct dp_strings *strings)
{
	free(strings->bytes);
	free(strings->entries);
	dp_map_clear(&strings->by_hash);
	*strings = (struct dp_strings){0};
}

int dp_strings_add(struct dp_strings *strings, const char *text, int64_t *ret)
{
	size_t n_bytes = text ? strlen(text) : 0;
	uint64_t hash, chain = 0;
	char *end;
	int r;

	r = DP_RESERVE(strings->bytes, strings->bytes_capacity, strings->n_bytes + n_bytes + 1);
	if (r < 0)
		return r;
	r = DP_RESERVE(strings->entries, strings->entries_capacity, strings->n + 1);
	if (r < 0)
		return r;
	end = strings->bytes + strings->n_bytes;
	copy_clean(end, text ? text : "");
	hash = hash_text(strings->seed, end, n_bytes);

	dp_map_get(&strings->by_hash, hash, &chain);
	for (uint64_t i = chain; i > 0; i = strings->entries[i - 1].chain) {
		if (strcmp(dp_strings_get(strings, i - 1), end) == 0) {
			*ret = (int64_t)i - 1;
			return 0;
		}
	}
	r = dp_map_set(&strings->by_hash, hash, strings->n + 1);
	if (r < 0)
		return r;
	strings->entries[strings->n] =
		(struct dp_string){.offset = strings->n_bytes, .chain = chain};
	strings->n_bytes += n_bytes + 1;
	*ret = (int64_t)strings->n++;
	return 0;
}

const char *dp_strings_get(const struct dp_strings *strings, size_t i)
{
	return strings->bytes + strings->entries[i].offset;
}
