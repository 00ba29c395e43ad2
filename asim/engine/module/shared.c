#define _GNU_SOURCE
#include "shared.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __linux__
static uint32_t last_generation;

/* A file of this size, whose pages are all there: running out of memory later would be the end of the server. */
static int file_new(size_t size) {
    int fd = memfd_create("asim-inputs", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return -1;
    if (!posix_fallocate(fd, 0, (off_t)size) && !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) return fd;
    close(fd);
    return -1;
}

int shared_copy(const char *data, size_t size) {
    int fd = memfd_create("asim-model", MFD_CLOEXEC);
    for (ssize_t written = 0; fd >= 0 && size; data += written, size -= (size_t)written) {
        if ((written = write(fd, data, size)) > 0) continue;
        close(fd);
        return -1;
    }
    return fd;
}

bool shared_reserve(Shared *shared, size_t size) {
    if (shared->data && size <= shared->size) return true;
    shared_release(shared);
    size = (size + 0xfffff) & ~(size_t)0xfffff;
    int fd = file_new(size);
    if (fd < 0) return false;
    void *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
        close(fd);
        return false;
    }
    *shared = (Shared){.data = data, .size = size, .fd = fd, .generation = ++last_generation};
    return true;
}
#else
int shared_copy(const char *data, size_t size) {
    (void)data, (void)size;
    return -1;
}

bool shared_reserve(Shared *shared, size_t size) {
    (void)shared, (void)size;
    return false;
}
#endif

void shared_release(Shared *shared) {
    if (!shared->data) return;
    munmap(shared->data, shared->size);
    close(shared->fd);
    *shared = (Shared){0};
}
