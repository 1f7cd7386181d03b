/* SPDX-License-Identifier: MIT */
#ifndef DP_PERF_RECORD_H
#define DP_PERF_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * perf/record turns the bytes of one record of a perf ring into a struct dp_event. Every pointer of
 * an event points into those bytes and lives as long as they do.
 */

enum dp_event_type {
	DP_EVENT_ALLOC_ENTRY,  /* an allocation function was entered */
	DP_EVENT_ALLOC_RETURN, /* ... and returned */
	DP_EVENT_FREE,	       /* free was entered */
	DP_EVENT_MMAP,	       /* an executable mapping appeared */
	DP_EVENT_COMM,	       /* a thread was renamed, or the process executed a new program */
	DP_EVENT_FORK,	       /* a thread or process was created */
	DP_EVENT_EXIT,	       /* a thread ended */
	DP_EVENT_LOST,	       /* the kernel had no room in the ring for some records */
};

#define DP_BUILD_ID_MAX 20

struct dp_event {
	enum dp_event_type type;
	uint32_t pid;	  /* process; 0 for DP_EVENT_LOST */
	uint32_t tid;	  /* thread; 0 for DP_EVENT_LOST */
	uint64_t time_ns; /* CLOCK_MONOTONIC */
	union {
		struct {
			uint64_t probe_avma; /* the probed instruction: tells which function */
			uint64_t args[3];    /* first three integer arguments */
			uint64_t sp;	     /* stack pointer as at the function's entry */
			uint64_t stack0;     /* the word at sp: the return address */
			const uint64_t
				*callchain; /* user addresses, leaf first, markers included */
			size_t n_callchain;
		} entry; /* ALLOC_ENTRY and FREE (FREE: no callchain) */
		struct {
			uint64_t probe_avma; /* of the entry that this return belongs to */
			uint64_t retval;
			uint64_t dx; /* third argument register at return, see KERNEL facts */
			uint64_t sp; /* after the return: entry's sp + 8 on x86-64 */
		} ret;
		struct {
			uint64_t start; /* avma */
			uint64_t length_bytes;
			uint64_t file_off;
			uint32_t major, minor; /* 0 when the record carries a build-id instead */
			uint64_t inode;
			uint8_t build_id[DP_BUILD_ID_MAX];
			size_t build_id_bytes; /* 0 when the record carries none */
			const char *path;      /* NUL-terminated; "//anon" for anonymous memory */
		} mmap;
		struct {
			bool exec;
			const char *name; /* NUL-terminated */
		} comm;
		struct {
			uint32_t parent_pid, parent_tid;
		} task; /* FORK and EXIT */
		struct {
			uint64_t n_records;
		} lost;
	};
};

/* Where the fields of one tracepoint lie in a sample's raw part, as its format file says. */
struct dp_raw_field {
	uint16_t offset_bytes;
	uint16_t size_bytes;
};

/* One tracepoint that samples may come from: its id and what it means. */
struct dp_raw_layout {
	uint16_t id;		       /* common_type */
	enum dp_event_type type;       /* ALLOC_ENTRY, ALLOC_RETURN or FREE */
	struct dp_raw_field probe;     /* __probe_ip or __probe_func */
	struct dp_raw_field fields[5]; /* entry: di si dx sp stack0; return: retval dx sp - - */
};

#define DP_MAX_RAW_LAYOUTS 8

struct dp_record_layout {
	struct dp_raw_layout raw[DP_MAX_RAW_LAYOUTS];
	size_t n_raw;
};

/*
 * The sample_type that every event of the profiler is opened with, and its order in a sample's
 * body. Source: perf_event_open(2), struct perf_event_attr, "sample_type"; the kernel's
 * perf_output_sample().
 */
#define DP_SAMPLE_TYPE_BITS \
	(PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CALLCHAIN | PERF_SAMPLE_RAW)

/*
 * Parses one record.
 *
 * @bytes: a whole record, header included, 8-byte aligned, @n_bytes long (any length is safe).
 * @ret: filled on success; borrows from @bytes.
 * Neither blocks nor allocates; any thread.
 *
 * Returns 0; 1 for a well-formed record that the profiler has no use for; -EBADMSG for bytes that
 * contradict themselves (a length beyond the end, a string without a NUL, an unknown tracepoint).
 */
int dp_record_parse(const struct dp_record_layout *layout, const void *bytes, size_t n_bytes,
		    struct dp_event *ret);

#endif
