#include "redis_api.h"

#include <string.h>

struct RedisApi redis;

typedef int (*GetApi)(const char *name, void **function);

static int find(GetApi get, const char *name, void *pointer) {
    void *function = NULL;
    int found = get(name, &function) == REDIS_OK && function != NULL;
    /* ISO C has no conversion between object and function pointers */
    memcpy(pointer, &function, sizeof function);
    return found;
}

const char *redis_api_load(RedisModuleCtx *ctx) {
    GetApi get;
    memcpy(&get, ctx, sizeof get);
#define REQUIRE(type, name, arguments) \
    if (!find(get, "RedisModule_" #name, &redis.name)) return #name;
#define TRY(type, name, arguments) find(get, "RedisModule_" #name, &redis.name);
    REDIS_REQUIRED(REQUIRE)
    REDIS_OPTIONAL(TRY)
    return NULL;
}
