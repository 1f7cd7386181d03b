/* SPDX-License-Identifier: MIT */
/*
 * The parser of /proc/PID/maps, fed any bytes. What it accepts must obey its contract, and must be
 * accepted again with the same meaning when it is written out as the kernel would.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "symbolize/maps.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void check(const struct dp_maps_line *line, const char *text, size_t n_bytes)
{
	assert(line->start < line->end);
	assert(line->path >= text && line->path <= text + n_bytes);
	assert(line->path_bytes <= (size_t)(text + n_bytes - line->path));
	assert(line->path_bytes == 0 || !memchr(line->path, '\n', line->path_bytes));
	assert(line->path_bytes == 0 || line->path[0] != ' ' || line->deleted);
}

static char *write_out(const struct dp_maps_line *line, size_t *ret_bytes)
{
	char *text = NULL;
	FILE *stream = open_memstream(&text, ret_bytes);

	assert(stream);
	fprintf(stream, "%08" PRIx64 "-%08" PRIx64 " %c%c%cp %08" PRIx64 " %02x:%02x %" PRIu64 " ",
		line->start, line->end, line->readable ? 'r' : '-', line->writable ? 'w' : '-',
		line->executable ? 'x' : '-', line->file_off, line->major, line->minor,
		line->inode);
	fwrite(line->path, 1, line->path_bytes, stream);
	fputs(line->deleted ? " (deleted)\n" : "\n", stream);
	fclose(stream);
	return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	struct dp_maps_line line, again;
	size_t n_written;
	char *written;

	if (dp_maps_parse_line((const char *)data, n_bytes, &line) < 0)
		return 0;
	check(&line, (const char *)data, n_bytes);
	written = write_out(&line, &n_written);
	assert(dp_maps_parse_line(written, n_written, &again) == 0);
	assert(again.start == line.start && again.end == line.end);
	assert(again.file_off == line.file_off && again.inode == line.inode);
	assert(again.major == line.major && again.minor == line.minor);
	assert(again.readable == line.readable && again.writable == line.writable);
	assert(again.executable == line.executable && again.deleted == line.deleted);
	assert(again.path_bytes == line.path_bytes);
	assert(memcmp(again.path, line.path, line.path_bytes) == 0);
	free(written);
	return 0;
}
