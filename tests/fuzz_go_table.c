/* SPDX-License-Identifier: MIT */
/*
 * Go's function table, fed any bytes: a byte that says which format, then changes to a small file
 * that has one. Each change: the offset (two bytes, of the table, the trees or the module data, one
 * behind the other), the number of bytes, the bytes.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "symbolize/go_table.h"
#include "tests/go_fixture.h"

#define MAX_CHANGE_BYTES 31

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);
const char *__lsan_default_suppressions(void);

/* libelf 0.188 loses some hundred bytes a file on its own error paths. */
const char *__lsan_default_suppressions(void)
{
	return "leak:libelf.so\n";
}

static void look_everywhere(const struct dp_go_table *table)
{
	struct dp_go_line lines[DP_GO_MAX_LINES];
	struct dp_go_function function;
	size_t n_bytes = 0;

	for (uint64_t svma = 0x401000; svma < 0x401300; svma += 16) {
		size_t n = dp_go_table_lines(table, svma, lines);

		for (size_t i = 0; i < n; i++)
			n_bytes += strlen(lines[i].function) + strlen(lines[i].file);
		(void)dp_go_table_function(table, svma, &function);
	}
	if (n_bytes == SIZE_MAX)
		puts("");
}

static void change(struct go_fixture *f, const uint8_t *data, const uint8_t *end)
{
	const size_t n_first = GO_FIXTURE_TREES + GO_FIXTURE_TREES_BYTES - GO_FIXTURE_TABLE;

	while (end - data >= 4) {
		size_t at = (data[0] | (size_t)data[1] << 8) % (n_first + GO_FIXTURE_MODULE_BYTES);
		size_t n = data[2] % MAX_CHANGE_BYTES + 1;

		data += 3;
		at += at < n_first ? GO_FIXTURE_TABLE : GO_FIXTURE_MODULE - n_first;
		if (n > (size_t)(end - data))
			n = (size_t)(end - data);
		memcpy(f->bytes + at, data, n);
		data += n;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	struct dp_go_table *table;
	struct go_fixture f;
	int fd;

	if (n_bytes == 0)
		return 0;
	go_fixture_build(&f, (enum go_fixture_format)(data[0] % 4));
	change(&f, data + 1, data + n_bytes);
	fd = go_fixture_open(f.bytes, sizeof(f.bytes));
	if (dp_go_table_open(&table, fd) == 0) {
		look_everywhere(table);
		dp_go_table_free(table);
	}
	close(fd);
	return 0;
}
