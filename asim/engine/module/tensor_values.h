/* Tensors as separate values instead of one blob. */
#ifndef ASIM_TENSOR_VALUES_H
#define ASIM_TENSOR_VALUES_H

#include "arguments.h"
#include "tensor.h"

/* Makes a tensor of the rest of the arguments. Returns NULL, or the error; *tensor stays NULL without memory. */
const char *tensor_from_values(const Cursor *cursor, DType dtype, const Shape *shape, Tensor **tensor);

void reply_values(RedisModuleCtx *ctx, const Tensor *tensor);

#endif
