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
	DP_EVENT_FUTEX_ENTER,  /* a futex system call was entered */
	DP_EVENT_FUTEX_EXIT,   /* ... and returned */
	DP_EVENT_WAKING,       /* the thread woke another one */
	DP_EVENT_RELEASE,      /* the thread ends another one's wait, which would be kept */
	DP_EVENT_WAIT,	       /* a wait that is kept has ended */
	DP_EVENT_GO_PARK,      /* a goroutine begins to wait */
	DP_EVENT_GO_READY,     /* the thread ends a goroutine's wait */
	DP_EVENT_GO_WAIT,      /* ... that is kept: in place of the two */
	DP_EVENT_GO_ACQUIRE,   /* a goroutine asks for a semaphore */
};

#define DP_BUILD_ID_MAX 20

/*
 * The user's side of a sample, for unwinding it: registers by DWARF number and a copy of the
 * stack's top. Source: System V ABI, AMD64 supplement, figure 3.36 (0 rax … 6 rbp, 7 rsp, 8-15
 * r8-r15, 16 rip).
 */
#define DP_USER_REGS 17

struct dp_user_state {
	bool has_regs;
	uint64_t regs[DP_USER_REGS];
	const uint8_t *stack; /* from the stack pointer up; NULL if there is none */
	size_t stack_bytes;
	bool left_out;		   /* there was a copy, see dp_record_leave_out_stack() */
	uint32_t asked_bytes;	   /* how much of the stack the event was opened to copy */
	const uint64_t *callchain; /* user addresses, leaf first, markers included */
	size_t n_callchain;
	/* The word at this stack pointer holds a pending return's trampoline instead of this
	 * address, as the kernel sampler knows; 0, 0: none that it knows. */
	uint64_t pending_sp, pending_return;
};

struct dp_event {
	enum dp_event_type type;
	uint32_t pid;	  /* process; 0 for DP_EVENT_LOST */
	uint32_t tid;	  /* thread; 0 for DP_EVENT_LOST */
	uint64_t time_ns; /* CLOCK_MONOTONIC */
	uint64_t id;	  /* of the event that was opened, also when a thread inherited it */
	union {
		struct {
			uint64_t probe_avma; /* the probed instruction: tells which function */
			uint64_t args[3];    /* first three integer arguments */
			uint64_t sp;	     /* stack pointer as at the function's entry */
			uint64_t stack0;     /* the word at sp: the return address */
			bool decided; /* in the kernel: it is an outermost call … (FREE: no call,
					 args[0] has been given again) */
			bool sampled; /* … and whether it is sampled */
			struct dp_user_state user; /* at the probed instruction */
		} entry; /* ALLOC_ENTRY and FREE (FREE: without the user's state) */
		struct {
			uint64_t probe_avma; /* of the entry that this return belongs to */
			uint64_t retval;
			uint64_t dx;	 /* third argument register at return, see KERNEL facts */
			uint64_t sp;	 /* after the return: entry's sp + 8 on x86-64 */
			bool has_result; /* dx is the object's address, 0 for none */
			bool untracked;	 /* its free will not be seen */
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
		struct {
			uint64_t uaddr;
			uint64_t op; /* FUTEX_* with its flags */
			uint64_t val;
		} futex_enter;
		struct {
			int64_t result; /* negative errno on failure */
			struct dp_user_state user;
		} futex_exit;
		struct {
			uint32_t wakee_tid;
			struct dp_user_state user; /* of the waker, which is the event's thread */
		} waking;			   /* WAKING and RELEASE */
		struct {
			bool released;	   /* by the thread of the last RELEASE of this one */
			uint64_t delay_ns; /* from its beginning until the thread runs again */
			uint64_t drawn_ns; /* what decided: up to its release, else all of it */
			struct dp_user_state user;
		} wait;
		struct {
			uint64_t g;	   /* address of the goroutine that waits */
			uint32_t reason;   /* the runtime's number; 0 for GO_READY and GO_ACQUIRE */
			uint64_t stack0;   /* GO_PARK: the word at the stack pointer */
			uint64_t delay_ns; /* GO_WAIT: how long it waited */
			/* GO_WAIT: addresses that it returns to, leaf first; 8 bytes each, not
			 * aligned. */
			const uint8_t *frames;
			size_t n_frames;
			bool goes_on; /* GO_WAIT: with the wait before, of one semaphore */
			struct dp_user_state user; /* GO_PARK: its own; else of who ends the wait;
						    * the callchain only */
		} go;
	};
};

/* The user's side of @event; NULL for a type that has none. */
static inline const struct dp_user_state *dp_event_user(const struct dp_event *event)
{
	switch (event->type) {
	case DP_EVENT_ALLOC_ENTRY:
		return &event->entry.user;
	case DP_EVENT_FUTEX_EXIT:
		return &event->futex_exit.user;
	case DP_EVENT_WAKING:
	case DP_EVENT_RELEASE:
		return &event->waking.user;
	case DP_EVENT_WAIT:
		return &event->wait.user;
	case DP_EVENT_GO_PARK:
	case DP_EVENT_GO_READY:
	case DP_EVENT_GO_WAIT:
		return &event->go.user;
	default:
		return NULL;
	}
}

/* Where the fields of one tracepoint lie in a sample's raw part, as its format file says. */
struct dp_raw_field {
	uint16_t offset_bytes;
	uint16_t size_bytes;
};

#define DP_N_RAW_FIELDS 5

/* One tracepoint that samples may come from: its id and what it means. */
struct dp_raw_layout {
	uint16_t id;		   /* common_type */
	enum dp_event_type type;   /* ALLOC_ENTRY, ALLOC_RETURN, FREE, FUTEX_*, WAKING, RELEASE,
				      WAIT or GO_* */
	struct dp_raw_field probe; /* __probe_ip or __probe_func; size 0 if it is no probe */
	/*
	 * Entry: di si dx sp stack0 (free: di, sp). Return: retval dx sp. Futex enter: uaddr op
	 * val; exit: ret. Waking: pid. Release: pid pending sp stack0. Wait: released
	 * delay_ns drawn_ns pending sp stack0. Go park: g reason stack0; ready: g; wait: g reason
	 * n_frames delay_ns goes_on; acquire: g. Size 0: not there.
	 */
	struct dp_raw_field fields[DP_N_RAW_FIELDS];
	struct dp_raw_field decided; /* DP_KERNEL_* of an entry or a return (perf/kernel_abi.h) */
	struct dp_raw_field frames;  /* of a Go wait: where they begin */
};

#define DP_MAX_RAW_LAYOUTS 10

struct dp_record_layout {
	struct dp_raw_layout raw[DP_MAX_RAW_LAYOUTS];
	size_t n_raw;
};

/*
 * The parts of a sample's body in the order of the kernel: X(PERF_SAMPLE_ suffix, name). This one
 * table is the sample_type that events are opened with, what the parser reads and what the tests'
 * builder writes. The other records end in those parts that DP_TRAILER_PARTS lists (sample_id_all).
 * Registers and stack of the user (REGS_USER, STACK_USER) follow RAW in the samples of those events
 * that ask for them.
 * Source: perf_event_open(2), "PERF_RECORD_SAMPLE" and "sample_id_all"; the kernel's
 * perf_output_sample() and __perf_event__output_id_sample().
 */
#define DP_SAMPLE_PARTS(X)      \
	X(IDENTIFIER, id)       \
	X(TID, tid)             \
	X(TIME, time)           \
	X(CALLCHAIN, callchain) \
	X(RAW, raw)
#define DP_TRAILER_PARTS(X) \
	X(TID, tid)         \
	X(TIME, time)       \
	X(IDENTIFIER, id)

/* The sample_type that every event of the profiler is opened with (needs <linux/perf_event.h>). */
#define DP_SAMPLE_PART_BIT(suffix, name) | PERF_SAMPLE_##suffix
#define DP_SAMPLE_TYPE_BITS (0 DP_SAMPLE_PARTS(DP_SAMPLE_PART_BIT))

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

/*
 * Writes the record that @event was parsed from again, without its copy of the stack, for where the
 * sample is wanted and the copy is not; parsed, it is the same but for that, and left_out is set.
 *
 * @bytes: the record. @ret: room for @max_bytes, 8-byte aligned. Neither blocks nor allocates.
 * Returns how long it is; 0 if there is no copy to be left out or no room.
 */
size_t dp_record_leave_out_stack(const void *bytes, const struct dp_event *event, void *ret,
				 size_t max_bytes);

/*
 * Finds a record's time stamp without parsing the rest, for putting records in order; where
 * dp_record_parse() succeeds it is dp_event.time_ns.
 *
 * @bytes, @n_bytes: as in dp_record_parse(). @ret_ns: CLOCK_MONOTONIC, set on success.
 * Neither blocks nor allocates; any thread.
 * Returns 0, or -EBADMSG for a record that is too short to hold one.
 */
int dp_record_time(const void *bytes, size_t n_bytes, uint64_t *ret_ns);

#endif
