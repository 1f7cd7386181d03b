/* SPDX-License-Identifier: MIT */
/*
 * The one hard idea: the runtime takes buckets one after the other from pieces of memory that it
 * never gives back, and puts each at the list's head when all that is read here is in it. So the
 * way along the list goes down through memory, and what lies below a node is read with it: also a
 * copy that is a little old is right for everything that the head led to before it was made.
 */
#include "src/go_bucket_list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/array.h"
#include "src/go_memory.h"

#define PAGE_BYTES 4096u
#define WINDOW_BYTES (128u << 10)
#define WINDOW_PAGES (WINDOW_BYTES / PAGE_BYTES)
#define MAX_ADDRESS 0x7ffffffff000u
#define LOGICAL_STACK_SENTINEL UINT64_MAX
/* More than what an object may be large. */
#define MAX_SIZE (1ULL << 48)

struct dp_go_window {
	uint64_t start, end; /* avma of what is at the end of bytes */
	uint8_t bytes[WINDOW_BYTES];
};

/* Source: the runtime's mprof.go, type bucket. */
struct header {
	uint64_t next, allnext, type, hash, size, n_stack;
};

_Static_assert(sizeof(struct header) == DP_GO_HEADER_BYTES, "as in the target");

int dp_go_list_init(struct dp_go_list_reader *list, pid_t pid, uint64_t head_avma, uint64_t type)
{
	list->pid = pid;
	list->head_avma = head_avma;
	list->type = type;
	list->window = calloc(1, sizeof(*list->window));
	return list->window ? 0 : -ENOMEM;
}

void dp_go_list_destroy(struct dp_go_list_reader *list)
{
	free(list->nodes);
	free(list->pcs);
	free(list->window);
	dp_map_clear(&list->known);
}

/* Reads the pages that hold @avma … @end, and as many below them as are mapped and have room. */
static int fill(struct dp_go_list_reader *list, uint64_t avma, uint64_t end)
{
	struct dp_go_window *w = list->window;
	struct iovec local[WINDOW_PAGES], remote[WINDOW_PAGES];
	uint64_t first = avma & ~(uint64_t)(PAGE_BYTES - 1);
	uint8_t *to;
	size_t n = 0, n_read;
	int r;

	w->end = (end + PAGE_BYTES - 1) & ~(uint64_t)(PAGE_BYTES - 1);
	w->start = w->end;
	to = w->bytes + WINDOW_BYTES - (w->end - first);
	local[n] = (struct iovec){to, w->end - first};
	remote[n++] = (struct iovec){(void *)(uintptr_t)first, w->end - first};
	while (to - w->bytes >= PAGE_BYTES && first >= PAGE_BYTES) {
		to -= PAGE_BYTES;
		first -= PAGE_BYTES;
		local[n] = (struct iovec){to, PAGE_BYTES};
		remote[n++] = (struct iovec){(void *)(uintptr_t)first, PAGE_BYTES};
	}
	r = dp_go_memory_read_all(list->pid, local, remote, n, &n_read);
	if (n_read == 0)
		return r;
	w->start = (uint64_t)(uintptr_t)remote[n_read - 1].iov_base;
	return 0;
}

/* Returns 0, 1 (there is no such memory) or a negative errno. */
static int fetch(struct dp_go_list_reader *list, uint64_t avma, void *ret, size_t n_bytes)
{
	struct dp_go_window *w = list->window;
	int r;

	if (avma % 8 != 0 || avma < PAGE_BYTES || avma > MAX_ADDRESS)
		return 1;
	if (n_bytes == 0)
		return 0;
	if (avma < w->start || avma + n_bytes > w->end) {
		r = fill(list, avma, avma + n_bytes);
		if (r < 0) {
			w->start = w->end = 0;
			list->n_unreadable++;
			return r == -EFAULT || r == -EIO ? 1 : r;
		}
	}
	memcpy(ret, w->bytes + WINDOW_BYTES - (w->end - avma), n_bytes);
	return 0;
}

static bool is_sane(const struct dp_go_list_reader *list, const struct header *h)
{
	if (h->type != list->type || h->n_stack > DP_GO_MAX_STACK)
		return false;
	return list->type == 1 ? h->size > 0 && h->size < MAX_SIZE : h->size == 0;
}

static int reserve(struct dp_go_list_reader *list, size_t n_stack)
{
	int r = dp_array_reserve((void **)&list->nodes, &list->capacity, list->n_nodes + 1,
				 sizeof(*list->nodes));

	if (r < 0)
		return r;
	return dp_array_reserve((void **)&list->pcs, &list->pcs_capacity, list->n_pcs + n_stack + 1,
				sizeof(*list->pcs));
}

/* Appends the node at @avma. Returns 0, 1 (the list ends here) or a negative errno. */
static int add(struct dp_go_list_reader *list, uint64_t avma, uint64_t *ret_next)
{
	struct dp_go_node node = {.first_pc = (uint32_t)list->n_pcs};
	struct header h;
	int r = fetch(list, avma, &h, sizeof(h));

	if (r == 1 || (r == 0 && (!is_sane(list, &h) || dp_map_get(&list->known, avma, NULL)))) {
		list->n_refused++;
		return 1;
	}
	if (r < 0)
		return r;
	if (list->n_nodes >= DP_GO_MAX_NODES || list->n_pcs + h.n_stack > DP_GO_MAX_PCS) {
		list->n_without_room++;
		return 1;
	}
	r = reserve(list, h.n_stack);
	if (r < 0)
		return r;
	r = fetch(list, avma + sizeof(h), list->pcs + list->n_pcs, 8 * h.n_stack);
	if (r != 0) {
		list->n_refused += r == 1;
		return r;
	}
	r = dp_map_set(&list->known, avma, list->n_nodes);
	if (r < 0)
		return r;
	node.address = avma;
	node.record = avma + sizeof(h) + 8 * h.n_stack;
	node.size = h.size;
	node.n_pcs = (uint32_t)h.n_stack;
	if (node.n_pcs > 0 && list->pcs[node.first_pc] == LOGICAL_STACK_SENTINEL) {
		node.first_pc++;
		node.n_pcs--;
	}
	list->nodes[list->n_nodes++] = node;
	list->n_pcs += h.n_stack;
	*ret_next = h.allnext;
	return 0;
}

static void forget_from(struct dp_go_list_reader *list, size_t n_nodes, size_t n_pcs)
{
	for (size_t i = n_nodes; i < list->n_nodes; i++)
		dp_map_remove(&list->known, list->nodes[i].address);
	list->n_nodes = n_nodes;
	list->n_pcs = n_pcs;
}

static void reverse(struct dp_go_node *nodes, size_t n)
{
	for (size_t i = 0; i < n / 2; i++) {
		struct dp_go_node node = nodes[i];

		nodes[i] = nodes[n - 1 - i];
		nodes[n - 1 - i] = node;
	}
}

int dp_go_list_walk(struct dp_go_list_reader *list)
{
	size_t n_before = list->n_nodes, n_pcs_before = list->n_pcs;
	uint64_t head, at;
	int r = dp_go_memory_read(list->pid, list->head_avma, &head, sizeof(head));

	if (r < 0)
		return r;
	list->window->start = list->window->end = 0;
	for (at = head; r == 0 && at != list->head && at != 0;)
		r = add(list, at, &at);
	if (r < 0) {
		forget_from(list, n_before, n_pcs_before);
		return r;
	}
	if (list->n_nodes > n_before)
		reverse(list->nodes + n_before, list->n_nodes - n_before);
	if (head != 0)
		list->head = head;
	return 0;
}
