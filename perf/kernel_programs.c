/* SPDX-License-Identifier: MIT */
/*
 * The one static state of the library is here: the programs are the machine's, not an attach's. A
 * futex call runs them once however many processes are profiled.
 */
#include "perf/kernel_programs.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "perf/kernel.skel.h"
#include "perf/tracefs.h"
#include "src/base/random.h"

#define MAX_LINKS 16

struct dp_kernel_programs {
	struct dp_kernel_bpf *bpf;
	bool has_sessions;
	int n_cpus; /* values of a per-CPU map */
	uint32_t generation;
	uint64_t slots;		/* bit: taken */
	uint64_t watching;	/* bit: of a slot whose waits are observed */
	struct bpf_link *exits; /* the ends of threads */
	struct bpf_link *execs;
	struct bpf_link *links[MAX_LINKS]; /* futex calls and wake-ups */
	size_t n_links;
	int live_fds[DP_KERNEL_MAX_SLOTS];   /* 0: none */
	int parked_fds[DP_KERNEL_MAX_SLOTS]; /* the same */
	uint32_t tgids[DP_KERNEL_MAX_SLOTS]; /* whose waits are observed; 0: none */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct dp_kernel_programs *shared;

static int be_silent(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

static void fill_log_table(struct dp_kernel_bpf *bpf)
{
	for (int i = 0; i <= DP_KERNEL_LOG_STEPS; i++)
		bpf->rodata->log_table[i] =
			(uint64_t)llround(ldexp(log2(1 + (double)i / DP_KERNEL_LOG_STEPS), 32));
}

/* Of the sets of live objects: kernels that have sessions can give programs on probes memory as it
 * is needed (6.1). */
static uint32_t live_flags(bool sessions)
{
	return sessions ? BPF_F_NO_PREALLOC : 0;
}

/* Opens the object and says what is to be loaded of it. Returns NULL with errno set. */
static struct dp_kernel_bpf *open_object(bool sessions, int n_cpus)
{
	struct dp_kernel_bpf *bpf = dp_kernel_bpf__open();
	uint32_t n_outputs = (uint32_t)n_cpus * DP_KERNEL_MAX_SLOTS;

	if (!bpf)
		return NULL;
	fill_log_table(bpf);
	bpf->rodata->n_cpu_ids = (uint32_t)n_cpus;
	bpf_map__set_max_entries(bpf->maps.heap_output, n_outputs);
	bpf_map__set_max_entries(bpf->maps.wait_output, n_outputs);
	bpf_map__set_max_entries(bpf->maps.plain_output, n_outputs);
	bpf_map__set_max_entries(bpf->maps.go_output, n_outputs);
	bpf_map__set_map_flags(bpf_map__inner_map(bpf->maps.live), live_flags(sessions));
	bpf_map__set_map_flags(bpf_map__inner_map(bpf->maps.parked), live_flags(sessions));
	bpf_program__set_autoload(bpf->progs.session, sessions);
	bpf_program__set_autoload(bpf->progs.freed_link, sessions);
	bpf_program__set_autoload(bpf->progs.go_link, sessions);
	bpf_program__set_autoload(bpf->progs.alone_link, sessions);
	bpf_program__set_expected_attach_type(bpf->progs.session,
					      (enum bpf_attach_type)DP_ATTACH_UPROBE_SESSION);
	bpf_program__set_expected_attach_type(bpf->progs.freed_link,
					      (enum bpf_attach_type)DP_ATTACH_UPROBE_MULTI);
	bpf_program__set_expected_attach_type(bpf->progs.go_link,
					      (enum bpf_attach_type)DP_ATTACH_UPROBE_MULTI);
	bpf_program__set_expected_attach_type(bpf->progs.alone_link,
					      (enum bpf_attach_type)DP_ATTACH_UPROBE_MULTI);
	return bpf;
}

/* With sessions where the kernel has them: it does not load their program where not. */
static int load_object(struct dp_kernel_programs *programs)
{
	int r = -ENOENT;

	for (int sessions = 1; r < 0 && sessions >= 0; sessions--) {
		programs->has_sessions = sessions;
		programs->bpf = open_object(sessions, programs->n_cpus);
		if (!programs->bpf)
			return -errno;
		r = dp_kernel_bpf__load(programs->bpf);
		if (r < 0) {
			dp_kernel_bpf__destroy(programs->bpf);
			programs->bpf = NULL;
		}
	}
	return r;
}

static int explain(int code, struct dp_error *err)
{
	switch (code) {
	case -EPERM:
		return dp_error_set(err, code,
				    "loading BPF programs: %s; run as root or with CAP_BPF and "
				    "CAP_PERFMON, or use --sampler direct",
				    strerror(-code));
	default:
		return dp_error_set(err, code,
				    "loading BPF programs: %s; this kernel refuses them or lacks "
				    "something that they need (Linux 5.15 with BTF); use --sampler "
				    "direct",
				    strerror(-code));
	}
}

static void unload(struct dp_kernel_programs *programs)
{
	if (!programs)
		return;
	for (size_t i = 0; i < programs->n_links; i++)
		bpf_link__destroy(programs->links[i]);
	bpf_link__destroy(programs->exits);
	bpf_link__destroy(programs->execs);
	dp_kernel_bpf__destroy(programs->bpf);
	free(programs);
}

/* @group: NULL where the program itself says what it is attached to. */
static int attach(struct bpf_program *program, const char *group, const char *name,
		  struct bpf_link **ret, struct dp_error *err)
{
	struct bpf_link *link = group ? bpf_program__attach_tracepoint(program, group, name)
				      : bpf_program__attach(program);

	if (!link)
		return dp_error_set(err, -errno, "attaching a BPF program to the tracepoint %s: %s",
				    name, strerror(errno));
	*ret = link;
	return 0;
}

static int load(struct dp_kernel_programs **ret, struct dp_error *err)
{
	struct dp_kernel_programs *programs = calloc(1, sizeof(*programs));
	libbpf_print_fn_t print;
	int r;

	if (!programs)
		return dp_error_set(err, -ENOMEM, "loading BPF programs: out of memory");
	programs->n_cpus = libbpf_num_possible_cpus();
	/* It would write to stderr, which is not ours. */
	print = libbpf_set_print(be_silent);
	r = programs->n_cpus < 0 ? programs->n_cpus : load_object(programs);
	if (r < 0)
		explain(r, err);
	if (r == 0)
		r = attach(programs->bpf->progs.thread_exit, NULL, "sched_process_exit",
			   &programs->exits, err);
	if (r == 0)
		r = attach(programs->bpf->progs.process_exec, NULL, "sched_process_exec",
			   &programs->execs, err);
	libbpf_set_print(print);
	if (r < 0) {
		unload(programs);
		return r;
	}
	*ret = programs;
	return 0;
}

static int take_slot(struct dp_kernel_programs *programs, uint32_t *ret_slot, struct dp_error *err)
{
	uint32_t slot = 0;

	while (slot < DP_KERNEL_MAX_SLOTS && (programs->slots >> slot & 1))
		slot++;
	if (slot == DP_KERNEL_MAX_SLOTS)
		return dp_error_set(err, -ENOSPC,
				    "the BPF programs serve no more than %d processes at once",
				    DP_KERNEL_MAX_SLOTS);
	programs->slots |= UINT64_C(1) << slot;
	*ret_slot = slot;
	return 0;
}

int dp_kernel_programs_get(struct dp_kernel_programs **ret, uint32_t *ret_slot,
			   struct dp_error *err)
{
	struct dp_kernel_programs *programs;
	int r = 0;

	pthread_mutex_lock(&lock);
	programs = shared;
	if (!programs)
		r = load(&programs, err);
	if (programs && r == 0)
		r = take_slot(programs, ret_slot, err);
	if (r == 0) {
		shared = programs;
		*ret = programs;
	}
	pthread_mutex_unlock(&lock);
	return r;
}

static void stop_watching(struct dp_kernel_programs *programs)
{
	for (size_t i = 0; i < programs->n_links; i++)
		bpf_link__destroy(programs->links[i]);
	programs->n_links = 0;
}

void dp_kernel_programs_put(struct dp_kernel_programs *programs, uint32_t slot)
{
	pthread_mutex_lock(&lock);
	if (programs->live_fds[slot] > 0) {
		bpf_map_delete_elem(bpf_map__fd(programs->bpf->maps.live), &slot);
		close(programs->live_fds[slot]);
		programs->live_fds[slot] = 0;
	}
	if (programs->parked_fds[slot] > 0) {
		bpf_map_delete_elem(bpf_map__fd(programs->bpf->maps.parked), &slot);
		close(programs->parked_fds[slot]);
		programs->parked_fds[slot] = 0;
	}
	if (programs->tgids[slot] != 0)
		bpf_map_delete_elem(bpf_map__fd(programs->bpf->maps.targets),
				    &programs->tgids[slot]);
	programs->tgids[slot] = 0;
	programs->slots &= ~(UINT64_C(1) << slot);
	programs->watching &= programs->slots;
	if (programs->watching == 0)
		stop_watching(programs);
	if (programs->slots == 0) {
		unload(programs);
		shared = NULL;
	}
	pthread_mutex_unlock(&lock);
}

uint32_t dp_kernel_programs_next_generation(struct dp_kernel_programs *programs)
{
	uint32_t generation;

	pthread_mutex_lock(&lock);
	generation = ++programs->generation;
	pthread_mutex_unlock(&lock);
	return generation;
}

int dp_kernel_programs_fd(const struct dp_kernel_programs *programs, enum dp_kernel_program program)
{
	const struct dp_kernel_bpf *bpf = programs->bpf;

	switch (program) {
	case DP_KERNEL_PROGRAM_SESSION:
		return programs->has_sessions ? bpf_program__fd(bpf->progs.session) : -1;
	case DP_KERNEL_PROGRAM_FREED_LINK:
		return programs->has_sessions ? bpf_program__fd(bpf->progs.freed_link) : -1;
	case DP_KERNEL_PROGRAM_ENTERED:
		return bpf_program__fd(bpf->progs.entered);
	case DP_KERNEL_PROGRAM_RETURNED:
		return bpf_program__fd(bpf->progs.returned);
	case DP_KERNEL_PROGRAM_FREED:
		return bpf_program__fd(bpf->progs.freed);
	case DP_KERNEL_PROGRAM_GO_LINK:
		return programs->has_sessions ? bpf_program__fd(bpf->progs.go_link) : -1;
	case DP_KERNEL_PROGRAM_GO:
		return bpf_program__fd(bpf->progs.go_hit);
	case DP_KERNEL_PROGRAM_ALONE:
		return bpf_program__fd(bpf->progs.alone);
	case DP_KERNEL_PROGRAM_ALONE_LINK:
		return programs->has_sessions ? bpf_program__fd(bpf->progs.alone_link) : -1;
	}
	return -1;
}

size_t dp_kernel_programs_n_fds(const struct dp_kernel_programs *programs)
{
	const struct bpf_object *object = programs->bpf->obj;
	struct bpf_program *program;
	struct bpf_map *map;
	size_t n = 1; /* the types */

	bpf_object__for_each_program(program, object) n += bpf_program__fd(program) >= 0;
	bpf_object__for_each_map(map, object) n += bpf_map__fd(map) >= 0;
	/* The link of a system call's tracepoint is one of an event; the others are of none. */
	n += 2 * programs->n_links + 2;
	if (programs->n_links > 0)
		n--;
	for (size_t i = 0; i < DP_KERNEL_MAX_SLOTS; i++)
		n += (programs->live_fds[i] > 0) + (programs->parked_fds[i] > 0);
	return n;
}

static int watch(struct dp_kernel_programs *programs, struct dp_error *err)
{
	const struct {
		struct bpf_program *program;
		const char *group, *name;
		bool optional; /* the newer calls */
	} tracepoints[] = {
		{programs->bpf->progs.futex_exit, "syscalls", "sys_exit_futex", false},
		{programs->bpf->progs.futex_exit, "syscalls", "sys_exit_futex_wait", true},
		{programs->bpf->progs.futex_exit, "syscalls", "sys_exit_futex_waitv", true},
		{programs->bpf->progs.futex_exit, "syscalls", "sys_exit_futex_wake", true},
		{programs->bpf->progs.futex_exit, "syscalls", "sys_exit_futex_requeue", true},
		{programs->bpf->progs.futex_enter, "syscalls", "sys_enter_futex", false},
		{programs->bpf->progs.futex_wait_enter, "syscalls", "sys_enter_futex_wait", true},
		{programs->bpf->progs.futex_wait_enter, "syscalls", "sys_enter_futex_waitv", true},
		{programs->bpf->progs.futex_wake_enter, "syscalls", "sys_enter_futex_wake", true},
		{programs->bpf->progs.futex_wake_enter, "syscalls", "sys_enter_futex_requeue",
		 true},
	};
	struct dp_tracefs *tracefs;
	/* Mounts it, if it is not: libbpf finds tracepoints there. */
	int r = dp_tracefs_open(&tracefs, err);

	if (r < 0)
		return r;
	dp_tracefs_close(tracefs);
	r = attach(programs->bpf->progs.wakes, NULL, "sched_waking", &programs->links[0], err);
	programs->n_links = r == 0;

	for (size_t i = 0; r == 0 && i < sizeof(tracepoints) / sizeof(tracepoints[0]); i++) {
		r = attach(tracepoints[i].program, tracepoints[i].group, tracepoints[i].name,
			   &programs->links[programs->n_links], err);
		if (r == 0)
			programs->n_links++;
		else if (r == -ENOENT && tracepoints[i].optional)
			r = 0;
	}
	if (r < 0)
		stop_watching(programs);
	return r;
}

/* The process's waits are the slot's. */
static int take_waits(struct dp_kernel_programs *programs, uint32_t slot, uint32_t tgid,
		      struct dp_error *err)
{
	int r = bpf_map_update_elem(bpf_map__fd(programs->bpf->maps.targets), &tgid, &slot,
				    BPF_NOEXIST);

	if (r == -EEXIST)
		return dp_error_set(err, r,
				    "pid %u: this program has its waits observed by the kernel "
				    "sampler already; use --sampler direct for the second time",
				    tgid);
	if (r < 0)
		return dp_error_set(err, r, "preparing BPF maps: %s", strerror(-r));
	programs->tgids[slot] = tgid;
	return 0;
}

int dp_kernel_programs_watch_waits(struct dp_kernel_programs *programs, uint32_t slot,
				   uint32_t tgid, struct dp_error *err)
{
	libbpf_print_fn_t print;
	int r;

	pthread_mutex_lock(&lock);
	print = libbpf_set_print(be_silent);
	r = take_waits(programs, slot, tgid, err);
	if (r == 0 && programs->watching == 0)
		r = watch(programs, err);
	libbpf_set_print(print);
	if (r == 0)
		programs->watching |= UINT64_C(1) << slot;
	pthread_mutex_unlock(&lock);
	return r;
}

static int reset_cpus(struct dp_kernel_programs *programs, uint32_t slot, uint64_t seed,
		      uint64_t rate_bytes)
{
	size_t n = (size_t)programs->n_cpus;
	struct dp_kernel_cpu *cpus = calloc(n, sizeof(*cpus));
	struct dp_random random;
	int r;

	if (!cpus)
		return -ENOMEM;
	dp_random_seed(&random, seed);
	for (size_t i = 0; i < n; i++) {
		cpus[i].countdown_bytes =
			(int64_t)dp_random_exponential(&random, (double)rate_bytes) + 1;
		cpus[i].random = dp_random_u64(&random);
	}
	r = bpf_map_update_elem(bpf_map__fd(programs->bpf->maps.cpus), &slot, cpus, BPF_ANY);
	free(cpus);
	return r;
}

static int reset_sites(struct dp_kernel_programs *programs, uint32_t slot)
{
	const struct dp_kernel_site unknown = {.nests = 0};
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < DP_KERNEL_MAX_SITES; i++) {
		uint32_t key = slot * DP_KERNEL_MAX_SITES + i;

		r = bpf_map_update_elem(bpf_map__fd(programs->bpf->maps.sites), &key, &unknown,
					BPF_ANY);
	}
	return r;
}

static int reset_live(struct dp_kernel_programs *programs, uint32_t slot, uint32_t max_live)
{
	const struct bpf_map_create_opts options = {
		.sz = sizeof(options), .map_flags = live_flags(programs->has_sessions)};
	int fd = bpf_map_create(BPF_MAP_TYPE_HASH, "dp_live", sizeof(uint64_t), sizeof(uint64_t),
				max_live, &options);

	if (fd < 0)
		return fd;
	programs->live_fds[slot] = fd;
	return bpf_map_update_elem(bpf_map__fd(programs->bpf->maps.live), &slot, &fd, BPF_ANY);
}

int dp_kernel_programs_reset(struct dp_kernel_programs *programs, uint32_t slot, uint64_t seed,
			     uint64_t rate_bytes, uint32_t max_live, struct dp_error *err)
{
	int r = reset_cpus(programs, slot, seed, rate_bytes);

	if (r == 0)
		r = reset_sites(programs, slot);
	if (r == 0)
		r = reset_live(programs, slot, max_live);
	if (r < 0)
		return dp_error_set(err, r, "preparing BPF maps: %s", strerror(-r));
	return 0;
}

int dp_kernel_programs_watch_go(struct dp_kernel_programs *programs, uint32_t slot,
				struct dp_error *err)
{
	const struct bpf_map_create_opts options = {
		.sz = sizeof(options), .map_flags = live_flags(programs->has_sessions)};
	/* Without sessions all of its memory is taken at once. */
	const uint32_t n_max =
		programs->has_sessions ? DP_KERNEL_MAX_PARKED : DP_KERNEL_MAX_PARKED / 16;
	int fd = bpf_map_create(BPF_MAP_TYPE_HASH, "dp_parked", sizeof(uint64_t),
				2 * sizeof(uint64_t), n_max, &options);
	int r = fd;

	if (fd >= 0) {
		programs->parked_fds[slot] = fd;
		r = bpf_map_update_elem(bpf_map__fd(programs->bpf->maps.parked), &slot, &fd,
					BPF_ANY);
	}
	if (r < 0)
		return dp_error_set(err, r, "preparing BPF maps: %s", strerror(-r));
	return 0;
}

int dp_kernel_programs_set_code(struct dp_kernel_programs *programs, uint32_t slot,
				const struct dp_kernel_code *code)
{
	return bpf_map_update_elem(bpf_map__fd(programs->bpf->maps.codes), &slot, code, BPF_ANY);
}

int dp_kernel_programs_configure(struct dp_kernel_programs *programs, uint32_t slot,
				 const struct dp_kernel_config *config)
{
	return bpf_map_update_elem(bpf_map__fd(programs->bpf->maps.configs), &slot, config,
				   BPF_ANY);
}

int dp_kernel_programs_set_output(struct dp_kernel_programs *programs, uint32_t slot,
				  enum dp_kernel_output output, int cpu, int fd)
{
	const struct bpf_map *const maps[DP_KERNEL_N_OUTPUTS] = {
		[DP_KERNEL_OUTPUT_HEAP] = programs->bpf->maps.heap_output,
		[DP_KERNEL_OUTPUT_WAIT] = programs->bpf->maps.wait_output,
		[DP_KERNEL_OUTPUT_PLAIN] = programs->bpf->maps.plain_output,
		[DP_KERNEL_OUTPUT_GO] = programs->bpf->maps.go_output};
	uint32_t key = slot * (uint32_t)programs->n_cpus + (uint32_t)cpu;

	return bpf_map_update_elem(bpf_map__fd(maps[output]), &key, &fd, BPF_ANY);
}

void dp_kernel_programs_count(const struct dp_kernel_programs *programs, uint32_t slot,
			      struct dp_kernel_counts *ret)
{
	size_t n = (size_t)programs->n_cpus;
	struct dp_kernel_cpu *cpus = calloc(n, sizeof(*cpus));
	uint64_t *sums = (uint64_t *)ret;

	*ret = (struct dp_kernel_counts){0};
	if (!cpus || bpf_map_lookup_elem(bpf_map__fd(programs->bpf->maps.cpus), &slot, cpus) < 0)
		goto out;
	for (size_t i = 0; i < n; i++) {
		const uint64_t *counts = (const uint64_t *)&cpus[i].counts;

		for (size_t j = 0; j < sizeof(*ret) / sizeof(*sums); j++)
			sums[j] += counts[j];
	}
out:
	free(cpus);
}
