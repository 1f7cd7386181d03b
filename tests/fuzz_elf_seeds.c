/* SPDX-License-Identifier: MIT */
/* Writes what fuzz_elf begins with into a directory: small real files, and changes to them. */
#include <stdio.h>
#include <stdlib.h>

static void write_file(const char *directory, const char *name, const void *bytes, size_t n_bytes)
{
	char path[4096];
	FILE *file;

	if ((size_t)snprintf(path, sizeof(path), "%s/%s", directory, name) >= sizeof(path)) {
		fprintf(stderr, "fuzz_elf_seeds: %s: the name is too long\n", directory);
		exit(1);
	}
	file = fopen(path, "wb");
	if (!file || fwrite(bytes, 1, n_bytes, file) != n_bytes || fclose(file)) {
		perror(path);
		exit(1);
	}
}

static void copy_file(const char *directory, const char *name, const char *from)
{
	static unsigned char bytes[1 << 18];
	FILE *file = fopen(from, "rb");
	size_t n_bytes = file ? fread(bytes, 1, sizeof(bytes), file) : 0;

	if (n_bytes == 0 || n_bytes == sizeof(bytes) || fclose(file)) {
		perror(from);
		exit(1);
	}
	write_file(directory, name, bytes, n_bytes);
}

int main(int argc, char **argv)
{
	static const char *const bases[] = {DP_FUZZ_BASES};
	char name[32];

	if (argc != 2) {
		fprintf(stderr, "usage: fuzz_elf_seeds DIRECTORY\n");
		return 2;
	}
	for (size_t i = 0; i < sizeof(bases) / sizeof(*bases); i++) {
		snprintf(name, sizeof(name), "file-%zu", i);
		copy_file(argv[1], name, bases[i]);
		for (size_t region = 0; region < 40; region++) {
			const unsigned char change[] = {
				(unsigned char)i, (unsigned char)region, 9, 0, 0, 0x55};

			snprintf(name, sizeof(name), "change-%zu-%zu", i, region);
			write_file(argv[1], name, change, region ? sizeof(change) : 1);
		}
	}
	return 0;
}
