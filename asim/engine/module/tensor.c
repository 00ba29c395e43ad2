#include "tensor.h"

#include <string.h>

enum { ALIGNMENT = 16 };

static const struct {
    const char *name;
    uint8_t length, size;
} TYPES[DTYPES] = {
    [DTYPE_FLOAT] = {"FLOAT", 5, 4},   [DTYPE_DOUBLE] = {"DOUBLE", 6, 8}, [DTYPE_INT8] = {"INT8", 4, 1},
    [DTYPE_INT16] = {"INT16", 5, 2},   [DTYPE_INT32] = {"INT32", 5, 4},   [DTYPE_INT64] = {"INT64", 5, 8},
    [DTYPE_UINT8] = {"UINT8", 5, 1},   [DTYPE_UINT16] = {"UINT16", 6, 2}, [DTYPE_BOOL] = {"BOOL", 4, 1},
    [DTYPE_STRING] = {"STRING", 6, 0},
};

/* Up to eight characters as one number, in upper case. */
static uint64_t packed(const char *name, size_t size) {
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)name[i];
        value = value << 8 | (c >= 'a' && c <= 'z' ? c - 32u : c);
    }
    return value;
}

DType dtype_parse(const char *name, size_t size) {
    static uint64_t known[DTYPES];
    if (!known[0])
        for (int i = 0; i < DTYPES; i++) known[i] = packed(TYPES[i].name, TYPES[i].length);
    if (size < 4 || size > 6) return DTYPES;
    uint64_t wanted = packed(name, size);
    int i = 0;
    while (i < DTYPES && known[i] != wanted) i++;
    return (DType)i;
}

const char *dtype_name(DType dtype, size_t *size) {
    *size = TYPES[dtype].length;
    return TYPES[dtype].name;
}

size_t dtype_size(DType dtype) { return TYPES[dtype].size; }

bool shape_add(Shape *shape, int64_t dim) {
    int64_t elements;
    if (dim <= 0 || shape->ndim == MAX_DIMS) return false;
    if (__builtin_mul_overflow(shape->elements, dim, &elements)) return false;
    shape->elements = elements;
    shape->dims[shape->ndim++] = dim;
    return true;
}

size_t shape_bytes(const Shape *shape, DType dtype) {
    int64_t bytes;
    if (__builtin_mul_overflow(shape->elements, (int64_t)TYPES[dtype].size, &bytes)) return SIZE_MAX;
    return (size_t)bytes;
}

static bool booleans(const char *data, size_t size) {
    unsigned char seen = 0;
    for (size_t i = 0; i < size; i++) seen |= (unsigned char)data[i];
    return seen <= 1;
}

static bool strings(const char *data, size_t size, int64_t elements) {
    int64_t ends = 0;
    if (!size || data[size - 1] != '\0') return false;
    for (size_t i = 0; i < size; i++) ends += data[i] == '\0';
    return ends == elements;
}

const char *tensor_check(DType dtype, const Shape *shape, const char *data, size_t size) {
    if (dtype == DTYPE_STRING)
        return strings(data, size, shape->elements)
                   ? NULL
                   : "ERR Number of string elements in data blob does not match tensor length";
    if (size != shape_bytes(shape, dtype)) return "ERR data length does not match tensor shape and type";
    if (dtype == DTYPE_BOOL && !booleans(data, size)) return "ERR BOOL tensor elements must be 0 or 1";
    return NULL;
}

static size_t header_size(int ndim) {
    size_t size = sizeof(Tensor) + (size_t)ndim * sizeof(int64_t);
    return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static Tensor *fill(Tensor *tensor, DType dtype, const Shape *shape, Bytes bytes) {
    atomic_init(&tensor->references, 1);
    tensor->dtype = (uint8_t)dtype;
    tensor->ndim = (uint8_t)shape->ndim;
    tensor->elements = shape->elements;
    tensor->bytes = bytes;
    memcpy(tensor->dims, shape->dims, (size_t)shape->ndim * sizeof(int64_t));
    return tensor;
}

Tensor *tensor_new(DType dtype, const Shape *shape, size_t size, char **data) {
    size_t header = header_size(shape->ndim), total;
    if (__builtin_add_overflow(header, size, &total)) return NULL;
    Tensor *tensor = alloc_or_null(total);
    if (!tensor) return NULL;
    *data = (char *)tensor + header;
    return fill(tensor, dtype, shape, (Bytes){.size = size, .inside = *data});
}

Tensor *tensor_owning(DType dtype, const Shape *shape, Bytes bytes) {
    return fill(redis.Alloc(header_size(shape->ndim)), dtype, shape, bytes);
}

Tensor *tensor_share(Tensor *tensor) {
    atomic_fetch_add_explicit(&tensor->references, 1, memory_order_relaxed);
    return tensor;
}

void tensor_release(Tensor *tensor) {
    if (!tensor || atomic_fetch_sub_explicit(&tensor->references, 1, memory_order_acq_rel) != 1) return;
    bytes_release(&tensor->bytes);
    redis.Free(tensor);
}

size_t tensor_memory(const Tensor *tensor) { return header_size(tensor->ndim) + tensor->bytes.size; }
