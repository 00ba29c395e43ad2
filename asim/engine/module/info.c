/* AI.INFO key [RESETSTAT], AI._MODELSCAN, AI._SCRIPTSCAN, AI.CONFIG */
#include "commands.h"
#include "model.h"

static void reply_stats(RedisModuleCtx *ctx, const Stats *stats, int64_t samples) {
    reply_word(ctx, "duration"), redis.ReplyWithLongLong(ctx, stats->duration_us);
    reply_word(ctx, "samples"), redis.ReplyWithLongLong(ctx, samples);
    reply_word(ctx, "calls"), redis.ReplyWithLongLong(ctx, stats->calls);
    reply_word(ctx, "errors"), redis.ReplyWithLongLong(ctx, stats->errors);
}

static void reply_object(RedisModuleCtx *ctx, RedisModuleString *name, const char *type, const char *backend,
                         const Device *device, const Text *tag) {
    redis.ReplyWithArray(ctx, 18);
    reply_word(ctx, "key"), redis.ReplyWithString(ctx, name);
    reply_word(ctx, "type"), reply_word(ctx, type);
    reply_word(ctx, "backend"), reply_word(ctx, backend);
    reply_word(ctx, "device"), reply_word(ctx, device->name);
    reply_word(ctx, "tag"), reply_text(ctx, tag);
}

static void info_model(RedisModuleCtx *ctx, RedisModuleString *name, Model *model, bool reset) {
    if (reset) model->stats = (Stats){0};
    reply_object(ctx, name, "MODEL", BACKEND_NAMES[model->backend], &model->device, model->tag);
    reply_stats(ctx, &model->stats, model->stats.samples);
}

static void info_script(RedisModuleCtx *ctx, RedisModuleString *name, Script *script, bool reset) {
    if (reset) script->stats = (Stats){0};
    reply_object(ctx, name, "SCRIPT", "TORCH", &script->device, script->tag);
    reply_stats(ctx, &script->stats, -1);
}

int info_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc != 2 && argc != 3) return redis.WrongArity(ctx);
    bool reset = argc == 3;
    if (reset && !argument_is(argv[2], "RESETSTAT")) return reply_error(ctx, "ERR unsupported subcommand");
    RedisModuleKey *key = redis.OpenKey(ctx, argv[1], KEY_READ);
    RedisModuleType *type = key ? redis.ModuleTypeGetType(key) : NULL;
    if (type && type == model_type)
        info_model(ctx, argv[1], redis.ModuleTypeGetValue(key), reset);
    else if (type && type == script_type)
        info_script(ctx, argv[1], redis.ModuleTypeGetValue(key), reset);
    else
        reply_error(ctx, "ERR cannot find run info for key");
    redis.CloseKey(key);
    return REDIS_OK;
}

typedef struct Found {
    RedisModuleType *type;
    long count;
} Found;

static void found(RedisModuleCtx *ctx, RedisModuleString *name, RedisModuleKey *key, void *data) {
    Found *result = data;
    if (!key || redis.ModuleTypeGetType(key) != result->type) return;
    const void *value = redis.ModuleTypeGetValue(key);
    redis.ReplyWithArray(ctx, 2);
    redis.ReplyWithString(ctx, name);
    reply_text(ctx, result->type == model_type ? ((const Model *)value)->tag : ((const Script *)value)->tag);
    result->count++;
}

static int scan(RedisModuleCtx *ctx, RedisModuleType *type) {
    Found result = {.type = type, .count = 0};
    RedisModuleScanCursor *cursor = redis.ScanCursorCreate();
    redis.ReplyWithArray(ctx, REPLY_LENGTH_LATER);
    while (redis.Scan(ctx, cursor, found, &result)) continue;
    redis.ReplySetArrayLength(ctx, result.count);
    redis.ScanCursorDestroy(cursor);
    return REDIS_OK;
}

int model_scan_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv;
    return argc == 1 ? scan(ctx, model_type) : redis.WrongArity(ctx);
}

int script_scan_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv;
    return argc == 1 ? scan(ctx, script_type) : redis.WrongArity(ctx);
}

/* Clients split a model into arguments of this size: under the 512 MiB that servers accept by default. */
static int64_t chunk_size = 511 * 1024 * 1024;
static Text *backends_path;

static int config_get(RedisModuleCtx *ctx, RedisModuleString *name) {
    if (argument_is(name, "MODEL_CHUNK_SIZE")) return redis.ReplyWithLongLong(ctx, chunk_size);
    if (!argument_is(name, "BACKENDSPATH")) return redis.ReplyWithNull(ctx);
    return redis.ReplyWithStringBuffer(ctx, backends_path ? backends_path->data : "", backends_path ? backends_path->size : 0);
}

static int config_chunk_size(RedisModuleCtx *ctx, RedisModuleString *value) {
    int64_t size;
    if (!argument_integer(value, &size) || size <= 0) return reply_error(ctx, "ERR MODEL_CHUNK_SIZE: invalid chunk size");
    chunk_size = size;
    return reply_ok(ctx);
}

enum { LONGEST_PATH = 4096 };

/* Remembered only to be told again: nothing is ever loaded into the server. */
static int config_path(RedisModuleCtx *ctx, RedisModuleString *value) {
    size_t size;
    redis.StringPtrLen(value, &size);
    if (size > LONGEST_PATH) return reply_error(ctx, "ERR BACKENDSPATH: too long");
    if (backends_path) redis.Free(backends_path);
    backends_path = text_from(value);
    return reply_ok(ctx);
}

int config_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc < 2) return redis.WrongArity(ctx);
    if (argc == 3 && argument_is(argv[1], "GET")) return config_get(ctx, argv[2]);
    if (argc == 3 && argument_is(argv[1], "MODEL_CHUNK_SIZE")) return config_chunk_size(ctx, argv[2]);
    if (argc == 3 && argument_is(argv[1], "BACKENDSPATH")) return config_path(ctx, argv[2]);
    if (argc == 4 && argument_is(argv[1], "LOADBACKEND")) return reply_ok(ctx);
    return reply_error(ctx, "ERR unsupported subcommand");
}
