/* AI.TENSORSET key type dim... [BLOB bytes | VALUES value...] */
#include "arguments.h"
#include "commands.h"
#include "tensor.h"
#include "tensor_values.h"

#define BAD_SHAPE "ERR invalid or negative value found in tensor shape"
#define ONE_BLOB "ERR a single binary string should come after the BLOB argument in 'AI.TENSORSET' command"

/* Most bytes of a tensor that is filled with zeros, which costs its sender next to nothing: as many as SETRANGE makes
 * on a server with default settings. */
static const size_t MOST_ZEROS = (size_t)512 << 20;

static void release(void *tensor) { tensor_release(tensor); }

static const char *parse_shape(Cursor *cursor, Shape *shape) {
    int64_t dim;
    for (; cursor_left(cursor); cursor->at++) {
        size_t size;
        const char *text = redis.StringPtrLen(cursor->argv[cursor->at], &size);
        if (parse_integer(text, size, &dim) && shape_add(shape, dim)) continue;
        if (is_word(text, size, "BLOB") || is_word(text, size, "VALUES")) return NULL;
        return BAD_SHAPE;
    }
    return NULL;
}

static const char *from_blob(RedisModuleCtx *ctx, RedisModuleString *argument, DType dtype, const Shape *shape,
                             Tensor **tensor) {
    size_t size;
    char *copy;
    const char *data = redis.StringPtrLen(argument, &size), *error = tensor_check(dtype, shape, data, size);
    if (error) return error;
    if (bytes_may_hold(ctx, size)) {
        *tensor = tensor_owning(dtype, shape, bytes_hold(argument));
        return NULL;
    }
    *tensor = tensor_new(dtype, shape, size, &copy);
    if (*tensor) memcpy(copy, data, size);
    return NULL;
}

static const char *zeros(DType dtype, const Shape *shape, Tensor **tensor) {
    char *data;
    size_t size = dtype == DTYPE_STRING ? (size_t)shape->elements : shape_bytes(shape, dtype);
    if (size > MOST_ZEROS) return BAD_SHAPE;
    *tensor = tensor_new(dtype, shape, size, &data);
    if (*tensor) memset(data, 0, size);
    return NULL;
}

static const char *content(RedisModuleCtx *ctx, Cursor *cursor, DType dtype, const Shape *shape, Tensor **tensor) {
    if (cursor_skip(cursor, "BLOB"))
        return cursor_left(cursor) == 1 ? from_blob(ctx, cursor->argv[cursor->at], dtype, shape, tensor) : ONE_BLOB;
    if (cursor_skip(cursor, "VALUES")) return tensor_from_values(cursor, dtype, shape, tensor);
    return zeros(dtype, shape, tensor);
}

int tensor_set_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc < 3) return redis.WrongArity(ctx);
    Cursor cursor = {.argv = argv, .argc = argc, .at = 3};
    Shape shape;
    shape.ndim = 0, shape.elements = 1; /* and the rest is not read: no need to clear it */
    size_t size;
    const char *name = redis.StringPtrLen(argv[2], &size);
    DType dtype = dtype_parse(name, size);
    if (dtype == DTYPES) return reply_error(ctx, "ERR invalid data type");
    Tensor *tensor = NULL;
    const char *error = parse_shape(&cursor, &shape);
    if (!error) error = content(ctx, &cursor, dtype, &shape, &tensor);
    if (!error && !tensor) error = "ERR could not save tensor";
    if (error) return reply_error(ctx, error);
    return store_value(ctx, argv[1], tensor_type, tensor, release);
}
