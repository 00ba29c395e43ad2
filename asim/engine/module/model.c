#include "model.h"

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

Model *model_new(void) {
    Model *model = redis.Calloc(1, sizeof *model);
    atomic_init(&model->references, 1);
    return model;
}

Model *model_share(Model *model) {
    atomic_fetch_add_explicit(&model->references, 1, memory_order_relaxed);
    return model;
}

void model_release(Model *model) {
    if (!model || atomic_fetch_sub_explicit(&model->references, 1, memory_order_acq_rel) != 1) return;
    if (model->tag) redis.Free(model->tag);
    names_release(&model->inputs);
    names_release(&model->outputs);
    blob_release(model->blob);
    redis.Free(model);
}

Script *script_new(void) {
    Script *script = redis.Calloc(1, sizeof *script);
    atomic_init(&script->references, 1);
    return script;
}

Script *script_share(Script *script) {
    atomic_fetch_add_explicit(&script->references, 1, memory_order_relaxed);
    return script;
}

void script_release(Script *script) {
    if (!script || atomic_fetch_sub_explicit(&script->references, 1, memory_order_acq_rel) != 1) return;
    if (script->tag) redis.Free(script->tag);
    names_release(&script->entry_points);
    blob_release(script->source);
    redis.Free(script);
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
