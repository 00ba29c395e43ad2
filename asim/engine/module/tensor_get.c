/* AI.TENSORGET key [META] [BLOB | VALUES] */
#include "arguments.h"
#include "commands.h"
#include "tensor.h"
#include "tensor_values.h"

enum { META = 1, BLOB = 2, VALUES = 4 };

static int parse_parts(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    int parts = argc == 2 ? META | BLOB : 0;
    for (int i = 2; i < argc; i++) {
        size_t size;
        const char *word = redis.StringPtrLen(argv[i], &size);
        int part = is_word(word, size, "META") ? META : is_word(word, size, "BLOB") ? BLOB : is_word(word, size, "VALUES") ? VALUES : 0;
        if (!part) return reply_error(ctx, "ERR unsupported data format"), 0;
        parts |= part;
    }
    if ((parts & (BLOB | VALUES)) == (BLOB | VALUES)) return reply_error(ctx, "ERR both BLOB and VALUES specified"), 0;
    return parts;
}

static void reply_meta(RedisModuleCtx *ctx, const Tensor *tensor) {
    size_t size;
    const char *name = dtype_name((DType)tensor->dtype, &size);
    redis.ReplyWithStringBuffer(ctx, "dtype", 5);
    redis.ReplyWithStringBuffer(ctx, name, size);
    redis.ReplyWithStringBuffer(ctx, "shape", 5);
    redis.ReplyWithArray(ctx, tensor->ndim);
    for (int i = 0; i < tensor->ndim; i++) redis.ReplyWithLongLong(ctx, tensor->dims[i]);
}

static int reply_tensor(RedisModuleCtx *ctx, const Tensor *tensor, int parts) {
    if (parts & META) {
        redis.ReplyWithArray(ctx, parts == META ? 4 : 6);
        reply_meta(ctx, tensor);
        if (parts & BLOB) redis.ReplyWithStringBuffer(ctx, "blob", 4);
        if (parts & VALUES) redis.ReplyWithStringBuffer(ctx, "values", 6);
    }
    if (parts & BLOB) redis.ReplyWithStringBuffer(ctx, bytes_data(&tensor->bytes), tensor->bytes.size);
    if (parts & VALUES) reply_values(ctx, tensor);
    return REDIS_OK;
}

Tensor *tensor_at(RedisModuleCtx *ctx, RedisModuleKey *key) {
    void *tensor;
    const char *missing = "ERR tensor key is empty or in a different shard";
    return value_at(ctx, key, tensor_type, missing, &tensor) ? tensor : NULL;
}

int tensor_get_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc < 2 || argc > 4) return redis.WrongArity(ctx);
    int parts = parse_parts(ctx, argv, argc);
    if (!parts) return REDIS_OK;
    RedisModuleKey *key = redis.OpenKey(ctx, argv[1], KEY_READ);
    const Tensor *tensor = tensor_at(ctx, key);
    if (tensor) reply_tensor(ctx, tensor, parts);
    redis.CloseKey(key);
    return REDIS_OK;
}
