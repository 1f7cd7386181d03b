// SPDX-License-Identifier: MIT
/*
 * places: allocates in libraries (place_library.c) that come and go, wherever they lie.
 *
 *   open I PATH            opens a library in slot I (0 ... 3)
 *   memfd I PATH           the same from a copy in memory without a path
 *   run I N                N allocations in the library of slot I
 *   direct N               N allocations in the program itself
 *   close I                closes it
 *   alternate N R A B      R times: opens A, N allocations, closes it; the same with B
 *   report                 how many allocations were made, by stack
 *   quit                   exit
 *
 * Every command is answered. The answer to `alternate` says at how many different addresses the
 * libraries were. What dlopen() itself allocates is not counted: none of it is below run_library().
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include "target.h"

#define N_SLOTS 4
#define N_NAMES 8
#define N_ADDRESSES 8

typedef const char *run_function(unsigned long n, size_t *ret_size);

struct library {
	void *handle;
	run_function *run;
};

struct count {
	char name[16];
	unsigned long long n, n_bytes;
};

static struct library slots[N_SLOTS];
static struct count counts[N_NAMES];
static unsigned long long n_direct;
static void *volatile last_object;

__attribute__((noreturn)) static void fail(const char *what, const char *why)
{
	target_say("{\"error\":\"%s: %s\"}", what, why);
	_exit(2);
}

static struct library open_library(const char *path)
{
	struct library library = {.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL)};

	if (!library.handle)
		fail("dlopen", dlerror());
	library.run = (run_function *)dlsym(library.handle, "place_run");
	if (!library.run)
		fail(path, "no place_run");
	return library;
}

static struct library open_from_memory(const char *path)
{
	int from = open(path, O_RDONLY | O_CLOEXEC), to = memfd_create("place", MFD_CLOEXEC);
	struct library library;
	char name[64];
	struct stat st;

	if (from < 0 || to < 0 || fstat(from, &st) < 0 ||
	    sendfile(to, from, NULL, (size_t)st.st_size) != st.st_size)
		fail(path, strerror(errno));
	snprintf(name, sizeof(name), "/proc/self/fd/%d", to);
	library = open_library(name);
	close(from);
	close(to);
	return library;
}

static void close_library(struct library *library)
{
	if (dlclose(library->handle))
		fail("dlclose", dlerror());
	*library = (struct library){0};
}

static void count(const char *name, unsigned long n, size_t size)
{
	struct count *c = counts;

	while (c->name[0] && strcmp(c->name, name) != 0)
		c++;
	if (c == counts + N_NAMES)
		fail(name, "too many names");
	snprintf(c->name, sizeof(c->name), "%s", name);
	c->n += n;
	c->n_bytes += n * size;
}

KEEP void run_library(const struct library *library, unsigned long n);
KEEP void run_library(const struct library *library, unsigned long n)
{
	size_t size;
	const char *name = library->run(n, &size);

	count(name, n, size);
}

/* Allocations of the program itself. */
KEEP void run_direct(unsigned long n);
KEEP void run_direct(unsigned long n)
{
	for (unsigned long i = 0; i < n; i++)
		last_object = malloc(24);
	n_direct += n;
	STAY();
}

static size_t remember(run_function *address, run_function **known, size_t n_known)
{
	for (size_t i = 0; i < n_known; i++)
		if (known[i] == address)
			return n_known;
	if (n_known < N_ADDRESSES)
		known[n_known++] = address;
	return n_known;
}

static void alternate(unsigned long n, unsigned long n_rounds, const char *paths[2])
{
	run_function *known[N_ADDRESSES];
	size_t n_known = 0;

	for (unsigned long i = 0; i < 2 * n_rounds; i++) {
		struct library library = open_library(paths[i % 2]);

		n_known = remember(library.run, known, n_known);
		run_library(&library, n);
		close_library(&library);
	}
	target_say("{\"addresses\":%zu}", n_known);
}

static void report(void)
{
	char text[900];
	int n = snprintf(text, sizeof(text),
			 "{\"stack\":[\"run_direct\"],\"values\":[%llu,%llu,%llu,%llu]}", n_direct,
			 n_direct * 24, n_direct, n_direct * 24);

	for (struct count *c = counts; c < counts + N_NAMES && c->name[0]; c++)
		n += snprintf(
			text + n, sizeof(text) - (size_t)n,
			",{\"stack\":[\"leaf_%s\",\"middle_%s\",\"place_run\",\"run_library\"],"
			"\"values\":[%llu,%llu,%llu,%llu]}",
			c->name, c->name, c->n, c->n_bytes, c->n, c->n_bytes);
	target_say("{\"stacks\":[%s]}", text);
}

static bool obey(const char *line)
{
	char a[TARGET_LINE_MAX], b[TARGET_LINE_MAX];
	unsigned long n, n_rounds;
	unsigned i;

	if (sscanf(line, "open %u %s", &i, a) == 2) {
		slots[i % N_SLOTS] = open_library(a);
	} else if (sscanf(line, "memfd %u %s", &i, a) == 2) {
		slots[i % N_SLOTS] = open_from_memory(a);
	} else if (sscanf(line, "run %u %lu", &i, &n) == 2) {
		run_library(&slots[i % N_SLOTS], n);
	} else if (sscanf(line, "direct %lu", &n) == 1) {
		run_direct(n);
	} else if (sscanf(line, "close %u", &i) == 1) {
		close_library(&slots[i % N_SLOTS]);
	} else if (sscanf(line, "alternate %lu %lu %s %s", &n, &n_rounds, a, b) == 4) {
		alternate(n, n_rounds, (const char *[]){a, b});
		return true;
	} else if (strcmp(line, "report") == 0) {
		report();
		return true;
	} else {
		return false;
	}
	target_say("{}");
	return true;
}

int main(void)
{
	char line[TARGET_LINE_MAX];

	target_ready();
	while (target_command(line) && obey(line))
		;
	return 0;
}
