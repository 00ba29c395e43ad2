/* How new models and scripts come to their keys: a worker loads them first, if there are workers. */
#include "commands.h"
#include "job.h"

static void release(void *object) { object_release(object); }

static RedisModuleType *type_of(const Object *object) { return object->kind == KIND_MODEL ? model_type : script_type; }

bool object_put(RedisModuleCtx *ctx, RedisModuleString *name, Object *object) {
    return put_value(ctx, name, type_of(object), object, release);
}

/* Whether a worker is to see it first. Nobody could wait for that in a transaction, and what a file or a master says
 * was accepted before. */
static bool wants_check(RedisModuleCtx *ctx) {
    return engine.workers &&
           !(redis.GetContextFlags(ctx) & (CONTEXT_DENY_BLOCKING | CONTEXT_LOADING | CONTEXT_REPLICATED | CONTEXT_MULTI | CONTEXT_LUA));
}

int object_store(RedisModuleCtx *ctx, RedisModuleString *name, Object *object) {
    if (!wants_check(ctx)) return store_value(ctx, name, type_of(object), object, release);
    Queue *queue = queue_want(object->device.name);
    if (!queue)
        reply_error(ctx, queue_refusal());
    else if (queue->failed)
        reply_error(ctx, queue->failed);
    else
        queue_push(queue, job_new(ctx, WORK_LOAD, object));
    object_release(object);
    return REDIS_OK;
}
