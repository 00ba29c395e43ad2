#include "commands.h"

int value_at(RedisModuleCtx *ctx, RedisModuleKey *key, RedisModuleType *type, const char *missing, void **value) {
    if (!key || redis.KeyType(key) == KEYTYPE_EMPTY) {
        reply_error(ctx, missing);
        return 0;
    }
    if (redis.ModuleTypeGetType(key) != type) {
        reply_error(ctx, WRONG_TYPE);
        return 0;
    }
    *value = redis.ModuleTypeGetValue(key);
    return 1;
}

/* Replacing in place is much cheaper than deleting and adding the key. */
static int put(RedisModuleKey *key, RedisModuleType *type, void *value, void (*release)(void *)) {
    void *old = NULL;
    if (redis.KeyType(key) == KEYTYPE_EMPTY) return redis.ModuleTypeSetValue(key, type, value) == REDIS_OK;
    if (redis.ModuleTypeReplaceValue(key, type, value, &old) != REDIS_OK) return 0;
    release(old);
    if (redis.GetExpire(key) != NO_EXPIRE) redis.SetExpire(key, NO_EXPIRE);
    return 1;
}

bool put_value(RedisModuleCtx *ctx, RedisModuleString *name, RedisModuleType *type, void *value,
               void (*release)(void *)) {
    RedisModuleKey *key = redis.OpenKey(ctx, name, KEY_READ | KEY_WRITE);
    int stored = put(key, type, value, release);
    redis.CloseKey(key);
    if (!stored) release(value);
    return stored;
}

int store_value(RedisModuleCtx *ctx, RedisModuleString *name, RedisModuleType *type, void *value,
                void (*release)(void *)) {
    if (!put_value(ctx, name, type, value, release)) return reply_error(ctx, WRONG_TYPE);
    redis.ReplicateVerbatim(ctx);
    return reply_ok(ctx);
}

int delete_value(RedisModuleCtx *ctx, RedisModuleString *name, RedisModuleType *type, const char *missing) {
    void *value;
    RedisModuleKey *key = redis.OpenKey(ctx, name, KEY_READ | KEY_WRITE);
    if (value_at(ctx, key, type, missing, &value)) {
        redis.DeleteKey(key);
        redis.ReplicateVerbatim(ctx);
        reply_ok(ctx);
    }
    redis.CloseKey(key);
    return REDIS_OK;
}
