#include <string.h>

#include "object.h"

RedisModuleType *script_type;

static bool load_fields(RedisModuleIO *rdb, Object *script) {
    char *data;
    size_t size;
    if (!rdb_bytes(rdb, &data, &size)) return false;
    bool good = device_parse(data, size, &script->device);
    redis.Free(data);
    if (!good || !rdb_text(rdb, &script->tag) || !rdb_names(rdb, &script->entry_points)) return false;
    if (!rdb_bytes(rdb, &data, &size)) return false;
    script->blob = blob_adopt(data, size);
    return true;
}

static void *load(RedisModuleIO *rdb, int encver) {
    if (encver != ENCODING_VERSION) return NULL;
    Object *script = object_new(KIND_SCRIPT);
    if (load_fields(rdb, script)) return script;
    object_release(script);
    return NULL;
}

static void save(RedisModuleIO *rdb, void *value) {
    const Object *script = value;
    rdb_save_bytes(rdb, script->device.name, strlen(script->device.name));
    rdb_save_text(rdb, script->tag);
    rdb_save_names(rdb, &script->entry_points);
    rdb_save_bytes(rdb, bytes_data(&script->blob->bytes), script->blob->bytes.size);
}

static void rewrite(RedisModuleIO *aof, RedisModuleString *key, void *value) {
    const Object *script = value;
    Emitted emitted = emit_begin(7 + script->entry_points.count);
    emit_word(&emitted, script->device.name);
    emit_word(&emitted, "TAG");
    emit_text(&emitted, script->tag);
    emit_names(&emitted, "ENTRY_POINTS", &script->entry_points);
    emit_word(&emitted, "SOURCE");
    emit_bytes(&emitted, &script->blob->bytes);
    emit_end(&emitted, aof, script->entry_points.count ? "AI.SCRIPTSTORE" : "AI.SCRIPTSET", key);
}

static void digest(RedisModuleDigest *digest, void *value) {
    const Object *script = value;
    redis.DigestAddStringBuffer(digest, script->device.name, strlen(script->device.name));
    redis.DigestAddStringBuffer(digest, script->tag->data, script->tag->size);
    redis.DigestEndSequence(digest);
    digest_names(digest, &script->entry_points);
    redis.DigestAddStringBuffer(digest, bytes_data(&script->blob->bytes), script->blob->bytes.size);
    redis.DigestEndSequence(digest);
}

static size_t mem_usage(const void *value) {
    const Object *script = value;
    size_t texts = sizeof(Text) + script->tag->size + names_memory(&script->entry_points);
    return sizeof *script + texts + sizeof(Blob) + script->blob->bytes.size;
}

static void release(void *value) { object_release(value); }

/* Shares the source; has statistics of its own. */
static void *copy(RedisModuleString *from, RedisModuleString *to, const void *value) {
    (void)from, (void)to;
    const Object *old = value;
    Object *script = object_new(KIND_SCRIPT);
    script->device = old->device;
    script->tag = text_new(old->tag->data, old->tag->size);
    script->entry_points = names_copy(&old->entry_points);
    script->blob = blob_share(old->blob);
    return script;
}

static size_t free_effort(RedisModuleString *key, const void *value) {
    (void)key;
    return 1 + (((const Object *)value)->blob->bytes.size >> 16);
}

int script_type_register(RedisModuleCtx *ctx) {
    TypeMethods methods = {
        .version = TYPE_METHODS_VERSION, .rdb_load = load, .rdb_save = save, .aof_rewrite = rewrite,
        .mem_usage = mem_usage, .digest = digest, .free = release, .free_effort = free_effort, .copy = copy,
    };
    script_type = redis.CreateDataType(ctx, "asim-scrp", ENCODING_VERSION, &methods);
    return script_type != NULL;
}
