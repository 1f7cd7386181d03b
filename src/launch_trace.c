/* SPDX-License-Identifier: MIT */
/*
 * The hard idea: a loader calls an empty function for debuggers when it has finished mapping. A
 * trap there, and one at the program's entry should the loader never call it, stop the process for
 * sure before the program runs. Between the two only what we caused ourselves is swallowed: every
 * signal that is not one of our traps is passed on.
 */
#include "src/launch_trace.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "symbolize/loader.h"
#include "symbolize/maps.h"
#include "symbolize/proc.h"

/* More than the kernel's AT_VECTOR_SIZE on any architecture. */
#define MAX_AUXV 128

/* take_stop(): not there yet. */
#define GO_ON 1000

struct breakpoint {
	uint64_t avma; /* 0: none */
	bool inserted;
	uint8_t code[DP_TRAP_MAX_BYTES]; /* what was there */
};

struct trace {
	pid_t pid;
	const char *command;
	struct breakpoint notify, entry;
	uint64_t r_debug_avma; /* 0: every notification is of a link map that is whole */
	bool adding;	       /* the loader has said that it has begun to map */
	bool stepping;	       /* over the instruction at notify, whose trap is out */
	struct dp_error *err;
};

static int fail(const struct trace *trace, int r, const char *what)
{
	int code = r == -ENOMEM || r == -EMFILE ? r : r == -EACCES || r == -EPERM ? -EPERM : -EIO;

	return dp_error_set(trace->err, code,
			    "%.200s: cannot be stopped at its start: %s: %s; start it without the "
			    "profiler and attach with -p PID",
			    trace->command, what, strerror(-r));
}

/* Exchanges the code at @avma; the bytes lie in one word. */
static int swap_code(pid_t pid, uint64_t avma, const uint8_t *code, uint8_t *ret_old)
{
	uint64_t word_avma = avma & ~(uint64_t)(sizeof(long) - 1);
	uint8_t bytes[sizeof(long)];
	long word;

	errno = 0;
	word = ptrace(PTRACE_PEEKTEXT, pid, (void *)word_avma, NULL);
	if (errno != 0)
		return -errno;
	memcpy(bytes, &word, sizeof(word));
	memcpy(ret_old, bytes + (avma - word_avma), dp_trap.n_bytes);
	memcpy(bytes + (avma - word_avma), code, dp_trap.n_bytes);
	memcpy(&word, bytes, sizeof(word));
	return ptrace(PTRACE_POKETEXT, pid, (void *)word_avma, (void *)word) < 0 ? -errno : 0;
}

static int insert(pid_t pid, struct breakpoint *breakpoint)
{
	int r = 0;

	if (breakpoint->avma != 0 && !breakpoint->inserted)
		r = swap_code(pid, breakpoint->avma, dp_trap.code, breakpoint->code);
	if (r == 0)
		breakpoint->inserted = breakpoint->avma != 0;
	return r;
}

static int take_out(pid_t pid, struct breakpoint *breakpoint)
{
	uint8_t trap[DP_TRAP_MAX_BYTES];
	int r = 0;

	if (breakpoint->inserted)
		r = swap_code(pid, breakpoint->avma, breakpoint->code, trap);
	if (r == 0)
		breakpoint->inserted = false;
	return r;
}

/* Source: getauxval(3), proc_pid_auxv(5). */
static int read_auxv(pid_t pid, uint64_t *ret_base, uint64_t *ret_entry)
{
	ElfW(auxv_t) auxv[MAX_AUXV];
	uint64_t base = 0, entry = 0;
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/auxv", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, auxv, sizeof(auxv));
	if (n < 0)
		n = -errno;
	close(fd);
	if (n < 0)
		return (int)n;
	for (size_t i = 0; i < (size_t)n / sizeof(*auxv); i++) {
		if (auxv[i].a_type == AT_BASE)
			base = auxv[i].a_un.a_val;
		else if (auxv[i].a_type == AT_ENTRY)
			entry = auxv[i].a_un.a_val;
	}
	if (entry == 0)
		return -EBADMSG;
	*ret_base = base;
	*ret_entry = entry;
	return 0;
}

/* Opens the file that is mapped at @avma. */
static int open_mapped_at(pid_t pid, uint64_t avma)
{
	struct dp_maps_line line;
	char *text, *at;
	size_t n_bytes;
	int r, fd = -ENOENT;
	pid_t tid;

	r = dp_proc_read_maps(pid, &text, &n_bytes, &tid);
	if (r < 0)
		return r;
	at = text;
	while (fd == -ENOENT && n_bytes > 0) {
		char *newline = memchr(at, '\n', n_bytes);
		size_t n_line = newline ? (size_t)(newline - at) + 1 : n_bytes;

		if (dp_maps_parse_line(at, n_line, &line) == 0 && line.start <= avma &&
		    avma < line.end) {
			fd = dp_proc_open_mapping(tid, &line);
			break;
		}
		at += n_line;
		n_bytes -= n_line;
	}
	free(text);
	return fd;
}

/* A loader whose file cannot be read is one that notifies of nothing. */
static int read_interpreter(pid_t pid, uint64_t base, struct dp_loader *ret)
{
	int fd = open_mapped_at(pid, base);

	*ret = (struct dp_loader){0};
	if (fd == -ENOMEM || fd == -EMFILE)
		return fd;
	if (fd < 0)
		return 0;
	dp_loader_read(fd, ret);
	close(fd);
	return 0;
}

static bool may_trace_privileged(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

	return syscall(SYS_capget, &header, data) == 0 &&
	       (data[CAP_TO_INDEX(CAP_SYS_PTRACE)].effective & CAP_TO_MASK(CAP_SYS_PTRACE));
}

/* Source: execve(2): a program gains nothing while a tracer without CAP_SYS_PTRACE watches. */
static int check_privileges(const struct trace *trace, int exe_fd)
{
	const char *gain = NULL;
	struct stat st;

	if (may_trace_privileged() || fstat(exe_fd, &st) < 0)
		return 0;
	if ((st.st_mode & S_ISUID) && st.st_uid != geteuid())
		gain = "is set-user-ID";
	else if ((st.st_mode & S_ISGID) && (st.st_mode & S_IXGRP) && st.st_gid != getegid())
		gain = "is set-group-ID";
	else if (fgetxattr(exe_fd, "security.capability", NULL, 0) > 0)
		gain = "has file capabilities";
	if (!gain)
		return 0;
	return dp_error_set(trace->err, -EPERM,
			    "%.200s: %s and would be started without these privileges, because it "
			    "is traced at first; run the profiler as root or with "
			    "CAP_SYS_PTRACE",
			    trace->command, gain);
}

static int read_program(const struct trace *trace, struct dp_loader *ret)
{
	char path[64];
	int fd, r;

	snprintf(path, sizeof(path), "/proc/%d/exe", trace->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd == -1 && errno == EACCES)
		return dp_error_set(trace->err, -EPERM,
				    "%.200s: may not be traced, because its file may not be read; "
				    "run the profiler as root",
				    trace->command);
	if (fd < 0)
		return fail(trace, -errno, path);
	r = check_privileges(trace, fd);
	/* What is no ELF file was started by the kernel all the same: a format of its own. */
	if (r == 0 && dp_loader_read(fd, ret) < 0)
		*ret = (struct dp_loader){0};
	close(fd);
	return r;
}

/* Where the process that has just executed a program is to be stopped: nowhere if here. */
static int find_stops(struct trace *trace)
{
	struct dp_loader program = {0}, interpreter;
	const struct dp_loader *loader = NULL;
	uint64_t base = 0, entry = 0, bias = 0;
	int r;

	r = read_program(trace, &program);
	if (r < 0 || !program.is_64bit || program.machine != dp_trap.elf_machine)
		return r;
	r = read_auxv(trace->pid, &base, &entry);
	if (r < 0)
		return fail(trace, r, "its auxiliary vector");
	if (base != 0) {
		r = read_interpreter(trace->pid, base, &interpreter);
		if (r < 0)
			return fail(trace, r, "its dynamic loader");
		trace->entry.avma = entry;
		loader = &interpreter;
		bias = base;
	} else if (program.is_library) {
		loader = &program;
		bias = entry - program.entry_svma;
	}
	if (loader && loader->notify_svma) {
		trace->notify.avma = bias + loader->notify_svma;
		trace->r_debug_avma = loader->r_debug_svma ? bias + loader->r_debug_svma : 0;
	}
	return 0;
}

static int take_exec(struct trace *trace)
{
	int r;

	*trace = (struct trace){.pid = trace->pid, .command = trace->command, .err = trace->err};
	r = find_stops(trace);
	if (r < 0)
		return r;
	if (trace->notify.avma == 0 && trace->entry.avma == 0)
		return DP_TRACE_STOPPED;
	r = insert(trace->pid, &trace->notify);
	if (r == 0)
		r = insert(trace->pid, &trace->entry);
	return r < 0 ? fail(trace, r, "a breakpoint") : GO_ON;
}

/*
 * Whether the link map is whole. A glibc that loads audit modules notifies of theirs while the
 * program's own still reads as consistent, not yet begun: what counts is consistency after RT_ADD.
 */
static int is_whole(struct trace *trace, bool *ret)
{
	long word;
	int state;

	*ret = true;
	if (trace->r_debug_avma == 0)
		return 0;
	errno = 0;
	word = ptrace(PTRACE_PEEKDATA, trace->pid,
		      (void *)(trace->r_debug_avma + offsetof(struct r_debug, r_state)), NULL);
	if (errno != 0)
		return -errno;
	memcpy(&state, &word, sizeof(state));
	if (state != RT_CONSISTENT)
		trace->adding = true;
	*ret = trace->adding && state == RT_CONSISTENT;
	return 0;
}

/* Leaves the process at @breakpoint as if there had never been one. */
static int arrive(struct trace *trace, const struct breakpoint *breakpoint)
{
	int r = dp_trace_set_pc(trace->pid, breakpoint->avma);

	if (r == 0)
		r = take_out(trace->pid, &trace->notify);
	if (r == 0)
		r = take_out(trace->pid, &trace->entry);
	return r;
}

static int take_breakpoint(struct trace *trace, const struct breakpoint *breakpoint)
{
	bool whole = true;
	int r = 0;

	if (breakpoint == &trace->notify)
		r = is_whole(trace, &whole);
	if (r == 0 && whole) {
		r = arrive(trace, breakpoint);
		if (r == 0)
			return breakpoint == &trace->entry ? DP_TRACE_LATE : DP_TRACE_STOPPED;
	}
	if (r == 0)
		r = take_out(trace->pid, &trace->notify);
	if (r == 0)
		r = dp_trace_set_pc(trace->pid, trace->notify.avma);
	trace->stepping = true;
	return r < 0 ? fail(trace, r, "ptrace at a breakpoint") : GO_ON;
}

/* SIGTRAP: if the kernel sent it for what we did, *@signal becomes 0; else it is delivered as any
 * other. */
static int take_trap(struct trace *trace, int *signal)
{
	const struct breakpoint *breakpoint = NULL;
	siginfo_t info;
	uint64_t pc;
	int r;

	if (ptrace(PTRACE_GETSIGINFO, trace->pid, NULL, &info) < 0)
		return fail(trace, -errno, "ptrace");
	if (info.si_code <= 0)
		return GO_ON;
	r = dp_trace_get_pc(trace->pid, &pc);
	if (r < 0)
		return fail(trace, r, "ptrace");
	if (trace->stepping) {
		*signal = 0;
		trace->stepping = false;
		r = insert(trace->pid, &trace->notify);
		return r < 0 ? fail(trace, r, "a breakpoint") : GO_ON;
	}
	if (trace->notify.inserted && pc == trace->notify.avma + dp_trap.pc_after_bytes)
		breakpoint = &trace->notify;
	else if (trace->entry.inserted && pc == trace->entry.avma + dp_trap.pc_after_bytes)
		breakpoint = &trace->entry;
	if (!breakpoint)
		return GO_ON;
	*signal = 0;
	return take_breakpoint(trace, breakpoint);
}

static bool is_stop_signal(int signal)
{
	return signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
}

/* Deals with one stop and lets the process go on: GO_ON, an enum dp_trace_end, or a failure. */
static int take_stop(struct trace *trace, int status)
{
	int event = status >> 16;
	int signal = WSTOPSIG(status);
	int request, r = GO_ON;

	if (event == PTRACE_EVENT_STOP) {
		/* Stopped as by job control, until SIGCONT; or going on after that. */
		if (is_stop_signal(signal))
			return ptrace(PTRACE_LISTEN, trace->pid, NULL, NULL) < 0
				       ? fail(trace, -errno, "PTRACE_LISTEN")
				       : GO_ON;
		signal = 0;
	} else if (event == PTRACE_EVENT_EXEC) {
		signal = 0;
		r = take_exec(trace);
	} else if (signal == SIGTRAP) {
		r = take_trap(trace, &signal);
	}
	if (r != GO_ON)
		return r;
	request = trace->stepping ? PTRACE_SINGLESTEP : PTRACE_CONT;
	if (ptrace(request, trace->pid, NULL, (void *)(long)signal) < 0)
		return fail(trace, -errno, "PTRACE_CONT");
	return GO_ON;
}

/* Blocks. Returns 0 or a negative errno. */
static int wait_change(pid_t pid, int *ret_status)
{
	while (waitpid(pid, ret_status, __WALL) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

int dp_trace_wait_end(pid_t pid, int *ret_status)
{
	int status, r;

	do {
		r = wait_change(pid, &status);
	} while (r == 0 && WIFSTOPPED(status));
	if (r == 0)
		*ret_status = status;
	return r;
}

/* A stopped process leaves its stop unasked only by SIGKILL, and then nothing can be done to it. */
static bool was_killed(pid_t pid)
{
	unsigned long message;

	return ptrace(PTRACE_GETEVENTMSG, pid, NULL, &message) < 0 && errno == ESRCH;
}

int dp_trace_until_mapped(pid_t pid, const char *command, int *ret_status, struct dp_error *err)
{
	struct trace trace = {.pid = pid, .command = command, .err = err};
	int status, r;

	do {
		r = wait_change(pid, &status);
		if (r < 0)
			return fail(&trace, r, "waitpid");
		if (!WIFSTOPPED(status)) {
			*ret_status = status;
			return DP_TRACE_ENDED;
		}
		r = take_stop(&trace, status);
	} while (r == GO_ON);
	if (r < 0 && was_killed(pid) && dp_trace_wait_end(pid, ret_status) == 0)
		return DP_TRACE_ENDED;
	return r;
}

/* The value of a file of one number; -1 if there is none. */
static int read_number(const char *path)
{
	FILE *file = fopen(path, "re");
	int value = -1;

	if (!file)
		return -1;
	if (fscanf(file, "%d", &value) != 1)
		value = -1;
	fclose(file);
	return value;
}

int dp_trace_seize(pid_t pid, const char *command, struct dp_error *err)
{
	int yama;

	if (ptrace(PTRACE_SEIZE, pid, NULL, (void *)(PTRACE_O_EXITKILL | PTRACE_O_TRACEEXEC)) == 0)
		return 0;
	yama = read_number("/proc/sys/kernel/yama/ptrace_scope");
	if (yama >= 2)
		return dp_error_set(err, -EPERM,
				    "%.200s: may not be traced: kernel.yama.ptrace_scope is %d; %s",
				    command, yama,
				    yama == 2 ? "run the profiler as root, or with CAP_SYS_PTRACE"
					      : "only a reboot can lower it");
	return dp_error_set(err, -EPERM,
			    "%.200s: may not be traced: ptrace: %s; a seccomp filter forbids it "
			    "(give the container CAP_SYS_PTRACE), or the profiler itself is being "
			    "traced (strace -f, gdb)",
			    command, strerror(errno));
}
