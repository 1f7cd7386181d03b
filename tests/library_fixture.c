/* SPDX-License-Identifier: MIT */
#include "tests/library_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#include "encode/profile.pb-c.h"

typedef Perftools__Profiles__Profile Profile;

void turns_start(struct turns *turns)
{
	int in[2], out[2];

	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	turns->pid = fork();
	assert_true(turns->pid >= 0);
	if (turns->pid == 0) {
		dup2(in[0], STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		for (int i = 0; i < 2; i++) {
			close(in[i]);
			close(out[i]);
		}
		execl(DP_TURNS, DP_TURNS, (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	turns->in = in[1];
	turns->out = out[0];
	/* It has been executed when it answers. */
	turns_do(turns, 'a', 1);
}

void turns_do(struct turns *turns, char what, unsigned n)
{
	while (n-- > 0) {
		char answer = 0;

		if (write(turns->in, &what, 1) != 1 || read(turns->out, &answer, 1) != 1 ||
		    answer != what)
			abort();
	}
}

void turns_end(struct turns *turns)
{
	if (turns->pid <= 0)
		return;
	kill(turns->pid, SIGKILL);
	waitpid(turns->pid, NULL, 0);
	close(turns->in);
	close(turns->out);
	turns->pid = 0;
}

/* Fails hard: it also runs outside of cmocka's thread. */
static Profile *decode(const void *data, size_t n_bytes)
{
	static const size_t capacity = 16 << 20;
	z_stream stream = {.next_in = (void *)data, .avail_in = (unsigned)n_bytes};
	uint8_t *raw = malloc(capacity);
	Profile *profile;

	stream.next_out = raw;
	stream.avail_out = (unsigned)capacity;
	if (!raw || inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK ||
	    inflate(&stream, Z_FINISH) != Z_STREAM_END)
		abort();
	profile = perftools__profiles__profile__unpack(NULL, stream.total_out, raw);
	inflateEnd(&stream);
	free(raw);
	if (!profile)
		abort();
	return profile;
}

static const char *function_name(const Profile *profile, uint64_t id)
{
	for (size_t i = 0; i < profile->n_function; i++) {
		if (profile->function[i]->id == id)
			return profile->string_table[profile->function[i]->name];
	}
	return "";
}

static bool starts_with(const char *name, const char *prefix)
{
	return prefix && strncmp(name, prefix, strlen(prefix)) == 0;
}

/* Looks at one location of a stack; returns whether it is in the tally's function. */
static bool look(struct tally *tally, const Profile *profile, uint64_t id)
{
	bool found = false;

	for (size_t i = 0; i < profile->n_location; i++) {
		const Perftools__Profiles__Location *location = profile->location[i];

		for (size_t j = 0; location->id == id && j < location->n_line; j++) {
			const char *name = function_name(profile, location->line[j]->function_id);

			found |= strcmp(name, tally->function) == 0;
			tally->n_unwanted += starts_with(name, tally->unwanted);
		}
	}
	return found;
}

static void add(struct tally *tally, const Profile *profile)
{
	memset(tally->last, 0, sizeof(tally->last));
	for (size_t i = 0; i < profile->n_sample; i++) {
		const Perftools__Profiles__Sample *sample = profile->sample[i];
		bool found = false;

		for (size_t j = 0; j < sample->n_location_id; j++)
			found |= look(tally, profile, sample->location_id[j]);
		for (size_t j = 0; found && j < sample->n_value && j < 4; j++)
			tally->last[j] += sample->value[j];
	}
	for (int j = 0; j < 4; j++)
		tally->sums[j] += tally->last[j];
	tally->n_nonempty += tally->last[0] != 0;
	tally->n_delivered++;
}

int tally_write(void *context, const void *data, size_t n_bytes, char error[DELTAPROF_ERROR_BYTES])
{
	struct tally *tally = context;
	Profile *profile;

	if (tally->fail_every && ++tally->n_calls % tally->fail_every == 0) {
		snprintf(error, DELTAPROF_ERROR_BYTES, "the tally would not take it");
		return -EPIPE;
	}
	profile = decode(data, n_bytes);
	add(tally, profile);
	perftools__profiles__profile__free_unpacked(profile, NULL);
	return 0;
}
