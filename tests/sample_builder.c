/* SPDX-License-Identifier: MIT */
#include "tests/sample_builder.h"

#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define RAW_HEADER_BYTES 8 /* common_type, _flags, _preempt_count, _pid */

#define WORD(i)                                                             \
	{                                                                   \
		.offset_bytes = RAW_HEADER_BYTES + 8 * (i), .size_bytes = 8 \
	}

const struct dp_record_layout sample_layout = {
	.n_raw = 6,
	.raw = {{.id = SAMPLE_ID_ENTRY,
		 .type = DP_EVENT_ALLOC_ENTRY,
		 .probe = WORD(0),
		 .fields = {WORD(1), WORD(2), WORD(3), WORD(4), WORD(5)}},
		{.id = SAMPLE_ID_RETURN,
		 .type = DP_EVENT_ALLOC_RETURN,
		 .probe = WORD(0), /* word 1 is __probe_ret_ip */
		 .fields = {WORD(2), WORD(3), WORD(4)}},
		{.id = SAMPLE_ID_FREE,
		 .type = DP_EVENT_FREE,
		 .probe = WORD(0),
		 .fields = {[0] = WORD(1), [3] = WORD(2)}},
		/* Word 0 is the system call's number, then come its six arguments, or its result.
		 */
		{.id = SAMPLE_ID_FUTEX_ENTER,
		 .type = DP_EVENT_FUTEX_ENTER,
		 .fields = {WORD(1), WORD(2), WORD(3)}},
		{.id = SAMPLE_ID_FUTEX_EXIT, .type = DP_EVENT_FUTEX_EXIT, .fields = {WORD(1)}},
		/* Words 0 and 1 are the woken thread's name; after its id: prio, target_cpu. */
		{.id = SAMPLE_ID_WAKING,
		 .type = DP_EVENT_WAKING,
		 .fields = {{.offset_bytes = RAW_HEADER_BYTES + 16, .size_bytes = 4}}}},
};

struct writer {
	uint8_t *bytes;
	size_t n_bytes;
	const struct dp_record_layout *layout;
	const struct dp_event *event;
};

static void put(struct writer *w, const void *from, size_t n_bytes)
{
	if (n_bytes >= SAMPLE_MAX_BYTES - w->n_bytes)
		abort();
	if (n_bytes > 0)
		memcpy(w->bytes + w->n_bytes, from, n_bytes);
	w->n_bytes += n_bytes;
}

static void put_u32(struct writer *w, uint32_t value)
{
	put(w, &value, sizeof(value));
}

static void put_u64(struct writer *w, uint64_t value)
{
	put(w, &value, sizeof(value));
}

static void put_zeros_to_multiple_of_8(struct writer *w)
{
	while (w->n_bytes % 8)
		put(w, "", 1);
}

static void put_string(struct writer *w, const char *text)
{
	put(w, text, strlen(text) + 1);
	put_zeros_to_multiple_of_8(w);
}

static void put_tid(struct writer *w)
{
	put_u32(w, w->event->pid);
	put_u32(w, w->event->tid);
}

static void put_time(struct writer *w)
{
	put_u64(w, w->event->time_ns);
}

static void put_id(struct writer *w)
{
	put_u64(w, w->event->id);
}

static void put_callchain(struct writer *w)
{
	const struct dp_user_state *user = dp_event_user(w->event);
	size_t n = user ? user->n_callchain : 0;

	put_u64(w, n);
	if (n > 0)
		put(w, user->callchain, n * sizeof(uint64_t));
}

static const struct dp_raw_layout *find_layout(const struct writer *w)
{
	for (size_t i = 0; i < w->layout->n_raw; i++) {
		if (w->layout->raw[i].type == w->event->type)
			return &w->layout->raw[i];
	}
	abort();
}

/* Bytes of a tracepoint's raw part beyond the last field that is read. */
static size_t unread_bytes(enum dp_event_type type)
{
	switch (type) {
	case DP_EVENT_FUTEX_ENTER:
		return 3 * sizeof(uint64_t);
	case DP_EVENT_WAKING:
		return 2 * sizeof(uint32_t);
	default:
		return 0;
	}
}

static void set_field(uint8_t *raw, size_t *n_bytes, struct dp_raw_field field, uint64_t value)
{
	memcpy(raw + field.offset_bytes, &value, field.size_bytes); /* little endian */
	if (field.size_bytes > 0 && field.offset_bytes + (size_t)field.size_bytes > *n_bytes)
		*n_bytes = field.offset_bytes + (size_t)field.size_bytes;
}

/* The values of the tracepoint's fields in the layout's order; returns that of its probe. */
static uint64_t get_values(const struct dp_event *event, uint64_t *values)
{
	switch (event->type) {
	case DP_EVENT_ALLOC_RETURN:
		values[0] = event->ret.retval;
		values[1] = event->ret.dx;
		values[2] = event->ret.sp;
		return event->ret.probe_avma;
	case DP_EVENT_FUTEX_ENTER:
		values[0] = event->futex_enter.uaddr;
		values[1] = event->futex_enter.op;
		values[2] = event->futex_enter.val;
		return 0;
	case DP_EVENT_FUTEX_EXIT:
		values[0] = (uint64_t)event->futex_exit.result;
		return 0;
	case DP_EVENT_WAKING:
		values[0] = event->waking.wakee_tid;
		return 0;
	case DP_EVENT_GO_PARK:
	case DP_EVENT_GO_READY:
	case DP_EVENT_GO_ACQUIRE:
		values[0] = event->go.g;
		values[1] = event->go.reason;
		values[2] = event->go.stack0;
		return 0;
	case DP_EVENT_GO_WAIT:
		values[0] = event->go.g;
		values[1] = event->go.reason;
		values[2] = event->go.n_frames;
		values[3] = event->go.delay_ns;
		values[4] = event->go.goes_on;
		return 0;
	default:
		memcpy(values, event->entry.args, sizeof(event->entry.args));
		values[3] = event->entry.sp;
		values[4] = event->entry.stack0;
		return event->entry.probe_avma;
	}
}

static void put_raw(struct writer *w)
{
	const struct dp_raw_layout *layout = find_layout(w);
	const struct dp_event *event = w->event;
	uint8_t raw[2048] = {0};
	size_t n_bytes = RAW_HEADER_BYTES;
	uint64_t values[DP_N_RAW_FIELDS] = {0};
	uint64_t probe_avma = get_values(event, values);

	memcpy(raw, &layout->id, sizeof(layout->id));
	memcpy(raw + 4, &event->tid, sizeof(event->tid));
	set_field(raw, &n_bytes, layout->probe, probe_avma);
	for (size_t i = 0; i < DP_N_RAW_FIELDS; i++)
		set_field(raw, &n_bytes, layout->fields[i], values[i]);
	n_bytes += unread_bytes(event->type);
	if (event->type == DP_EVENT_GO_WAIT && event->go.n_frames > 0) {
		memcpy(raw + layout->frames.offset_bytes, event->go.frames,
		       event->go.n_frames * sizeof(uint64_t));
		n_bytes = layout->frames.offset_bytes + event->go.n_frames * sizeof(uint64_t);
	}
	n_bytes += -(n_bytes + sizeof(uint32_t)) % 8; /* the kernel counts the filling too */
	put_u32(w, (uint32_t)n_bytes);
	put(w, raw, n_bytes);
}

/*
 * The kernel's order of the registers is ax bx cx dx si di bp sp ip r8 … r15; an event has them by
 * DWARF number. Source: arch/x86/include/uapi/asm/perf_regs.h.
 */
static void put_user_state(struct writer *w, const struct dp_user_state *user)
{
	static const uint8_t dwarf[DP_USER_REGS] = {0, 3, 2,  1,  4,  5,  6,  7, 16,
						    8, 9, 10, 11, 12, 13, 14, 15};
	size_t n_bytes = (user->stack_bytes + 7) / 8 * 8;

	if (!user->has_regs && !user->stack)
		return;
	put_u64(w, user->has_regs ? PERF_SAMPLE_REGS_ABI_64 : PERF_SAMPLE_REGS_ABI_NONE);
	for (size_t i = 0; user->has_regs && i < DP_USER_REGS; i++)
		put_u64(w, user->regs[dwarf[i]]);
	put_u64(w, n_bytes);
	if (n_bytes == 0)
		return;
	put(w, user->stack, user->stack_bytes);
	put_zeros_to_multiple_of_8(w);
	put_u64(w, user->stack_bytes);
}

static void put_mmap2(struct writer *w)
{
	const struct dp_event *event = w->event;

	put_tid(w);
	put_u64(w, event->mmap.start);
	put_u64(w, event->mmap.length_bytes);
	put_u64(w, event->mmap.file_off);
	if (event->mmap.build_id_bytes > 0) {
		put_u32(w, (uint32_t)event->mmap.build_id_bytes);
		put(w, event->mmap.build_id, sizeof(event->mmap.build_id));
	} else {
		put_u32(w, event->mmap.major);
		put_u32(w, event->mmap.minor);
		put_u64(w, event->mmap.inode);
		put_u64(w, 0);
	}
	put_u32(w, PROT_READ | PROT_EXEC);
	put_u32(w, MAP_PRIVATE);
	put_string(w, event->mmap.path);
}

static void put_task(struct writer *w)
{
	put_u32(w, w->event->pid);
	put_u32(w, w->event->task.parent_pid);
	put_u32(w, w->event->tid);
	put_u32(w, w->event->task.parent_tid);
	put_time(w);
}

/* Writes the body without its trailer and says what the header has to say. */
static void put_body(struct writer *w, struct perf_event_header *header)
{
	const struct dp_event *event = w->event;

	switch (event->type) {
	case DP_EVENT_MMAP:
		header->type = PERF_RECORD_MMAP2;
		header->misc = PERF_RECORD_MISC_USER;
		if (event->mmap.build_id_bytes > 0)
			header->misc |= PERF_RECORD_MISC_MMAP_BUILD_ID;
		put_mmap2(w);
		break;
	case DP_EVENT_COMM:
		header->type = PERF_RECORD_COMM;
		if (event->comm.exec)
			header->misc |= PERF_RECORD_MISC_COMM_EXEC;
		put_tid(w);
		put_string(w, event->comm.name);
		break;
	case DP_EVENT_FORK:
	case DP_EVENT_EXIT:
		header->type = event->type == DP_EVENT_FORK ? PERF_RECORD_FORK : PERF_RECORD_EXIT;
		put_task(w);
		break;
	case DP_EVENT_LOST:
		header->type = PERF_RECORD_LOST;
		put_u64(w, event->id);
		put_u64(w, event->lost.n_records);
		break;
	case DP_EVENT_WAKING:
		header->type = PERF_RECORD_SAMPLE;
		header->misc = PERF_RECORD_MISC_KERNEL;
		break;
	default:
		header->type = PERF_RECORD_SAMPLE;
		header->misc = PERF_RECORD_MISC_USER;
		break;
	}
}

#define PUT_PART(suffix, name) put_##name(&w);

size_t sample_build(void *bytes, const struct dp_record_layout *layout,
		    const struct dp_event *event)
{
	struct writer w = {.bytes = bytes, .layout = layout, .event = event};
	struct perf_event_header header = {0};

	put(&w, &header, sizeof(header));
	put_body(&w, &header);
	if (header.type == PERF_RECORD_SAMPLE) {
		DP_SAMPLE_PARTS(PUT_PART)
		if (event->type == DP_EVENT_FUTEX_EXIT)
			put_user_state(&w, &event->futex_exit.user);
		if (event->type == DP_EVENT_WAKING)
			put_user_state(&w, &event->waking.user);
	} else {
		DP_TRAILER_PARTS(PUT_PART)
	}
	header.size = (uint16_t)w.n_bytes;
	memcpy(bytes, &header, sizeof(header));
	return w.n_bytes;
}
