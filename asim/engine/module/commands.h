/* The commands' handlers, and what several of them need. */
#ifndef ASIM_COMMANDS_H
#define ASIM_COMMANDS_H

#include <stdbool.h>
#include <string.h>

#include "redis_api.h"

#define WRONG_TYPE "WRONGTYPE Operation against a key holding the wrong kind of value"

int tensor_set_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int tensor_get_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int model_store_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int model_get_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int model_del_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int model_scan_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int script_set_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int script_store_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int script_get_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int script_del_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int script_scan_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int info_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int config_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int config_set_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int model_execute_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int model_run_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int script_execute_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int script_run_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int dag_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);

int done_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int next_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int fetch_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int prepare_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int wanted_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int worker_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);

int filter_register(RedisModuleCtx *ctx);
/* Whether a replica ever asked for the data: it may come back for what it missed. */
bool had_replica(void);

static inline int reply_ok(RedisModuleCtx *ctx) { return redis.ReplyWithSimpleString(ctx, "OK"); }
static inline int reply_error(RedisModuleCtx *ctx, const char *text) { return redis.ReplyWithError(ctx, text); }
static inline int reply_word(RedisModuleCtx *ctx, const char *word) {
    return redis.ReplyWithStringBuffer(ctx, word, strlen(word));
}

/* Whether the key holds such an object; otherwise answers the error: `missing` where it holds nothing. */
int value_at(RedisModuleCtx *ctx, RedisModuleKey *key, RedisModuleType *type, const char *missing, void **value);

/* Puts a new value at the key instead of one of its type or of nothing, without a time to live. False, and the value is
 * released, when the key has another type. */
bool put_value(RedisModuleCtx *ctx, RedisModuleString *name, RedisModuleType *type, void *value,
               void (*release)(void *));

/* What AI.*SET and AI.*STORE do with a new object: puts it at the key instead of an object of the same type or of
 * nothing, without a time to live; answers and replicates. The object is released when the key has another type. */
int store_value(RedisModuleCtx *ctx, RedisModuleString *name, RedisModuleType *type, void *value,
                void (*release)(void *));

/* What AI.*DEL do: deletes the key, answers, replicates. */
int delete_value(RedisModuleCtx *ctx, RedisModuleString *name, RedisModuleType *type, const char *missing);

#endif
