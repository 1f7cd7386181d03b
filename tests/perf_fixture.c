/* SPDX-License-Identifier: MIT */
#include "tests/perf_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/perf_event.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define UPROBE_EVENTS "/sys/kernel/tracing/uprobe_events"
#define PATIENCE_S 60 /* for what must happen but has no reason to take long */

static const char *why_not(void)
{
	struct perf_event_attr attr = {
		.size = sizeof(attr), .type = PERF_TYPE_SOFTWARE, .config = PERF_COUNT_SW_DUMMY};
	long fd;

	if (geteuid() != 0)
		return "not root";
	fd = syscall(SYS_perf_event_open, &attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd < 0)
		return "perf_event_open fails";
	close((int)fd);
	if (access(UPROBE_EVENTS, W_OK) < 0)
		return UPROBE_EVENTS " cannot be written";
	return NULL;
}

int perf_must_skip(void)
{
	const char *required = getenv("DP_REQUIRE_PERF");
	const char *why = why_not();

	if (!why)
		return 0;
	fprintf(stderr, "%s: %s\n", program_invocation_short_name, why);
	return required && strcmp(required, "1") == 0 ? 1 : 77;
}

static struct shared *map_shared(void)
{
	struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(shared, MAP_FAILED);
	sem_init(&shared->ready, 1, 0);
	sem_init(&shared->create, 1, 0);
	sem_init(&shared->go, 1, 0);
	sem_init(&shared->done, 1, 0);
	sem_init(&shared->leave, 1, 0);
	sem_init(&shared->end, 1, 0);
	return shared;
}

void target_start(struct target *target, void (*body)(struct shared *shared))
{
	target->shared = map_shared();
	fflush(NULL);
	target->pid = fork();
	assert_true(target->pid >= 0);
	if (target->pid > 0)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	body(target->shared);
	_exit(0);
}

static void forget(struct target *target)
{
	munmap(target->shared, sizeof(*target->shared));
	*target = (struct target){0};
}

void target_join(struct target *target)
{
	int status = -1;

	assert_int_equal(waitpid(target->pid, &status, 0), target->pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	forget(target);
}

void target_kill(struct target *target)
{
	if (target->pid <= 0)
		return;
	kill(target->pid, SIGKILL);
	waitpid(target->pid, NULL, 0);
	forget(target);
}

void await(sem_t *sem)
{
	struct timespec end;
	int r;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += PATIENCE_S;
	do
		r = sem_timedwait(sem, &end);
	while (r < 0 && errno == EINTR);
	if (r < 0) {
		fprintf(stderr, "%s: the other side did not come\n", program_invocation_short_name);
		abort();
	}
}

void await_times(sem_t *sem, unsigned times)
{
	while (times-- > 0)
		await(sem);
}

void raise_times(sem_t *sem, unsigned times)
{
	while (times-- > 0)
		sem_post(sem);
}

unsigned target_thread_number(struct shared *shared)
{
	unsigned number = atomic_fetch_add(&shared->n_threads, 1);

	if (number >= TARGET_MAX_THREADS)
		abort();
	atomic_store(&shared->tids[number], gettid());
	return number;
}

void target_calls(struct shared *shared, unsigned number, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		probed_free(probed_alloc(atomic_fetch_add(&shared->calls[number], 1), number));
}

unsigned long long total_calls(const struct shared *shared)
{
	unsigned long long total = 0;

	for (size_t i = 0; i < TARGET_MAX_THREADS; i++)
		total += atomic_load(&shared->calls[i]);
	return total;
}

__attribute__((noinline)) void *probed_alloc(size_t n_bytes, size_t thread)
{
	__asm__ volatile("" ::: "memory");
	return (void *)probed_result(n_bytes, thread); // NOLINT(performance-no-int-to-ptr)
}

__attribute__((noinline)) void probed_free(void *object)
{
	__asm__ volatile("" ::"r"(object) : "memory");
}

int program_fd(void)
{
	int fd = open("/proc/thread-self/exe", O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

struct search {
	uintptr_t address;
	uint64_t file_off;
	bool found;
};

/* The first object is the program itself. */
static int search_segments(struct dl_phdr_info *info, size_t n_bytes, void *context)
{
	struct search *search = context;

	(void)n_bytes;
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		uintptr_t offset = search->address - info->dlpi_addr - segment->p_vaddr;

		if (segment->p_type != PT_LOAD || offset >= segment->p_filesz)
			continue;
		search->file_off = segment->p_offset + offset;
		search->found = true;
	}
	return 1;
}

uint64_t program_file_off(const void *address)
{
	struct search search = {.address = (uintptr_t)address};

	dl_iterate_phdr(search_segments, &search);
	assert_true(search.found);
	return search.file_off;
}

bool main_thread_has_ended(pid_t pid)
{
	char path[64];
	char text[512] = "";
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	return n <= 0 || strstr(text, ") Z ");
}

bool has_breakpoint(pid_t pid, const void *address)
{
	char path[64];
	uint8_t byte;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, (off_t)(uintptr_t)address), 1);
	close(fd);
	return byte != *(const uint8_t *)address;
}

void await_no_breakpoint(pid_t pid, const void *address)
{
	for (unsigned i = 0; i < PATIENCE_S * 100; i++) {
		if (!has_breakpoint(pid, address))
			return;
		usleep(10000);
	}
	fail_msg("a breakpoint stays in the target");
}

unsigned count_definitions(const char *prefix)
{
	FILE *file = fopen(UPROBE_EVENTS, "re");
	char line[1024];
	unsigned n = 0;

	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		const char *colon = strchr(line, ':');

		n += colon && strncmp(colon + 1, prefix, strlen(prefix)) == 0;
	}
	fclose(file);
	return n;
}

unsigned count_own_definitions(void)
{
	char prefix[64];

	snprintf(prefix, sizeof(prefix), "deltaprof_%d_", getpid());
	return count_definitions(prefix);
}

int define_by_hand(const char *command)
{
	int fd = open(UPROBE_EVENTS, O_WRONLY | O_APPEND | O_CLOEXEC);
	int r = 0;

	assert_true(fd >= 0);
	if (write(fd, command, strlen(command)) < 0)
		r = -errno;
	close(fd);
	return r;
}

unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}
