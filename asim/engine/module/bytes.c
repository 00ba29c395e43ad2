#include "bytes.h"

#include <stdlib.h>
#include <string.h>

bool bytes_may_hold(RedisModuleCtx *ctx, size_t size) {
    if (size < HOLD_FROM) return false;
    return !(redis.GetContextFlags(ctx) & CONTEXT_DENY_BLOCKING);
}

Bytes bytes_hold(RedisModuleString *argument) {
    Bytes bytes = {.heap = NULL};
    /* older servers do this by themselves when the command is over */
    if (redis.TrimStringAllocation) redis.TrimStringAllocation(argument);
    bytes.string = redis.HoldString(NULL, argument);
    redis.StringPtrLen(bytes.string, &bytes.size);
    return bytes;
}

Bytes bytes_adopt(char *heap, size_t size) {
    return (Bytes){.size = size, .heap = heap};
}

void bytes_release(Bytes *bytes) {
    if (bytes->string) redis.FreeString(NULL, bytes->string);
    if (bytes->heap) redis.Free(bytes->heap);
}

void *alloc_or_null(size_t size) {
    if (redis.TryAlloc) return redis.TryAlloc(size);
    /* redis.Alloc ends the server when it fails, so ask the system first where it could */
    if (size >= 1 << 20) {
        void *probe = malloc(size);
        if (!probe) return NULL;
        free(probe);
    }
    return redis.Alloc(size);
}

Blob *blob_adopt(char *heap, size_t size) {
    Blob *blob = redis.Alloc(sizeof *blob);
    atomic_init(&blob->references, 1);
    blob->bytes = bytes_adopt(heap, size);
    return blob;
}

static Blob *blob_join(RedisModuleString **argv, int argc) {
    size_t total = 0, size;
    for (int i = 0; i < argc; i++) {
        redis.StringPtrLen(argv[i], &size);
        total += size;
    }
    char *heap = alloc_or_null(total ? total : 1), *end = heap;
    if (!heap) return NULL;
    for (int i = 0; i < argc; i++) {
        const char *data = redis.StringPtrLen(argv[i], &size);
        memcpy(end, data, size);
        end += size;
    }
    return blob_adopt(heap, total);
}

Blob *blob_from_arguments(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    size_t size = 0;
    if (argc == 1) redis.StringPtrLen(argv[0], &size);
    if (argc != 1 || !bytes_may_hold(ctx, size)) return blob_join(argv, argc);
    Blob *blob = redis.Alloc(sizeof *blob);
    atomic_init(&blob->references, 1);
    blob->bytes = bytes_hold(argv[0]);
    return blob;
}

Blob *blob_share(Blob *blob) {
    atomic_fetch_add_explicit(&blob->references, 1, memory_order_relaxed);
    return blob;
}

void blob_release(Blob *blob) {
    if (!blob || atomic_fetch_sub_explicit(&blob->references, 1, memory_order_acq_rel) != 1) return;
    bytes_release(&blob->bytes);
    redis.Free(blob);
}

Text *text_new(const char *data, size_t size) {
    Text *text = redis.Alloc(sizeof *text + size);
    text->size = size;
    if (size) memcpy(text->data, data, size);
    return text;
}

Text *text_from(RedisModuleString *argument) {
    size_t size;
    const char *data = redis.StringPtrLen(argument, &size);
    return text_new(data, size);
}
