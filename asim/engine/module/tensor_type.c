#include "commands.h"
#include "rdb.h"
#include "tensor.h"

RedisModuleType *tensor_type;

static bool load_shape(RedisModuleIO *rdb, Shape *shape) {
    uint64_t ndim, dim;
    shape->ndim = 0, shape->elements = 1;
    if (!rdb_number(rdb, MAX_DIMS, &ndim)) return false;
    for (uint64_t i = 0; i < ndim; i++)
        if (!rdb_number(rdb, INT64_MAX, &dim) || !shape_add(shape, (int64_t)dim)) return false;
    return true;
}

static void *load(RedisModuleIO *rdb, int encver) {
    uint64_t dtype;
    Shape shape;
    char *data;
    size_t size;
    if (encver != ENCODING_VERSION || !rdb_number(rdb, DTYPES - 1, &dtype) || !load_shape(rdb, &shape)) return NULL;
    if (!rdb_bytes(rdb, &data, &size)) return NULL;
    if (!tensor_check((DType)dtype, &shape, data, size)) return tensor_owning((DType)dtype, &shape, bytes_adopt(data, size));
    redis.Free(data);
    return NULL;
}

static void save(RedisModuleIO *rdb, void *value) {
    const Tensor *tensor = value;
    redis.SaveUnsigned(rdb, tensor->dtype);
    redis.SaveUnsigned(rdb, tensor->ndim);
    for (int i = 0; i < tensor->ndim; i++) redis.SaveUnsigned(rdb, (uint64_t)tensor->dims[i]);
    rdb_save_bytes(rdb, bytes_data(&tensor->bytes), tensor->bytes.size);
}

static void rewrite(RedisModuleIO *aof, RedisModuleString *key, void *value) {
    const Tensor *tensor = value;
    size_t size;
    Emitted emitted = emit_begin(tensor->ndim + 3u);
    emit_word(&emitted, dtype_name((DType)tensor->dtype, &size));
    for (int i = 0; i < tensor->ndim; i++) emit_number(&emitted, tensor->dims[i]);
    emit_word(&emitted, "BLOB");
    emit_bytes(&emitted, &tensor->bytes);
    emit_end(&emitted, aof, "AI.TENSORSET", key);
}

static void digest(RedisModuleDigest *digest, void *value) {
    const Tensor *tensor = value;
    redis.DigestAddLongLong(digest, tensor->dtype);
    for (int i = 0; i < tensor->ndim; i++) redis.DigestAddLongLong(digest, tensor->dims[i]);
    redis.DigestAddStringBuffer(digest, bytes_data(&tensor->bytes), tensor->bytes.size);
    redis.DigestEndSequence(digest);
}

static size_t mem_usage(const void *value) { return tensor_memory(value); }

static void release(void *value) { tensor_release(value); }

static void *copy(RedisModuleString *from, RedisModuleString *to, const void *value) {
    (void)from, (void)to;
    return tensor_share((Tensor *)value);
}

/* In the server's unit, of which 64 are worth a background thread: here one per 64 KiB to give back. */
static size_t free_effort(RedisModuleString *key, const void *value) {
    (void)key;
    return 1 + (((const Tensor *)value)->bytes.size >> 16);
}

int tensor_type_register(RedisModuleCtx *ctx) {
    TypeMethods methods = {
        .version = TYPE_METHODS_VERSION, .rdb_load = load, .rdb_save = save, .aof_rewrite = rewrite,
        .mem_usage = mem_usage, .digest = digest, .free = release, .free_effort = free_effort, .copy = copy,
    };
    tensor_type = redis.CreateDataType(ctx, "asim-tnsr", ENCODING_VERSION, &methods);
    return tensor_type != NULL;
}
