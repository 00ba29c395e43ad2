/* AI.INFO key [RESETSTAT], AI._MODELSCAN, AI._SCRIPTSCAN, AI.CONFIG */
#include <stdio.h>

#include "commands.h"
#include "object.h"

static void reply_digest(RedisModuleCtx *ctx, const Runs *runs) {
    char text[2 * DIGEST_SIZE + 1] = "";
    for (int i = 0; runs->checked && i < DIGEST_SIZE; i++) snprintf(text + 2 * i, 3, "%02x", runs->digest[i]);
    reply_word(ctx, text);
}

/* The first 18 elements are RedisAI's. */
static void reply_info(RedisModuleCtx *ctx, RedisModuleString *name, const Object *object) {
    const Stats *stats = &object->runs.stats;
    redis.ReplyWithArray(ctx, 22);
    reply_word(ctx, "key"), redis.ReplyWithString(ctx, name);
    reply_word(ctx, "type"), reply_word(ctx, object->kind == KIND_MODEL ? "MODEL" : "SCRIPT");
    reply_word(ctx, "backend"), reply_word(ctx, BACKEND_NAMES[object->backend]);
    reply_word(ctx, "device"), reply_word(ctx, object->device.name);
    reply_word(ctx, "tag"), reply_text(ctx, object->tag);
    reply_word(ctx, "duration"), redis.ReplyWithLongLong(ctx, stats->duration_us);
    reply_word(ctx, "samples"), redis.ReplyWithLongLong(ctx, object->kind == KIND_MODEL ? stats->samples : -1);
    reply_word(ctx, "calls"), redis.ReplyWithLongLong(ctx, stats->calls);
    reply_word(ctx, "errors"), redis.ReplyWithLongLong(ctx, stats->errors);
    reply_word(ctx, "state"), reply_word(ctx, object_quarantined(object) ? "quarantined" : "ready");
    reply_word(ctx, "digest"), reply_digest(ctx, &object->runs);
}

int info_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc != 2 && argc != 3) return redis.WrongArity(ctx);
    bool reset = argc == 3;
    if (reset && !argument_is(argv[2], "RESETSTAT")) return reply_error(ctx, "ERR unsupported subcommand");
    RedisModuleKey *key = redis.OpenKey(ctx, argv[1], KEY_READ);
    RedisModuleType *type = key ? redis.ModuleTypeGetType(key) : NULL;
    if (type && (type == model_type || type == script_type)) {
        Object *object = redis.ModuleTypeGetValue(key);
        if (reset) object->runs.stats = (Stats){0};
        reply_info(ctx, argv[1], object);
    } else {
        reply_error(ctx, "ERR cannot find run info for key");
    }
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
    const Object *object = redis.ModuleTypeGetValue(key);
    redis.ReplyWithArray(ctx, 2);
    redis.ReplyWithString(ctx, name);
    reply_text(ctx, object->tag);
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
    if (argument_is(name, "MODEL_CHUNK_SIZE")) {
        queue_want("CPU"); /* clients ask this before they send a model */
        return redis.ReplyWithLongLong(ctx, chunk_size);
    }
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
