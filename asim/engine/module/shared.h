/* Memory that the server and one worker see, for inputs that are too large to be sent through a socket. */
#ifndef ASIM_SHARED_H
#define ASIM_SHARED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The worker opens it as /proc/<server>/fd/<fd>. It can write into it, but neither shorten nor lengthen it. */
typedef struct Shared {
    char *data; /* NULL: there is none */
    size_t size;
    int fd;
    uint32_t generation; /* as numbers of files are used again */
} Shared;

/* From this size on a message goes through shared memory: far below it, a socket is as fast. */
enum { SHARED_FROM = 64 << 10 };
/* It is given back when it was not used for so long. */
enum { SHARED_IDLE_MS = 5000 };

/* Makes room for so many bytes. False where the system has none to give. */
bool shared_reserve(Shared *shared, size_t size);
/* A file of its own with these bytes, to be closed when the worker has it; -1 where the system gives none. */
int shared_copy(const char *data, size_t size);
void shared_release(Shared *shared);

#endif
