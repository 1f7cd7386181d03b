/* SPDX-License-Identifier: MIT */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/frame.h"
#include "src/locks.h"
#include "tests/alloc_fail.h"
#include "tests/sym_oracle.h"

struct wanted {
	const char *name;
	enum dp_wait_kind kind;
};

/* What the C libraries export. */
static const struct wanted exported[] = {
	{"pthread_mutex_lock", DP_WAIT_MUTEX},
	{"pthread_mutex_timedlock", DP_WAIT_MUTEX},
	{"pthread_mutex_unlock", DP_WAIT_MUTEX},
	{"mtx_lock", DP_WAIT_MUTEX},
	{"mtx_timedlock", DP_WAIT_MUTEX},
	{"mtx_unlock", DP_WAIT_MUTEX},
	{"pthread_rwlock_rdlock", DP_WAIT_RWLOCK},
	{"pthread_rwlock_wrlock", DP_WAIT_RWLOCK},
	{"pthread_rwlock_timedrdlock", DP_WAIT_RWLOCK},
	{"pthread_rwlock_timedwrlock", DP_WAIT_RWLOCK},
	{"pthread_rwlock_unlock", DP_WAIT_RWLOCK},
	{"pthread_cond_wait", DP_WAIT_CONDVAR},
	{"pthread_cond_timedwait", DP_WAIT_CONDVAR},
	{"pthread_cond_signal", DP_WAIT_CONDVAR},
	{"pthread_cond_broadcast", DP_WAIT_CONDVAR},
	{"cnd_wait", DP_WAIT_CONDVAR},
	{"cnd_timedwait", DP_WAIT_CONDVAR},
	{"cnd_signal", DP_WAIT_CONDVAR},
	{"cnd_broadcast", DP_WAIT_CONDVAR},
	{"sem_wait", DP_WAIT_SEMAPHORE},
	{"sem_timedwait", DP_WAIT_SEMAPHORE},
	{"sem_post", DP_WAIT_SEMAPHORE},
	{"pthread_barrier_wait", DP_WAIT_BARRIER},
	{"pthread_join", DP_WAIT_JOIN},
	{"pthread_timedjoin_np", DP_WAIT_JOIN},
	{"thrd_join", DP_WAIT_JOIN},
};

/* Exported by glibc only. */
static const struct wanted exported_by_glibc[] = {
	{"pthread_mutex_clocklock", DP_WAIT_MUTEX},
	{"__lll_lock_wait_private", DP_WAIT_MUTEX},
	{"__lll_lock_wake_private", DP_WAIT_MUTEX},
	{"pthread_rwlock_clockrdlock", DP_WAIT_RWLOCK},
	{"pthread_rwlock_clockwrlock", DP_WAIT_RWLOCK},
	{"pthread_cond_clockwait", DP_WAIT_CONDVAR},
	{"sem_clockwait", DP_WAIT_SEMAPHORE},
	{"pthread_clockjoin_np", DP_WAIT_JOIN},
};

/* Inside glibc, where it has a symbol table. */
static const struct wanted internal_to_glibc[] = {
	{"__pthread_mutex_lock_full", DP_WAIT_MUTEX},
	{"__pthread_mutex_cond_lock", DP_WAIT_MUTEX},
	{"__pthread_mutex_clocklock_common", DP_WAIT_MUTEX},
	{"__pthread_mutex_unlock_usercnt", DP_WAIT_MUTEX},
	{"__lll_lock_wait", DP_WAIT_MUTEX},
	{"__lll_lock_wake", DP_WAIT_MUTEX},
	{"__new_sem_wait", DP_WAIT_SEMAPHORE},
	{"__pthread_clockjoin_ex", DP_WAIT_JOIN},
};

static const struct wanted internal_to_musl[] = {
	{"__pthread_mutex_lock", DP_WAIT_MUTEX},
	{"__pthread_mutex_timedlock", DP_WAIT_MUTEX},
	{"__pthread_rwlock_rdlock", DP_WAIT_RWLOCK},
	{"__pthread_cond_timedwait", DP_WAIT_CONDVAR},
	{"__private_cond_signal", DP_WAIT_CONDVAR},
	{"__pthread_join", DP_WAIT_JOIN},
	{"__lock", DP_WAIT_FUTEX},
};

#define N_OF(array) (sizeof(array) / sizeof((array)[0]))

/* One file looked through, and what nm says of it. */
struct subject {
	struct dp_modules *modules;
	struct dp_locks *locks;
	const char *path;
	uint32_t module;
	struct oracle_function *functions;
	size_t n_functions;
};

static struct subject look_at(const char *path, const char *nm_options)
{
	struct subject subject = {.path = path};

	assert_int_equal(dp_modules_new(&subject.modules), 0);
	subject.module = oracle_add_module(subject.modules, path);
	assert_int_equal(dp_locks_new(&subject.locks, subject.modules), 0);
	assert_int_equal(dp_locks_update(subject.locks), 0);
	subject.functions = oracle_functions(path, nm_options, &subject.n_functions);
	return subject;
}

static void look_away(struct subject *subject)
{
	free(subject->functions);
	dp_locks_free(subject->locks);
	dp_modules_free(subject->modules);
}

static uint64_t frame_at(const struct subject *subject, uint64_t svma)
{
	return dp_frame_make(subject->module, oracle_file_off(subject->path, svma));
}

static enum dp_wait_kind kind_of(const struct dp_locks *locks, uint64_t frame)
{
	size_t i_frame;

	return dp_locks_classify(locks, &frame, 1, &i_frame);
}

/* Every function of that name, from its first byte to its last. */
static void assert_wanted(const struct subject *subject, const struct wanted *wanted, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		size_t n_seen = 0;

		for (size_t k = 0; k < subject->n_functions; k++) {
			const struct oracle_function *f = &subject->functions[k];
			uint64_t first = frame_at(subject, f->svma);

			if (strcmp(f->name, wanted[i].name) != 0)
				continue;
			n_seen++;
			assert_int_equal(kind_of(subject->locks, first), wanted[i].kind);
			assert_int_equal(kind_of(subject->locks, first + f->size_bytes / 2),
					 wanted[i].kind);
			assert_int_equal(kind_of(subject->locks, first + f->size_bytes - 1),
					 wanted[i].kind);
			assert_true(dp_locks_entry(subject->locks, first + f->size_bytes - 1) ==
				    first);
		}
		if (n_seen == 0)
			fail_msg("%s has no %s", subject->path, wanted[i].name);
	}
}

static const char *libc_path(void)
{
	static Dl_info info;

	assert_int_not_equal(dladdr((void *)gnu_get_libc_version, &info), 0);
	return info.dli_fname;
}

/* Where the functions of these names begin: each one's place in *@ret; returns how many. */
static size_t find_listed(const struct subject *subject, const struct wanted *wanted, size_t n,
			  uint64_t *ret)
{
	size_t n_found = 0;

	for (size_t k = 0; k < subject->n_functions; k++) {
		for (size_t i = 0; i < n; i++) {
			if (strcmp(subject->functions[k].name, wanted[i].name) == 0)
				ret[n_found++] = subject->functions[k].svma;
		}
	}
	return n_found;
}

static void every_wait_of_the_real_libc_has_its_kind(void **state)
{
	struct subject libc = look_at(libc_path(), "-D");

	(void)state;
	assert_wanted(&libc, exported, N_OF(exported));
	assert_wanted(&libc, exported_by_glibc, N_OF(exported_by_glibc));
	look_away(&libc);
}

static void no_other_function_of_the_real_libc_is_known(void **state)
{
	static const struct wanted barrier_destroy = {"pthread_barrier_destroy", DP_WAIT_BARRIER};
	struct subject libc = look_at(libc_path(), "-D");
	uint64_t listed[1000];
	size_t n_listed, n_others = 0;

	(void)state;
	n_listed = find_listed(&libc, exported, N_OF(exported), listed);
	n_listed +=
		find_listed(&libc, exported_by_glibc, N_OF(exported_by_glibc), listed + n_listed);
	n_listed += find_listed(&libc, &barrier_destroy, 1, listed + n_listed);
	for (size_t k = 0; k < libc.n_functions; k++) {
		const struct oracle_function *f = &libc.functions[k];
		bool is_listed = false;

		for (size_t i = 0; i < n_listed; i++)
			is_listed |= listed[i] == f->svma;
		if (is_listed)
			continue;
		n_others++;
		if (kind_of(libc.locks, frame_at(&libc, f->svma)) != DP_WAIT_FUTEX)
			fail_msg("%s is taken for a wait", f->name);
	}
	assert_true(n_others > 2000);
	look_away(&libc);
}

static void every_wait_of_a_static_glibc_program_has_its_kind(void **state)
{
	struct subject program = look_at(oracle_sample("locks-static"), "");

	(void)state;
	assert_wanted(&program, exported, N_OF(exported));
	assert_wanted(&program, exported_by_glibc, N_OF(exported_by_glibc));
	assert_wanted(&program, internal_to_glibc, N_OF(internal_to_glibc));
	look_away(&program);
}

static void every_wait_of_a_static_musl_program_has_its_kind(void **state)
{
	struct subject program;

	(void)state;
	if (access(oracle_sample("locks-musl"), F_OK) < 0)
		skip(); /* built without musl-gcc */
	program = look_at(oracle_sample("locks-musl"), "");
	assert_wanted(&program, exported, N_OF(exported));
	assert_wanted(&program, internal_to_musl, N_OF(internal_to_musl));
	look_away(&program);
}

static uint64_t shape(const struct subject *shapes, const char *name, uint64_t offset)
{
	const struct oracle_function *f =
		oracle_function(shapes->functions, shapes->n_functions, name);

	return frame_at(shapes, f->svma) + offset;
}

static void a_nameless_function_that_is_jumped_to_is_known_by_who_jumps(void **state)
{
	struct subject shapes = look_at(oracle_sample("lock-shapes.so"), "-D");
	struct dp_locks *locks = shapes.locks;

	(void)state;
	assert_int_equal(kind_of(locks, shape(&shapes, "sem_wait", 0)), DP_WAIT_SEMAPHORE);
	for (uint64_t i = 0; i <= 100; i++) {
		uint64_t frame = shape(&shapes, "shape_sem_slow", i);

		assert_int_equal(kind_of(locks, frame), DP_WAIT_SEMAPHORE);
		assert_true(dp_locks_entry(locks, frame) == shape(&shapes, "sem_wait", 0));
	}
	assert_int_equal(kind_of(locks, shape(&shapes, "shape_neighbour", 0)), DP_WAIT_FUTEX);
	assert_true(dp_locks_entry(locks, shape(&shapes, "shape_neighbour", 1)) ==
		    shape(&shapes, "shape_neighbour", 1));
	/* Of two that jump there, the entry is the first in the table, not the first in the file.
	 */
	assert_int_equal(kind_of(locks, shape(&shapes, "shape_join", 1)), DP_WAIT_JOIN);
	assert_true(dp_locks_entry(locks, shape(&shapes, "shape_join", 1)) ==
		    shape(&shapes, "pthread_join", 0));
	look_away(&shapes);
}

static void a_function_that_several_kinds_jump_to_is_not_known(void **state)
{
	struct subject shapes = look_at(oracle_sample("lock-shapes.so"), "-D");

	(void)state;
	assert_int_equal(kind_of(shapes.locks, shape(&shapes, "pthread_cond_wait", 0)),
			 DP_WAIT_CONDVAR);
	assert_int_equal(kind_of(shapes.locks, shape(&shapes, "pthread_rwlock_rdlock", 0)),
			 DP_WAIT_RWLOCK);
	assert_int_equal(kind_of(shapes.locks, shape(&shapes, "shape_common", 0)), DP_WAIT_FUTEX);
	look_away(&shapes);
}

static void a_jump_counts_only_if_it_leads_to_where_a_function_begins(void **state)
{
	struct subject shapes = look_at(oracle_sample("lock-shapes.so"), "-D");

	(void)state;
	assert_int_equal(kind_of(shapes.locks, shape(&shapes, "shape_middle", 0)), DP_WAIT_FUTEX);
	assert_int_equal(kind_of(shapes.locks, shape(&shapes, "shape_middle", 1)), DP_WAIT_FUTEX);
	/* A function that has a name of its own keeps it. */
	assert_true(dp_locks_entry(shapes.locks, shape(&shapes, "mtx_lock", 1)) ==
		    shape(&shapes, "mtx_lock", 0));
	look_away(&shapes);
}

static void a_function_without_a_size_reaches_to_the_next_known_one_or_4_kib(void **state)
{
	struct subject shapes = look_at(oracle_sample("lock-shapes.so"), "-D");
	struct dp_locks *locks = shapes.locks;

	(void)state;
	assert_int_equal(kind_of(locks, shape(&shapes, "shape_barrier", 0)), DP_WAIT_BARRIER);
	assert_int_equal(kind_of(locks, shape(&shapes, "shape_post", 0) - 1), DP_WAIT_BARRIER);
	assert_int_equal(kind_of(locks, shape(&shapes, "shape_post", 0)), DP_WAIT_SEMAPHORE);
	assert_int_equal(kind_of(locks, shape(&shapes, "shape_post", 4095)), DP_WAIT_SEMAPHORE);
	assert_int_equal(kind_of(locks, shape(&shapes, "shape_post", 4096)), DP_WAIT_FUTEX);
	assert_int_equal(kind_of(locks, shape(&shapes, "shape_far", 0)), DP_WAIT_FUTEX);
	look_away(&shapes);
}

static void the_innermost_known_function_tells_the_kind(void **state)
{
	struct subject shapes = look_at(oracle_sample("lock-shapes.so"), "-D");
	uint64_t unknown = shape(&shapes, "shape_far", 0);
	uint64_t frames[] = {
		unknown,
		dp_frame_make(0, 0x1234),
		dp_frame_make(99, shape(&shapes, "pthread_mutex_lock", 0)),
		shape(&shapes, "pthread_mutex_lock", 2),
		shape(&shapes, "pthread_cond_wait", 1),
		unknown,
		shape(&shapes, "pthread_join", 0),
	};
	size_t i_frame = 77;

	(void)state;
	assert_int_equal(dp_locks_classify(shapes.locks, frames, 7, &i_frame), DP_WAIT_MUTEX);
	assert_int_equal(i_frame, 3);
	assert_int_equal(dp_locks_classify(shapes.locks, frames + 4, 3, &i_frame), DP_WAIT_CONDVAR);
	assert_int_equal(i_frame, 0);
	assert_int_equal(dp_locks_classify(shapes.locks, frames + 5, 2, &i_frame), DP_WAIT_JOIN);
	assert_int_equal(i_frame, 1);
	assert_int_equal(dp_locks_classify(shapes.locks, frames, 3, &i_frame), DP_WAIT_FUTEX);
	assert_int_equal(i_frame, 0);
	i_frame = 77;
	assert_int_equal(dp_locks_classify(shapes.locks, NULL, 0, &i_frame), DP_WAIT_FUTEX);
	assert_int_equal(i_frame, 0);
	look_away(&shapes);
}

static void kinds_have_the_names_of_the_label_and_two_are_locks(void **state)
{
	static const char *const names[] = {"futex",	 "mutex",   "rwlock", "condvar",
					    "semaphore", "barrier", "join"};

	(void)state;
	assert_int_equal(N_OF(names), DP_N_WAIT_KINDS);
	for (unsigned kind = 0; kind < DP_N_WAIT_KINDS; kind++) {
		assert_string_equal(dp_wait_kind_name(kind), names[kind]);
		assert_int_equal(dp_wait_kind_is_lock(kind),
				 kind == DP_WAIT_MUTEX || kind == DP_WAIT_RWLOCK);
	}
}

static char *copy_of(const char *path)
{
	char *copy = strdup("/tmp/dp-locks-XXXXXX");
	int fd = mkstemp(copy);

	assert_true(fd >= 0);
	close(fd);
	free(oracle_run("cp '%s' '%s'", path, copy));
	return copy;
}

static void a_module_is_looked_at_once_and_a_new_one_when_it_comes(void **state)
{
	char *copy = copy_of(oracle_sample("lock-shapes.so"));
	struct subject shapes = look_at(copy, "-D");
	uint64_t known = shape(&shapes, "mtx_lock", 0);
	uint32_t libc = oracle_add_module(shapes.modules, libc_path());
	size_t n;
	struct oracle_function *functions = oracle_functions(libc_path(), "-D", &n);
	uint64_t in_libc = dp_frame_make(
		libc,
		oracle_file_off(libc_path(), oracle_function(functions, n, "pthread_join")->svma));

	(void)state;
	assert_int_equal(truncate(copy, 0), 0);
	assert_int_equal(kind_of(shapes.locks, in_libc), DP_WAIT_FUTEX);
	assert_int_equal(dp_locks_update(shapes.locks), 0);
	assert_int_equal(kind_of(shapes.locks, in_libc), DP_WAIT_JOIN);
	assert_int_equal(kind_of(shapes.locks, known), DP_WAIT_MUTEX);
	assert_int_equal(dp_locks_update(shapes.locks), 0);
	free(functions);
	look_away(&shapes);
	unlink(copy);
	free(copy);
}

static void without_modules_there_is_nothing_to_know(void **state)
{
	struct dp_modules *modules;
	struct dp_locks *locks;

	(void)state;
	assert_int_equal(dp_modules_new(&modules), 0);
	assert_int_equal(dp_locks_new(&locks, modules), 0);
	assert_int_equal(dp_locks_update(locks), 0);
	assert_int_equal(kind_of(locks, dp_frame_make(1, 0x1000)), DP_WAIT_FUTEX);
	/* What is no ELF file holds nothing either. */
	assert_int_equal(oracle_add_module(modules, "/etc/passwd"), 1);
	assert_int_equal(dp_locks_update(locks), 0);
	assert_int_equal(kind_of(locks, dp_frame_make(1, 0)), DP_WAIT_FUTEX);
	dp_locks_free(locks);
	dp_locks_free(NULL);
	dp_modules_free(modules);
}

/* Bytes of the headers and of the table of functions, changed one at a time. */
static void a_corrupt_file_is_looked_at_without_harm(void **state)
{
	char *copy = copy_of(oracle_sample("lock-shapes.so"));
	char *hdr = oracle_run("readelf -lW '%s' | awk '/GNU_EH_FRAME/ {print $2}'", copy);
	const off_t table = strtol(hdr, NULL, 16);
	int fd = open(copy, O_RDWR | O_CLOEXEC);

	(void)state;
	assert_true(fd >= 0 && table > 0);
	for (off_t i = 0; i < 64 + 56 * 8 + 64; i++) {
		static const uint8_t flips[] = {0x01, 0xff};
		off_t at = i < 64 + 56 * 8 ? i : table + i - (64 + 56 * 8);
		uint8_t old;

		assert_int_equal(pread(fd, &old, 1, at), 1);
		for (size_t k = 0; k < N_OF(flips); k++) {
			uint8_t value = old ^ flips[k];
			struct dp_modules *modules;
			struct dp_locks *locks;

			assert_int_equal(pwrite(fd, &value, 1, at), 1);
			assert_int_equal(dp_modules_new(&modules), 0);
			assert_int_equal(dp_locks_new(&locks, modules), 0);
			oracle_add_module(modules, copy);
			assert_int_equal(dp_locks_update(locks), 0);
			dp_locks_free(locks);
			dp_modules_free(modules);
		}
		assert_int_equal(pwrite(fd, &old, 1, at), 1);
	}
	close(fd);
	unlink(copy);
	free(copy);
	free(hdr);
}

static struct dp_modules *modules_in_question;

static int look_again(void)
{
	struct dp_locks *locks = NULL;
	int r = dp_locks_new(&locks, modules_in_question);

	if (r < 0) {
		assert_null(locks);
		return r;
	}
	r = dp_locks_update(locks);
	if (r < 0) {
		/* The next call goes on from where this one failed. */
		assert_int_equal(dp_locks_update(locks), 0);
	}
	for (uint64_t off = 0, n_known = 0;; off++) {
		n_known += kind_of(locks, dp_frame_make(2, off)) == DP_WAIT_BARRIER;
		if (n_known > 16)
			break;
		assert_true(off < 1 << 16);
	}
	dp_locks_free(locks);
	return r;
}

static void a_look_that_ran_out_of_memory_can_be_had_again(void **state)
{
	(void)state;
	assert_int_equal(dp_modules_new(&modules_in_question), 0);
	oracle_add_module(modules_in_question, libc_path());
	oracle_add_module(modules_in_question, oracle_sample("lock-shapes.so"));
	ALLOC_FAIL_EACH(look_again());
	dp_modules_free(modules_in_question);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_wait_of_the_real_libc_has_its_kind),
		cmocka_unit_test(no_other_function_of_the_real_libc_is_known),
		cmocka_unit_test(every_wait_of_a_static_glibc_program_has_its_kind),
		cmocka_unit_test(every_wait_of_a_static_musl_program_has_its_kind),
		cmocka_unit_test(a_nameless_function_that_is_jumped_to_is_known_by_who_jumps),
		cmocka_unit_test(a_function_that_several_kinds_jump_to_is_not_known),
		cmocka_unit_test(a_jump_counts_only_if_it_leads_to_where_a_function_begins),
		cmocka_unit_test(a_function_without_a_size_reaches_to_the_next_known_one_or_4_kib),
		cmocka_unit_test(the_innermost_known_function_tells_the_kind),
		cmocka_unit_test(kinds_have_the_names_of_the_label_and_two_are_locks),
		cmocka_unit_test(a_module_is_looked_at_once_and_a_new_one_when_it_comes),
		cmocka_unit_test(without_modules_there_is_nothing_to_know),
		cmocka_unit_test(a_corrupt_file_is_looked_at_without_harm),
		cmocka_unit_test(a_look_that_ran_out_of_memory_can_be_had_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
