/* SPDX-License-Identifier: MIT */
/*
 * The one hard idea: it is read from the memory and not from the file, where the pointers of the
 * old form have been relocated already.
 */
#include "src/go_build_info.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "src/go_memory.h"

#define MAGIC "\xff Go buildinf:"
#define MAGIC_BYTES (sizeof(MAGIC) - 1)
#define HEADER_BYTES 32
#define IS_INLINE 2
#define MAX_VERSION 256

/* As Go's strings are in memory. */
struct go_string {
	uint64_t bytes, n_bytes;
};

static int find_inline(pid_t pid, uint64_t avma, struct go_string *ret)
{
	uint8_t length[2];
	int r = dp_go_memory_read(pid, avma, length, sizeof(length));

	if (r < 0)
		return r;
	ret->n_bytes = length[0] & 0x7f;
	ret->bytes = avma + 1;
	if (length[0] & 0x80) {
		ret->n_bytes |= (uint64_t)(length[1] & 0x7f) << 7;
		ret->bytes++;
	}
	return length[0] & length[1] & 0x80 ? -EBADMSG : 0;
}

int dp_go_build_info_version(pid_t pid, uint64_t avma, char *ret, size_t n_bytes)
{
	uint8_t header[HEADER_BYTES];
	struct go_string string;
	uint64_t pointer;
	char text[MAX_VERSION];
	int r = dp_go_memory_read(pid, avma, header, sizeof(header));

	if (r < 0)
		return r;
	if (memcmp(header, MAGIC, MAGIC_BYTES) != 0)
		return -EBADMSG;
	memcpy(&pointer, header + 16, sizeof(pointer));
	r = header[15] & IS_INLINE ? find_inline(pid, avma + HEADER_BYTES, &string)
				   : dp_go_memory_read(pid, pointer, &string, sizeof(string));
	if (r < 0)
		return r;
	if (string.n_bytes == 0 || string.n_bytes >= sizeof(text))
		return -EBADMSG;
	r = dp_go_memory_read(pid, string.bytes, text, string.n_bytes);
	if (r < 0)
		return r;
	if (string.n_bytes > n_bytes - 1)
		string.n_bytes = n_bytes - 1;
	memcpy(ret, text, string.n_bytes);
	ret[string.n_bytes] = '\0';
	return 0;
}
