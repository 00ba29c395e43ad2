/* Models and scripts: what their keys hold, and what an inference run pins. */
#ifndef ASIM_OBJECT_H
#define ASIM_OBJECT_H

#include "arguments.h"
#include "bytes.h"
#include "queue.h"
#include "rdb.h"

/* Of the runs of one object. Part of it, so it goes where RENAME puts it; not saved. */
typedef struct Stats {
    int64_t calls, errors, samples, duration_us;
} Stats;

typedef enum Backend { BACKEND_TF, BACKEND_TFLITE, BACKEND_TORCH, BACKEND_ONNX, BACKENDS } Backend; /* as in RDB files */
extern const char *const BACKEND_NAMES[BACKENDS];
/* BACKENDS when there is no such backend; any case. */
Backend backend_parse(RedisModuleString *argument);

/* CPU, GPU, CPU:n or GPU:n, in upper case. */
typedef struct Device {
    char name[10];
} Device;
/* False when this is no device. */
bool device_parse(const char *name, size_t size, Device *device);

typedef enum Kind { KIND_MODEL, KIND_SCRIPT } Kind;

enum { DIGEST_SIZE = 32, MOST_DEATHS = 3 };

/* What is known of an object's runs; changes while it lives. Main thread only. */
typedef struct Runs {
    uint64_t number; /* what workers call it; 0: they have not heard of it */
    Lane lane;       /* the jobs that wait for it */
    Stats stats;
    int64_t typical_us; /* how long a run takes; 0: not known */
    int deaths;      /* workers that ended while they ran it, since its last success */
    bool checked;    /* a worker has loaded it; then these are known */
    int inputs, outputs; /* -1: unknown */
    unsigned char digest[DIGEST_SIZE];
} Runs;

/* A model, or a script (of the backend TORCH, with its source as the blob). Immutable once made, but for `runs`. */
typedef struct Object {
    atomic_uint references;
    Kind kind;
    Backend backend;
    Device device;
    Text *tag;
    Blob *blob;
    int64_t batchsize, minbatchsize, minbatchtimeout_ms; /* 0 = not given */
    Names inputs, outputs;                               /* of TF's graphs */
    Names entry_points;                                  /* of scripts */
    Runs runs;
} Object;

/* With a first reference, and nothing else. */
Object *object_new(Kind kind);
Object *object_share(Object *object);
void object_release(Object *object);
static inline bool object_quarantined(const Object *object) { return object->runs.deaths >= MOST_DEATHS; }

extern RedisModuleType *model_type, *script_type;
int model_type_register(RedisModuleCtx *ctx);
int script_type_register(RedisModuleCtx *ctx);

/* [TAG t] */
Text *parse_tag(Cursor *cursor);
/* n name... True, or false when the count is no positive number or more than there are arguments. */
bool parse_names(Cursor *cursor, Names *names);

void reply_names(RedisModuleCtx *ctx, const Names *names);
void reply_text(RedisModuleCtx *ctx, const Text *text);

#define QUARANTINED "ERR quarantined: it ended its worker 3 times in a row; store it again to run it"

/* Puts it at the key; takes over the reference. False when the key holds something else. */
bool object_put(RedisModuleCtx *ctx, RedisModuleString *name, Object *object);

/* What AI.MODELSTORE and AI.SCRIPTSET do with a new object: has a worker load it if there are workers, stores it, and
 * answers. Takes over the reference. */
int object_store(RedisModuleCtx *ctx, RedisModuleString *name, Object *object);

#endif
