/* SPDX-License-Identifier: MIT */
/*
 * The bytes of a record come from memory that the kernel writes and tell their own lengths, so
 * nothing is believed: a cursor hands out what fits, and whatever is left over or missing makes the
 * record a contradiction. What a sample consists of stands once, in DP_SAMPLE_PARTS.
 */
#include "perf/record.h"

#include <assert.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <string.h>
#include <sys/mman.h>

#include "perf/arch.h"
#include "perf/kernel_abi.h"

struct cursor {
	const uint8_t *at;
	size_t left;
};

/* What DP_SAMPLE_PARTS can bring. */
struct parts {
	uint32_t pid, tid;
	uint64_t time_ns;
	uint64_t id;
	struct cursor raw;
	struct dp_user_state user;
};

/* In the place of a stack's size: it was so large, and is not there. */
#define LEFT_OUT (UINT64_C(1) << 63)

/* Bytes of the parts whose length never varies. */
enum { BYTES_tid = 8, BYTES_time = 8, BYTES_id = 8 };
#define ADD_BYTES(suffix, name) +BYTES_##name
enum { TRAILER_BYTES = 0 DP_TRAILER_PARTS(ADD_BYTES) };

/* Moves past @n_bytes and returns where they begin; NULL if there are not as many. */
static const void *take(struct cursor *c, uint64_t n_bytes)
{
	const uint8_t *begin = c->at;

	if (n_bytes > c->left)
		return NULL;
	c->at += n_bytes;
	c->left -= n_bytes;
	return begin;
}

static int copy(struct cursor *c, void *ret, size_t n_bytes)
{
	const void *from = take(c, n_bytes);

	if (!from)
		return -EBADMSG;
	memcpy(ret, from, n_bytes);
	return 0;
}

static int read_tid(struct cursor *c, struct parts *parts)
{
	uint32_t ids[2];

	if (copy(c, ids, sizeof(ids)))
		return -EBADMSG;
	parts->pid = ids[0];
	parts->tid = ids[1];
	return 0;
}

static int read_time(struct cursor *c, struct parts *parts)
{
	return copy(c, &parts->time_ns, sizeof(parts->time_ns));
}

static int read_id(struct cursor *c, struct parts *parts)
{
	return copy(c, &parts->id, sizeof(parts->id));
}

static int read_callchain(struct cursor *c, struct parts *parts)
{
	uint64_t n;

	if (copy(c, &n, sizeof(n)) || n > c->left / sizeof(uint64_t))
		return -EBADMSG;
	parts->user.callchain = take(c, n * sizeof(uint64_t));
	parts->user.n_callchain = n;
	return 0;
}

/* A 32-bit length and as many bytes, together filled up to a multiple of 8. */
static int read_raw(struct cursor *c, struct parts *parts)
{
	uint32_t n;

	if (copy(c, &n, sizeof(n)))
		return -EBADMSG;
	parts->raw.left = n;
	parts->raw.at = take(c, n);
	if (!parts->raw.at || !take(c, -(sizeof(n) + n) & 7))
		return -EBADMSG;
	return 0;
}

/* The registers of dp_arch.user_regs_mask in ascending order of its bits; none for a kernel thread.
 */
static int read_user_regs(struct cursor *c, struct dp_user_state *user)
{
	uint64_t abi;

	if (copy(c, &abi, sizeof(abi)))
		return -EBADMSG;
	if (abi == PERF_SAMPLE_REGS_ABI_NONE)
		return 0;
	for (size_t i = 0; i < DP_USER_REGS; i++) {
		if (copy(c, &user->regs[dp_arch.user_regs_dwarf[i]], sizeof(uint64_t)))
			return -EBADMSG;
	}
	user->has_regs = abi == PERF_SAMPLE_REGS_ABI_64;
	return 0;
}

/* The size that was asked for, so many bytes, and how many of them are valid; a size of 0 is all
 * there is. */
static int read_user_stack(struct cursor *c, struct dp_user_state *user)
{
	uint64_t n_bytes, n_valid;
	const uint8_t *stack;

	if (copy(c, &n_bytes, sizeof(n_bytes)))
		return -EBADMSG;
	if (n_bytes & LEFT_OUT) {
		user->left_out = true;
		user->asked_bytes = (uint32_t)n_bytes;
		return 0;
	}
	if (n_bytes == 0)
		return 0;
	stack = take(c, n_bytes);
	if (!stack || copy(c, &n_valid, sizeof(n_valid)) || n_valid > n_bytes)
		return -EBADMSG;
	user->stack = stack;
	user->stack_bytes = n_valid;
	user->asked_bytes = (uint32_t)n_bytes;
	return 0;
}

/* What follows RAW in the samples of events that ask for the user's state. */
static int read_user_state(struct cursor *c, struct parts *parts)
{
	if (c->left == 0)
		return 0;
	if (read_user_regs(c, &parts->user) || read_user_stack(c, &parts->user))
		return -EBADMSG;
	return 0;
}

#define READ_PART(suffix, name)      \
	if (read_##name(&c, &parts)) \
		return -EBADMSG;

/* Checks the header; *@ret becomes what follows it. */
static int open_record(const void *bytes, size_t n_bytes, struct perf_event_header *ret_header,
		       struct cursor *ret)
{
	struct cursor c = {.at = bytes, .left = n_bytes};

	assert((uintptr_t)bytes % sizeof(uint64_t) == 0);
	if (copy(&c, ret_header, sizeof(*ret_header)) || ret_header->size != n_bytes)
		return -EBADMSG;
	*ret = c;
	return 0;
}

/* Cuts the trailer off the end of a record that is no sample. */
static int cut_trailer(struct cursor *body, struct cursor *ret)
{
	if (body->left < TRAILER_BYTES)
		return -EBADMSG;
	body->left -= TRAILER_BYTES;
	*ret = (struct cursor){.at = body->at + body->left, .left = TRAILER_BYTES};
	return 0;
}

/* Takes the rest of @c as a string that is filled up with NULs; NULL if it does not end. */
static const char *take_string(struct cursor *c)
{
	const char *text = (const char *)c->at;

	if (!memchr(text, '\0', c->left))
		return NULL;
	c->left = 0;
	return text;
}

static int get_field(const struct cursor *raw, struct dp_raw_field field, uint64_t *ret)
{
	uint32_t narrow;
	uint8_t byte;

	if (field.size_bytes == 0) {
		*ret = 0;
		return 0;
	}
	if (field.offset_bytes + (size_t)field.size_bytes > raw->left)
		return -EBADMSG;
	if (field.size_bytes == sizeof(*ret)) {
		memcpy(ret, raw->at + field.offset_bytes, sizeof(*ret));
		return 0;
	}
	if (field.size_bytes == sizeof(byte)) {
		memcpy(&byte, raw->at + field.offset_bytes, sizeof(byte));
		*ret = byte;
		return 0;
	}
	if (field.size_bytes != sizeof(narrow))
		return -EBADMSG;
	memcpy(&narrow, raw->at + field.offset_bytes, sizeof(narrow));
	*ret = narrow;
	return 0;
}

static const struct dp_raw_layout *find_raw_layout(const struct dp_record_layout *layout,
						   const struct cursor *raw)
{
	uint16_t id;

	if (raw->left < sizeof(id))
		return NULL;
	memcpy(&id, raw->at, sizeof(id));
	for (size_t i = 0; i < layout->n_raw; i++) {
		if (layout->raw[i].id == id)
			return &layout->raw[i];
	}
	return NULL;
}

static void set_entry(struct dp_event *event, const struct parts *parts, uint64_t probe_avma,
		      const uint64_t *values, uint64_t decided)
{
	event->entry.probe_avma = probe_avma;
	memcpy(event->entry.args, values, sizeof(event->entry.args));
	event->entry.sp = values[3];
	event->entry.stack0 = values[4];
	event->entry.decided = decided & DP_KERNEL_DECIDED;
	event->entry.sampled = decided & DP_KERNEL_SAMPLED;
	event->entry.user = (struct dp_user_state){0};
	if (event->type == DP_EVENT_ALLOC_ENTRY)
		event->entry.user = parts->user;
}

static void set_sample(struct dp_event *event, const struct parts *parts, uint64_t probe_avma,
		       const uint64_t *values, uint64_t decided)
{
	switch (event->type) {
	case DP_EVENT_ALLOC_RETURN:
		event->ret.probe_avma = probe_avma;
		event->ret.retval = values[0];
		event->ret.dx = values[1];
		event->ret.sp = values[2];
		event->ret.has_result = decided & DP_KERNEL_RESULT;
		event->ret.untracked = decided & DP_KERNEL_UNTRACKED;
		break;
	case DP_EVENT_FUTEX_ENTER:
		event->futex_enter.uaddr = values[0];
		event->futex_enter.op = values[1];
		event->futex_enter.val = values[2];
		break;
	case DP_EVENT_FUTEX_EXIT:
		event->futex_exit.result = (int64_t)values[0];
		event->futex_exit.user = parts->user;
		break;
	case DP_EVENT_WAIT:
		event->wait.released = values[0] != 0;
		event->wait.delay_ns = values[1];
		event->wait.drawn_ns = values[2];
		event->wait.user = parts->user;
		event->wait.user.pending_sp = values[3];
		event->wait.user.pending_return = values[4];
		break;
	case DP_EVENT_WAKING:
	case DP_EVENT_RELEASE:
		event->waking.wakee_tid = (uint32_t)values[0];
		event->waking.user = parts->user;
		event->waking.user.pending_sp = values[1];
		event->waking.user.pending_return = values[2];
		break;
	case DP_EVENT_GO_PARK:
	case DP_EVENT_GO_READY:
	case DP_EVENT_GO_ACQUIRE:
		event->go.g = values[0];
		event->go.reason = (uint32_t)values[1];
		event->go.stack0 = values[2];
		event->go.user = parts->user;
		break;
	case DP_EVENT_GO_WAIT:
		event->go.g = values[0];
		event->go.reason = (uint32_t)values[1];
		event->go.n_frames = values[2];
		event->go.delay_ns = values[3];
		event->go.goes_on = values[4] != 0;
		event->go.user = parts->user;
		break;
	default:
		set_entry(event, parts, probe_avma, values, decided);
	}
}

/* As many frames as the record says that there are must be in it. */
static int set_frames(struct dp_event *event, const struct dp_raw_layout *layout,
		      const struct cursor *raw)
{
	size_t offset_bytes = layout->frames.offset_bytes;

	if (event->type != DP_EVENT_GO_WAIT)
		return 0;
	if (offset_bytes > raw->left ||
	    event->go.n_frames > (raw->left - offset_bytes) / sizeof(uint64_t))
		return -EBADMSG;
	event->go.frames = raw->at + offset_bytes;
	return 0;
}

static int parse_sample(const struct dp_record_layout *layout, struct cursor c,
			struct dp_event *event)
{
	struct parts parts = {.user = {.has_regs = false}};
	const struct dp_raw_layout *raw;
	uint64_t probe_avma, decided;
	uint64_t values[DP_N_RAW_FIELDS];

	DP_SAMPLE_PARTS(READ_PART)
	if (read_user_state(&c, &parts))
		return -EBADMSG;
	raw = find_raw_layout(layout, &parts.raw);
	if (!raw || c.left != 0 || get_field(&parts.raw, raw->probe, &probe_avma) ||
	    get_field(&parts.raw, raw->decided, &decided))
		return -EBADMSG;
	for (size_t i = 0; i < DP_N_RAW_FIELDS; i++) {
		if (get_field(&parts.raw, raw->fields[i], &values[i]))
			return -EBADMSG;
	}
	event->type = raw->type;
	event->pid = parts.pid;
	event->tid = parts.tid;
	event->time_ns = parts.time_ns;
	event->id = parts.id;
	set_sample(event, &parts, probe_avma, values, decided);
	return set_frames(event, raw, &parts.raw);
}

static int parse_mmap2(struct cursor *c, uint16_t misc, struct dp_event *event)
{
	struct {
		uint32_t pid, tid;
		uint64_t start, length_bytes, file_off;
		union {
			struct {
				uint32_t major, minor;
				uint64_t inode, generation;
			};
			struct {
				uint8_t build_id_bytes, reserved[3];
				uint8_t build_id[DP_BUILD_ID_MAX];
			};
		};
		uint32_t protection, flags;
	} fixed;

	if (copy(c, &fixed, sizeof(fixed)))
		return -EBADMSG;
	event->type = DP_EVENT_MMAP;
	event->pid = fixed.pid;
	event->tid = fixed.tid;
	event->mmap.start = fixed.start;
	event->mmap.length_bytes = fixed.length_bytes;
	event->mmap.file_off = fixed.file_off;
	if (misc & PERF_RECORD_MISC_MMAP_BUILD_ID) {
		if (fixed.build_id_bytes > DP_BUILD_ID_MAX)
			return -EBADMSG;
		memcpy(event->mmap.build_id, fixed.build_id, fixed.build_id_bytes);
		event->mmap.build_id_bytes = fixed.build_id_bytes;
	} else {
		event->mmap.major = fixed.major;
		event->mmap.minor = fixed.minor;
		event->mmap.inode = fixed.inode;
	}
	event->mmap.path = take_string(c);
	if (!event->mmap.path)
		return -EBADMSG;
	return fixed.protection & PROT_EXEC ? 0 : 1;
}

static int parse_comm(struct cursor *c, uint16_t misc, struct dp_event *event)
{
	uint32_t ids[2];

	if (copy(c, ids, sizeof(ids)))
		return -EBADMSG;
	event->type = DP_EVENT_COMM;
	event->pid = ids[0];
	event->tid = ids[1];
	event->comm.exec = misc & PERF_RECORD_MISC_COMM_EXEC;
	event->comm.name = take_string(c);
	return event->comm.name ? 0 : -EBADMSG;
}

/* FORK and EXIT. Their own time is left aside: the trailer's is the one that all records have. */
static int parse_task(struct cursor *c, enum dp_event_type type, struct dp_event *event)
{
	struct {
		uint32_t pid, parent_pid, tid, parent_tid;
		uint64_t time_ns;
	} fixed;

	if (copy(c, &fixed, sizeof(fixed)) || c->left != 0)
		return -EBADMSG;
	event->type = type;
	event->pid = fixed.pid;
	event->tid = fixed.tid;
	event->task.parent_pid = fixed.parent_pid;
	event->task.parent_tid = fixed.parent_tid;
	return 0;
}

/* LOST, which also names an event's id, and LOST_SAMPLES, which does not. */
static int parse_lost(struct cursor *c, bool has_id, struct dp_event *event)
{
	if (has_id && !take(c, sizeof(uint64_t)))
		return -EBADMSG;
	if (copy(c, &event->lost.n_records, sizeof(uint64_t)) || c->left != 0)
		return -EBADMSG;
	event->type = DP_EVENT_LOST;
	return 0;
}

/* Everything but samples. */
static int parse_sideband(const struct perf_event_header *header, struct cursor body,
			  struct dp_event *event)
{
	struct parts parts;
	struct cursor c;

	if (cut_trailer(&body, &c))
		return -EBADMSG;
	DP_TRAILER_PARTS(READ_PART)
	event->time_ns = parts.time_ns;
	event->id = parts.id;
	switch (header->type) {
	case PERF_RECORD_MMAP2:
		return parse_mmap2(&body, header->misc, event);
	case PERF_RECORD_COMM:
		return parse_comm(&body, header->misc, event);
	case PERF_RECORD_FORK:
		return parse_task(&body, DP_EVENT_FORK, event);
	case PERF_RECORD_EXIT:
		return parse_task(&body, DP_EVENT_EXIT, event);
	case PERF_RECORD_LOST:
		return parse_lost(&body, true, event);
	case PERF_RECORD_LOST_SAMPLES:
		return parse_lost(&body, false, event);
	default:
		return 1;
	}
}

int dp_record_parse(const struct dp_record_layout *layout, const void *bytes, size_t n_bytes,
		    struct dp_event *ret)
{
	struct perf_event_header header;
	struct cursor body;
	struct dp_event event = {0};
	int r;

	r = open_record(bytes, n_bytes, &header, &body);
	if (r)
		return r;
	if (header.type == PERF_RECORD_SAMPLE)
		r = parse_sample(layout, body, &event);
	else
		r = parse_sideband(&header, body, &event);
	if (r == 0)
		*ret = event;
	return r;
}

size_t dp_record_leave_out_stack(const void *bytes, const struct dp_event *event, void *ret,
				 size_t max_bytes)
{
	const struct dp_user_state *user = dp_event_user(event);
	struct perf_event_header header;
	uint64_t size;
	size_t n;

	if (!user || !user->stack)
		return 0;
	n = (size_t)(user->stack - (const uint8_t *)bytes); /* up to the stack, its size included */
	if (n > max_bytes || n > UINT16_MAX)
		return 0;
	memcpy(ret, bytes, n);
	memcpy(&header, bytes, sizeof(header));
	header.size = (uint16_t)n;
	memcpy(ret, &header, sizeof(header));
	size = user->asked_bytes | LEFT_OUT;
	memcpy((uint8_t *)ret + n - sizeof(size), &size, sizeof(size));
	return n;
}

int dp_record_time(const void *bytes, size_t n_bytes, uint64_t *ret_ns)
{
	struct perf_event_header header;
	struct parts parts;
	struct cursor body;
	struct cursor c;

	if (open_record(bytes, n_bytes, &header, &body))
		return -EBADMSG;
	c = body;
	if (header.type == PERF_RECORD_SAMPLE) {
		/* The body's first parts, in DP_SAMPLE_PARTS' order. */
		READ_PART(IDENTIFIER, id)
		READ_PART(TID, tid)
		READ_PART(TIME, time)
	} else {
		if (cut_trailer(&body, &c))
			return -EBADMSG;
		DP_TRAILER_PARTS(READ_PART)
	}
	*ret_ns = parts.time_ns;
	return 0;
}
