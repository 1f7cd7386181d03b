/* SPDX-License-Identifier: MIT */
/* Writes inputs for fuzz_go_buckets into a directory: lists of three buckets as they should be. */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define POINTER 0x7a7a0000u
#define N_WORDS 96

static void write_seed(const char *directory, unsigned version, unsigned list)
{
	uint64_t words[N_WORDS] = {POINTER + 8};
	uint8_t header[4] = {(uint8_t)version, (uint8_t)list, 128, 1};
	char path[4096];
	FILE *file;

	for (unsigned i = 0; i < 3; i++) {
		uint64_t *bucket = words + 1 + 31 * i;

		bucket[1] = i < 2 ? POINTER + 8 * (1 + 31 * (i + 1)) : 0;
		bucket[2] = list + 1;
		bucket[4] = list == 0 ? 16 : 0;
		bucket[5] = 3;
		bucket[6] = i == 0 ? UINT64_MAX : 0x401000;
		bucket[7] = 0x402000;
		bucket[9] = 10 + i;
		bucket[10] = 2;
		if (list == 0 && version < 11) {
			bucket[11] = 16 * bucket[9];
			bucket[12] = 16 * bucket[10];
		}
	}
	snprintf(path, sizeof(path), "%s/%u-%u", directory, version, list);
	file = fopen(path, "wb");
	assert(file);
	assert(fwrite(header, sizeof(header), 1, file) == 1);
	assert(fwrite(words, sizeof(words), 1, file) == 1);
	fclose(file);
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	for (unsigned version = 0; version < 12; version++) {
		for (unsigned list = 0; list < 3; list++)
			write_seed(argv[1], version, list);
	}
	return 0;
}
