/* SPDX-License-Identifier: MIT */
#include "tests/listing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void add_line(struct listing *listing, uint64_t address, const char *text)
{
	struct listing_line *line;

	if (listing->n == listing->capacity) {
		listing->capacity = listing->capacity ? 2 * listing->capacity : 4096;
		listing->lines =
			realloc(listing->lines, listing->capacity * sizeof(*listing->lines));
		if (!listing->lines)
			abort();
	}
	line = &listing->lines[listing->n++];
	line->address = address;
	snprintf(line->text, sizeof(line->text), "%s", text);
	line->text[strcspn(line->text, "\n")] = '\0';
}

/* Lines look like "   98930:\tpush   %r12\n"; all others are headings. */
bool listing_load(struct listing *listing, const char *path)
{
	char command[512];
	char *line = NULL;
	size_t line_bytes = 0;
	FILE *out;

	*listing = (struct listing){0};
	snprintf(command, sizeof(command), "LC_ALL=C objdump -dw --no-show-raw-insn %s", path);
	out = popen(command, "r");
	if (!out)
		return false;
	while (getline(&line, &line_bytes, out) >= 0) {
		char *end;
		uint64_t address = strtoull(line, &end, 16);

		if (line[0] == ' ' && end[0] == ':' && end[1] == '\t')
			add_line(listing, address, end + 2);
	}
	free(line);
	return pclose(out) == 0 && listing->n > 0;
}

void listing_free(struct listing *listing)
{
	free(listing->lines);
	*listing = (struct listing){0};
}

static int compare_lines(const void *a, const void *b)
{
	const struct listing_line *x = a;
	const struct listing_line *y = b;

	return x->address < y->address ? -1 : x->address > y->address;
}

const struct listing_line *listing_find(const struct listing *listing, uint64_t address)
{
	struct listing_line key = {.address = address};

	return bsearch(&key, listing->lines, listing->n, sizeof(key), compare_lines);
}

/* The text behind the prefixes that a branch may carry and still be one. */
static const char *skip_branch_prefix(const char *text)
{
	static const char *const prefixes[] = {"bnd ", "notrack "};

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		if (strncmp(text, prefixes[i], strlen(prefixes[i])) == 0)
			return text + strlen(prefixes[i]);
	}
	return text;
}

/* Splits "mov    %rdi,%rbx   # comment" into the length of its mnemonic and its operands. */
static const char *split(const char *text, size_t *ret_mnemonic)
{
	*ret_mnemonic = strcspn(text, " ");
	return text + *ret_mnemonic + strspn(text + *ret_mnemonic, " ");
}

static bool is_word(const char *text, size_t n, const char *word)
{
	return strlen(word) == n && memcmp(text, word, n) == 0;
}

static bool starts(const char *text, const char *start)
{
	return strncmp(text, start, strlen(start)) == 0;
}

/* Jumps and calls whose target is written down: "je     98fb8 <...>". */
static bool has_target(const char *text, uint64_t *ret)
{
	size_t n;
	const char *operand;
	char *end;

	text = skip_branch_prefix(text);
	operand = split(text, &n);
	if (text[0] != 'j' && !is_word(text, n, "call") && !starts(text, "loop") &&
	    !starts(text, "xbegin"))
		return false;
	*ret = strtoull(operand, &end, 16);
	return end > operand;
}

bool listing_jumps_into(const struct listing *listing, uint64_t first, uint64_t last)
{
	for (size_t i = 0; i < listing->n; i++) {
		uint64_t target;

		if (has_target(listing->lines[i].text, &target) && target >= first &&
		    target <= last)
			return true;
	}
	return false;
}

bool listing_is_emulated(const char *text)
{
	size_t n;
	const char *operand = split(text, &n);
	uint64_t target;

	if (is_word(text, n, "push"))
		return operand[0] == '%' && !starts(operand, "%fs") && !starts(operand, "%gs");
	if (is_word(text, n, "nop"))
		return operand[0] == '\0';
	if (starts(text, "xchg   %ax,%ax"))
		return true;
	return has_target(text, &target) && !starts(text, "loop") && !starts(text, "jrcxz") &&
	       !starts(text, "jecxz") && !starts(text, "xbegin");
}

/* The last operand, which an instruction of AT&T syntax writes. */
static const char *last_operand(const char *operands)
{
	const char *last = operands;
	int depth = 0;

	for (const char *c = operands; *c && *c != '#'; c++) {
		depth += *c == '(';
		depth -= *c == ')';
		if (*c == ',' && depth == 0)
			last = c + 1;
	}
	return last;
}

static bool names_register(const char *operand, const char *const *names)
{
	size_t n = strcspn(operand, " ,)#");

	for (; *names; names++) {
		if (is_word(operand, n, *names))
			return true;
	}
	return false;
}

bool listing_keeps(const char *text, unsigned arg_mask)
{
	static const char *const readers[] = {"cmp", "test", "nop", "endbr64"};
	static const char *const writers[] = {"mov", "lea", "xor", "and", "or",	 "add",	 "sub",
					      "shl", "shr", "sar", "neg", "not", "cmov", "set"};
	static const char *const stack[] = {"%rsp", "%esp", "%sp", "%spl", NULL};
	static const char *const arguments[3][6] = {{"%rdi", "%edi", "%di", "%dil", NULL},
						    {"%rsi", "%esi", "%si", "%sil", NULL},
						    {"%rdx", "%edx", "%dx", "%dl", "%dh", NULL}};
	size_t n;
	const char *written = last_operand(split(text, &n));

	for (size_t i = 0; i < sizeof(readers) / sizeof(readers[0]); i++) {
		if (starts(text, readers[i]))
			return true;
	}
	for (size_t i = 0; i < 3; i++) {
		if ((arg_mask & (1u << i)) && names_register(written, arguments[i]))
			return false;
	}
	if (names_register(written, stack))
		return false;
	if (starts(text, "mul")) /* writes %rdx:%rax */
		return !(arg_mask & 4);
	for (size_t i = 0; i < sizeof(writers) / sizeof(writers[0]); i++) {
		if (starts(text, writers[i]))
			return true;
	}
	return false;
}
