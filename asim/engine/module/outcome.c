/* What a worker answers, and what becomes of it: outputs are cut apart, stored and replicated; objects that could be
 * loaded are stored. */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "worker.h"

#define BAD_BATCH "ERR Model did not generate the expected batch size"

enum { STATUS_DONE = 1, STATUS_FAILED = 2, LONGEST_ERROR = 4096 };
/* A bit of the status: the model still uses the shared memory that its inputs were in. */
enum { STATUS_KEPT = 1 << 8 };

typedef struct OutcomeHead {
    uint32_t status, outputs;
    uint64_t task, duration_us;
} OutcomeHead;

typedef struct OutputHead {
    uint8_t dtype, ndim, padding[6];
} OutputHead;

typedef struct LoadedHead {
    int32_t inputs, outputs;
    unsigned char digest[DIGEST_SIZE];
} LoadedHead;

typedef struct Output {
    DType dtype;
    Shape shape;
    RedisModuleString *data;
    Tensor *part; /* what the job at hand has of it, until that is stored */
} Output;

/* What is left to read. */
typedef struct Reader {
    const char *at;
    size_t left;
} Reader;

static bool read_bytes(Reader *reader, void *into, size_t size) {
    if (reader->left < size) return false;
    memcpy(into, reader->at, size);
    reader->at += size;
    reader->left -= size;
    return true;
}

static bool read_output(Reader *reader, RedisModuleString *data, Output *output) {
    OutputHead head;
    int64_t dim;
    size_t size;
    if (!read_bytes(reader, &head, sizeof head) || head.dtype >= DTYPES || head.ndim > MAX_DIMS) return false;
    output->dtype = (DType)head.dtype;
    output->shape.ndim = 0, output->shape.elements = 1;
    for (int i = 0; i < head.ndim; i++)
        if (!read_bytes(reader, &dim, sizeof dim) || !shape_add(&output->shape, dim)) return false;
    output->data = data;
    const char *bytes = redis.StringPtrLen(data, &size);
    return !tensor_check(output->dtype, &output->shape, bytes, size);
}

/* -- storing */

static void release(void *tensor) { tensor_release(tensor); }

/* Rows `from` to `from + rows` of an output; all of it when rows is 0. NULL without memory. */
static Tensor *part(RedisModuleCtx *ctx, const Output *output, int64_t from, int64_t rows) {
    size_t size;
    char *copy;
    const char *data = redis.StringPtrLen(output->data, &size);
    if (!rows && bytes_may_hold(ctx, size)) return tensor_owning(output->dtype, &output->shape, bytes_hold(output->data));
    Shape shape = output->shape;
    if (rows) {
        size_t row = size / (size_t)shape.dims[0];
        shape.elements = shape.elements / shape.dims[0] * rows;
        shape.dims[0] = rows;
        data += row * (size_t)from;
        size = row * (size_t)rows;
    }
    Tensor *tensor = tensor_new(output->dtype, &shape, size, &copy);
    if (tensor) memcpy(copy, data, size);
    return tensor;
}

static bool replicates(RedisModuleCtx *ctx) { return had_replica() || redis.GetContextFlags(ctx) & CONTEXT_AOF; }

/* As AI.TENSORSET, so that replicas and append-only files need no workers. */
static void replicate(RedisModuleCtx *ctx, RedisModuleString *name, const Tensor *tensor) {
    size_t size;
    const char *type = dtype_name((DType)tensor->dtype, &size);
    RedisModuleString *words[2 + MAX_DIMS];
    size_t count = 0;
    words[count++] = redis.CreateString(NULL, type, size);
    for (int i = 0; i < tensor->ndim; i++) words[count++] = redis.CreateStringFromLongLong(NULL, tensor->dims[i]);
    words[count++] = redis.CreateString(NULL, "BLOB", 4);
    if (tensor->bytes.string)
        redis.Replicate(ctx, "AI.TENSORSET", "svs", name, words, count, tensor->bytes.string);
    else
        redis.Replicate(ctx, "AI.TENSORSET", "svb", name, words, count, bytes_data(&tensor->bytes), tensor->bytes.size);
    for (size_t i = 0; i < count; i++) redis.FreeString(NULL, words[i]);
}

static bool may_store(RedisModuleCtx *ctx, RedisModuleString *name, RedisModuleType *type) {
    RedisModuleKey *key = redis.OpenKey(ctx, name, KEY_READ | KEY_WRITE);
    bool good = redis.KeyType(key) == KEYTYPE_EMPTY || redis.ModuleTypeGetType(key) == type;
    redis.CloseKey(key);
    return good;
}

/* A job's part of every output; of none where there is no memory for one. */
static bool cut(RedisModuleCtx *ctx, const Job *job, Output *outputs, int64_t from, bool merged) {
    int i = 0;
    while (i < job->output_count && (outputs[i].part = part(ctx, &outputs[i], from, merged ? job->rows : 0))) i++;
    if (i == job->output_count) return true;
    while (i--) tensor_release(outputs[i].part);
    return false;
}

/* All of them or, with an error, none. */
static const char *store_outputs(RedisModuleCtx *ctx, const Job *job, Output *outputs, int64_t from, bool merged) {
    const char *error = NULL;
    bool told = replicates(ctx);
    redis.SelectDb(ctx, job->db);
    for (int i = 0; i < job->output_count; i++)
        if (!may_store(ctx, job->outputs[i], tensor_type)) return WRONG_TYPE;
    if (!cut(ctx, job, outputs, from, merged)) return "ERR could not save tensor";
    for (int i = 0; i < job->output_count; i++)
        if (!put_value(ctx, job->outputs[i], tensor_type, outputs[i].part, release))
            error = WRONG_TYPE; /* cannot be, as all were looked at; the others' memory is not lost nevertheless */
        else if (told)
            replicate(ctx, job->outputs[i], outputs[i].part);
    return error;
}

/* -- what became of a run */

static void finish_all(Job *jobs, const char *error) {
    for (Job *next; jobs; jobs = next) {
        next = jobs->next;
        job_finish(jobs, error);
    }
}

/* Follows a change within some ten runs. Never 0. */
static int64_t smoothed(int64_t typical, int64_t now) { return typical ? (7 * typical + now) / 8 + 1 : now + 1; }

static void finish_run(RedisModuleCtx *ctx, Job *job, Output *outputs, int64_t from, bool merged, uint64_t duration) {
    Stats *stats = &job->object->runs.stats;
    const Shape *first = &outputs[0].shape;
    /* an answered client was told that there is no result */
    const char *error = job->client ? store_outputs(ctx, job, outputs, from, merged) : "";
    stats->duration_us += (int64_t)duration;
    stats->samples += merged ? job->rows : first->ndim ? first->dims[0] : 1;
    job->object->runs.deaths = 0;
    job->object->runs.typical_us = smoothed(job->object->runs.typical_us, (int64_t)duration);
    job_finish(job, error);
}

static bool run_done(RedisModuleCtx *ctx, const Task *task, Reader *reader, RedisModuleString **data, int count,
                     uint64_t duration) {
    int64_t from = 0, rows = task->rows;
    Job *jobs = task->jobs;
    if (count != jobs->output_count) return false;
    Output *outputs = redis.Alloc((size_t)count * sizeof *outputs);
    bool good = true, fits = true;
    for (int i = 0; good && i < count; i++) {
        good = read_output(reader, data[i], &outputs[i]);
        fits = fits && (!rows || (outputs[i].shape.ndim && outputs[i].shape.dims[0] == rows && outputs[i].dtype != DTYPE_STRING));
    }
    if (good && !fits) finish_all(jobs, BAD_BATCH);
    for (Job *next; good && fits && jobs; jobs = next) {
        int64_t mine = jobs->rows;
        next = jobs->next;
        finish_run(ctx, jobs, outputs, from, rows != 0, duration);
        from += mine;
    }
    redis.Free(outputs);
    /* where there is nobody to tell, this only counts as a change, for the next save */
    if (good && !replicates(ctx)) redis.ReplicateVerbatim(ctx);
    return good;
}

/* -- what became of an object that was to be stored */

static bool load_done(Job *job, Reader *reader) {
    LoadedHead loaded;
    Runs *runs = &job->object->runs;
    if (!read_bytes(reader, &loaded, sizeof loaded)) return false;
    runs->checked = true;
    runs->inputs = loaded.inputs, runs->outputs = loaded.outputs;
    memcpy(runs->digest, loaded.digest, DIGEST_SIZE);
    job_finish(job, NULL);
    return true;
}

/* -- all of it */

static void failed(Job *jobs, const Reader *reader) {
    char error[LONGEST_ERROR];
    size_t size = reader->left < sizeof error - 1 ? reader->left : sizeof error - 1;
    memcpy(error, reader->at, size);
    error[size] = '\0';
    if (jobs) jobs->object->runs.deaths = 0; /* it does not work, but it leaves workers alone */
    finish_all(jobs, error);
}

static bool done(RedisModuleCtx *ctx, Worker *worker, const Task *task, Reader *reader, RedisModuleString **argv, int argc,
                 uint64_t duration) {
    switch (task->work) {
    case WORK_RUN:
    case WORK_CALL:
        return run_done(ctx, task, reader, argv, argc, duration);
    case WORK_LOAD:
        return load_done(task->jobs, reader);
    case WORK_DROP:
        worker_dropped(worker);
        return true;
    default:
        return true;
    }
}

void outcome_lost(const Task *task, const char *error, bool guilty) {
    if (!task->jobs) return;
    Object *object = object_share(task->jobs->object);
    if (guilty && task->work != WORK_LOAD) object->runs.deaths++;
    finish_all(task->jobs, error);
    if (object_quarantined(object)) lane_fail(&object->runs.lane, QUARANTINED);
    object_release(object);
}

static void give_back(Alarm *alarm) { shared_release(&CONTAINER(alarm, Worker, give_back)->shared); }

bool outcome_take(RedisModuleCtx *ctx, Worker *worker, RedisModuleString **argv, int argc) {
    Reader reader;
    OutcomeHead head;
    if (!worker_busy(worker)) return false;
    worker_close(worker);
    const Task *task = worker_task(worker);
    reader.at = redis.StringPtrLen(argv[1], &reader.left);
    if (!read_bytes(&reader, &head, sizeof head) || head.task != task->number) return false;
    if (head.status & STATUS_KEPT) shared_release(&worker->shared);
    if (worker->shared.data) alarm_set(&worker->give_back, now_ms() + SHARED_IDLE_MS, give_back);
    head.status &= ~(uint32_t)STATUS_KEPT;
    if (head.status == STATUS_FAILED)
        failed(task->jobs, &reader);
    else if (head.status != STATUS_DONE || !done(ctx, worker, task, &reader, argv + 2, argc - 2, head.duration_us))
        return false;
    worker->answered++;
    if (!worker_busy(worker)) alarm_clear(&worker->overdue);
    return true;
}
