/* SPDX-License-Identifier: MIT */
/* Writes one file per kind of record into a directory: the inputs that fuzz_record begins with. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/captured_records.h"
#include "tests/sample_builder.h"

static void write_file(const char *directory, const char *name, const void *bytes, size_t n_bytes)
{
	char path[4096];
	FILE *file;

	if ((size_t)snprintf(path, sizeof(path), "%s/%s", directory, name) >= sizeof(path)) {
		fprintf(stderr, "fuzz_record_seeds: %s: the name is too long\n", directory);
		exit(1);
	}
	file = fopen(path, "wb");
	if (!file || fwrite(bytes, 1, n_bytes, file) != n_bytes || fclose(file)) {
		perror(path);
		exit(1);
	}
}

static void write_built(const char *directory)
{
	static _Alignas(8) uint8_t bytes[SAMPLE_MAX_BYTES];
	static const uint64_t chain[127];
	static const uint8_t stack[16];
	static const struct {
		const char *name;
		struct dp_event event;
	} seeds[] = {
		{"entry", {.type = DP_EVENT_ALLOC_ENTRY}},
		{"entry_deep",
		 {.type = DP_EVENT_ALLOC_ENTRY,
		  .entry = {.user = {.callchain = chain, .n_callchain = 127}}}},
		{"return", {.type = DP_EVENT_ALLOC_RETURN}},
		{"free", {.type = DP_EVENT_FREE}},
		{"futex_enter", {.type = DP_EVENT_FUTEX_ENTER}},
		{"futex_exit", {.type = DP_EVENT_FUTEX_EXIT}},
		{"futex_exit_user",
		 {.type = DP_EVENT_FUTEX_EXIT,
		  .futex_exit = {.user = {.has_regs = true, .stack = stack, .stack_bytes = 16}}}},
		{"waking_stack",
		 {.type = DP_EVENT_WAKING, .waking = {.user = {.stack = stack, .stack_bytes = 9}}}},
		{"waking_regs", {.type = DP_EVENT_WAKING, .waking = {.user = {.has_regs = true}}}},
		{"mmap", {.type = DP_EVENT_MMAP, .mmap = {.path = "//anon"}}},
		{"mmap_build_id",
		 {.type = DP_EVENT_MMAP, .mmap = {.path = "/lib/x.so", .build_id_bytes = 20}}},
		{"comm", {.type = DP_EVENT_COMM, .comm = {.name = "name"}}},
		{"fork", {.type = DP_EVENT_FORK}},
		{"exit", {.type = DP_EVENT_EXIT}},
		{"lost", {.type = DP_EVENT_LOST}},
	};

	for (size_t i = 0; i < sizeof(seeds) / sizeof(seeds[0]); i++) {
		size_t n_bytes = sample_build(bytes, &sample_layout, &seeds[i].event);

		write_file(directory, seeds[i].name, bytes, n_bytes);
	}
}

#define WRITE_CAPTURED(name) \
	write_file(directory, "captured_" #name, captured_##name, sizeof(captured_##name))

static void write_captured(const char *directory)
{
	WRITE_CAPTURED(alloc_entry);
	WRITE_CAPTURED(alloc_return);
	WRITE_CAPTURED(free);
	WRITE_CAPTURED(futex_enter);
	WRITE_CAPTURED(futex_exit);
	WRITE_CAPTURED(futex_exit_cut);
	WRITE_CAPTURED(futex_woke);
	WRITE_CAPTURED(waking);
	WRITE_CAPTURED(waking_idle);
	WRITE_CAPTURED(mmap2_inode);
	WRITE_CAPTURED(mmap2_build_id);
	WRITE_CAPTURED(mmap2_uprobes);
	WRITE_CAPTURED(comm_rename);
	WRITE_CAPTURED(comm_exec);
	WRITE_CAPTURED(fork);
	WRITE_CAPTURED(exit);
	WRITE_CAPTURED(lost);
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: fuzz_record_seeds DIRECTORY\n");
		return 2;
	}
	write_built(argv[1]);
	write_captured(argv[1]);
	return 0;
}
