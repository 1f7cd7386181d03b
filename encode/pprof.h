/* SPDX-License-Identifier: MIT */
#ifndef DP_ENCODE_PPROF_H
#define DP_ENCODE_PPROF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Builds one profile in pprof's format (profile.proto, package perftools.profiles). Strings
 * and functions are de-duplicated here; the caller gives them by content. Every text may be any
 * bytes, or NULL for "": a byte that is not part of valid UTF-8 is written as '?', because a proto3
 * string must be UTF-8 and strict readers refuse the whole profile otherwise.
 *
 * A call that fails leaves a valid profile and may be repeated. Memory grows linearly with what is
 * added; nothing here blocks. One thread at a time per profile.
 *
 * Source: google/pprof, proto/profile.proto.
 */

struct dp_pprof;

struct dp_value_type {
	const char *type; /* e.g. "alloc_space" */
	const char *unit; /* e.g. "bytes" */
};

struct dp_pprof_header {
	const struct dp_value_type *sample_types;
	size_t n_sample_types;
	struct dp_value_type period_type;
	int64_t period;
	const char *default_sample_type; /* one of sample_types' type */
	int64_t time_nanos;		 /* start, since the Unix epoch */
	int64_t duration_nanos;
	const char *drop_frames; /* pprof regular expression; NULL for none */
};

struct dp_pprof_mapping {
	uint64_t start, limit, file_off; /* avma */
	const char *path;
	const char *build_id; /* lower-case hex; "" if none */
	bool has_functions, has_filenames, has_line_numbers, has_inline_frames;
};

struct dp_pprof_line {
	const char *function;
	const char *system_name;
	const char *file;
	int64_t start_line;
	int64_t line;
};

struct dp_pprof_label {
	const char *key;
	const char *text; /* NULL: a numeric label */
	int64_t number;
	const char *unit; /* of the number; NULL or "" for none */
};

/*
 * Creates a profile; every string is copied. Returns 0, -ENOMEM, or -EINVAL (no sample types).
 */
int dp_pprof_new(struct dp_pprof **ret, const struct dp_pprof_header *header);

/* Frees it. NULL is allowed. */
void dp_pprof_free(struct dp_pprof *profile);

/* Adds a comment line. Returns 0 or -ENOMEM. */
int dp_pprof_add_comment(struct dp_pprof *profile, const char *text);

/* Adds a mapping and gives its id (from 1). Returns 0 or -ENOMEM. */
int dp_pprof_add_mapping(struct dp_pprof *profile, const struct dp_pprof_mapping *mapping,
			 uint64_t *ret_id);

/*
 * Sets the has_* flags of mapping @id once what could be resolved in it is known. @id must have
 * been given by dp_pprof_add_mapping().
 */
void dp_pprof_set_mapping_flags(struct dp_pprof *profile, uint64_t id, bool has_functions,
				bool has_filenames, bool has_line_numbers, bool has_inline_frames);

/*
 * Adds a location and gives its id (from 1). Not de-duplicated: the caller keeps frame → id.
 *
 * @mapping_id: 0 for none, else one that dp_pprof_add_mapping() gave. @lines: innermost inlined
 * call first, may be NULL if @n_lines is 0. Returns 0 or -ENOMEM.
 */
int dp_pprof_add_location(struct dp_pprof *profile, uint64_t mapping_id, uint64_t address,
			  const struct dp_pprof_line *lines, size_t n_lines, uint64_t *ret_id);

/*
 * Adds a sample. @location_ids: leaf first, each one that dp_pprof_add_location() gave. @values: as
 * many as there are sample types. Returns 0 or -ENOMEM.
 */
int dp_pprof_add_sample(struct dp_pprof *profile, const uint64_t *location_ids, size_t n_locations,
			const int64_t *values, const struct dp_pprof_label *labels,
			size_t n_labels);

/*
 * Serialises the profile (uncompressed). *@ret of *@ret_bytes is to be freed with free().
 * Returns 0 or -ENOMEM.
 */
int dp_pprof_pack(const struct dp_pprof *profile, uint8_t **ret, size_t *ret_bytes);

#endif
