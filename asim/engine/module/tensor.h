/* Tensors: what a key holds, and what an inference run pins while it reads. */
#ifndef ASIM_TENSOR_H
#define ASIM_TENSOR_H

#include "bytes.h"

typedef enum DType {
    DTYPE_FLOAT, DTYPE_DOUBLE, DTYPE_INT8, DTYPE_INT16, DTYPE_INT32, DTYPE_INT64,
    DTYPE_UINT8, DTYPE_UINT16, DTYPE_BOOL, DTYPE_STRING, DTYPES
} DType; /* the numbers are in RDB files */

enum { MAX_DIMS = 64 };

typedef struct Shape {
    int ndim;
    int64_t dims[MAX_DIMS];
    int64_t elements;
} Shape;

/* Immutable once made, so any thread may read it while it holds a reference. Row-major, host byte order. */
typedef struct Tensor {
    atomic_uint references;
    uint8_t dtype;
    uint8_t ndim;
    int64_t elements;
    Bytes bytes;
    int64_t dims[]; /* then the data, where bytes has no owner */
} Tensor;

/* DTYPES when there is no such type; any case. */
DType dtype_parse(const char *name, size_t size);
const char *dtype_name(DType dtype, size_t *size);
/* Bytes of one element; 0 for STRING, whose elements have any length. */
size_t dtype_size(DType dtype);

/* Adds one dimension. False when it is not positive, there are too many, or their product is out of range. */
bool shape_add(Shape *shape, int64_t dim);
/* Bytes that a tensor of this type and shape has, or SIZE_MAX when that does not fit. Never ask it for STRING. */
size_t shape_bytes(const Shape *shape, DType dtype);

/* NULL, or what is wrong with these bytes as the content of such a tensor. */
const char *tensor_check(DType dtype, const Shape *shape, const char *data, size_t size);

/* These return a first reference. tensor_new leaves the data for the caller to fill through *data, and may return NULL
 * for want of memory. */
Tensor *tensor_new(DType dtype, const Shape *shape, size_t size, char **data);
Tensor *tensor_owning(DType dtype, const Shape *shape, Bytes bytes);

Tensor *tensor_share(Tensor *tensor);
void tensor_release(Tensor *tensor);
/* Memory of the object and its data. */
size_t tensor_memory(const Tensor *tensor);

extern RedisModuleType *tensor_type;
int tensor_type_register(RedisModuleCtx *ctx);

/* The tensor at a key, or NULL after an error was answered. It is not pinned. */
Tensor *tensor_at(RedisModuleCtx *ctx, RedisModuleKey *key);

#endif
