/* SPDX-License-Identifier: MIT */
#ifndef DP_SYMBOLIZE_PROC_H
#define DP_SYMBOLIZE_PROC_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "symbolize/maps.h"

/*
 * The files of /proc that show another process's memory, reached through a thread that lives: when
 * the main thread has exited, /proc/PID shows an empty memory, but the other threads' directories
 * do not.
 */

/*
 * Reads all of the process's maps.
 *
 * *@ret_text: of *@ret_bytes, to be freed with free(). *@ret_tid: the thread through which it was
 * read, for the functions below.
 * Returns 0, -ESRCH (the process is gone, or has no memory of its own), -EACCES/-EPERM, -ENOMEM,
 * -EFBIG (over 64 MiB of text). Source: proc_pid_maps(5).
 */
int dp_proc_read_maps(pid_t pid, char **ret_text, size_t *ret_bytes, pid_t *ret_tid);

/*
 * Opens the file mapped at @line for reading, close-on-exec. First through map_files, which is the
 * very file also when it was deleted, replaced or lies in another mount namespace (needs
 * CAP_CHECKPOINT_RESTORE); then by its path inside the process's root, if what is found there has
 * the mapping's inode. Anything but a regular file is refused, unopened.
 *
 * Returns the descriptor, or a negative errno. Source: proc_pid_map_files(5).
 */
int dp_proc_open_mapping(pid_t tid, const struct dp_maps_line *line);

/*
 * Opens the file at @line's path inside the process's root, if it has @line's inode (0: any), as
 * the second half of dp_proc_open_mapping() does.
 */
int dp_proc_open_path(pid_t tid, const struct dp_maps_line *line);

/*
 * Opens the process's root directory, for looking up paths in it (O_PATH). Returns the descriptor
 * or a negative errno.
 */
int dp_proc_open_root(pid_t tid);

/*
 * Opens the regular file at @path inside a root directory, also when the process that it was of is
 * gone: neither links nor ".." lead out of it. @inode: as above. Source: openat2(2).
 */
int dp_proc_open_in_root(int root_fd, const char *path, size_t path_bytes, uint64_t inode);

/*
 * Copies @n_bytes (at most 1 MiB) of the process's memory at @avma.
 *
 * *@ret is to be freed with free(). Returns 0, -E2BIG, -ENOMEM, or a negative errno when not all of
 * it could be read.
 */
int dp_proc_read_memory(pid_t tid, uint64_t avma, size_t n_bytes, void **ret);

/* Who a process is: to itself, and to the file system. */
struct dp_proc_identity {
	pid_t ns_pid; /* its process id in the innermost pid namespace that it is in */
	uid_t uid;    /* effective, as our user namespace shows it */
};

/*
 * Reads who process @pid is. Returns 0, or a negative errno, -ESRCH when it is gone. Source:
 * proc_pid_status(5), NSpid (since Linux 4.1; before, @pid is taken) and Uid.
 */
int dp_proc_read_identity(pid_t pid, struct dp_proc_identity *ret);

/*
 * Opens a directory as process @pid sees it, inside its root and its mount namespace, with every
 * symbolic link on the way resolved there. @path is relative to the process's root. The descriptor
 * (O_PATH) stays good after the process's end. Before Linux 5.6 links are refused instead.
 * Returns it or a negative errno. Source: openat2(2), RESOLVE_IN_ROOT.
 */
int dp_proc_open_directory(pid_t pid, const char *path);

/*
 * Opens @name in @directory_fd for reading, close-on-exec, if it is a regular file that @uid or
 * root owns, no symbolic link, and not the file that @except describes (may be NULL). Nothing else
 * is ever opened.
 *
 * @ret: filled on success.
 * Returns the descriptor, -EEXIST (it is @except's), -EPERM (not to be believed), or another
 * negative errno.
 */
int dp_proc_open_owned(int directory_fd, const char *name, uid_t uid, const struct stat *except,
		       struct stat *ret);

#endif
