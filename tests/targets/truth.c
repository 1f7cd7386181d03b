// SPDX-License-Identifier: MIT
/*
 * truth: eight threads that allocate along known stacks and count, per stack, what they allocated
 * and what of it they still hold.
 *
 *   truth [--seed N] [--without FUNCTION] [--min-size BYTES] [--threads N] [--life N]
 *   go N     make N more allocations, spread over the threads; answers when all threads rest
 *   report   everything so far, per stack
 *   quit     exit
 *
 * The hard idea: between `ready` and `quit` not one allocation happens beside the counted ones (no
 * stdio, every table static), so that the profile must hold these stacks and nothing else. Every
 * object carries a mark in its first byte that is checked when it is freed: if a probe ever damaged
 * a call, it shows here. Only with --life N, where a thread ends after N operations and another one
 * goes on in its place, what pthread_create() allocates comes on top, below succeed().
 */
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>

#include "target.h"

#define MAX_THREADS 64
#define N_SLOTS 1024
#define N_QUEUE 512

enum leaf {
	LEAF_MALLOC,
	LEAF_CALLOC,
	LEAF_REALLOC_NULL,
	LEAF_MEMALIGN,
	LEAF_ALIGNED_ALLOC,
	LEAF_POSIX_MEMALIGN,
	LEAF_VALLOC,
	LEAF_PVALLOC,
	N_NEW_LEAVES,
	LEAF_REALLOC = N_NEW_LEAVES,
	LEAF_REALLOCARRAY,
	N_LEAVES,
};

struct call {
	size_t size;	    /* bytes asked for, in all */
	size_t count, unit; /* the same as a product, for calloc and reallocarray */
	size_t align;
	void *old;
	void *result;
};

typedef void leaf_fn(struct call *call);

/* ---- the known stacks: leaf_X, descend (0 to 7 times), route_X, travel,
 * allocate or resize, worker_run, worker_main ---- */

KEEP void leaf_malloc(struct call *call);
KEEP void leaf_malloc(struct call *call)
{
	call->result = malloc(call->size);
	STAY();
}

KEEP void leaf_calloc(struct call *call);
KEEP void leaf_calloc(struct call *call)
{
	call->result = calloc(call->count, call->unit);
	STAY();
}

KEEP void leaf_realloc_null(struct call *call);
KEEP void leaf_realloc_null(struct call *call)
{
	call->result = realloc(call->old, call->size);
	STAY();
}

KEEP void leaf_memalign(struct call *call);
KEEP void leaf_memalign(struct call *call)
{
	call->result = memalign(call->align, call->size);
	STAY();
}

KEEP void leaf_aligned_alloc(struct call *call);
KEEP void leaf_aligned_alloc(struct call *call)
{
	call->result = aligned_alloc(call->align, call->size);
	STAY();
}

KEEP void leaf_posix_memalign(struct call *call);
KEEP void leaf_posix_memalign(struct call *call)
{
	void *pointer = NULL;

	call->result = posix_memalign(&pointer, call->align, call->size) == 0 ? pointer : NULL;
	STAY();
}

KEEP void leaf_valloc(struct call *call);
KEEP void leaf_valloc(struct call *call)
{
	call->result = valloc(call->size);
	STAY();
}

KEEP void leaf_pvalloc(struct call *call);
KEEP void leaf_pvalloc(struct call *call)
{
#ifdef TARGET_HAS_PVALLOC
	call->result = pvalloc(call->size);
#else
	call->result = NULL;
#endif
	STAY();
}

KEEP void leaf_realloc(struct call *call);
KEEP void leaf_realloc(struct call *call)
{
	call->result = realloc(call->old, call->size);
	STAY();
}

KEEP void leaf_reallocarray(struct call *call);
KEEP void leaf_reallocarray(struct call *call)
{
	call->result = reallocarray(call->old, call->count, call->unit);
	STAY();
}

static const struct {
	const char *name;
	const char *function;
	leaf_fn *run;
} leaves[N_LEAVES] = {
	[LEAF_MALLOC] = {"leaf_malloc", "malloc", leaf_malloc},
	[LEAF_CALLOC] = {"leaf_calloc", "calloc", leaf_calloc},
	[LEAF_REALLOC_NULL] = {"leaf_realloc_null", "realloc", leaf_realloc_null},
	[LEAF_MEMALIGN] = {"leaf_memalign", "memalign", leaf_memalign},
	[LEAF_ALIGNED_ALLOC] = {"leaf_aligned_alloc", "aligned_alloc", leaf_aligned_alloc},
	[LEAF_POSIX_MEMALIGN] = {"leaf_posix_memalign", "posix_memalign", leaf_posix_memalign},
	[LEAF_VALLOC] = {"leaf_valloc", "valloc", leaf_valloc},
	[LEAF_PVALLOC] = {"leaf_pvalloc", "pvalloc", leaf_pvalloc},
	[LEAF_REALLOC] = {"leaf_realloc", "realloc", leaf_realloc},
	[LEAF_REALLOCARRAY] = {"leaf_reallocarray", "reallocarray", leaf_reallocarray},
};

KEEP void descend(struct call *call, unsigned depth, leaf_fn *leaf);
KEEP void descend(struct call *call, unsigned depth, leaf_fn *leaf)
{
	if (depth > 1)
		descend(call, depth - 1, leaf);
	else
		leaf(call);
	STAY();
}

#define ROUTE(name)                                                               \
	KEEP void route_##name(struct call *call, unsigned depth, leaf_fn *leaf); \
	KEEP void route_##name(struct call *call, unsigned depth, leaf_fn *leaf)  \
	{                                                                         \
		if (depth > 0)                                                    \
			descend(call, depth, leaf);                               \
		else                                                              \
			leaf(call);                                               \
		STAY();                                                           \
	}

ROUTE(north)
ROUTE(east)
ROUTE(south)
ROUTE(west)

#define N_ROUTES 4
static void (*const routes[N_ROUTES])(struct call *, unsigned, leaf_fn *) = {
	route_north, route_east, route_south, route_west};
static const char *const route_names[N_ROUTES] = {"route_north", "route_east", "route_south",
						  "route_west"};

#define N_DEPTHS 4
static const unsigned depths[N_DEPTHS] = {0, 1, 3, 7};

#define N_STACKS (N_LEAVES * N_ROUTES * N_DEPTHS)

/* ---- what is counted ---- */

/* Distinct sizes, so that the report can give a histogram from which a variance follows. */
static const uint32_t sizes[] = {
	16,   24,   32,	   40,	 48,   56,    64,    80,    96,	    112,    128,    160,
	192,  224,  256,   320,	 384,  448,   512,   640,   768,    896,    1024,   1280,
	1536, 2048, 2560,  3072, 4096, 5120,  6144,  8192,  0,	    1,	    7,	    13,
	100,  1000, 10000, 8191, 4097, 16384, 40000, 65536, 100000, 131072, 200000, 1048576,
};
#define N_SIZES (sizeof(sizes) / sizeof(sizes[0]))

struct counter {
	uint64_t alloc_objects, alloc_bytes;
	uint64_t freed_objects, freed_bytes;
};

struct object {
	unsigned char *pointer;
	uint32_t i_size;
	uint32_t stack;
};

struct queue {
	pthread_mutex_t lock;
	size_t head, n;
	struct object objects[N_QUEUE];
};

struct worker {
	pthread_t thread;
	uint64_t random;
	uint64_t quota;
	bool goes_on; /* a new thread takes over amid a `go` */
	unsigned index;
	struct object slots[N_SLOTS];
	struct counter counters[N_STACKS];
	uint64_t n_by_size[N_SIZES], n_freed_by_size[N_SIZES];
	uint64_t n_failed[N_LEAVES];
	uint64_t n_free_null, n_freed_elsewhere, n_moved, n_in_place, n_to_zero, n_zeroed;
	struct queue queue;
};

static struct worker workers[MAX_THREADS];
static pthread_barrier_t start_barrier, rest_barrier, drained_barrier;
static bool stopping, without[N_LEAVES];
static uint32_t min_size;
static unsigned n_threads = 8;
static uint64_t life = UINT64_MAX;
static atomic_ullong n_succeeded;

static void die(const char *what)
{
	target_say("{\"error\":\"%s\"}", what);
	_exit(4);
}

static uint32_t stack_of(enum leaf leaf, unsigned i_route, unsigned i_depth)
{
	return ((uint32_t)leaf * N_ROUTES + i_route) * N_DEPTHS + i_depth;
}

static void forget(struct worker *worker, const struct object *object)
{
	worker->counters[object->stack].freed_objects++;
	worker->counters[object->stack].freed_bytes += sizes[object->i_size];
	worker->n_freed_by_size[object->i_size]++;
}

static void check_mark(const struct object *object)
{
	if (sizes[object->i_size] > 0 && object->pointer[0] != (unsigned char)object->stack)
		die("an object lost its mark");
}

static void release(struct worker *worker, struct object *object)
{
	check_mark(object);
	forget(worker, object);
	free(object->pointer);
	object->pointer = NULL;
}

/* Gives the object to another thread to free; false when that one's queue is full. */
static bool hand_over(struct worker *to, const struct object *object)
{
	struct queue *queue = &to->queue;
	bool room;

	pthread_mutex_lock(&queue->lock);
	room = queue->n < N_QUEUE;
	if (room)
		queue->objects[(queue->head + queue->n++) % N_QUEUE] = *object;
	pthread_mutex_unlock(&queue->lock);
	return room;
}

static bool take_over(struct queue *queue, struct object *ret)
{
	bool any;

	pthread_mutex_lock(&queue->lock);
	any = queue->n > 0;
	if (any) {
		*ret = queue->objects[queue->head];
		queue->head = (queue->head + 1) % N_QUEUE;
		queue->n--;
	}
	pthread_mutex_unlock(&queue->lock);
	return any;
}

static void drain(struct worker *worker, unsigned n_max)
{
	struct object object;

	while (n_max-- > 0 && take_over(&worker->queue, &object)) {
		release(worker, &object);
		worker->n_freed_elsewhere++;
	}
}

/* ---- one operation ---- */

static uint32_t pick_size(struct worker *worker)
{
	uint32_t i;

	do {
		uint64_t r = target_random(&worker->random);

		/* One in eight from the odd and large ones at the end; of these few are huge. */
		if ((r & 7) != 0)
			i = (uint32_t)((r >> 8) % 32);
		else
			i = 32 + (uint32_t)((r >> 8) % ((r >> 40) % 64 == 0 ? N_SIZES - 32 : 10));
	} while (sizes[i] < min_size);
	return i;
}

static enum leaf pick_leaf(struct worker *worker)
{
	for (;;) {
		enum leaf leaf = (enum leaf)(target_random(&worker->random) >> 16) % N_NEW_LEAVES;

		/* Plain malloc is half of it. */
		if (target_random(&worker->random) >> 63)
			leaf = LEAF_MALLOC;
		if (!without[leaf])
			return leaf;
	}
}

static void fill_call(struct worker *worker, struct call *call, uint32_t i_size)
{
	uint64_t r = target_random(&worker->random) >> 20;
	size_t count = (size_t)1 << (r & 3);

	call->size = sizes[i_size];
	call->count = call->size % count == 0 ? count : 1;
	call->unit = call->size / call->count;
	call->align = (size_t)16 << ((r >> 2) % 9);
	call->old = NULL;
	call->result = NULL;
}

/* Makes the call along a stack and returns that stack. */
KEEP uint32_t travel(struct worker *worker, struct call *call, enum leaf leaf);
KEEP uint32_t travel(struct worker *worker, struct call *call, enum leaf leaf)
{
	uint64_t r = target_random(&worker->random) >> 24;
	unsigned i_route = (unsigned)(r % N_ROUTES), i_depth = (unsigned)((r >> 8) % N_DEPTHS);

	routes[i_route](call, depths[i_depth], leaves[leaf].run);
	STAY();
	return stack_of(leaf, i_route, i_depth);
}

static void hold(struct worker *worker, struct object *slot, const struct call *call,
		 uint32_t i_size, uint32_t stack)
{
	slot->pointer = call->result;
	slot->i_size = i_size;
	slot->stack = stack;
	if (sizes[i_size] > 0)
		slot->pointer[0] = (unsigned char)stack;
	worker->counters[stack].alloc_objects++;
	worker->counters[stack].alloc_bytes += sizes[i_size];
	worker->n_by_size[i_size]++;
	worker->quota--;
}

static void empty_slot(struct worker *worker, struct object *slot)
{
	uint64_t r = target_random(&worker->random) >> 13;

	if (!slot->pointer)
		return;
	if (r & 1) {
		unsigned to =
			(worker->index + 1 + (unsigned)(r >> 8) % (n_threads - 1)) % n_threads;

		if (hand_over(&workers[to], slot)) {
			slot->pointer = NULL;
			return;
		}
	}
	release(worker, slot);
}

KEEP void allocate(struct worker *worker, struct object *slot);
KEEP void allocate(struct worker *worker, struct object *slot)
{
	enum leaf leaf = pick_leaf(worker);
	uint32_t i_size = pick_size(worker), stack;
	struct call call;

	empty_slot(worker, slot);
	fill_call(worker, &call, i_size);
	stack = travel(worker, &call, leaf);
	if (!call.result)
		die("an allocation failed");
	hold(worker, slot, &call, i_size, stack);
}

KEEP void resize(struct worker *worker, struct object *slot);
KEEP void resize(struct worker *worker, struct object *slot)
{
	enum leaf leaf = target_random(&worker->random) >> 63 ? LEAF_REALLOC : LEAF_REALLOCARRAY;
	uint32_t i_size = pick_size(worker), stack;
	struct object old = *slot;
	uintptr_t old_address = (uintptr_t)old.pointer;
	struct call call;

	if (!old.pointer)
		return;
	check_mark(&old);
	fill_call(worker, &call, i_size);
	call.old = old.pointer;
	stack = travel(worker, &call, leaf);
	if (!call.result && call.size > 0)
		die("a realloc failed");
	/* Size 0 frees; some allocators give an empty object in its place. */
	worker->n_to_zero += call.size == 0;
	forget(worker, &old);
	slot->pointer = NULL;
	if (!call.result) {
		worker->n_zeroed++;
		return;
	}
	if (old_address == (uintptr_t)call.result)
		worker->n_in_place++;
	else
		worker->n_moved++;
	hold(worker, slot, &call, i_size, stack);
}

/* A call that cannot succeed, with all that it must leave alone. */
KEEP void fail(struct worker *worker, struct object *slot);
KEEP void fail(struct worker *worker, struct object *slot)
{
	enum leaf leaf = (enum leaf)(target_random(&worker->random) >> 9) % N_LEAVES;
	struct call call;

	if (without[leaf] || (leaf >= N_NEW_LEAVES && !slot->pointer))
		return;
	fill_call(worker, &call, 0);
	call.size = SIZE_MAX / 2 - 4096; /* more than there is */
	call.count = SIZE_MAX / 2;	 /* and more than a size_t counts */
	call.unit = 4;
	if (leaf == LEAF_POSIX_MEMALIGN && (target_random(&worker->random) & 1)) {
		call.size = 64;
		call.align = 24; /* no power of two */
	}
	call.old = leaf >= N_NEW_LEAVES ? slot->pointer : NULL;
	travel(worker, &call, leaf);
	if (call.result)
		die("an impossible allocation succeeded");
	if (slot->pointer)
		check_mark(slot);
	worker->n_failed[leaf]++;
}

KEEP void worker_run(struct worker *worker);
KEEP void worker_run(struct worker *worker)
{
	for (uint64_t i = 0; i < life && worker->quota > 0; i++) {
		uint64_t r = target_random(&worker->random) >> 7;
		struct object *slot = &worker->slots[(r >> 16) % N_SLOTS];

		if (r % 256 == 0) {
			free(NULL);
			worker->n_free_null++;
		} else if (r % 256 <= 2) {
			fail(worker, slot);
		} else if (r % 256 <= 60) {
			resize(worker, slot);
		} else {
			allocate(worker, slot);
		}
		drain(worker, 2);
	}
	STAY();
}

KEEP void *worker_main(void *arg);

/* Another thread takes the calling one's place. */
KEEP void succeed(struct worker *worker);
KEEP void succeed(struct worker *worker)
{
	pthread_detach(pthread_self());
	if (pthread_create(&worker->thread, NULL, worker_main, worker))
		die("pthread_create");
	atomic_fetch_add(&n_succeeded, 1);
	STAY();
}

KEEP void *worker_main(void *arg)
{
	struct worker *worker = arg;

	for (;;) {
		if (!worker->goes_on)
			pthread_barrier_wait(&start_barrier);
		if (stopping)
			break;
		worker_run(worker);
		worker->goes_on = worker->quota > 0;
		if (worker->goes_on) {
			succeed(worker);
			break;
		}
		/* Nobody hands anything over any more: what is still queued is freed by its owner.
		 */
		pthread_barrier_wait(&rest_barrier);
		drain(worker, N_QUEUE);
		pthread_barrier_wait(&drained_barrier);
	}
	return NULL;
}

/* ---- the report ---- */

static char report_text[1 << 18];
static size_t n_report;

__attribute__((format(printf, 1, 2))) static void add(const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(report_text + n_report, sizeof(report_text) - n_report, format, args);
	va_end(args);
	if (n < 0 || (size_t)n >= sizeof(report_text) - n_report)
		die("the report is too long");
	n_report += (size_t)n;
}

static struct counter sum_counters(uint32_t stack)
{
	struct counter sum = {0};

	for (unsigned i = 0; i < n_threads; i++) {
		const struct counter *counter = &workers[i].counters[stack];

		sum.alloc_objects += counter->alloc_objects;
		sum.alloc_bytes += counter->alloc_bytes;
		sum.freed_objects += counter->freed_objects;
		sum.freed_bytes += counter->freed_bytes;
	}
	return sum;
}

static void add_stack(enum leaf leaf, unsigned i_route, unsigned i_depth)
{
	struct counter sum = sum_counters(stack_of(leaf, i_route, i_depth));

	if (sum.alloc_objects == 0)
		return;
	add("%s{\"stack\":[\"%s\"", report_text[n_report - 1] == '[' ? "" : ",", leaves[leaf].name);
	for (unsigned i = 0; i < depths[i_depth]; i++)
		add(",\"descend\"");
	add(",\"%s\",\"travel\",\"%s\",\"worker_run\",\"worker_main\"],\"function\":\"%s\","
	    "\"values\":[%llu,%llu,%"
	    "llu,%llu]}",
	    route_names[i_route], leaf < N_NEW_LEAVES ? "allocate" : "resize",
	    leaves[leaf].function, (unsigned long long)sum.alloc_objects,
	    (unsigned long long)sum.alloc_bytes,
	    (unsigned long long)(sum.alloc_objects - sum.freed_objects),
	    (unsigned long long)(sum.alloc_bytes - sum.freed_bytes));
}

static void add_sum(const char *name, size_t offset)
{
	unsigned long long sum = 0;

	for (unsigned i = 0; i < n_threads; i++)
		sum += *(const uint64_t *)((const char *)&workers[i] + offset);
	add(",\"%s\":%llu", name, sum);
}

static void report(void)
{
	unsigned long long n_made = 0, n_frees = 0;

	n_report = 0;
	add("{\"stacks\":[");
	for (unsigned leaf = 0; leaf < N_LEAVES; leaf++)
		for (unsigned i = 0; i < N_ROUTES * N_DEPTHS; i++)
			add_stack((enum leaf)leaf, i / N_DEPTHS, i % N_DEPTHS);
	add("],\"sizes\":[");
	for (unsigned i = 0; i < N_SIZES; i++) {
		unsigned long long n = 0, n_held = 0;

		for (unsigned w = 0; w < n_threads; w++) {
			n += workers[w].n_by_size[i];
			n_held += workers[w].n_by_size[i] - workers[w].n_freed_by_size[i];
		}
		add("%s[%u,%llu,%llu]", i ? "," : "", sizes[i], n, n_held);
	}
	add("],\"failed\":{");
	for (unsigned leaf = 0; leaf < N_LEAVES; leaf++) {
		unsigned long long n = 0;

		for (unsigned w = 0; w < n_threads; w++)
			n += workers[w].n_failed[leaf];
		add("%s\"%s\":%llu", leaf ? "," : "", leaves[leaf].name, n);
	}
	add("}");
	for (uint32_t stack = 0; stack < N_STACKS; stack++) {
		n_made += sum_counters(stack).alloc_objects;
		n_frees += sum_counters(stack).freed_objects;
	}
	add(",\"made\":%llu,\"freed\":%llu", n_made, n_frees);
	add_sum("free_null", offsetof(struct worker, n_free_null));
	add_sum("freed_elsewhere", offsetof(struct worker, n_freed_elsewhere));
	add_sum("moved", offsetof(struct worker, n_moved));
	add_sum("in_place", offsetof(struct worker, n_in_place));
	add_sum("to_zero", offsetof(struct worker, n_to_zero));
	add_sum("zeroed", offsetof(struct worker, n_zeroed));
	add(",\"succeeded\":%llu", (unsigned long long)atomic_load(&n_succeeded));
	add("}\n");
	target_write(report_text, n_report);
}

/* ---- the driver ---- */

static void go(unsigned long long n)
{
	for (unsigned i = 0; i < n_threads; i++)
		workers[i].quota = n / n_threads + (i < n % n_threads);
	pthread_barrier_wait(&start_barrier);
	pthread_barrier_wait(&rest_barrier);
	pthread_barrier_wait(&drained_barrier);
	target_say("{\"done\":%llu}", n);
}

static void parse_options(int argc, char **argv, uint64_t *ret_seed)
{
	*ret_seed = 1;
#ifndef TARGET_HAS_PVALLOC
	without[LEAF_PVALLOC] = true;
#endif
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--min-size") == 0 && i + 1 < argc) {
			min_size = (uint32_t)strtoul(argv[++i], NULL, 10);
		} else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
			n_threads = (unsigned)strtoul(argv[++i], NULL, 10);
		} else if (strcmp(argv[i], "--life") == 0 && i + 1 < argc) {
			life = strtoull(argv[++i], NULL, 10);
		} else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
			*ret_seed = strtoull(argv[++i], NULL, 10);
		} else if (strcmp(argv[i], "--without") == 0 && i + 1 < argc) {
			i++;
			for (unsigned leaf = 0; leaf < N_LEAVES; leaf++)
				if (strcmp(leaves[leaf].function, argv[i]) == 0)
					without[leaf] = true;
		} else {
			die("unknown option");
		}
	}
}

int main(int argc, char **argv)
{
	char line[TARGET_LINE_MAX];
	uint64_t seed;

	parse_options(argc, argv, &seed);
	if (n_threads < 2 || n_threads > MAX_THREADS || life == 0)
		die("2 to 64 threads that live for an operation at least");
	pthread_barrier_init(&start_barrier, NULL, n_threads + 1);
	pthread_barrier_init(&rest_barrier, NULL, n_threads + 1);
	pthread_barrier_init(&drained_barrier, NULL, n_threads + 1);
	for (unsigned i = 0; i < n_threads; i++) {
		workers[i].index = i;
		workers[i].random = (seed * n_threads + i + 1) * UINT64_C(0x9e3779b97f4a7c15);
		pthread_mutex_init(&workers[i].queue.lock, NULL);
		if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]))
			die("pthread_create");
	}
	target_ready();
	while (target_command(line) && strcmp(line, "quit") != 0) {
		if (strncmp(line, "go ", 3) == 0)
			go(strtoull(line + 3, NULL, 10));
		else if (strcmp(line, "report") == 0)
			report();
		else
			die("unknown command");
	}
	stopping = true;
	pthread_barrier_wait(&start_barrier);
	for (unsigned i = 0; i < n_threads; i++)
		pthread_join(workers[i].thread, NULL);
	return 0;
}
