/* AI.MODELSTORE key backend device [TAG t] [BATCHSIZE n] [MINBATCHSIZE n] [MINBATCHTIMEOUT ms] [INPUTS n name...]
 * [OUTPUTS n name...] BLOB chunk... */
#include "commands.h"
#include "object.h"

#define NO_BLOB "ERR Insufficient arguments, missing model BLOB"

static const char *parse_batching(Cursor *cursor, Object *model) {
    if (cursor_skip(cursor, "BATCHSIZE") && !cursor_integer(cursor, 0, &model->batchsize))
        return "ERR Invalid argument for BATCHSIZE";
    if (cursor_skip(cursor, "MINBATCHSIZE")) {
        if (!cursor_integer(cursor, 0, &model->minbatchsize)) return "ERR Invalid argument for MINBATCHSIZE";
        if (!model->batchsize) return "ERR MINBATCHSIZE specified without BATCHSIZE";
    }
    if (cursor_skip(cursor, "MINBATCHTIMEOUT")) {
        if (!cursor_integer(cursor, 0, &model->minbatchtimeout_ms)) return "ERR Invalid argument for MINBATCHTIMEOUT";
        if (!model->minbatchsize) return "ERR MINBATCHTIMEOUT specified without MINBATCHSIZE";
    }
    return NULL;
}

/* Only TensorFlow's graphs need to be told which nodes are meant. */
static const char *parse_nodes(Cursor *cursor, Object *model) {
    if (model->backend != BACKEND_TF) {
        if (cursor_skip(cursor, "INPUTS")) return "ERR INPUTS argument should not be specified for this backend";
        if (cursor_skip(cursor, "OUTPUTS")) return "ERR OUTPUTS argument should not be specified for this backend";
        return NULL;
    }
    if (!cursor_skip(cursor, "INPUTS")) return "ERR INPUTS not specified for TF";
    if (!parse_names(cursor, &model->inputs)) return "ERR Invalid argument for input_count";
    if (!cursor_skip(cursor, "OUTPUTS")) return "ERR OUTPUTS not specified for TF";
    if (!parse_names(cursor, &model->outputs)) return "ERR Invalid argument for output_count";
    return NULL;
}

static const char *parse_blob(RedisModuleCtx *ctx, Cursor *cursor, Object *model) {
    if (!cursor_left(cursor)) return NO_BLOB;
    if (!cursor_skip(cursor, "BLOB")) return "ERR Invalid argument, expected BLOB";
    if (!cursor_left(cursor)) return NO_BLOB;
    model->blob = blob_from_arguments(ctx, cursor->argv + cursor->at, cursor_left(cursor));
    return model->blob ? NULL : "ERR out of memory while the model was stored";
}

static const char *parse(RedisModuleCtx *ctx, Cursor *cursor, Object *model) {
    size_t size;
    if ((model->backend = backend_parse(cursor->argv[2])) == BACKENDS) return "ERR unsupported backend";
    const char *error, *device = redis.StringPtrLen(cursor->argv[3], &size);
    if (!device_parse(device, size, &model->device)) return "ERR Invalid DEVICE";
    model->tag = parse_tag(cursor);
    if (!(error = parse_batching(cursor, model)) && !(error = parse_nodes(cursor, model)))
        error = parse_blob(ctx, cursor, model);
    return error;
}

int model_store_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc < 4) return redis.WrongArity(ctx);
    Cursor cursor = {.argv = argv, .argc = argc, .at = 4};
    Object *model = object_new(KIND_MODEL);
    const char *error = parse(ctx, &cursor, model);
    if (!error) return object_store(ctx, argv[1], model);
    object_release(model);
    return reply_error(ctx, error);
}
