/* The commands that run models and scripts: which of their arguments are keys. */
#include "arguments.h"
#include "commands.h"
#include "execute.h"

/* As the server numbers them for KeyAtPosWithFlags. */
enum { READS = SPEC_READS | SPEC_ACCESS, WRITES = SPEC_OVERWRITES | SPEC_UPDATES };

static void report(RedisModuleCtx *ctx, int at, int flags) {
    if (redis.KeyAtPosWithFlags)
        redis.KeyAtPosWithFlags(ctx, at, flags);
    else
        redis.KeyAtPos(ctx, at);
}

/* [KEYS n key...] [INPUTS n key...] [ARGS n arg...] [OUTPUTS n key...] [TIMEOUT ms] */
static void report_counted(RedisModuleCtx *ctx, Cursor cursor) {
    report(ctx, 1, READS);
    while (cursor_left(&cursor) >= 2) {
        RedisModuleString *word = cursor.argv[cursor.at++];
        bool outputs = argument_is(word, "OUTPUTS"), arguments = argument_is(word, "ARGS");
        bool inputs = argument_is(word, "INPUTS") || argument_is(word, "KEYS");
        int64_t count;
        if (!cursor_integer(&cursor, 0, &count)) return;
        if (!outputs && !inputs && !arguments) continue;
        for (; count > 0 && cursor_left(&cursor); count--, cursor.at++)
            if (!arguments) report(ctx, cursor.at, outputs ? WRITES : READS);
    }
}

/* [TIMEOUT ms] INPUTS key... [$ key...] OUTPUTS key... */
static void report_uncounted(RedisModuleCtx *ctx, Cursor cursor) {
    int flags = 0;
    report(ctx, 1, READS);
    for (; cursor_left(&cursor); cursor.at++) {
        RedisModuleString *word = cursor.argv[cursor.at];
        if (argument_is(word, "INPUTS")) {
            flags = READS;
        } else if (argument_is(word, "OUTPUTS")) {
            flags = WRITES;
        } else if (argument_is(word, "TIMEOUT")) {
            flags = 0;
            cursor.at++;
        } else if (flags && !(flags == READS && argument_is(word, "$"))) {
            report(ctx, cursor.at, flags);
        }
    }
}

int model_execute_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc < 8) return redis.WrongArity(ctx);
    if (!redis.IsKeysPositionRequest(ctx)) return execute_model(ctx, argv, argc, true);
    report_counted(ctx, (Cursor){.argv = argv, .argc = argc, .at = 2});
    return REDIS_OK;
}

int model_run_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc < 3) return redis.WrongArity(ctx);
    if (!redis.IsKeysPositionRequest(ctx)) return execute_model(ctx, argv, argc, false);
    report_uncounted(ctx, (Cursor){.argv = argv, .argc = argc, .at = 2});
    return REDIS_OK;
}

int script_execute_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc < 5) return redis.WrongArity(ctx);
    if (!redis.IsKeysPositionRequest(ctx)) return execute_script(ctx, argv, argc, true);
    report_counted(ctx, (Cursor){.argv = argv, .argc = argc, .at = 3});
    return REDIS_OK;
}

int script_run_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc < 4) return redis.WrongArity(ctx);
    if (!redis.IsKeysPositionRequest(ctx)) return execute_script(ctx, argv, argc, false);
    report_uncounted(ctx, (Cursor){.argv = argv, .argc = argc, .at = 3});
    return REDIS_OK;
}

int dag_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv, (void)argc;
    return reply_error(ctx, "ERR AI.DAG commands are not supported");
}
