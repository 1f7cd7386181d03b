/* SPDX-License-Identifier: MIT */
#include "src/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/array.h"
#include "src/base/frame.h"
#include "src/base/map.h"

/* One executable mapping that locations lie in. */
struct mapping {
	struct dp_space_range range;
	uint64_t id;
	uint64_t n_named, n_with_file, n_with_line, n_inlined;
};

struct report {
	struct dp_pprof *profile;
	const struct dp_report_source *source;
	struct dp_map locations;  /* frame → location id */
	struct dp_map mapping_of; /* start of a mapping → index */
	struct mapping *mappings;
	size_t n_mappings, mappings_capacity;
	uint64_t *ids; /* of one sample's locations */
	size_t ids_capacity;
	struct dp_pprof_line *lines; /* of one location */
	size_t lines_capacity;
	uint64_t n_unresolved;
};

static void hex(char *ret, size_t n_bytes, const uint8_t *bytes, size_t n)
{
	*ret = '\0';
	for (size_t i = 0; i < n && 2 * i + 2 < n_bytes; i++)
		snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
}

static int add_mapping(struct report *report, const struct dp_space_range *range)
{
	char build_id[2 * DP_MODULE_BUILD_ID_MAX + 1];
	struct dp_module_info info = {.path = ""};
	struct dp_pprof_mapping mapping = {.start = range->start,
					   .limit = range->end,
					   .file_off = range->file_off,
					   .build_id = build_id};
	uint64_t id;
	int r;

	dp_module_get(report->source->modules, range->module, &info);
	hex(build_id, sizeof(build_id), info.build_id, info.build_id_bytes);
	mapping.path = info.path;
	r = dp_array_reserve((void **)&report->mappings, &report->mappings_capacity,
			     report->n_mappings + 1, sizeof(*report->mappings));
	if (r == 0)
		r = dp_map_set(&report->mapping_of, range->start, report->n_mappings);
	if (r == 0)
		r = dp_pprof_add_mapping(report->profile, &mapping, &id);
	if (r < 0)
		return r;
	report->mappings[report->n_mappings++] = (struct mapping){.range = *range, .id = id};
	return 0;
}

/* The mapping that @frame lies in; *@ret is NULL if that is not known. Valid until the next call.
 */
static int find_mapping(struct report *report, uint64_t frame, struct mapping **ret)
{
	struct dp_space_range range;
	uint64_t i;
	int r;

	*ret = NULL;
	if (dp_space_mapping_of(report->source->space, frame, &range) < 0)
		return 0;
	if (dp_map_get(&report->mapping_of, range.start, &i) &&
	    report->mappings[i].range.module == range.module &&
	    report->mappings[i].range.file_off == range.file_off) {
		*ret = &report->mappings[i];
		return 0;
	}
	r = add_mapping(report, &range);
	if (r == 0)
		*ret = &report->mappings[report->n_mappings - 1];
	return r;
}

static void count_lines(struct mapping *mapping, const struct dp_symbol *symbol)
{
	if (!mapping || symbol->n_lines == 0)
		return;
	mapping->n_named++;
	mapping->n_with_file += symbol->lines[0].file[0] != '\0';
	mapping->n_with_line += symbol->lines[0].line != 0;
	mapping->n_inlined += symbol->n_lines > 1;
}

/* What a mark says. */
static const char *mark_text(enum dp_frame_mark mark)
{
	static const char *const texts[] = {[DP_FRAME_MARK_CUT] = "[stack cut short]",
					    [DP_FRAME_MARK_NO_CFI] = "[no unwind tables]",
					    [DP_FRAME_MARK_BROKEN] = "[stack not understood]",
					    [DP_FRAME_MARK_GUESSED] = "[frames guessed]"};

	return texts[mark];
}

/* A name for an address that has none: the file and the offset in it, or the bare address. */
static void name_unresolved(const struct report *report, uint64_t frame, char *ret, size_t n_bytes)
{
	unsigned long long offset = dp_frame_offset(frame);
	struct dp_module_info info;
	const char *base;

	if (!dp_module_get(report->source->modules, dp_frame_module(frame), &info)) {
		snprintf(ret, n_bytes, "0x%llx", offset);
		return;
	}
	base = strrchr(info.path, '/');
	snprintf(ret, n_bytes, "%s+0x%llx", base ? base + 1 : info.path, offset);
}

static int add_named(struct report *report, uint64_t frame, const struct dp_symbol *symbol,
		     uint64_t mapping_id, uint64_t address, uint64_t *ret_id)
{
	const struct dp_probe *probe =
		report->source->probes ? dp_probes_at(report->source->probes, frame) : NULL;
	char text[512];
	size_t n = symbol->n_lines;
	int r;

	r = dp_array_reserve((void **)&report->lines, &report->lines_capacity, n + 1,
			     sizeof(*report->lines));
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		const struct dp_line *line = &symbol->lines[i];

		report->lines[i] = (struct dp_pprof_line){.function = line->function,
							  .system_name = line->system_name,
							  .file = line->file,
							  .start_line = line->start_line,
							  .line = line->line};
	}
	if (n == 0) {
		name_unresolved(report, frame, text, sizeof(text));
		report->lines[n++] =
			(struct dp_pprof_line){.function = text, .system_name = text, .file = ""};
		report->n_unresolved += !probe;
	}
	/* Whatever its symbols are called, the probed function goes by the name that drop_frames
	 * knows. */
	if (probe) {
		report->lines[0] = report->lines[n - 1];
		report->lines[0].function = probe->function->name;
		n = 1;
	}
	return dp_pprof_add_location(report->profile, mapping_id, address, report->lines, n,
				     ret_id);
}

/* A location that is a remark and no code. */
static int find_remark(struct report *report, uint64_t key, const char *text, uint64_t *ret_id)
{
	const struct dp_pprof_line line = {.function = text, .system_name = text, .file = ""};
	int r;

	if (dp_map_get(&report->locations, key, ret_id))
		return 0;
	r = dp_pprof_add_location(report->profile, 0, 0, &line, 1, ret_id);
	if (r == 0)
		r = dp_map_set(&report->locations, key, *ret_id);
	return r;
}

/*
 * Names generated code, which is in no file, or in one that is none of a linker's: memory that its
 * compiler maps twice, to write through one mapping and run the other.
 */
static int name_generated(const struct report *report, const struct mapping *mapping,
			  uint64_t frame, uint64_t address, struct dp_symbol *symbol)
{
	struct dp_module_info info;

	if (symbol->source != DP_SYMBOL_NONE)
		return 0;
	if (dp_module_get(report->source->modules, dp_frame_module(frame), &info) &&
	    (!mapping || info.kind != DP_MODULE_OPAQUE))
		return 0;
	return dp_symbolizer_resolve_generated(report->source->symbolizer, address, symbol);
}

static int find_location(struct report *report, uint64_t frame, uint64_t *ret_id)
{
	struct mapping *mapping;
	struct dp_symbol symbol;
	uint64_t address = dp_frame_offset(frame);
	uint64_t mapping_id = 0;
	int r;

	if (dp_frame_mark(frame))
		return find_remark(report, frame, mark_text(dp_frame_mark(frame)), ret_id);
	if (dp_map_get(&report->locations, frame, ret_id))
		return 0;
	r = find_mapping(report, frame, &mapping);
	if (r == 0)
		r = dp_symbolizer_resolve(report->source->symbolizer, frame, &symbol);
	if (r < 0)
		return r;
	if (mapping && dp_frame_module(frame) != 0)
		address += mapping->range.start - mapping->range.file_off;
	if (mapping)
		mapping_id = mapping->id;
	r = name_generated(report, mapping, frame, address, &symbol);
	if (r < 0)
		return r;
	count_lines(mapping, &symbol);
	r = add_named(report, frame, &symbol, mapping_id, address, ret_id);
	if (r == 0)
		r = dp_map_set(&report->locations, frame, *ret_id);
	return r;
}

static int add_row(struct report *report, const struct dp_delta_row *row, uint64_t *frames,
		   size_t n)
{
	const struct dp_report_source *source = report->source;
	struct dp_pprof_label label = {.key = source->label_key, .number = (int64_t)row->tag};
	bool has_label = source->label_key && (source->label_text || row->tag);
	int r = 0;

	if (source->label_text)
		label.text = source->label_text(row->tag);
	if (source->is_go)
		r = dp_go_fold(source->symbolizer, source->go_trim, frames, n, &n);
	if (r < 0)
		return r;
	r = dp_array_reserve((void **)&report->ids, &report->ids_capacity, n + 1,
			     sizeof(*report->ids));
	for (size_t i = 0; r == 0 && i < n; i++)
		r = find_location(report, frames[i], &report->ids[i]);
	if (r == 0 && n == 0)
		r = find_remark(report, UINT64_MAX, "[stack table full]", &report->ids[n++]);
	if (r == 0)
		r = dp_pprof_add_sample(report->profile, report->ids, n, row->values, &label,
					has_label);
	return r;
}

int dp_report_take_stacks(struct dp_report_stacks *ret, const struct dp_stacks *stacks,
			  const struct dp_delta_row *rows, size_t n_rows)
{
	struct dp_report_stacks taken = {.ends = calloc(n_rows + 1, sizeof(*taken.ends))};
	size_t n, n_all = 0;

	for (size_t i = 0; i < n_rows; i++) {
		dp_stacks_get(stacks, rows[i].stack, &n);
		n_all += n;
	}
	taken.frames = malloc((n_all + 1) * sizeof(*taken.frames));
	if (!taken.ends || !taken.frames) {
		dp_report_clear_stacks(&taken);
		return -ENOMEM;
	}
	n_all = 0;
	for (size_t i = 0; i < n_rows; i++) {
		const uint64_t *frames = dp_stacks_get(stacks, rows[i].stack, &n);

		if (n > 0)
			memcpy(taken.frames + n_all, frames, n * sizeof(*frames));
		n_all += n;
		taken.ends[i] = n_all;
	}
	*ret = taken;
	return 0;
}

void dp_report_clear_stacks(struct dp_report_stacks *stacks)
{
	free(stacks->frames);
	free(stacks->ends);
	*stacks = (struct dp_report_stacks){0};
}

int dp_report_rows(struct dp_pprof *profile, const struct dp_report_source *source,
		   struct dp_report_stacks *stacks, const struct dp_delta_row *rows, size_t n_rows,
		   struct dp_report_counts *ret)
{
	struct report report = {.profile = profile, .source = source};
	struct dp_space_range main_mapping;
	size_t begin = 0;
	int r = 0;

	dp_symbolizer_update(source->symbolizer);
	if (dp_space_main_mapping(source->space, &main_mapping) == 0)
		r = add_mapping(&report, &main_mapping);
	for (size_t i = 0; r == 0 && i < n_rows; begin = stacks->ends[i++])
		r = add_row(&report, &rows[i], stacks->frames + begin, stacks->ends[i] - begin);
	for (size_t i = 0; i < report.n_mappings; i++) {
		const struct mapping *mapping = &report.mappings[i];

		dp_pprof_set_mapping_flags(profile, mapping->id, mapping->n_named > 0,
					   mapping->n_with_file > 0, mapping->n_with_line > 0,
					   mapping->n_inlined > 0);
	}
	if (r == 0)
		*ret = (struct dp_report_counts){.n_stacks = n_rows,
						 .n_locations = report.locations.n,
						 .n_unresolved = report.n_unresolved};
	dp_map_clear(&report.locations);
	dp_map_clear(&report.mapping_of);
	free(report.mappings);
	free(report.ids);
	free(report.lines);
	return r;
}
