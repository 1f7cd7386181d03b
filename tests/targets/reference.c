// SPDX-License-Identifier: MIT
/*
 * reference: a library to be preloaded, which sees the same allocations as the profiler and unwinds
 * each from within, with the compiler's own unwinder (libgcc). The test compares the stacks of
 * both.
 *
 * It counts, by stack, in a file that the test made and maps as well (DP_REFERENCE names it), while
 * the test has set `enabled`: nothing is written out, and no memory is allocated here. Layout:
 * struct reference, all zero at first; a child of the process counts nothing.
 *
 * The stack is taken before the real function is called, so that no return address on it is the
 * kernel's trampoline. The names malloc, ... are labels without a type: the dynamic linker binds to
 * them, but the profiler, which looks for functions, probes only the allocator behind.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <unwind.h>

#define N_SLOTS 65536u
#define N_FRAMES (8u << 20)
#define MAX_DEPTH 512

struct slot {
	uint64_t count; /* 0: free */
	uint64_t bytes;
	uint64_t first_frame, depth;
};

struct reference {
	uint64_t enabled; /* written by the test */
	uint64_t pid;
	uint64_t n_lost; /* calls that no room was left for */
	uint64_t n_frames;
	struct slot slots[N_SLOTS];
	uint64_t frames[N_FRAMES]; /* of each stack, innermost first: addresses to look up */
};

struct stack {
	uint64_t frames[MAX_DEPTH + 1]; /* the first is in here */
	size_t n;
};

static struct reference *table;
static atomic_flag busy = ATOMIC_FLAG_INIT;
/* Not on the stack, which is copied with all that lies between the allocator and its caller. */
static __thread struct stack stack __attribute__((tls_model("initial-exec")));
static __thread bool inside __attribute__((tls_model("initial-exec")));

static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);
static void *(*real_reallocarray)(void *, size_t, size_t);
static void *(*real_memalign)(size_t, size_t);
static void *(*real_aligned_alloc)(size_t, size_t);
static int (*real_posix_memalign)(void **, size_t, size_t);
static void *(*real_valloc)(size_t);

static void resolve(void)
{
	static atomic_bool is_resolving;

	if (atomic_exchange(&is_resolving, true))
		return;
	*(void **)&real_calloc = dlsym(RTLD_NEXT, "calloc");
	*(void **)&real_realloc = dlsym(RTLD_NEXT, "realloc");
	*(void **)&real_reallocarray = dlsym(RTLD_NEXT, "reallocarray");
	*(void **)&real_memalign = dlsym(RTLD_NEXT, "memalign");
	*(void **)&real_aligned_alloc = dlsym(RTLD_NEXT, "aligned_alloc");
	*(void **)&real_posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
	*(void **)&real_valloc = dlsym(RTLD_NEXT, "valloc");
	*(void **)&real_malloc = dlsym(RTLD_NEXT, "malloc");
}

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("DP_REFERENCE");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *memory = MAP_FAILED;

	resolve();
	/* A program that this one executes has the same environment. */
	unsetenv("DP_REFERENCE");
	if (fd >= 0)
		memory = mmap(NULL, sizeof(*table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		return;
	close(fd);
	((struct reference *)memory)->pid = (uint64_t)getpid();
	table = memory;
}

static _Unwind_Reason_Code add_frame(struct _Unwind_Context *context, void *data)
{
	int is_exact;
	uint64_t ip = (uint64_t)_Unwind_GetIPInfo(context, &is_exact);

	(void)data;
	if (ip == 0 || stack.n == MAX_DEPTH + 1)
		return _URC_END_OF_STACK;
	stack.frames[stack.n++] = ip - !is_exact;
	return _URC_NO_REASON;
}

static uint64_t hash_of(const uint64_t *frames, size_t n)
{
	uint64_t hash = n;

	for (size_t i = 0; i < n; i++)
		hash = (hash ^ frames[i]) * UINT64_C(0x9e3779b97f4a7c15);
	return hash ^ hash >> 32;
}

static struct slot *find_slot(const uint64_t *frames, size_t n)
{
	uint64_t hash = hash_of(frames, n);

	for (unsigned i = 0; i < N_SLOTS; i++) {
		struct slot *slot = &table->slots[(hash + i) % N_SLOTS];

		if (slot->count > 0) {
			if (slot->depth == n && memcmp(table->frames + slot->first_frame, frames,
						       n * sizeof(*frames)) == 0)
				return slot;
			continue;
		}
		if (table->n_frames + n > N_FRAMES)
			return NULL;
		slot->first_frame = table->n_frames;
		slot->depth = n;
		memcpy(table->frames + table->n_frames, frames, n * sizeof(*frames));
		table->n_frames += n;
		return slot;
	}
	return NULL;
}

static void count(const uint64_t *frames, size_t n, size_t n_bytes)
{
	struct slot *slot;

	while (atomic_flag_test_and_set_explicit(&busy, memory_order_acquire))
		sched_yield();
	slot = find_slot(frames, n);
	if (slot) {
		slot->count++;
		slot->bytes += n_bytes;
	} else {
		table->n_lost++;
	}
	atomic_flag_clear_explicit(&busy, memory_order_release);
}

/* Whether the call is to be counted; then its stack is taken, and given() must be called. */
static inline __attribute__((always_inline)) bool take(void)
{
	if (!table || inside || !__atomic_load_n(&table->enabled, __ATOMIC_ACQUIRE) ||
	    table->pid != (uint64_t)getpid())
		return false;
	inside = true;
	stack.n = 0;
	_Unwind_Backtrace(add_frame, NULL);
	return true;
}

/* The first frame is that of the function here. */
static void given(bool succeeded, size_t n_bytes)
{
	int saved = errno;

	if (succeeded && stack.n > 1)
		count(stack.frames + 1, stack.n - 1, n_bytes);
	errno = saved;
	inside = false;
}

/* Defines `name` as a label without a type that jumps to reference_`name`. */
#define INTERPOSE(name)                          \
	__asm__(".pushsection .text\n"           \
		".globl " #name "\n" #name ":\n" \
		"\tjmp reference_" #name "\n"    \
		".popsection\n")

#define CALL(name, call, succeeded, n_bytes)                     \
	do {                                                     \
		bool is_taken = take();                          \
                                                                 \
		if (!real_##name)                                \
			resolve();                               \
		if (real_##name)                                 \
			result = call;                           \
		if (is_taken)                                    \
			given(real_##name &&succeeded, n_bytes); \
	} while (0)

#define HIDDEN __attribute__((visibility("hidden"), used, noipa))

INTERPOSE(malloc);
HIDDEN void *reference_malloc(size_t size);
void *reference_malloc(size_t size)
{
	void *result = NULL;

	CALL(malloc, real_malloc(size), result, size);
	return result;
}

INTERPOSE(calloc);
HIDDEN void *reference_calloc(size_t n, size_t size);
void *reference_calloc(size_t n, size_t size)
{
	void *result = NULL;

	CALL(calloc, real_calloc(n, size), result, n * size);
	return result;
}

INTERPOSE(realloc);
HIDDEN void *reference_realloc(void *old, size_t size);
void *reference_realloc(void *old, size_t size)
{
	void *result = NULL;

	CALL(realloc, real_realloc(old, size), result, size);
	return result;
}

INTERPOSE(reallocarray);
HIDDEN void *reference_reallocarray(void *old, size_t n, size_t size);
void *reference_reallocarray(void *old, size_t n, size_t size)
{
	void *result = NULL;

	CALL(reallocarray, real_reallocarray(old, n, size), result, n * size);
	return result;
}

INTERPOSE(memalign);
HIDDEN void *reference_memalign(size_t alignment, size_t size);
void *reference_memalign(size_t alignment, size_t size)
{
	void *result = NULL;

	CALL(memalign, real_memalign(alignment, size), result, size);
	return result;
}

INTERPOSE(aligned_alloc);
HIDDEN void *reference_aligned_alloc(size_t alignment, size_t size);
void *reference_aligned_alloc(size_t alignment, size_t size)
{
	void *result = NULL;

	CALL(aligned_alloc, real_aligned_alloc(alignment, size), result, size);
	return result;
}

INTERPOSE(posix_memalign);
HIDDEN int reference_posix_memalign(void **ret, size_t alignment, size_t size);
int reference_posix_memalign(void **ret, size_t alignment, size_t size)
{
	int result = ENOMEM;

	CALL(posix_memalign, real_posix_memalign(ret, alignment, size), result == 0, size);
	return result;
}

INTERPOSE(valloc);
HIDDEN void *reference_valloc(size_t size);
void *reference_valloc(size_t size)
{
	void *result = NULL;

	CALL(valloc, real_valloc(size), result, size);
	return result;
}
