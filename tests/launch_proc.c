/* SPDX-License-Identifier: MIT */
#include "tests/launch_proc.h"

#include <elf.h>
#include <fcntl.h>
#include <inttypes.h>
#include <link.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/sym_oracle.h"

uint64_t proc_stopped_at(pid_t pid)
{
	struct user_regs_struct regs;

	assert_int_equal(ptrace(PTRACE_GETREGS, pid, NULL, &regs), 0);
	return regs.rip;
}

uint64_t proc_auxiliary(pid_t pid, uint64_t type)
{
	ElfW(auxv_t) auxv[128] = {0};
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/auxv", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_true(read(fd, auxv, sizeof(auxv)) > 0);
	close(fd);
	for (size_t i = 0; i < 128; i++) {
		if (auxv[i].a_type == type)
			return auxv[i].a_un.a_val;
	}
	return 0;
}

static FILE *open_proc(pid_t pid, const char *name)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	file = fopen(path, "re");
	assert_non_null(file);
	return file;
}

long proc_status_number(pid_t pid, const char *key)
{
	FILE *file = open_proc(pid, "status");
	char line[256];
	long value = -1;

	while (fgets(line, sizeof(line), file)) {
		if (strncmp(line, key, strlen(key)) == 0)
			value = strtol(line + strlen(key), NULL, 0);
	}
	fclose(file);
	return value;
}

/* Whether a mapping's name, which begins with @name[0], is @name. */
static bool has_mapping(pid_t pid, const char *name)
{
	FILE *file = open_proc(pid, "maps");
	char line[1024];
	bool found = false;

	while (fgets(line, sizeof(line), file)) {
		char *at;

		line[strcspn(line, "\n")] = '\0';
		at = strchr(line, *name);
		found = found || (at && strcmp(at, name) == 0);
	}
	fclose(file);
	return found;
}

bool proc_is_mapped(pid_t pid, const char *path)
{
	return has_mapping(pid, path);
}

bool proc_has_heap(pid_t pid)
{
	return has_mapping(pid, "[heap]");
}

unsigned proc_check_mapped(pid_t pid, const char *path)
{
	char *listing = oracle_run("ldd '%s' | grep -o '/[^ ]*' | xargs -n1 readlink -f", path);
	unsigned n = 0;

	for (char *line = strtok(listing, "\n"); line; line = strtok(NULL, "\n")) {
		if (!proc_is_mapped(pid, line))
			fail_msg("%s is not mapped", line);
		n++;
	}
	free(listing);
	return n;
}

/* Compares one executable mapping with its file. */
static void check_text(int mem_fd, uint64_t start, uint64_t end, uint64_t offset, const char *path)
{
	size_t n_bytes = end - start;
	uint8_t *memory = malloc(n_bytes), *file = calloc(1, n_bytes);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_true(memory && file);
	assert_int_equal(pread(mem_fd, memory, n_bytes, (off_t)start), n_bytes);
	assert_true(pread(fd, file, n_bytes, (off_t)offset) > 0);
	for (size_t i = 0; i < n_bytes; i++) {
		if (memory[i] != file[i])
			fail_msg("%s+0x%zx: %02x instead of %02x", path, offset + i, memory[i],
				 file[i]);
	}
	close(fd);
	free(memory);
	free(file);
}

unsigned proc_check_text(pid_t pid)
{
	FILE *file = open_proc(pid, "maps");
	char line[1024], path[512], mode[8], mem[64];
	uint64_t start, end, offset;
	unsigned n = 0;
	int fd;

	snprintf(mem, sizeof(mem), "/proc/%d/mem", pid);
	fd = open(mem, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %" SCNx64 " %*s %*s %511[^\n]",
			   &start, &end, mode, &offset, path) != 5 ||
		    mode[2] != 'x' || path[0] != '/')
			continue;
		check_text(fd, start, end, offset, path);
		n++;
	}
	close(fd);
	fclose(file);
	return n;
}
