/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_GO_FILE_H
#define DP_SYMBOLIZE_GO_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * An ELF file as its loader will lay it out, so far as the Go table needs it: bytes by svma, with
 * the relative relocations done. Nothing in the file is trusted; nothing of it is mapped, so that a
 * file that is cut short meanwhile gives an error and not SIGBUS.
 */

#define DP_GO_MAX_SEGMENTS 32

struct dp_go_segment {
	uint64_t svma, file_off;
	uint64_t n_bytes; /* in the file */
	bool is_writable, is_code;
};

struct dp_go_file {
	int fd; /* borrowed */
	struct dp_go_segment segments[DP_GO_MAX_SEGMENTS];
	size_t n_segments;
	uint64_t rela, n_rela_bytes; /* svma of DT_RELA; 0 bytes: none */
	uint64_t relative;	     /* the machine's number of a relative relocation */
};

/* Bytes of it, and one more that is 0 and not counted. */
struct dp_go_chunk {
	uint64_t svma;
	uint8_t *bytes; /* of malloc() */
	size_t n_bytes;
};

/*
 * Describes the 64-bit little-endian ELF file that is open at @fd (borrowed as long as @ret is
 * used). Returns 0, or -ENOEXEC (it is none, or makes no sense).
 */
int dp_go_file_read(struct dp_go_file *ret, int fd);

/*
 * Where the first section of a name in @names (NULL-terminated) is loaded. Returns false if there
 * is none, and in a file without sections.
 */
bool dp_go_file_section(const struct dp_go_file *file, const char *const *names, uint64_t *ret_svma,
			uint64_t *ret_bytes);

/* How many bytes of the segment that holds @svma are in the file from there on; 0: none. */
uint64_t dp_go_file_bytes_from(const struct dp_go_file *file, uint64_t svma);

/* Copies @n_bytes at @svma as they stand in the file. Returns false if they are not all there. */
bool dp_go_file_copy(const struct dp_go_file *file, uint64_t svma, void *ret, size_t n_bytes);

/*
 * Reads @n_bytes at @svma, relocated. *@ret: to be cleared by the caller.
 * Returns 0, -ENOEXEC (they are not all there) or -ENOMEM.
 */
int dp_go_file_chunk(const struct dp_go_file *file, uint64_t svma, size_t n_bytes,
		     struct dp_go_chunk *ret);

/* Zeroed memory is allowed. */
void dp_go_chunk_clear(struct dp_go_chunk *chunk);

/*
 * Calls @visit for each aligned word of the segments that are not code (@writable_only: nor
 * read-only), until it returns true; the word and, where @n_more of the bytes behind it are in the
 * same segment and were read with it, those too: n_bytes says how many there are.
 * Returns whether @visit did, or -ENOMEM.
 */
int dp_go_file_words(const struct dp_go_file *file, bool writable_only, size_t n_more,
		     bool (*visit)(void *data, uint64_t svma, const uint8_t *bytes, size_t n_bytes),
		     void *data);

/* Calls @visit for each relative relocation. Returns 0 or -ENOMEM. */
int dp_go_file_relocations(const struct dp_go_file *file,
			   void (*visit)(void *data, uint64_t svma, uint64_t value), void *data);

#endif
