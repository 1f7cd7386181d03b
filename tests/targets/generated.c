// SPDX-License-Identifier: MIT
/*
 * generated: code that is made at run time, and a perf map that says what it is called.
 *
 *   generated anon|memfd
 *   name NAME   from now on the map says that the code is called so
 *   go N        N objects of 100 bytes through the code
 *   quit        exit
 *
 * The hard idea: with `memfd` the code is written through one mapping of a file in memory and run
 * through another, as compilers do that never have memory writable and executable at once; to the
 * kernel it is then a mapped file.
 */
#include <sys/mman.h>

#include <fcntl.h>

#include "target.h"

#define CODE_BYTES 4096
#define CODE_OFFSET 256 /* of the function in the page */

KEEP void leaf_generated(void);
KEEP void leaf_generated(void)
{
	void *object = malloc(100);

	__asm__ volatile("" : "+r"(object)); /* it is used, for all that the compiler knows */
	free(object);
	STAY();
}

/* push rbp; mov rbp, rsp; mov rax, leaf_generated; call rax; pop rbp; ret */
static void write_code(unsigned char *ret)
{
	static const unsigned char begin[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0xb8};
	static const unsigned char end[] = {0xff, 0xd0, 0x5d, 0xc3};
	void (*leaf)(void) = leaf_generated;

	memcpy(ret, begin, sizeof(begin));
	memcpy(ret + sizeof(begin), &leaf, sizeof(leaf));
	memcpy(ret + sizeof(begin) + sizeof(leaf), end, sizeof(end));
}

static unsigned char *map(int protection, int flags, int fd)
{
	unsigned char *page = mmap(NULL, CODE_BYTES, protection, flags, fd, 0);

	if (page == MAP_FAILED)
		_exit(3);
	return page;
}

static unsigned char *generate(bool twice)
{
	unsigned char *page;
	int fd;

	if (!twice) {
		page = map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		write_code(page + CODE_OFFSET);
		if (mprotect(page, CODE_BYTES, PROT_READ | PROT_EXEC) < 0)
			_exit(3);
		return page + CODE_OFFSET;
	}
	fd = memfd_create("doublemapper", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, CODE_BYTES) < 0)
		_exit(3);
	write_code(map(PROT_READ | PROT_WRITE, MAP_SHARED, fd) + CODE_OFFSET);
	return map(PROT_READ | PROT_EXEC, MAP_SHARED, fd) + CODE_OFFSET;
}

/* Adds a line to the map. */
static void name_code(const unsigned char *code, const char *name)
{
	char path[64], line[TARGET_LINE_MAX + 64];
	int fd, n;

	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
	n = snprintf(line, sizeof(line), "%lx 12 %s\n", (unsigned long)(uintptr_t)code, name);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, line, (size_t)n) != n)
		_exit(3);
	close(fd);
}

KEEP void run_generated(const unsigned char *code, unsigned long long n);
KEEP void run_generated(const unsigned char *code, unsigned long long n)
{
	void (*function)(void);

	memcpy(&function, &code, sizeof(function));
	for (unsigned long long i = 0; i < n; i++)
		function();
	STAY();
}

int main(int argc, char **argv)
{
	char line[TARGET_LINE_MAX];
	unsigned char *code = generate(argc > 1 && strcmp(argv[1], "memfd") == 0);

	target_ready();
	while (target_command(line) && strcmp(line, "quit") != 0) {
		if (strncmp(line, "name ", 5) == 0)
			name_code(code, line + 5);
		else
			run_generated(code, strtoull(line + 3, NULL, 10));
		target_say("{}");
	}
	return 0;
}
