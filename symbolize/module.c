/* SPDX-License-Identifier: MIT */
#include "symbolize/module.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/array.h"
#include "src/base/frame.h"
#include "src/base/hash.h"
#include "src/base/map.h"
#include "symbolize/module_registry.h"

/*
 * The one hard idea: a file that is held open keeps its inode, so (device, inode) names it for good
 * and cannot come back as another file; only a file that was overwritten in place keeps both, and
 * then the build-id tells the two apart.
 */

struct module {
	enum dp_module_kind kind;
	dev_t dev;
	ino_t inode;
	char *path;
	int fd;	    /* -1 unless ELF */
	void *vdso; /* NULL unless VDSO */
	size_t vdso_bytes;
	uint32_t next; /* id of another module with the same hash; 0: none */
	struct dp_elf_image image;
};

struct dp_modules {
	pthread_mutex_t lock;	 /* of all that follows; a module itself does not change */
	struct module **modules; /* id - 1 → module; each stays where it is */
	size_t n, capacity;
	struct dp_map by_hash; /* of device and inode → id of the newest */
	struct dp_modules_stats stats;
	int root_fd; /* -1: none */
};

int dp_modules_new(struct dp_modules **ret)
{
	struct dp_modules *modules = calloc(1, sizeof(*modules));

	if (!modules)
		return -ENOMEM;
	elf_version(EV_CURRENT);
	modules->root_fd = -1;
	pthread_mutex_init(&modules->lock, NULL);
	*ret = modules;
	return 0;
}

static void module_free(struct module *module)
{
	if (!module)
		return;
	if (module->fd >= 0)
		close(module->fd);
	free(module->vdso);
	free(module->path);
	free(module);
}

void dp_modules_free(struct dp_modules *modules)
{
	if (!modules)
		return;
	for (size_t i = 0; i < modules->n; i++)
		module_free(modules->modules[i]);
	if (modules->root_fd >= 0)
		close(modules->root_fd);
	free(modules->modules);
	dp_map_clear(&modules->by_hash);
	pthread_mutex_destroy(&modules->lock);
	free(modules);
}

/* For those who are promised that nothing changes. */
static void lock(const struct dp_modules *modules)
{
	pthread_mutex_lock((pthread_mutex_t *)&modules->lock);
}

static void unlock(const struct dp_modules *modules)
{
	pthread_mutex_unlock((pthread_mutex_t *)&modules->lock);
}

void dp_modules_get_stats(const struct dp_modules *modules, struct dp_modules_stats *ret)
{
	lock(modules);
	*ret = modules->stats;
	unlock(modules);
}

uint32_t dp_modules_count(const struct dp_modules *modules)
{
	uint32_t n;

	lock(modules);
	n = (uint32_t)modules->n;
	unlock(modules);
	return n;
}

static struct module *get_locked(const struct dp_modules *modules, uint32_t id)
{
	return id >= 1 && id <= modules->n ? modules->modules[id - 1] : NULL;
}

static struct module *get(const struct dp_modules *modules, uint32_t id)
{
	struct module *module;

	lock(modules);
	module = get_locked(modules, id);
	unlock(modules);
	return module;
}

static uint64_t identity_hash(dev_t dev, ino_t inode)
{
	return dp_hash_words((uint64_t[]){dev, inode}, 2);
}

static bool same_build_id(const struct dp_elf_image *a, const struct dp_elf_image *b)
{
	return a->build_id_bytes == b->build_id_bytes &&
	       memcmp(a->build_id, b->build_id, a->build_id_bytes) == 0;
}

static bool is_same(const struct module *a, const struct module *b)
{
	if (a->kind != b->kind || a->dev != b->dev || a->inode != b->inode)
		return false;
	switch (a->kind) {
	case DP_MODULE_ELF:
		return same_build_id(&a->image, &b->image);
	case DP_MODULE_VDSO:
		return a->vdso_bytes == b->vdso_bytes &&
		       memcmp(a->vdso, b->vdso, a->vdso_bytes) == 0;
	case DP_MODULE_OPAQUE:
		break;
	}
	return strcmp(a->path, b->path) == 0;
}

/* The id of the module that is the same as @module, from @id on along its chain; 0: none. */
static uint32_t find_same(const struct dp_modules *modules, uint32_t id,
			  const struct module *module)
{
	const struct module *other;

	for (; (other = get_locked(modules, id)); id = other->next) {
		if (is_same(other, module))
			return id;
	}
	return 0;
}

/* Gives the id of @module, which is taken over in every case. @counter: of a new one, or NULL. */
static int add_locked(struct dp_modules *modules, struct module *module, uint64_t *counter,
		      uint32_t *ret_id)
{
	uint64_t hash = identity_hash(module->dev, module->inode), newest = 0;
	uint32_t id;
	int r = 0;

	dp_map_get(&modules->by_hash, hash, &newest);
	module->next = (uint32_t)newest;
	id = find_same(modules, module->next, module);
	if (id || modules->n == DP_FRAME_MAX_MODULE) {
		modules->stats.n_over_limit += !id;
		goto known;
	}
	r = dp_array_reserve((void **)&modules->modules, &modules->capacity, modules->n + 1,
			     sizeof(*modules->modules));
	if (r == 0)
		r = dp_map_set(&modules->by_hash, hash, modules->n + 1);
	if (r < 0)
		goto known;
	modules->stats.n_segments_lost += module->image.n_unfit;
	if (counter)
		++*counter;
	modules->modules[modules->n++] = module;
	*ret_id = (uint32_t)modules->n;
	return 0;
known:
	module_free(module);
	if (r == 0)
		*ret_id = id;
	return r;
}

static int add(struct dp_modules *modules, struct module *module, uint64_t *counter,
	       uint32_t *ret_id)
{
	int r;

	lock(modules);
	r = add_locked(modules, module, counter, ret_id);
	unlock(modules);
	return r;
}

static struct module *module_new(enum dp_module_kind kind, const char *path, size_t path_bytes)
{
	struct module *module = calloc(1, sizeof(*module));

	if (!module)
		return NULL;
	module->kind = kind;
	module->fd = -1;
	module->path = malloc(path_bytes + 1);
	if (!module->path) {
		free(module);
		return NULL;
	}
	memcpy(module->path, path, path_bytes);
	module->path[path_bytes] = '\0';
	return module;
}

static int read_image(Elf *elf, struct dp_elf_image *ret)
{
	int r = elf ? dp_elf_image_read(elf, ret) : -ENOEXEC;

	elf_end(elf);
	return r;
}

int dp_modules_add_file(struct dp_modules *modules, int fd, const char *path, size_t path_bytes,
			uint32_t *ret_id)
{
	struct module *module = module_new(DP_MODULE_ELF, path, path_bytes);
	uint64_t *counter = NULL;
	struct stat st;

	if (!module) {
		close(fd);
		return -ENOMEM;
	}
	if (fstat(fd, &st) == 0) {
		module->dev = st.st_dev;
		module->inode = st.st_ino;
	}
	if (read_image(elf_begin(fd, ELF_C_READ, NULL), &module->image) == 0) {
		module->fd = fd;
	} else {
		module->kind = DP_MODULE_OPAQUE;
		counter = &modules->stats.n_unreadable;
		close(fd);
	}
	return add(modules, module, counter, ret_id);
}

int dp_modules_add_vdso(struct dp_modules *modules, void *bytes, size_t n_bytes, uint32_t *ret_id)
{
	struct module *module = module_new(DP_MODULE_VDSO, "[vdso]", strlen("[vdso]"));
	uint64_t *counter = NULL;

	if (!module) {
		free(bytes);
		return -ENOMEM;
	}
	module->vdso = bytes;
	module->vdso_bytes = n_bytes;
	if (read_image(elf_memory(bytes, n_bytes), &module->image) < 0) {
		module->kind = DP_MODULE_OPAQUE;
		counter = &modules->stats.n_unreadable;
	}
	return add(modules, module, counter, ret_id);
}

int dp_modules_add_opaque(struct dp_modules *modules, dev_t dev, ino_t inode, const char *path,
			  size_t path_bytes, int open_errno, uint32_t *ret_id)
{
	struct module *module = module_new(DP_MODULE_OPAQUE, path, path_bytes);

	if (!module)
		return -ENOMEM;
	module->dev = dev;
	module->inode = inode;
	return add(modules, module,
		   open_errno == EMFILE || open_errno == ENFILE ? &modules->stats.n_without_fd
								: &modules->stats.n_unreadable,
		   ret_id);
}

void dp_modules_set_root(struct dp_modules *modules, int fd)
{
	lock(modules);
	if (modules->root_fd < 0) {
		modules->root_fd = fd;
		fd = -1;
	}
	unlock(modules);
	if (fd >= 0)
		close(fd);
}

int dp_modules_root(const struct dp_modules *modules)
{
	int fd;

	lock(modules);
	fd = modules->root_fd;
	unlock(modules);
	return fd;
}

uint32_t dp_modules_find(const struct dp_modules *modules, const char *path, size_t path_bytes,
			 const uint8_t *build_id, size_t n_bytes)
{
	uint32_t id;

	lock(modules);
	for (id = (uint32_t)modules->n; id > 0; id--) {
		const struct module *module = modules->modules[id - 1];

		if (module->kind == DP_MODULE_ELF && module->image.build_id_bytes == n_bytes &&
		    memcmp(module->image.build_id, build_id, n_bytes) == 0 &&
		    strlen(module->path) == path_bytes &&
		    memcmp(module->path, path, path_bytes) == 0)
			break;
	}
	unlock(modules);
	return id;
}

bool dp_module_get(const struct dp_modules *modules, uint32_t id, struct dp_module_info *ret)
{
	const struct module *module = get(modules, id);

	if (!module)
		return false;
	*ret = (struct dp_module_info){
		.path = module->path,
		.build_id = module->image.build_id_bytes ? module->image.build_id : NULL,
		.build_id_bytes = module->image.build_id_bytes,
		.kind = module->kind,
		.machine = module->image.machine,
	};
	return true;
}

int dp_module_fd(const struct dp_modules *modules, uint32_t id)
{
	const struct module *module = get(modules, id);

	return module ? module->fd : -1;
}

size_t dp_module_vdso_bytes(const struct dp_modules *modules, uint32_t id)
{
	const struct module *module = get(modules, id);

	return module ? module->vdso_bytes : 0;
}

const struct dp_elf_image *dp_module_image(const struct dp_modules *modules, uint32_t id)
{
	const struct module *module = get(modules, id);

	return module && module->kind != DP_MODULE_OPAQUE ? &module->image : NULL;
}

Elf *dp_module_elf_begin(const struct dp_modules *modules, uint32_t id)
{
	const struct module *module = get(modules, id);

	if (!module || module->kind == DP_MODULE_OPAQUE)
		return NULL;
	if (module->kind == DP_MODULE_VDSO)
		return elf_memory(module->vdso, module->vdso_bytes);
	return elf_begin(module->fd, ELF_C_READ, NULL);
}

int dp_module_find_functions(struct dp_modules *modules, uint32_t id, const char *const *names,
			     size_t n_names, struct dp_found_symbol **ret, size_t *ret_n)
{
	const struct dp_elf_image *image = dp_module_image(modules, id);
	Elf *elf;
	int r;

	if (!get(modules, id))
		return -ENOENT;
	elf = dp_module_elf_begin(modules, id);
	if (!elf)
		return -ENOEXEC;
	r = dp_elf_find_functions(elf, image, names, n_names, ret, ret_n);
	elf_end(elf);
	return r;
}

static ptrdiff_t read_file(int fd, uint64_t file_off, void *ret, size_t n_bytes)
{
	size_t n_read = 0;

	while (n_read < n_bytes) {
		ssize_t r = pread(fd, (char *)ret + n_read, n_bytes - n_read,
				  (off_t)(file_off + n_read));

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		n_read += (size_t)r;
	}
	return (ptrdiff_t)n_read;
}

ptrdiff_t dp_module_read(struct dp_modules *modules, uint32_t id, uint64_t file_off, void *ret,
			 size_t n_bytes)
{
	const struct module *module = get(modules, id);

	if (!module)
		return -ENOENT;
	if (module->kind == DP_MODULE_OPAQUE)
		return -ENOEXEC;
	if (file_off > INT64_MAX || n_bytes > INT64_MAX - file_off)
		return -EINVAL;
	if (module->kind == DP_MODULE_ELF)
		return read_file(module->fd, file_off, ret, n_bytes);
	if (file_off >= module->vdso_bytes)
		return 0;
	if (n_bytes > module->vdso_bytes - file_off)
		n_bytes = module->vdso_bytes - file_off;
	memcpy(ret, (const char *)module->vdso + file_off, n_bytes);
	return (ptrdiff_t)n_bytes;
}
