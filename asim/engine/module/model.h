/* Models and scripts: what their keys hold, and what an inference run pins. */
#ifndef ASIM_MODEL_H
#define ASIM_MODEL_H

#include "arguments.h"
#include "bytes.h"
#include "rdb.h"

/* Of the runs of one object. Part of it, so it goes where RENAME puts it; not saved. Main thread only. */
typedef struct Stats {
    int64_t calls, errors, samples, duration_us;
} Stats;

typedef enum Backend { BACKEND_TF, BACKEND_TFLITE, BACKEND_TORCH, BACKEND_ONNX, BACKENDS } Backend; /* as in RDB files */
extern const char *const BACKEND_NAMES[BACKENDS];

/* CPU, GPU, CPU:n or GPU:n, in upper case. */
typedef struct Device {
    char name[10];
} Device;
/* False when this is no device. */
bool device_parse(const char *name, size_t size, Device *device);

/* Everything but the statistics is immutable once made. */
typedef struct Model {
    atomic_uint references;
    Backend backend;
    Device device;
    int64_t batchsize, minbatchsize, minbatchtimeout_ms; /* 0 = not given */
    Text *tag;
    Names inputs, outputs;
    Blob *blob;
    Stats stats;
} Model;

typedef struct Script {
    atomic_uint references;
    Device device;
    Text *tag;
    Names entry_points;
    Blob *source;
    Stats stats;
} Script;

/* With a first reference, and nothing else. */
Model *model_new(void);
Model *model_share(Model *model);
void model_release(Model *model);
Script *script_new(void);
Script *script_share(Script *script);
void script_release(Script *script);

extern RedisModuleType *model_type, *script_type;
int model_type_register(RedisModuleCtx *ctx);
int script_type_register(RedisModuleCtx *ctx);

/* [TAG t] */
Text *parse_tag(Cursor *cursor);
/* n name... True, or false when the count is no positive number or more than there are arguments. */
bool parse_names(Cursor *cursor, Names *names);

void reply_names(RedisModuleCtx *ctx, const Names *names);
void reply_text(RedisModuleCtx *ctx, const Text *text);

#endif
