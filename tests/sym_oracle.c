/* SPDX-License-Identifier: MIT */
#include "tests/sym_oracle.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "symbolize/module_registry.h"

static char *run(const char *command)
{
	FILE *pipe = popen(command, "r");
	size_t n = 0, capacity = 1 << 16;
	char *text = malloc(capacity);
	size_t n_read;

	assert_non_null(pipe);
	assert_non_null(text);
	while ((n_read = fread(text + n, 1, capacity - n - 1, pipe)) > 0) {
		n += n_read;
		if (capacity - n < 2) {
			capacity *= 2;
			text = realloc(text, capacity);
			assert_non_null(text);
		}
	}
	text[n] = '\0';
	if (pclose(pipe) != 0)
		fail_msg("failed: %s", command);
	return text;
}

char *oracle_run(const char *format, ...)
{
	char command[8192];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	assert_true(n > 0 && n < (int)sizeof(command));
	return run(command);
}

const char *oracle_sample(const char *name)
{
	static char paths[8][512];
	static unsigned int i_next;
	char *path = paths[i_next++ % 8];

	snprintf(path, sizeof(paths[0]), DP_SYM_SAMPLES "/%s", name);
	return path;
}

/* "ADDRESS SIZE TYPE NAME" or "... NAME@VERSION"; cuts @line. */
static bool parse_function(char *line, struct oracle_function *ret)
{
	char type;
	int at = 0;

	if (sscanf(line, "%" SCNx64 " %" SCNx64 " %c%n", &ret->svma, &ret->size_bytes, &type,
		   &at) != 3 ||
	    line[at] != ' ' || !strchr("tTwWi", type))
		return false;
	ret->name = line + at + 1;
	line[at + strcspn(line + at, "@")] = '\0';
	return true;
}

struct oracle_function *oracle_functions(const char *path, const char *options, size_t *ret_n)
{
	char *text = oracle_run("nm %s -S --defined-only '%s'", options, path), *rest, *line;
	struct oracle_function *functions;
	size_t n_lines = 0, n = 0;

	for (const char *c = text; *c; c++)
		n_lines += *c == '\n';
	functions = malloc(n_lines * sizeof(*functions) + strlen(text) + 1);
	assert_non_null(functions);
	rest = strcpy((char *)(functions + n_lines), text);
	free(text);
	while ((line = strsep(&rest, "\n")))
		n += parse_function(line, &functions[n]);
	*ret_n = n;
	return functions;
}

const struct oracle_function *oracle_function(const struct oracle_function *functions, size_t n,
					      const char *name)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(functions[i].name, name) == 0)
			return &functions[i];
	}
	fail_msg("nm does not know %s", name);
	return NULL;
}

uint64_t oracle_file_off(const char *path, uint64_t svma)
{
	static char known_path[512], *text;
	char *line;

	if (!text || strcmp(path, known_path) != 0) {
		free(text);
		text = oracle_run("readelf -lW '%s'", path);
		snprintf(known_path, sizeof(known_path), "%s", path);
	}
	for (line = strstr(text, " LOAD "); line; line = strstr(line + 1, " LOAD ")) {
		uint64_t offset, vaddr, filesz;
		char flags[4];

		assert_int_equal(
			sscanf(line, " LOAD %" SCNx64 " %" SCNx64 " %*s %" SCNx64 " %*s %3[RWE ]",
			       &offset, &vaddr, &filesz, flags),
			4);
		if (strchr(flags, 'E') && svma >= vaddr && svma - vaddr < filesz)
			return svma - vaddr + offset;
	}
	fail_msg("%s: no code at 0x%" PRIx64, path, svma);
	return 0;
}

static char *write_addresses(const uint64_t *svma, size_t n)
{
	char *path = strdup("/tmp/dp-sym-addresses-XXXXXX");
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	for (size_t i = 0; i < n; i++)
		dprintf(fd, "0x%" PRIx64 "\n", svma[i]);
	close(fd);
	return path;
}

/* "FILE:LINE", "FILE:LINE:COLUMN", with " (discriminator N)" or not, "?" for what is unknown. */
static void parse_place(char *text, struct oracle_call *call)
{
	char *end = strstr(text, " (discriminator");
	char *colon;
	int n_colons = 0;

	if (end)
		*end = '\0';
	for (char *c = strrchr(text, '/') ? strrchr(text, '/') : text; *c; c++)
		n_colons += *c == ':';
	colon = strrchr(text, ':');
	assert_non_null(colon);
	if (n_colons > 1) {
		*colon = '\0';
		colon = strrchr(text, ':');
	}
	*colon = '\0';
	call->file = text;
	call->line = strtol(colon + 1, NULL, 10);
}

struct oracle_calls *oracle_addr2line(const char *tool, const char *path, const uint64_t *svma,
				      size_t n, char **ret_text)
{
	char *list = write_addresses(svma, n);
	char *text = oracle_run("%s -a -i -f -e '%s' < %s", tool, path, list);
	struct oracle_calls *all = calloc(n, sizeof(*all));
	char *rest = text, *line;
	size_t i = 0;

	assert_non_null(all);
	while ((line = strsep(&rest, "\n")) && *line) {
		struct oracle_calls *calls = &all[i - 1];
		char *end;

		if (strncmp(line, "0x", 2) == 0) {
			assert_true(i < n);
			assert_true(strtoull(line, &end, 16) == svma[i]);
			i++;
			continue;
		}
		assert_true(i > 0 && calls->n < ORACLE_MAX_CALLS);
		/* eu-addr2line tells of inlining in the line of the function, too. */
		end = strstr(line, " inlined at ");
		if (end)
			*end = '\0';
		calls->calls[calls->n].function = line;
		line = strsep(&rest, "\n");
		assert_non_null(line);
		parse_place(line, &calls->calls[calls->n++]);
	}
	assert_int_equal(i, n);
	unlink(list);
	free(list);
	*ret_text = text;
	return all;
}

uint32_t oracle_add_module(struct dp_modules *modules, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint32_t id = 0;

	if (fd < 0)
		fail_msg("cannot open %s", path);
	assert_int_equal(dp_modules_add_file(modules, fd, path, strlen(path), &id), 0);
	assert_int_not_equal(id, 0);
	return id;
}
