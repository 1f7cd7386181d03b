/* SPDX-License-Identifier: MIT */
/*
 * Proves the placement of probes in the allocators of this machine, in three ways that share no
 * code with it: by executing each function step by step, by the text that objdump prints, and by
 * what its callers see.
 */
#include <fcntl.h>
#include <gelf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "perf/arch.h"
#include "tests/listing.h"
#include "tests/tracee.h"

#define MAX_LINE_STEPS 64      /* from the entry to a probe */
#define MAX_CALL_STEPS 1000000 /* of a whole call */

#define N_MAX_CALLS 4

/* Arguments that stand for something that is known only while the test runs. */
#define OBJECT 0xfffffffffffffff1 /* an object that malloc returned */
#define SLOT 0xfffffffffffffff2	  /* a place for posix_memalign's result */

#define HUGE ((uint64_t)1 << 62)

/* Functions, how many arguments they have, and calls that end well. */
static const struct function {
	const char *name;
	unsigned n_args;
	unsigned n_calls;
	uint64_t calls[N_MAX_CALLS][3];
} functions[] = {
	{"malloc", 1, 4, {{0}, {24}, {100000}, {HUGE}}},
	{"calloc", 2, 4, {{0, 8}, {3, 8}, {10, 1000}, {HUGE, HUGE}}},
	{"realloc", 2, 4, {{0, 24}, {OBJECT, 200}, {OBJECT, 0}, {OBJECT, HUGE}}},
	{"reallocarray", 3, 3, {{0, 3, 8}, {OBJECT, 30, 8}, {OBJECT, HUGE, 8}}},
	{"free", 1, 2, {{0}, {OBJECT}}},
	{"memalign", 2, 3, {{64, 100}, {4096, 100000}, {16, HUGE}}},
	{"aligned_alloc", 2, 3, {{64, 128}, {4096, 8192}, {16, HUGE}}},
	{"posix_memalign", 3, 3, {{SLOT, 64, 100}, {SLOT, 3, 100}, {SLOT, 4096, HUGE}}},
	{"valloc", 1, 2, {{100}, {HUGE}}},
	{"pvalloc", 1, 2, {{100}, {HUGE}}},
};

#define N_FUNCTIONS (sizeof(functions) / sizeof(functions[0]))

/* A function as it lies in a file. */
struct code {
	uint64_t svma;
	size_t n_bytes;
	uint8_t bytes[4096];
};

/* What the library under test is examined by. */
struct subject {
	char path[4096];
	Elf *elf;
	int fd;
	struct listing listing;
	struct tracee tracee;
};

static void open_subject(struct subject *s, const char *path, bool is_program)
{
	*s = (struct subject){0};
	if (!realpath(path, s->path))
		fail_msg("%s is not installed", path);
	elf_version(EV_CURRENT);
	s->fd = open(s->path, O_RDONLY | O_CLOEXEC);
	s->elf = elf_begin(s->fd, ELF_C_READ, NULL);
	assert_non_null(s->elf);
	assert_true(listing_load(&s->listing, s->path));
	assert_true(tracee_start(&s->tracee, s->path, is_program));
}

static void close_subject(struct subject *s)
{
	tracee_end(&s->tracee);
	listing_free(&s->listing);
	elf_end(s->elf);
	close(s->fd);
}

static void read_code(struct subject *s, const GElf_Sym *symbol, struct code *ret)
{
	size_t n_headers;

	ret->svma = symbol->st_value;
	ret->n_bytes = symbol->st_size < sizeof(ret->bytes) ? symbol->st_size : sizeof(ret->bytes);
	assert_int_equal(elf_getphdrnum(s->elf, &n_headers), 0);
	for (size_t i = 0; i < n_headers; i++) {
		GElf_Phdr header;

		assert_non_null(gelf_getphdr(s->elf, (int)i, &header));
		if (header.p_type == PT_LOAD && symbol->st_value >= header.p_vaddr &&
		    symbol->st_value < header.p_vaddr + header.p_filesz) {
			uint64_t offset = symbol->st_value - header.p_vaddr + header.p_offset;

			assert_int_equal(pread(s->fd, ret->bytes, ret->n_bytes, (off_t)offset),
					 ret->n_bytes);
			return;
		}
	}
	fail_msg("%s: no segment holds %#lx", s->path, (unsigned long)symbol->st_value);
}

static bool find_function(struct subject *s, const char *name, struct code *ret)
{
	Elf_Scn *section = NULL;

	while ((section = elf_nextscn(s->elf, section))) {
		GElf_Shdr header;
		GElf_Sym symbol;

		if (!gelf_getshdr(section, &header) || header.sh_type != SHT_DYNSYM)
			continue;
		for (int i = 0; gelf_getsym(elf_getdata(section, NULL), i, &symbol); i++) {
			const char *found = elf_strptr(s->elf, header.sh_link, symbol.st_name);

			if (GELF_ST_TYPE(symbol.st_info) == STT_FUNC && symbol.st_shndx && found &&
			    strcmp(found, name) == 0) {
				read_code(s, &symbol, ret);
				return true;
			}
		}
	}
	return false;
}

static void expect_as_at_entry(struct subject *s, const struct user_regs_struct *entry,
			       const struct user_regs_struct *now, unsigned arg_mask,
			       uint64_t return_address)
{
	assert_int_equal(now->rsp, entry->rsp);
	assert_int_equal(tracee_word(&s->tracee, now->rsp), return_address);
	if (arg_mask & DP_ARG(0))
		assert_int_equal(now->rdi, entry->rdi);
	if (arg_mask & DP_ARG(1))
		assert_int_equal(now->rsi, entry->rsi);
	if (arg_mask & DP_ARG(2))
		assert_int_equal(now->rdx, entry->rdx);
}

/* Steps from the entry to the probe with many values of the arguments, sensible or not: each of
 * them has to get there on the straight line. */
static void expect_reached_unchanged(struct subject *s, const struct code *code,
				     const struct dp_placement *place, unsigned arg_mask)
{
	static const uint64_t values[] = {0,
					  1,
					  2,
					  8,
					  24,
					  1024,
					  4096,
					  100000,
					  0x7fffffff,
					  0x80000000,
					  0x100000000,
					  0x7ffffffff000,
					  INT64_MAX,
					  (uint64_t)INT64_MIN,
					  0x1111222233334444,
					  UINT64_MAX};
	const size_t n = sizeof(values) / sizeof(values[0]);
	const uint64_t probe = s->tracee.base + code->svma + place->offset_bytes;

	for (size_t i = 0; i < n; i++) {
		uint64_t args[] = {values[i], values[(i + 5) % n], values[(i + 10) % n]};
		struct user_regs_struct entry, now;
		uint64_t return_address;
		unsigned n_steps = 0;

		tracee_call(&s->tracee, code->svma, args, &entry);
		return_address = tracee_word(&s->tracee, entry.rsp);
		now = entry;
		while (now.rip != probe) {
			uint64_t before = now.rip;

			assert_true(n_steps++ < MAX_LINE_STEPS);
			assert_true(tracee_step(&s->tracee, &now));
			assert_true(now.rip > before);
		}
		expect_as_at_entry(s, &entry, &now, arg_mask, return_address);
	}
}

/*
 * Executes a whole call and watches entry and probe: every time the entry was passed, by the call
 * itself or by what it calls, the probe has to be passed once, with the same stack pointer and
 * arguments. Returns the call's result.
 */
static uint64_t expect_hit_once_per_call(struct subject *s, const struct code *code,
					 const struct dp_placement *place, unsigned arg_mask,
					 const uint64_t *args)
{
	const uint64_t entry_avma = s->tracee.base + code->svma;
	struct user_regs_struct now, entry, outermost;
	unsigned n_steps = 0, n_entries = 0, n_probes = 0;

	tracee_call(&s->tracee, code->svma, args, &outermost);
	now = outermost;
	while (!tracee_returned(&s->tracee, &now)) {
		if (now.rip == entry_avma) {
			assert_int_equal(n_entries, n_probes);
			n_entries++;
			entry = now;
		}
		if (now.rip == entry_avma + place->offset_bytes) {
			n_probes++;
			assert_int_equal(n_entries, n_probes);
			expect_as_at_entry(s, &entry, &now, arg_mask,
					   tracee_word(&s->tracee, entry.rsp));
		}
		assert_true(n_steps++ < MAX_CALL_STEPS);
		assert_true(tracee_step(&s->tracee, &now));
	}
	assert_true(n_probes > 0);
	assert_int_equal(n_entries, n_probes);
	assert_int_equal(now.rsp, outermost.rsp + dp_arch.return_sp_delta_bytes);
	return now.rax;
}

static uint64_t new_object(struct subject *s)
{
	static const uint64_t args[3] = {100};
	const struct dp_placement entry = {0};
	struct code code;
	uint64_t object;

	assert_true(find_function(s, "malloc", &code));
	object = expect_hit_once_per_call(s, &code, &entry, 1, args);
	assert_int_not_equal(object, 0);
	return object;
}

static void expect_whole_calls(struct subject *s, const struct function *function,
			       const struct code *code, const struct dp_placement *place,
			       unsigned arg_mask)
{
	for (unsigned i = 0; i < function->n_calls; i++) {
		uint64_t args[3];

		for (unsigned j = 0; j < 3; j++) {
			args[j] = function->calls[i][j];
			if (args[j] == OBJECT)
				args[j] = new_object(s);
			else if (args[j] == SLOT)
				args[j] = tracee_slot(&s->tracee);
		}
		expect_hit_once_per_call(s, code, place, arg_mask, args);
	}
}

/* Goes through objdump's text by the same rules and has to come to the same instruction. */
static void expect_same_by_text(struct subject *s, const struct code *code,
				const struct dp_placement *place, unsigned arg_mask)
{
	const struct listing_line *line = listing_find(&s->listing, code->svma);
	const uint64_t end = code->svma + code->n_bytes;

	assert_non_null(line);
	while (line->address < end && !listing_is_emulated(line->text) &&
	       listing_keeps(line->text, arg_mask))
		line++;
	if (line->address >= end || !listing_is_emulated(line->text)) {
		assert_int_equal(place->offset_bytes, 0);
		assert_false(place->emulated);
		return;
	}
	assert_int_equal(code->svma + place->offset_bytes, line->address);
	assert_true(place->emulated);
	if (place->offset_bytes > 0)
		assert_false(listing_jumps_into(&s->listing, code->svma + 1, line->address));
}

static void examine_function(struct subject *s, const struct function *function)
{
	const unsigned all_args = (1u << function->n_args) - 1;
	struct dp_placement place;
	struct code code;

	if (!find_function(s, function->name, &code)) {
		print_message("  %-15s not in this library\n", function->name);
		return;
	}
	for (unsigned mask = 1; mask <= all_args; mask++) { /* ends with all of them */
		if (mask & ~all_args)
			continue;
		assert_int_equal(dp_arch_place(code.bytes, code.n_bytes, mask, &place), 0);
		expect_same_by_text(s, &code, &place, mask);
		expect_reached_unchanged(s, &code, &place, mask);
	}
	expect_whole_calls(s, function, &code, &place, all_args);
	print_message("  %-15s +%-3u %-12s %s\n", function->name, place.offset_bytes,
		      place.emulated ? "emulated" : "single-step", place.why);
}

static void examine(const char *path, bool is_program, unsigned n_expected)
{
	struct subject s;
	unsigned n = 0;

	open_subject(&s, path, is_program);
	print_message("%s\n", s.path);
	for (size_t i = 0; i < N_FUNCTIONS; i++) {
		struct code code;

		n += find_function(&s, functions[i].name, &code);
		examine_function(&s, &functions[i]);
	}
	assert_true(n >= n_expected);
	close_subject(&s);
}

#define LIBRARIES "/usr/lib/x86_64-linux-gnu/"

static void glibc_is_probed_where_all_is_as_at_the_entry(void **state)
{
	(void)state;
	examine(LIBRARIES "libc.so.6", false, 10);
}

static void jemalloc_is_probed_where_all_is_as_at_the_entry(void **state)
{
	(void)state;
	examine(LIBRARIES "libjemalloc.so.2", false, 8); /* no reallocarray, pvalloc */
}

static void tcmalloc_is_probed_where_all_is_as_at_the_entry(void **state)
{
	(void)state;
	examine(LIBRARIES "libtcmalloc_minimal.so.4", false, 9); /* no reallocarray */
}

static void mimalloc_is_probed_where_all_is_as_at_the_entry(void **state)
{
	(void)state;
	examine(LIBRARIES "libmimalloc.so.2", false, 10);
}

static void musl_is_probed_where_all_is_as_at_the_entry(void **state)
{
	(void)state;
	examine("/lib/ld-musl-x86_64.so.1", true, 9); /* no pvalloc */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(glibc_is_probed_where_all_is_as_at_the_entry),
		cmocka_unit_test(jemalloc_is_probed_where_all_is_as_at_the_entry),
		cmocka_unit_test(tcmalloc_is_probed_where_all_is_as_at_the_entry),
		cmocka_unit_test(mimalloc_is_probed_where_all_is_as_at_the_entry),
		cmocka_unit_test(musl_is_probed_where_all_is_as_at_the_entry),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
