// SPDX-License-Identifier: MIT
/*
 * How long the profile of one interval takes, from cumulative counters to a file, when every one of
 * its stacks changed. The parts are those of src/profiler in their order; the addresses are those
 * after call instructions in the files that this very program has mapped, so that there is debug
 * information and a symbol table to read. The first interval has everything to look up; the second
 * has the same stacks again.
 *
 * usage: bench_write DIRECTORY [STACKS]
 *
 *     writes  DIRECTORY/I.addresses     for addr2line: a file's path, then its addresses, a line
 *                                       each, of the file that is the I-th
 *     prints  STAGE FIRST-NS SECOND-NS  for each stage
 *             size STACKS LOCATIONS FILE-BYTES
 */
#include <errno.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "encode/gzip.h"
#include "encode/pprof.h"
#include "encode/sink.h"
#include "src/base/array.h"
#include "src/base/clock.h"
#include "src/base/frame.h"
#include "src/base/hash.h"
#include "src/delta.h"
#include "src/heap.h"
#include "src/report.h"
#include "src/stack.h"
#include "symbolize/module.h"
#include "symbolize/space.h"
#include "symbolize/symbolizer.h"

#define DEPTH 24
#define N_ADDRESSES 8192 /* distinct ones in all stacks, as a large program has them */
#define FAN_OUT 4	 /* of the stacks' tree */
#define MAX_STACKS 1000000ul
#define CALL 0xe8 /* x86-64: call rel32 */
#define CALL_BYTES 5

enum stage { DELTA, NAMES, BUILD, PACK, GZIP, FILE_WRITE, N_STAGES };

static const char *const stage_names[N_STAGES] = {"difference", "names", "profile",
						  "protobuf",	"gzip",	 "file"};

struct writer {
	const char *directory;
	struct dp_modules *modules;
	struct dp_space *space;
	struct dp_symbolizer *symbolizer;
	struct dp_stacks *stacks;
	struct dp_heap *heap;
	struct dp_delta *delta;
	uint64_t *avmas; /* of call instructions */
	size_t n_avmas, capacity;
	uint64_t frames[N_ADDRESSES];
	size_t n_stacks;
	uint64_t n_locations;
	size_t file_bytes;
};

/* ---- the stacks ----------------------------------------------------------------------------- */

/* A call stays within its mapping, or it is no call. */
static int find_calls(struct writer *writer, const struct dp_space_range *range)
{
	const uint8_t *text = (const uint8_t *)(uintptr_t)range->start;
	size_t n_bytes = range->end - range->start;
	int r = 0;

	for (size_t i = 0; i + CALL_BYTES < n_bytes && r == 0; i++) {
		int32_t distance;

		if (text[i] != CALL)
			continue;
		memcpy(&distance, text + i + 1, sizeof(distance));
		if ((int64_t)i + CALL_BYTES + distance < 0 ||
		    (int64_t)i + CALL_BYTES + distance >= (int64_t)n_bytes)
			continue;
		r = dp_array_reserve((void **)&writer->avmas, &writer->capacity,
				     writer->n_avmas + 1, sizeof(*writer->avmas));
		if (r == 0)
			writer->avmas[writer->n_avmas++] = range->start + i;
		i += CALL_BYTES - 1;
	}
	return r;
}

/* Draws N_ADDRESSES of all calls, each once. */
static int choose_addresses(struct writer *writer)
{
	size_t n_ranges;
	const struct dp_space_range *ranges = dp_space_ranges(writer->space, &n_ranges);
	int r = 0;

	for (size_t i = 0; i < n_ranges && r == 0; i++) {
		struct dp_module_info info;

		if (dp_module_get(writer->modules, ranges[i].module, &info) &&
		    info.kind == DP_MODULE_ELF)
			r = find_calls(writer, &ranges[i]);
	}
	if (r == 0 && writer->n_avmas < N_ADDRESSES)
		r = -ERANGE;
	for (size_t i = 0; i < N_ADDRESSES && r == 0; i++) {
		size_t j = i + dp_hash_u64(i + 1) % (writer->n_avmas - i);
		uint64_t avma = writer->avmas[j];

		writer->avmas[j] = writer->avmas[i];
		writer->avmas[i] = avma;
		/* What a return address is looked up by: the call's last byte. */
		writer->frames[i] = dp_space_frame(writer->space, avma + CALL_BYTES - 1);
	}
	return r;
}

/* Stack @i is a leaf of a tree: its frames at a level are those of all with the same ancestors. */
static int make_stacks(struct writer *writer)
{
	for (size_t i = 0; i < writer->n_stacks; i++) {
		uint64_t frames[DEPTH], ancestor = i;

		for (size_t level = 0; level < DEPTH; level++) {
			uint64_t hash = dp_hash_u64((ancestor + 1) * DEPTH + level);

			frames[level] = writer->frames[hash % N_ADDRESSES];
			/* Two levels of each tree level: a chain is not a fork at every call. */
			if (level % 2 == 1)
				ancestor /= FAN_OUT;
		}
		dp_stacks_intern(writer->stacks, frames, DEPTH);
	}
	return dp_stacks_count(writer->stacks) < writer->n_stacks ? -EEXIST : 0;
}

/* ---- for addr2line -------------------------------------------------------------------------- */

struct listing {
	const struct writer *writer;
	unsigned n_files;
};

static bool holds(const struct dl_phdr_info *file, uint64_t avma)
{
	for (size_t i = 0; i < file->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &file->dlpi_phdr[i];
		uint64_t start = file->dlpi_addr + segment->p_vaddr;

		if (segment->p_type == PT_LOAD && avma >= start && avma < start + segment->p_memsz)
			return true;
	}
	return false;
}

static int list_file(struct dl_phdr_info *file, size_t n_bytes, void *context)
{
	struct listing *listing = context;
	const struct writer *writer = listing->writer;
	char path[4096];
	FILE *stream;

	(void)n_bytes;
	snprintf(path, sizeof(path), "%s/%u.addresses", writer->directory, listing->n_files++);
	stream = fopen(path, "w");
	if (!stream)
		return -errno;
	fprintf(stream, "%s\n", *file->dlpi_name ? file->dlpi_name : "/proc/self/exe");
	for (size_t i = 0; i < N_ADDRESSES; i++) {
		if (holds(file, writer->avmas[i]))
			fprintf(stream, "0x%llx\n",
				(unsigned long long)(writer->avmas[i] + CALL_BYTES - 1 -
						     file->dlpi_addr));
	}
	return fclose(stream) == 0 ? 0 : -errno;
}

/* ---- measuring ------------------------------------------------------------------------------ */

static int allocate_everywhere(struct writer *writer)
{
	int r = 0;

	for (uint32_t id = 1; id <= writer->n_stacks && r == 0; id++)
		r = dp_heap_alloc(writer->heap, id, 64, 0);
	return r;
}

static int resolve(struct writer *writer)
{
	int r = 0;

	for (size_t i = 0; i < N_ADDRESSES && r == 0; i++) {
		struct dp_symbol symbol;

		r = dp_symbolizer_resolve(writer->symbolizer, writer->frames[i], &symbol);
	}
	return r;
}

static int difference(struct writer *writer, const struct dp_delta_row **rows, size_t *n_rows)
{
	int r;

	dp_delta_begin(writer->delta);
	r = dp_heap_feed(writer->heap, writer->delta);
	if (r == 0)
		r = dp_delta_end(writer->delta, rows, n_rows);
	if (r == 0 && *n_rows != writer->n_stacks)
		r = -EPROTO;
	return r;
}

static int build(struct writer *writer, struct dp_pprof *profile, const struct dp_delta_row *rows,
		 size_t n_rows)
{
	const struct dp_report_source source = {.space = writer->space,
						.modules = writer->modules,
						.symbolizer = writer->symbolizer};
	struct dp_report_stacks stacks = {.frames = NULL};
	struct dp_report_counts counts;
	int r = dp_report_take_stacks(&stacks, writer->stacks, rows, n_rows);

	if (r == 0)
		r = dp_report_rows(profile, &source, &stacks, rows, n_rows, &counts);
	dp_report_clear_stacks(&stacks);

	if (r == 0)
		writer->n_locations = counts.n_locations;
	return r;
}

static const struct dp_pprof_header *header(void)
{
	static const struct dp_value_type types[] = {{"alloc_objects", "count"},
						     {"alloc_space", "bytes"},
						     {"inuse_objects", "count"},
						     {"inuse_space", "bytes"}};
	static const struct dp_pprof_header header = {.sample_types = types,
						      .n_sample_types = 4,
						      .period_type = {"space", "bytes"},
						      .period = 1,
						      .default_sample_type = "alloc_space"};

	return &header;
}

/* Runs the next stage unless one failed, and leaves at ns[@stage] how long it took. */
#define TIMED(stage, call)                                \
	do {                                              \
		uint64_t start_ns = dp_monotonic_ns();    \
                                                          \
		if (r == 0)                               \
			r = (call);                       \
		ns[stage] = dp_monotonic_ns() - start_ns; \
	} while (0)

static int write_interval(struct writer *writer, uint64_t ns[N_STAGES])
{
	const struct dp_delta_row *rows = NULL;
	struct dp_pprof *profile = NULL;
	uint8_t *packed = NULL, *zipped = NULL;
	size_t n_rows = 0, n_packed = 0;
	int r = allocate_everywhere(writer);

	TIMED(DELTA, difference(writer, &rows, &n_rows));
	TIMED(NAMES, resolve(writer));
	if (r == 0)
		r = dp_pprof_new(&profile, header());
	TIMED(BUILD, build(writer, profile, rows, n_rows));
	TIMED(PACK, dp_pprof_pack(profile, &packed, &n_packed));
	TIMED(GZIP, dp_gzip(packed, n_packed, &zipped, &writer->file_bytes));
	TIMED(FILE_WRITE,
	      dp_sink_write(writer->directory, "bench.pb.gz", zipped, writer->file_bytes, NULL));
	if (r == 0)
		dp_delta_commit(writer->delta);
	free(zipped);
	free(packed);
	dp_pprof_free(profile);
	return r;
}

static int writer_open(struct writer *writer)
{
	const struct dp_heap_options heap = {.rate_bytes = 1, .seed = 1};
	const struct dp_delta_spec spec = dp_heap_delta_spec(MAX_STACKS);
	int r = dp_modules_new(&writer->modules);

	if (r == 0)
		r = dp_space_new(&writer->space, writer->modules, getpid());
	if (r == 0)
		r = dp_space_load(writer->space, NULL);
	if (r == 0)
		r = dp_symbolizer_new(&writer->symbolizer, writer->modules);
	if (r == 0)
		r = dp_stacks_new(&writer->stacks, MAX_STACKS + 1, (MAX_STACKS + 1) * DEPTH);
	if (r == 0)
		r = dp_heap_new(&writer->heap, &heap);
	if (r == 0)
		r = dp_delta_new(&writer->delta, &spec);
	if (r == 0)
		r = choose_addresses(writer);
	if (r == 0)
		r = make_stacks(writer);
	return r;
}

static void writer_close(struct writer *writer)
{
	dp_delta_free(writer->delta);
	dp_heap_free_all(writer->heap);
	dp_stacks_free(writer->stacks);
	dp_symbolizer_free(writer->symbolizer);
	dp_space_free(writer->space);
	dp_modules_free(writer->modules);
	free(writer->avmas);
}

static int measure(struct writer *writer)
{
	struct listing listing = {.writer = writer};
	uint64_t first_ns[N_STAGES] = {0}, second_ns[N_STAGES] = {0};
	int r = writer_open(writer);

	if (r == 0)
		r = dl_iterate_phdr(list_file, &listing);
	if (r == 0)
		r = write_interval(writer, first_ns);
	if (r == 0)
		r = write_interval(writer, second_ns);
	if (r < 0)
		return r;
	for (size_t i = 0; i < N_STAGES; i++)
		printf("%s %llu %llu\n", stage_names[i], (unsigned long long)first_ns[i],
		       (unsigned long long)second_ns[i]);
	printf("size %zu %llu %zu\n", writer->n_stacks, (unsigned long long)writer->n_locations,
	       writer->file_bytes);
	return 0;
}

int main(int argc, char **argv)
{
	struct writer *writer = calloc(1, sizeof(*writer));
	int r = -ENOMEM;

	if (writer && argc >= 2 && argc <= 3) {
		writer->directory = argv[1];
		writer->n_stacks = argc == 3 ? strtoul(argv[2], NULL, 10) : 10000;
	}
	if (writer && (writer->n_stacks == 0 || writer->n_stacks > MAX_STACKS)) {
		fprintf(stderr, "usage: bench_write DIRECTORY [STACKS]\n");
		free(writer);
		return 2;
	}
	if (writer) {
		r = measure(writer);
		writer_close(writer);
	}
	if (r < 0)
		fprintf(stderr, "bench_write: %s\n", strerror(-r));
	free(writer);
	return r < 0;
}
