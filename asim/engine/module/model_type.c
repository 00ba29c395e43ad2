#include "object.h"

#include <string.h>

RedisModuleType *model_type;

static bool load_device(RedisModuleIO *rdb, Device *device) {
    char *data;
    size_t size;
    if (!rdb_bytes(rdb, &data, &size)) return false;
    bool good = device_parse(data, size, device);
    redis.Free(data);
    return good;
}

static bool load_blob(RedisModuleIO *rdb, Blob **blob) {
    char *data;
    size_t size;
    if (!rdb_bytes(rdb, &data, &size)) return false;
    *blob = blob_adopt(data, size);
    return true;
}

static bool load_fields(RedisModuleIO *rdb, Object *model) {
    uint64_t backend, sizes[3];
    if (!rdb_number(rdb, BACKENDS - 1, &backend) || !load_device(rdb, &model->device)) return false;
    if (!rdb_text(rdb, &model->tag)) return false;
    for (int i = 0; i < 3; i++)
        if (!rdb_number(rdb, INT64_MAX, &sizes[i])) return false;
    model->backend = (Backend)backend;
    model->batchsize = (int64_t)sizes[0];
    model->minbatchsize = (int64_t)sizes[1];
    model->minbatchtimeout_ms = (int64_t)sizes[2];
    return rdb_names(rdb, &model->inputs) && rdb_names(rdb, &model->outputs) && load_blob(rdb, &model->blob);
}

static void *load(RedisModuleIO *rdb, int encver) {
    if (encver != ENCODING_VERSION) return NULL;
    Object *model = object_new(KIND_MODEL);
    if (load_fields(rdb, model)) return model;
    object_release(model);
    return NULL;
}

static void save(RedisModuleIO *rdb, void *value) {
    const Object *model = value;
    redis.SaveUnsigned(rdb, model->backend);
    rdb_save_bytes(rdb, model->device.name, strlen(model->device.name));
    rdb_save_text(rdb, model->tag);
    redis.SaveUnsigned(rdb, (uint64_t)model->batchsize);
    redis.SaveUnsigned(rdb, (uint64_t)model->minbatchsize);
    redis.SaveUnsigned(rdb, (uint64_t)model->minbatchtimeout_ms);
    rdb_save_names(rdb, &model->inputs);
    rdb_save_names(rdb, &model->outputs);
    rdb_save_bytes(rdb, bytes_data(&model->blob->bytes), model->blob->bytes.size);
}

static void emit_option(Emitted *emitted, const char *word, int64_t number) {
    if (!number) return;
    emit_word(emitted, word);
    emit_number(emitted, number);
}

static void rewrite(RedisModuleIO *aof, RedisModuleString *key, void *value) {
    const Object *model = value;
    Emitted emitted = emit_begin(16 + model->inputs.count + model->outputs.count);
    emit_word(&emitted, BACKEND_NAMES[model->backend]);
    emit_word(&emitted, model->device.name);
    emit_word(&emitted, "TAG");
    emit_text(&emitted, model->tag);
    emit_option(&emitted, "BATCHSIZE", model->batchsize);
    emit_option(&emitted, "MINBATCHSIZE", model->minbatchsize);
    emit_option(&emitted, "MINBATCHTIMEOUT", model->minbatchtimeout_ms);
    emit_names(&emitted, "INPUTS", &model->inputs);
    emit_names(&emitted, "OUTPUTS", &model->outputs);
    emit_word(&emitted, "BLOB");
    emit_bytes(&emitted, &model->blob->bytes);
    emit_end(&emitted, aof, "AI.MODELSTORE", key);
}

static void digest(RedisModuleDigest *digest, void *value) {
    const Object *model = value;
    redis.DigestAddLongLong(digest, model->backend);
    redis.DigestAddStringBuffer(digest, model->device.name, strlen(model->device.name));
    redis.DigestAddStringBuffer(digest, model->tag->data, model->tag->size);
    redis.DigestAddLongLong(digest, model->batchsize);
    redis.DigestAddLongLong(digest, model->minbatchsize);
    redis.DigestAddLongLong(digest, model->minbatchtimeout_ms);
    redis.DigestEndSequence(digest);
    digest_names(digest, &model->inputs);
    digest_names(digest, &model->outputs);
    redis.DigestAddStringBuffer(digest, bytes_data(&model->blob->bytes), model->blob->bytes.size);
    redis.DigestEndSequence(digest);
}

static size_t mem_usage(const void *value) {
    const Object *model = value;
    size_t names = names_memory(&model->inputs) + names_memory(&model->outputs);
    return sizeof *model + sizeof(Text) + model->tag->size + names + sizeof(Blob) + model->blob->bytes.size;
}

static void release(void *value) { object_release(value); }

/* Shares the bytes; has statistics of its own. */
static void *copy(RedisModuleString *from, RedisModuleString *to, const void *value) {
    (void)from, (void)to;
    const Object *old = value;
    Object *model = object_new(KIND_MODEL);
    model->backend = old->backend;
    model->device = old->device;
    model->batchsize = old->batchsize;
    model->minbatchsize = old->minbatchsize;
    model->minbatchtimeout_ms = old->minbatchtimeout_ms;
    model->tag = text_new(old->tag->data, old->tag->size);
    model->inputs = names_copy(&old->inputs);
    model->outputs = names_copy(&old->outputs);
    model->blob = blob_share(old->blob);
    return model;
}

static size_t free_effort(RedisModuleString *key, const void *value) {
    (void)key;
    return 1 + (((const Object *)value)->blob->bytes.size >> 16);
}

int model_type_register(RedisModuleCtx *ctx) {
    TypeMethods methods = {
        .version = TYPE_METHODS_VERSION, .rdb_load = load, .rdb_save = save, .aof_rewrite = rewrite,
        .mem_usage = mem_usage, .digest = digest, .free = release, .free_effort = free_effort, .copy = copy,
    };
    model_type = redis.CreateDataType(ctx, "asim-modl", ENCODING_VERSION, &methods);
    return model_type != NULL;
}
