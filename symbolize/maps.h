/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_MAPS_H
#define DP_SYMBOLIZE_MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * One line of /proc/PID/maps. Source: proc_pid_maps(5).
 */
struct dp_maps_line {
	uint64_t start, end; /* avma, end exclusive */
	uint64_t file_off;
	uint32_t major, minor;
	uint64_t inode;
	bool readable, writable, executable;
	bool deleted;	  /* the path ended in " (deleted)", which is cut off */
	const char *path; /* not NUL-terminated; "" when the line has none */
	size_t path_bytes;
};

/*
 * Parses one line of @n_bytes at @line, with or without its newline. The path is the rest of the
 * line, spaces included; the kernel writes a newline in a path as \012 and that stays as it is.
 *
 * @ret: filled on success; path borrows from @line.
 * Returns 0 or -EBADMSG. Neither blocks nor allocates.
 */
int dp_maps_parse_line(const char *line, size_t n_bytes, struct dp_maps_line *ret);

#endif
