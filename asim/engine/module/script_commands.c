/* AI.SCRIPTSET key device [TAG t] SOURCE text
 * AI.SCRIPTSTORE key device [TAG t] ENTRY_POINTS n name... SOURCE text
 * AI.SCRIPTGET key [META] [SOURCE], AI.SCRIPTDEL key */
#include "commands.h"
#include "object.h"

#define MISSING "ERR script key is empty"
#define NO_SOURCE "ERR Insufficient arguments, missing script SOURCE"

enum { META = 1, SOURCE = 2 };

static const char *parse(RedisModuleCtx *ctx, Cursor *cursor, Object *script, bool with_entries) {
    size_t size;
    const char *device = redis.StringPtrLen(cursor->argv[2], &size);
    if (!device_parse(device, size, &script->device)) return "ERR Invalid DEVICE";
    script->tag = parse_tag(cursor);
    if (with_entries) {
        if (!cursor_skip(cursor, "ENTRY_POINTS")) return "ERR Insufficient arguments, missing script ENTRY_POINTS";
        if (!parse_names(cursor, &script->entry_points)) return "ERR Invalid argument for entry_points_count";
    }
    if (!cursor_skip(cursor, "SOURCE") || cursor_left(cursor) != 1) return NO_SOURCE;
    script->blob = blob_from_arguments(ctx, cursor->argv + cursor->at, 1);
    return script->blob ? NULL : "ERR out of memory while the script was stored";
}

static int store(RedisModuleCtx *ctx, RedisModuleString **argv, int argc, bool with_entries) {
    Cursor cursor = {.argv = argv, .argc = argc, .at = 3};
    Object *script = object_new(KIND_SCRIPT);
    const char *error = parse(ctx, &cursor, script, with_entries);
    if (!error) return object_store(ctx, argv[1], script);
    object_release(script);
    return reply_error(ctx, error);
}

int script_set_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc != 5 && argc != 7) return redis.WrongArity(ctx);
    return store(ctx, argv, argc, false);
}

int script_store_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc < 8) return redis.WrongArity(ctx);
    return store(ctx, argv, argc, true);
}

static void reply_script(RedisModuleCtx *ctx, const Object *script, int parts) {
    const Bytes *bytes = &script->blob->bytes;
    if (parts & META) {
        redis.ReplyWithArray(ctx, parts & SOURCE ? 8 : 6);
        reply_word(ctx, "device"), reply_word(ctx, script->device.name);
        reply_word(ctx, "tag"), reply_text(ctx, script->tag);
        reply_word(ctx, "Entry Points"), reply_names(ctx, &script->entry_points);
        if (parts & SOURCE) reply_word(ctx, "source");
    }
    if (parts & SOURCE) redis.ReplyWithStringBuffer(ctx, bytes_data(bytes), bytes->size);
}

int script_get_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc < 2 || argc > 4) return redis.WrongArity(ctx);
    int parts = argc == 2 ? META | SOURCE : 0;
    for (int i = 2; i < argc; i++) {
        int part = argument_is(argv[i], "META") ? META : argument_is(argv[i], "SOURCE") ? SOURCE : 0;
        if (!part) return reply_error(ctx, "ERR unsupported data format");
        parts |= part;
    }
    void *script;
    RedisModuleKey *key = redis.OpenKey(ctx, argv[1], KEY_READ);
    if (value_at(ctx, key, script_type, MISSING, &script)) reply_script(ctx, script, parts);
    redis.CloseKey(key);
    return REDIS_OK;
}

int script_del_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc != 2) return redis.WrongArity(ctx);
    return delete_value(ctx, argv[1], script_type, MISSING);
}
