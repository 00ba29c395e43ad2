/* AI.MODELGET key [META] [BLOB], AI.MODELDEL key */
#include "commands.h"
#include "object.h"

#define MISSING "ERR model key is empty"

enum { META = 1, BLOB = 2 };

static void reply_meta(RedisModuleCtx *ctx, const Object *model) {
    reply_word(ctx, "backend"), reply_word(ctx, BACKEND_NAMES[model->backend]);
    reply_word(ctx, "device"), reply_word(ctx, model->device.name);
    reply_word(ctx, "tag"), reply_text(ctx, model->tag);
    reply_word(ctx, "batchsize"), redis.ReplyWithLongLong(ctx, model->batchsize);
    reply_word(ctx, "minbatchsize"), redis.ReplyWithLongLong(ctx, model->minbatchsize);
    reply_word(ctx, "inputs"), reply_names(ctx, &model->inputs);
    reply_word(ctx, "outputs"), reply_names(ctx, &model->outputs);
    reply_word(ctx, "minbatchtimeout"), redis.ReplyWithLongLong(ctx, model->minbatchtimeout_ms);
}

static void reply_model(RedisModuleCtx *ctx, const Object *model, int parts) {
    const Bytes *bytes = &model->blob->bytes;
    if (parts & META) {
        redis.ReplyWithArray(ctx, parts & BLOB ? 18 : 16);
        reply_meta(ctx, model);
        if (parts & BLOB) reply_word(ctx, "blob");
    }
    /* always one piece: SmartRedis puts several together wrongly */
    if (parts & BLOB) redis.ReplyWithStringBuffer(ctx, bytes_data(bytes), bytes->size);
}

int model_get_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc < 2 || argc > 4) return redis.WrongArity(ctx);
    int parts = argc == 2 ? META | BLOB : 0;
    for (int i = 2; i < argc; i++) {
        int part = argument_is(argv[i], "META") ? META : argument_is(argv[i], "BLOB") ? BLOB : 0;
        if (!part) return reply_error(ctx, "ERR unsupported data format");
        parts |= part;
    }
    void *model;
    RedisModuleKey *key = redis.OpenKey(ctx, argv[1], KEY_READ);
    if (value_at(ctx, key, model_type, MISSING, &model)) reply_model(ctx, model, parts);
    redis.CloseKey(key);
    return REDIS_OK;
}

int model_del_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc != 2) return redis.WrongArity(ctx);
    return delete_value(ctx, argv[1], model_type, MISSING);
}
