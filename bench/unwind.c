// SPDX-License-Identifier: MIT
/*
 * How long it takes to unwind stacks that perf record --call-graph dwarf has copied: from the very
 * file that perf script is then given.
 *
 * usage: bench_unwind PID PERF.DATA [SAMPLES]
 *
 *     PID, of which the samples are, still lives: its files are found through it.
 *     prints  size SAMPLES FRAMES WHOLE
 *             cold NS                    with no rule known, files' CFI read
 *             warm NS                    again, the mean of several times
 *             peak KIB
 */
#include <asm/perf_regs.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "symbolize/module.h"
#include "symbolize/space.h"
#include "symbolize/unwind.h"

#define MAX_FRAMES 640
#define WARM_ROUNDS 5

/* Source: the kernel's tools/perf/Documentation/perf.data-file-format.txt. */
struct file_section {
	uint64_t offset, size;
};

struct file_header {
	char magic[8];
	uint64_t size, attr_size;
	struct file_section attrs, data, event_types;
};

struct bench {
	const uint8_t *file;
	size_t n_file_bytes;
	struct perf_event_attr attr;
	struct dp_unwind_sample *samples;
	size_t n_samples, max_samples;
	struct dp_modules *modules;
	struct dp_space *space;
};

/* DWARF numbers of perf's registers 0 (ax) … 8 (ip), then r8 … r15. */
static const uint8_t dwarf_numbers[DP_UNWIND_REGS] = {0, 3, 2,	1,  4,	5,  6,	7, 16,
						      8, 9, 10, 11, 12, 13, 14, 15};

static uint64_t word_at(const uint8_t *at)
{
	uint64_t word;

	memcpy(&word, at, sizeof(word));
	return word;
}

/* Moves past the parts of a sample up to REGS_USER. Source: perf_event_open(2). */
static const uint8_t *skip_to_regs(const struct bench *bench, const uint8_t *at)
{
	static const uint64_t words[] = {
		PERF_SAMPLE_IDENTIFIER, PERF_SAMPLE_IP,	  PERF_SAMPLE_TID,
		PERF_SAMPLE_TIME,	PERF_SAMPLE_ADDR, PERF_SAMPLE_ID,
		PERF_SAMPLE_STREAM_ID,	PERF_SAMPLE_CPU,  PERF_SAMPLE_PERIOD};
	uint32_t n_raw;

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		at += bench->attr.sample_type & words[i] ? sizeof(uint64_t) : 0;
	if (bench->attr.sample_type & PERF_SAMPLE_CALLCHAIN)
		at += (word_at(at) + 1) * sizeof(uint64_t);
	if (bench->attr.sample_type & PERF_SAMPLE_RAW) {
		memcpy(&n_raw, at, sizeof(n_raw));
		at += sizeof(n_raw) + n_raw;
	}
	return at;
}

static void take_sample(struct bench *bench, const uint8_t *record)
{
	struct dp_unwind_sample *sample = &bench->samples[bench->n_samples];
	const uint8_t *at = skip_to_regs(bench, record + sizeof(struct perf_event_header));
	size_t n_seen = 0;

	if (word_at(at) != PERF_SAMPLE_REGS_ABI_64)
		return;
	at += sizeof(uint64_t);
	for (unsigned int i = 0; i < 64; i++) {
		if (!(bench->attr.sample_regs_user >> i & 1))
			continue;
		if (i <= PERF_REG_X86_IP || i >= PERF_REG_X86_R8)
			sample->regs[dwarf_numbers[n_seen++]] = word_at(at);
		at += sizeof(uint64_t);
	}
	sample->stack = at + sizeof(uint64_t);
	sample->stack_bytes = word_at(at + sizeof(uint64_t) + word_at(at));
	sample->at_entry = true;
	bench->n_samples++;
}

static int take_samples(struct bench *bench)
{
	const struct file_header *header = (const void *)bench->file;
	const uint8_t *at, *end;

	if (bench->n_file_bytes < sizeof(*header) || memcmp(header->magic, "PERFILE2", 8) != 0 ||
	    header->data.offset + header->data.size > bench->n_file_bytes)
		return -EBADMSG;
	memcpy(&bench->attr, bench->file + header->attrs.offset, sizeof(bench->attr));
	at = bench->file + header->data.offset;
	end = at + header->data.size;
	while (at < end && bench->n_samples < bench->max_samples) {
		struct perf_event_header record;

		memcpy(&record, at, sizeof(record));
		if (record.size < sizeof(record) || record.size > (size_t)(end - at))
			return -EBADMSG;
		if (record.type == PERF_RECORD_SAMPLE)
			take_sample(bench, at);
		at += record.size;
	}
	return bench->n_samples > 0 ? 0 : -ENODATA;
}

static int open_file(struct bench *bench, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *file;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	close(fd);
	if (file == MAP_FAILED)
		return -errno;
	bench->file = file;
	bench->n_file_bytes = (size_t)st.st_size;
	bench->samples = calloc(bench->max_samples, sizeof(*bench->samples));
	return bench->samples ? take_samples(bench) : -ENOMEM;
}

static int unwind_all(const struct bench *bench, struct dp_unwinder *unwinder, uint64_t *ret_ns,
		      uint64_t *ret_frames, uint64_t *ret_whole)
{
	uint64_t frames[MAX_FRAMES], begin_ns = dp_monotonic_ns();
	struct dp_unwind_result result;

	*ret_frames = *ret_whole = 0;
	for (size_t i = 0; i < bench->n_samples; i++) {
		ptrdiff_t n = dp_unwind(unwinder, bench->space, &bench->samples[i], frames,
					MAX_FRAMES, &result);

		if (n < 0)
			return (int)n;
		*ret_frames += (uint64_t)n;
		*ret_whole += result.end == DP_UNWIND_OUTERMOST;
	}
	*ret_ns = dp_monotonic_ns() - begin_ns;
	return 0;
}

static int measure(struct bench *bench)
{
	uint64_t cold_ns, warm_ns, all_ns = 0, n_frames, n_whole;
	struct dp_unwinder *unwinder;
	struct rusage usage;
	int r = dp_unwinder_new(&unwinder, bench->modules);

	if (r == 0)
		r = unwind_all(bench, unwinder, &cold_ns, &n_frames, &n_whole);
	for (int i = 0; r == 0 && i < WARM_ROUNDS; i++) {
		r = unwind_all(bench, unwinder, &warm_ns, &n_frames, &n_whole);
		all_ns += warm_ns;
	}
	if (r < 0)
		return r;
	dp_unwinder_free(unwinder);
	getrusage(RUSAGE_SELF, &usage);
	printf("size %zu %lu %lu\n", bench->n_samples, (unsigned long)n_frames,
	       (unsigned long)n_whole);
	printf("cold %lu\n", (unsigned long)cold_ns);
	printf("warm %lu\n", (unsigned long)(all_ns / WARM_ROUNDS));
	printf("peak %ld\n", usage.ru_maxrss);
	return 0;
}

int main(int argc, char **argv)
{
	struct bench bench = {.max_samples = argc == 4 ? strtoul(argv[3], NULL, 10) : 1000000};
	struct dp_error err = {""};
	int r;

	if (argc < 3) {
		fprintf(stderr, "usage: bench_unwind PID PERF.DATA [SAMPLES]\n");
		return 2;
	}
	r = dp_modules_new(&bench.modules);
	if (r == 0)
		r = dp_space_new(&bench.space, bench.modules, atoi(argv[1]));
	if (r == 0)
		r = dp_space_load(bench.space, &err);
	if (r == 0)
		r = open_file(&bench, argv[2]);
	if (r == 0)
		r = measure(&bench);
	if (r < 0)
		fprintf(stderr, "bench_unwind: %s\n", err.text[0] ? err.text : strerror(-r));
	dp_space_free(bench.space);
	dp_modules_free(bench.modules);
	free(bench.samples);
	return r < 0;
}
