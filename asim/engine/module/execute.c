/* AI.MODELEXECUTE, AI.MODELRUN, AI.SCRIPTRUN, AI.SCRIPTEXECUTE: from their arguments to a job. */
#include "execute.h"

#include "commands.h"
#include "job.h"

#define NO_TRANSACTION "ERR Cannot run RedisAI command within a transaction or a LUA script"
#define INPUTS_DIFFER "Number of keys given as INPUTS here does not match model definition"
#define OUTPUTS_DIFFER "Number of keys given as OUTPUTS here does not match model definition"
#define MISSING_TENSOR "ERR tensor key is empty or in a different shard"

static void release_inputs(Tensor **inputs, int count) {
    for (int i = 0; i < count; i++) tensor_release(inputs[i]);
    redis.Free(inputs);
}

/* Later changes of the keys make no difference to the run. NULL after an error was answered. */
static Tensor **pin_inputs(RedisModuleCtx *ctx, const Request *request) {
    const Words *names = &request->inputs;
    Tensor **inputs = redis.Alloc((size_t)(names->count + 1) * sizeof *inputs);
    for (int i = 0; i < names->count; i++) {
        void *tensor;
        bool behind_list = request->list != NO_LIST && i >= request->list;
        RedisModuleKey *key = redis.OpenKey(ctx, names->first[i + behind_list], KEY_READ);
        int found = value_at(ctx, key, tensor_type, MISSING_TENSOR, &tensor);
        if (found) inputs[i] = tensor_share(tensor);
        redis.CloseKey(key);
        if (found) continue;
        release_inputs(inputs, i);
        return NULL;
    }
    return inputs;
}

/* Rows along dimension 0, where all inputs have as many; else 0. */
static int64_t common_rows(Tensor **inputs, int count) {
    int64_t rows = 0;
    for (int i = 0; i < count; i++) {
        if (!inputs[i]->ndim || inputs[i]->dtype == DTYPE_STRING) return 0;
        if (i && inputs[i]->dims[0] != rows) return 0;
        rows = inputs[i]->dims[0];
    }
    return rows;
}

static bool outputs_are_tensors(RedisModuleCtx *ctx, const Words *names) {
    bool good = true;
    for (int i = 0; good && i < names->count; i++) {
        RedisModuleKey *key = redis.OpenKey(ctx, names->first[i], KEY_READ);
        good = !key || redis.KeyType(key) == KEYTYPE_EMPTY || redis.ModuleTypeGetType(key) == tensor_type;
        redis.CloseKey(key);
    }
    return good;
}

/* -- what the worker is told of a call */

static size_t text_size(RedisModuleString *text) {
    size_t size;
    redis.StringPtrLen(text, &size);
    return sizeof(uint32_t) + size;
}

static size_t words_size(const Words *words) {
    size_t size = sizeof(uint32_t);
    for (int i = 0; i < words->count; i++) size += text_size(words->first[i]);
    return size;
}

static char *put_number(char *at, uint32_t number) {
    memcpy(at, &number, sizeof number);
    return at + sizeof number;
}

static char *put_words(char *at, const Words *words) {
    at = put_number(at, (uint32_t)words->count);
    for (int i = 0; i < words->count; i++) {
        size_t size;
        const char *text = redis.StringPtrLen(words->first[i], &size);
        at = put_number(at, (uint32_t)size);
        memcpy(at, text, size);
        at += size;
    }
    return at;
}

static void describe_call(Job *job, RedisModuleString **function, const Request *request, bool counted) {
    Words name = {.first = function, .count = 1};
    job->extra_size = words_size(&name) + words_size(&request->keys) + words_size(&request->arguments) + 2 * sizeof(uint32_t);
    char *at = job->extra = redis.Alloc(job->extra_size);
    at = put_number(put_words(at, &name), (uint32_t)request->list);
    at = put_words(put_words(at, &request->keys), &request->arguments);
    put_number(at, counted);
}

/* -- starting */

/* A client may name one large tensor many times, and each time it would be copied. */
#define TOO_LARGE "ERR the inputs of a run must not be larger than 4 GiB together"
static const size_t MOST_BYTES = (size_t)4 << 30;

static bool too_large(Tensor **inputs, int count) {
    size_t bytes = 0;
    for (int i = 0; i < count; i++)
        if ((bytes += inputs[i]->bytes.size) > MOST_BYTES) return true;
    return false;
}

/* NULL, or why it cannot run at all. */
static const char *refusal(const Object *object, const Queue *queue) {
    if (!queue) return queue_refusal();
    return object_quarantined(object) ? QUARANTINED : queue->failed;
}

static int start(RedisModuleCtx *ctx, Object *object, RedisModuleString **function, const Request *request, bool counted) {
    Queue *queue = queue_want(object->device.name);
    const char *error = refusal(object, queue);
    if (!error && !outputs_are_tensors(ctx, &request->outputs)) error = WRONG_TYPE;
    if (error) return reply_error(ctx, error);
    Tensor **inputs = pin_inputs(ctx, request);
    if (!inputs) return REDIS_OK;
    if (too_large(inputs, request->inputs.count)) {
        release_inputs(inputs, request->inputs.count);
        return reply_error(ctx, TOO_LARGE);
    }
    Job *job = job_new(ctx, function ? WORK_CALL : WORK_RUN, object);
    job->inputs = inputs;
    job->input_count = request->inputs.count;
    job->rows = common_rows(inputs, job->input_count);
    job->timeout_ms = request->timeout_ms;
    job_set_outputs(job, request->outputs.first, request->outputs.count);
    if (function) describe_call(job, function, request, counted);
    queue_push(queue, job);
    return REDIS_OK;
}

static int execute(RedisModuleCtx *ctx, Object *object, RedisModuleString **function, const Request *request, bool counted) {
    const Runs *runs = &object->runs;
    if (!function) {
        int inputs = object->inputs.count ? (int)object->inputs.count : runs->inputs;
        int outputs = object->outputs.count ? (int)object->outputs.count : runs->outputs;
        if (inputs >= 0 && inputs != request->inputs.count) return reply_error(ctx, INPUTS_DIFFER);
        if (outputs >= 0 && outputs != request->outputs.count) return reply_error(ctx, OUTPUTS_DIFFER);
    }
    return start(ctx, object, function, request, counted);
}

static const char *needs(const Request *request, bool script) {
    if (!request->inputs.given && !script) return "ERR INPUTS not specified";
    return request->outputs.count ? NULL : "ERR OUTPUTS not specified";
}

static int run(RedisModuleCtx *ctx, RedisModuleString **argv, int argc, bool script, bool counted) {
    void *object;
    char words[160];
    if (redis.GetContextFlags(ctx) & CONTEXT_DENY_BLOCKING) return reply_error(ctx, NO_TRANSACTION);
    RedisModuleKey *key = redis.OpenKey(ctx, argv[1], KEY_READ);
    int found = value_at(ctx, key, script ? script_type : model_type,
                         script ? "ERR script key is empty" : "ERR model key is empty", &object);
    if (found) {
        Request request = {.list = NO_LIST};
        Cursor cursor = {.argv = argv, .argc = argc, .at = script ? 3 : 2};
        const char *error = counted ? request_counted(cursor, &request, words, sizeof words) : request_uncounted(cursor, &request);
        if (!error) error = needs(&request, script);
        if (error)
            reply_error(ctx, error);
        else
            execute(ctx, object, script ? argv + 2 : NULL, &request, counted);
    }
    redis.CloseKey(key);
    return REDIS_OK;
}

int execute_model(RedisModuleCtx *ctx, RedisModuleString **argv, int argc, bool counted) {
    return run(ctx, argv, argc, false, counted);
}

int execute_script(RedisModuleCtx *ctx, RedisModuleString **argv, int argc, bool counted) {
    return run(ctx, argv, argc, true, counted);
}
