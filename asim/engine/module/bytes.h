/* Immutable bytes with an owner: an argument of a command that was kept, or memory of our own. */
#ifndef ASIM_BYTES_H
#define ASIM_BYTES_H

#include <stdatomic.h>
#include <stdbool.h>

#include "redis_api.h"

typedef struct Bytes {
    size_t size;
    RedisModuleString *string; /* the owner, or NULL */
    char *heap;                /* the owner, or NULL */
    const char *inside;        /* where neither owns them: within a bigger allocation */
} Bytes;

/* Where they are. Stays so from the end of the command that stored them on; not before, because a server (6.2) may
 * shorten the allocation of an argument that was kept, and so move it, when its command is over. */
static inline const char *bytes_data(const Bytes *bytes) {
    size_t size;
    if (bytes->string) return redis.StringPtrLen(bytes->string, &size);
    return bytes->heap ? bytes->heap : bytes->inside;
}

/* Below this size one copy costs less than keeping the argument's own allocation. */
enum { HOLD_FROM = 1024 };

/* Whether an argument may be kept instead of copied.
 *
 * The count of references of a server's string is no atomic, and a value may be freed in a background thread, so once
 * the command is over the reference that we keep must be the only one. That is so for a command that a client sent by
 * itself; the arguments of MULTI, of scripts and of RedisModule_Call may live on elsewhere. */
bool bytes_may_hold(RedisModuleCtx *ctx, size_t size);

/* Keeps the argument; bytes_may_hold has said yes. */
Bytes bytes_hold(RedisModuleString *argument);

/* Takes over memory from redis.Alloc. */
Bytes bytes_adopt(char *heap, size_t size);

void bytes_release(Bytes *bytes);

/* Memory for something of this size, or NULL where the system would not give it. Free it with redis.Free. */
void *alloc_or_null(size_t size);

/* A blob that several objects share. */
typedef struct Blob {
    atomic_uint references;
    Bytes bytes;
} Blob;

/* Keeps one argument, or copies several into one piece. Returns NULL without memory. */
Blob *blob_from_arguments(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
Blob *blob_adopt(char *heap, size_t size);
Blob *blob_share(Blob *blob);
void blob_release(Blob *blob);

/* A short text in one allocation; may contain any byte. */
typedef struct Text {
    size_t size;
    char data[];
} Text;

Text *text_new(const char *data, size_t size);
Text *text_from(RedisModuleString *argument);

#endif
