/* The commands that run models and scripts: which of their arguments are keys. */
#include "arguments.h"
#include "commands.h"

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
        if (argument_is(word, "INPUTS"))
            flags = READS;
        else if (argument_is(word, "OUTPUTS"))
            flags = WRITES;
        else if (flags && !argument_is(word, "$"))
            report(ctx, cursor.at, flags);
    }
}

static int unavailable(RedisModuleCtx *ctx) {
    return reply_error(ctx, "ERR inference is not available in this version of asim");
}

static int counted(RedisModuleCtx *ctx, RedisModuleString **argv, int argc, int from) {
    if (!redis.IsKeysPositionRequest(ctx)) return unavailable(ctx);
    report_counted(ctx, (Cursor){.argv = argv, .argc = argc, .at = from});
    return REDIS_OK;
}

static int uncounted(RedisModuleCtx *ctx, RedisModuleString **argv, int argc, int from) {
    if (!redis.IsKeysPositionRequest(ctx)) return unavailable(ctx);
    report_uncounted(ctx, (Cursor){.argv = argv, .argc = argc, .at = from});
    return REDIS_OK;
}

int model_execute_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    return argc < 8 ? redis.WrongArity(ctx) : counted(ctx, argv, argc, 2);
}

int model_run_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    return argc < 3 ? redis.WrongArity(ctx) : uncounted(ctx, argv, argc, 2);
}

int script_execute_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    return argc < 5 ? redis.WrongArity(ctx) : counted(ctx, argv, argc, 3);
}

int script_run_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    return argc < 4 ? redis.WrongArity(ctx) : uncounted(ctx, argv, argc, 3);
}

int dag_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv, (void)argc;
    return reply_error(ctx, "ERR AI.DAG commands are not supported");
}
