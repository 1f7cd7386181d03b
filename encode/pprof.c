/* SPDX-License-Identifier: MIT */
/*
 * Serialised protobuf messages merge when they are concatenated: repeated fields append. So every
 * location and sample is packed the moment it is added, as a Profile that holds nothing else, at
 * the end of one byte array (the body). Only what is still to be changed or looked up is kept as a
 * structure (mappings, functions, strings), and dp_pprof_pack() puts it before the body.
 *
 * An addition that fails half way may leave strings and functions that nothing refers to; the
 * profile stays valid.
 *
 * Source: protobuf encoding specification, "Last One Wins"; google/pprof, proto/README.md.
 */
#include "encode/pprof.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "encode/functions.h"
#include "encode/profile.pb-c.h"
#include "encode/reserve.h"
#include "encode/strings.h"

/* Short names for the generated ones. */
typedef Perftools__Profiles__Profile profile_message;
typedef Perftools__Profiles__ValueType value_type_message;
typedef Perftools__Profiles__Mapping mapping_message;
typedef Perftools__Profiles__Location location_message;
typedef Perftools__Profiles__Line line_message;
typedef Perftools__Profiles__Function function_message;
typedef Perftools__Profiles__Sample sample_message;
typedef Perftools__Profiles__Label label_message;

struct dp_pprof {
	profile_message head; /* scalars and period_type only */
	value_type_message period_type;
	value_type_message *sample_types;
	size_t n_sample_types;
	struct dp_strings strings;
	int64_t *comments;
	size_t n_comments, comments_capacity;
	mapping_message *mappings;
	size_t n_mappings, mappings_capacity;
	struct dp_functions functions;
	uint64_t n_locations;
	uint8_t *body;
	size_t n_body, body_capacity;
	/* Room for the parts of the message that is being added. */
	line_message *lines, **line_pointers;
	size_t lines_capacity, line_pointers_capacity;
	label_message *labels, **label_pointers;
	size_t labels_capacity, label_pointers_capacity;
};

static int set_value_type(struct dp_pprof *profile, value_type_message *message,
			  const struct dp_value_type *type)
{
	int r;

	perftools__profiles__value_type__init(message);
	r = dp_strings_add(&profile->strings, type->type, &message->type);
	if (r < 0)
		return r;
	return dp_strings_add(&profile->strings, type->unit, &message->unit);
}

static int set_head(struct dp_pprof *profile, const struct dp_pprof_header *header)
{
	profile_message *head = &profile->head;
	int r;

	head->time_nanos = header->time_nanos;
	head->duration_nanos = header->duration_nanos;
	head->period = header->period;
	head->period_type = &profile->period_type;
	r = set_value_type(profile, &profile->period_type, &header->period_type);
	if (r < 0)
		return r;
	r = dp_strings_add(&profile->strings, header->default_sample_type,
			   &head->default_sample_type);
	if (r < 0)
		return r;
	r = dp_strings_add(&profile->strings, header->drop_frames, &head->drop_frames);
	if (r < 0)
		return r;

	profile->sample_types = calloc(header->n_sample_types, sizeof(*profile->sample_types));
	if (!profile->sample_types)
		return -ENOMEM;
	profile->n_sample_types = header->n_sample_types;
	for (size_t i = 0; i < header->n_sample_types; i++) {
		r = set_value_type(profile, &profile->sample_types[i], &header->sample_types[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

int dp_pprof_new(struct dp_pprof **ret, const struct dp_pprof_header *header)
{
	struct dp_pprof *profile;
	int r;

	if (header->n_sample_types == 0)
		return -EINVAL;
	profile = calloc(1, sizeof(*profile));
	if (!profile)
		return -ENOMEM;
	perftools__profiles__profile__init(&profile->head);
	r = dp_strings_init(&profile->strings);
	if (r < 0)
		goto out;
	profile->functions.seed = profile->strings.seed;
	r = set_head(profile, header);
	if (r < 0)
		goto out;
	*ret = profile;
	profile = NULL;
out:
	dp_pprof_free(profile);
	return r;
}

void dp_pprof_free(struct dp_pprof *profile)
{
	if (!profile)
		return;
	free(profile->sample_types);
	dp_strings_clear(&profile->strings);
	free(profile->comments);
	free(profile->mappings);
	dp_functions_clear(&profile->functions);
	free(profile->body);
	free(profile->lines);
	free(profile->line_pointers);
	free(profile->labels);
	free(profile->label_pointers);
	free(profile);
}

/* Packs @part, a Profile with one element, to the end of the body. */
static int append(struct dp_pprof *profile, const profile_message *part)
{
	size_t n_bytes = perftools__profiles__profile__get_packed_size(part);
	int r;

	r = DP_RESERVE(profile->body, profile->body_capacity, profile->n_body + n_bytes);
	if (r < 0)
		return r;
	perftools__profiles__profile__pack(part, profile->body + profile->n_body);
	profile->n_body += n_bytes;
	return 0;
}

int dp_pprof_add_comment(struct dp_pprof *profile, const char *text)
{
	int r;

	r = DP_RESERVE(profile->comments, profile->comments_capacity, profile->n_comments + 1);
	if (r < 0)
		return r;
	r = dp_strings_add(&profile->strings, text, &profile->comments[profile->n_comments]);
	if (r < 0)
		return r;
	profile->n_comments++;
	return 0;
}

int dp_pprof_add_mapping(struct dp_pprof *profile, const struct dp_pprof_mapping *mapping,
			 uint64_t *ret_id)
{
	mapping_message message = PERFTOOLS__PROFILES__MAPPING__INIT;
	int r;

	message.id = profile->n_mappings + 1;
	message.memory_start = mapping->start;
	message.memory_limit = mapping->limit;
	message.file_offset = mapping->file_off;
	message.has_functions = mapping->has_functions;
	message.has_filenames = mapping->has_filenames;
	message.has_line_numbers = mapping->has_line_numbers;
	message.has_inline_frames = mapping->has_inline_frames;
	r = dp_strings_add(&profile->strings, mapping->path, &message.filename);
	if (r < 0)
		return r;
	r = dp_strings_add(&profile->strings, mapping->build_id, &message.build_id);
	if (r < 0)
		return r;
	r = DP_RESERVE(profile->mappings, profile->mappings_capacity, profile->n_mappings + 1);
	if (r < 0)
		return r;
	profile->mappings[profile->n_mappings++] = message;
	*ret_id = message.id;
	return 0;
}

void dp_pprof_set_mapping_flags(struct dp_pprof *profile, uint64_t id, bool has_functions,
				bool has_filenames, bool has_line_numbers, bool has_inline_frames)
{
	mapping_message *mapping;

	assert(id > 0 && id <= profile->n_mappings);
	mapping = &profile->mappings[id - 1];
	mapping->has_functions = has_functions;
	mapping->has_filenames = has_filenames;
	mapping->has_line_numbers = has_line_numbers;
	mapping->has_inline_frames = has_inline_frames;
}

static int set_line(struct dp_pprof *profile, line_message *message,
		    const struct dp_pprof_line *line)
{
	function_message function = PERFTOOLS__PROFILES__FUNCTION__INIT;
	int r;

	perftools__profiles__line__init(message);
	message->line = line->line;
	function.start_line = line->start_line;
	r = dp_strings_add(&profile->strings, line->function, &function.name);
	if (r < 0)
		return r;
	r = dp_strings_add(&profile->strings, line->system_name, &function.system_name);
	if (r < 0)
		return r;
	r = dp_strings_add(&profile->strings, line->file, &function.filename);
	if (r < 0)
		return r;
	return dp_functions_add(&profile->functions, &function, &message->function_id);
}

int dp_pprof_add_location(struct dp_pprof *profile, uint64_t mapping_id, uint64_t address,
			  const struct dp_pprof_line *lines, size_t n_lines, uint64_t *ret_id)
{
	location_message message = PERFTOOLS__PROFILES__LOCATION__INIT;
	location_message *pointer = &message;
	profile_message part = PERFTOOLS__PROFILES__PROFILE__INIT;
	int r;

	assert(mapping_id <= profile->n_mappings);
	r = DP_RESERVE(profile->lines, profile->lines_capacity, n_lines);
	if (r < 0)
		return r;
	r = DP_RESERVE(profile->line_pointers, profile->line_pointers_capacity, n_lines);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n_lines; i++) {
		r = set_line(profile, &profile->lines[i], &lines[i]);
		if (r < 0)
			return r;
		profile->line_pointers[i] = &profile->lines[i];
	}
	message.id = profile->n_locations + 1;
	message.mapping_id = mapping_id;
	message.address = address;
	message.line = profile->line_pointers;
	message.n_line = n_lines;
	part.location = &pointer;
	part.n_location = 1;
	r = append(profile, &part);
	if (r < 0)
		return r;
	*ret_id = ++profile->n_locations;
	return 0;
}

static int set_label(struct dp_pprof *profile, label_message *message,
		     const struct dp_pprof_label *label)
{
	int r;

	perftools__profiles__label__init(message);
	r = dp_strings_add(&profile->strings, label->key, &message->key);
	if (r < 0)
		return r;
	if (label->text)
		return dp_strings_add(&profile->strings, label->text, &message->str);
	message->num = label->number;
	return dp_strings_add(&profile->strings, label->unit, &message->num_unit);
}

int dp_pprof_add_sample(struct dp_pprof *profile, const uint64_t *location_ids, size_t n_locations,
			const int64_t *values, const struct dp_pprof_label *labels, size_t n_labels)
{
	sample_message message = PERFTOOLS__PROFILES__SAMPLE__INIT;
	sample_message *pointer = &message;
	profile_message part = PERFTOOLS__PROFILES__PROFILE__INIT;
	int r;

	r = DP_RESERVE(profile->labels, profile->labels_capacity, n_labels);
	if (r < 0)
		return r;
	r = DP_RESERVE(profile->label_pointers, profile->label_pointers_capacity, n_labels);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n_labels; i++) {
		r = set_label(profile, &profile->labels[i], &labels[i]);
		if (r < 0)
			return r;
		profile->label_pointers[i] = &profile->labels[i];
	}
	/* Packing only reads the arrays; the generated structure has no const. */
	message.location_id = (uint64_t *)location_ids;
	message.n_location_id = n_locations;
	message.value = (int64_t *)values;
	message.n_value = profile->n_sample_types;
	message.label = profile->label_pointers;
	message.n_label = n_labels;
	part.sample = &pointer;
	part.n_sample = 1;
	return append(profile, &part);
}

/* Packs @head, which points to everything that is not in the body, and the body after it. */
static int pack_all(const struct dp_pprof *profile, const profile_message *head, uint8_t **ret,
		    size_t *ret_bytes)
{
	size_t n_head = perftools__profiles__profile__get_packed_size(head);
	uint8_t *bytes = malloc(n_head + profile->n_body);

	if (!bytes)
		return -ENOMEM;
	perftools__profiles__profile__pack(head, bytes);
	if (profile->n_body > 0)
		memcpy(bytes + n_head, profile->body, profile->n_body);
	*ret = bytes;
	*ret_bytes = n_head + profile->n_body;
	return 0;
}

int dp_pprof_pack(const struct dp_pprof *profile, uint8_t **ret, size_t *ret_bytes)
{
	profile_message head = profile->head;
	int r = -ENOMEM;

	head.n_sample_type = profile->n_sample_types;
	head.n_mapping = profile->n_mappings;
	head.n_function = profile->functions.n;
	head.n_string_table = profile->strings.n;
	head.n_comment = profile->n_comments;
	head.comment = profile->comments;
	head.sample_type = calloc(head.n_sample_type, sizeof(void *));
	head.mapping = calloc(head.n_mapping + 1, sizeof(void *));
	head.function = calloc(head.n_function + 1, sizeof(void *));
	head.string_table = calloc(head.n_string_table, sizeof(void *));
	if (!head.sample_type || !head.mapping || !head.function || !head.string_table)
		goto out;
	for (size_t i = 0; i < head.n_sample_type; i++)
		head.sample_type[i] = &profile->sample_types[i];
	for (size_t i = 0; i < head.n_mapping; i++)
		head.mapping[i] = &profile->mappings[i];
	for (size_t i = 0; i < head.n_function; i++)
		head.function[i] = &profile->functions.entries[i].message;
	for (size_t i = 0; i < head.n_string_table; i++)
		head.string_table[i] = (char *)dp_strings_get(&profile->strings, i);
	r = pack_all(profile, &head, ret, ret_bytes);
out:
	free(head.sample_type);
	free(head.mapping);
	free(head.function);
	free(head.string_table);
	return r;
}
