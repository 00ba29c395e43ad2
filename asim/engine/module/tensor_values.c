#include "tensor_values.h"

#include <string.h>

#define WRONG_COUNT "ERR wrong number of values was given in 'AI.TENSORSET' command"
#define BAD_VALUE "ERR invalid value"
#define BAD_BOOL "ERR BOOL tensor elements must be 0 or 1"

static const struct { int64_t least, most; } RANGES[DTYPES] = {
    [DTYPE_INT8] = {INT8_MIN, INT8_MAX},   [DTYPE_INT16] = {INT16_MIN, INT16_MAX},
    [DTYPE_INT32] = {INT32_MIN, INT32_MAX}, [DTYPE_INT64] = {INT64_MIN, INT64_MAX},
    [DTYPE_UINT8] = {0, UINT8_MAX},        [DTYPE_UINT16] = {0, UINT16_MAX},
    [DTYPE_BOOL] = {0, 1},
};

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "clients and files have little-endian numbers");

/* The value is in range, and its low bytes come first. */
static void put_integer(char *data, size_t i, DType dtype, int64_t value) {
    size_t size = dtype_size(dtype);
    memcpy(data + i * size, &value, size);
}

static int64_t get_integer(const char *data, size_t i, DType dtype) {
    uint16_t u16;
    int16_t i16;
    int32_t i32;
    int64_t i64;
    switch (dtype) {
    case DTYPE_INT8: return (int8_t)data[i];
    case DTYPE_UINT8: case DTYPE_BOOL: return (uint8_t)data[i];
    case DTYPE_INT16: return memcpy(&i16, data + i * 2, 2), i16;
    case DTYPE_UINT16: return memcpy(&u16, data + i * 2, 2), u16;
    case DTYPE_INT32: return memcpy(&i32, data + i * 4, 4), i32;
    default: return memcpy(&i64, data + i * 8, 8), i64;
    }
}

static const char *integers(const Cursor *cursor, DType dtype, char *data) {
    int64_t value;
    for (int i = cursor->at; i < cursor->argc; i++) {
        bool good = argument_integer(cursor->argv[i], &value);
        if (good && value >= RANGES[dtype].least && value <= RANGES[dtype].most)
            put_integer(data, (size_t)(i - cursor->at), dtype, value);
        else
            return good && dtype == DTYPE_BOOL ? BAD_BOOL : BAD_VALUE;
    }
    return NULL;
}

static const char *floats(const Cursor *cursor, DType dtype, char *data) {
    double value;
    for (int i = cursor->at; i < cursor->argc; i++) {
        size_t index = (size_t)(i - cursor->at);
        if (redis.StringToDouble(cursor->argv[i], &value) != REDIS_OK) return BAD_VALUE;
        float narrow = (float)value;
        if (dtype == DTYPE_FLOAT)
            memcpy(data + index * sizeof narrow, &narrow, sizeof narrow);
        else
            memcpy(data + index * sizeof value, &value, sizeof value);
    }
    return NULL;
}

static const char *strings(const Cursor *cursor, char *data) {
    size_t size;
    for (int i = cursor->at; i < cursor->argc; i++) {
        const char *text = redis.StringPtrLen(cursor->argv[i], &size);
        if (memchr(text, '\0', size)) return BAD_VALUE;
        memcpy(data, text, size);
        data[size] = '\0';
        data += size + 1;
    }
    return NULL;
}

static size_t strings_size(const Cursor *cursor) {
    size_t total = 0, size;
    for (int i = cursor->at; i < cursor->argc; i++) {
        redis.StringPtrLen(cursor->argv[i], &size);
        total += size + 1;
    }
    return total;
}

const char *tensor_from_values(const Cursor *cursor, DType dtype, const Shape *shape, Tensor **tensor) {
    if (cursor_left(cursor) != shape->elements) return WRONG_COUNT;
    bool text = dtype == DTYPE_STRING;
    char *data;
    *tensor = tensor_new(dtype, shape, text ? strings_size(cursor) : shape_bytes(shape, dtype), &data);
    if (!*tensor) return NULL;
    bool real = dtype == DTYPE_FLOAT || dtype == DTYPE_DOUBLE;
    const char *error = text ? strings(cursor, data) : real ? floats(cursor, dtype, data) : integers(cursor, dtype, data);
    if (error) {
        tensor_release(*tensor);
        *tensor = NULL;
    }
    return error;
}

static void reply_strings(RedisModuleCtx *ctx, const Tensor *tensor) {
    const char *at = bytes_data(&tensor->bytes);
    for (int64_t i = 0; i < tensor->elements; i++) {
        size_t size = strlen(at); /* bounded: the data ends with NUL */
        redis.ReplyWithStringBuffer(ctx, at, size);
        at += size + 1;
    }
}

static double get_float(const char *data, size_t i, DType dtype) {
    float narrow;
    double wide;
    if (dtype == DTYPE_FLOAT) return memcpy(&narrow, data + i * 4, 4), narrow;
    return memcpy(&wide, data + i * 8, 8), wide;
}

void reply_values(RedisModuleCtx *ctx, const Tensor *tensor) {
    DType dtype = (DType)tensor->dtype;
    redis.ReplyWithArray(ctx, (long)tensor->elements);
    if (dtype == DTYPE_STRING) {
        reply_strings(ctx, tensor);
        return;
    }
    const char *data = bytes_data(&tensor->bytes);
    for (size_t i = 0; i < (size_t)tensor->elements; i++)
        if (dtype == DTYPE_FLOAT || dtype == DTYPE_DOUBLE)
            redis.ReplyWithDouble(ctx, get_float(data, i, dtype));
        else
            redis.ReplyWithLongLong(ctx, get_integer(data, i, dtype));
}
