/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_DEBUG_PATH_H
#define DP_SYMBOLIZE_DEBUG_PATH_H

/* A debug file in the target's root is not taken if it is larger. */
#define DP_DEBUG_PATH_MAX_COPIED (1 << 30)

/*
 * Opens the regular file at @path, absolute. @root_fd: the target's root directory, in which the
 * path begins, and which nothing leads out of; what is opened then is a copy in memory, because the
 * file's owner may cut it short at any time. -1: our own root.
 * Returns a descriptor of the caller's, or -1.
 */
int dp_debug_path_open(int root_fd, const char *path);

#endif
