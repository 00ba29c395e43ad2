#include "object.h"

#include <string.h>

const char *const BACKEND_NAMES[BACKENDS] = {"TF", "TFLITE", "TORCH", "ONNX"};

bool device_parse(const char *name, size_t size, Device *device) {
    if (size < 3 || size >= sizeof device->name || size == 4) return false;
    memset(device, 0, sizeof *device);
    if (!is_word(name, 3, "CPU") && !is_word(name, 3, "GPU")) return false;
    memcpy(device->name, is_word(name, 3, "CPU") ? "CPU" : "GPU", 3);
    if (size > 3 && name[3] != ':') return false;
    for (size_t i = 4; i < size; i++)
        if (name[i] < '0' || name[i] > '9') return false;
    memcpy(device->name + 3, name + 3, size - 3);
    return true;
}

Backend backend_parse(RedisModuleString *argument) {
    int i = 0;
    while (i < BACKENDS && !argument_is(argument, BACKEND_NAMES[i])) i++;
    return (Backend)i;
}

Object *object_new(Kind kind) {
    Object *object = redis.Calloc(1, sizeof *object);
    atomic_init(&object->references, 1);
    object->kind = kind;
    if (kind == KIND_SCRIPT) object->backend = BACKEND_TORCH;
    object->runs.inputs = object->runs.outputs = -1;
    return object;
}

Object *object_share(Object *object) {
    atomic_fetch_add_explicit(&object->references, 1, memory_order_relaxed);
    return object;
}

void object_release(Object *object) {
    if (!object || atomic_fetch_sub_explicit(&object->references, 1, memory_order_acq_rel) != 1) return;
    if (object->runs.number) worker_forget(object->runs.number);
    if (object->tag) redis.Free(object->tag);
    names_release(&object->inputs);
    names_release(&object->outputs);
    names_release(&object->entry_points);
    blob_release(object->blob);
    redis.Free(object);
}

Text *parse_tag(Cursor *cursor) {
    if (cursor_left(cursor) < 2 || !cursor_skip(cursor, "TAG")) return text_new(NULL, 0);
    return text_from(cursor->argv[cursor->at++]);
}

bool parse_names(Cursor *cursor, Names *names) {
    int64_t count;
    if (!cursor_integer(cursor, 1, &count) || count > cursor_left(cursor) || count > MOST_NAMES) return false;
    names->texts = redis.Calloc((size_t)count, sizeof(Text *));
    for (; names->count < (size_t)count; names->count++) names->texts[names->count] = text_from(cursor->argv[cursor->at++]);
    return true;
}

void reply_text(RedisModuleCtx *ctx, const Text *text) { redis.ReplyWithStringBuffer(ctx, text->data, text->size); }

void reply_names(RedisModuleCtx *ctx, const Names *names) {
    redis.ReplyWithArray(ctx, (long)names->count);
    for (size_t i = 0; i < names->count; i++) reply_text(ctx, names->texts[i]);
}
