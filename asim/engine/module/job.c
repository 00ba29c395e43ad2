#include "job.h"

#include <string.h>

#include "commands.h"

/* The clients that wait, to find the job of one that leaves. */
enum { SLOTS = 4096 };
static Job *waiting[SLOTS];

static Job **slot_of(const RedisModuleBlockedClient *client) { return &waiting[((uintptr_t)client >> 5) % SLOTS]; }

static void waiting_add(Job *job) {
    Job **slot = slot_of(job->client);
    job->sibling = *slot;
    *slot = job;
}

static Job *waiting_remove(const RedisModuleBlockedClient *client) {
    Job **at = slot_of(client);
    while (*at && (*at)->client != client) at = &(*at)->sibling;
    Job *job = *at;
    if (job) *at = job->sibling;
    return job;
}

/* What a client that waited is told. */
typedef struct Answer {
    char *error;    /* or NULL */
    Object *object; /* to be stored, or NULL */
} Answer;

/* Objects are stored here, and not before: their bytes are arguments of the command, which the server gives up right
 * after this (see bytes_may_hold). Verbatim replication does not work from here with 6.2. */
static int store(RedisModuleCtx *ctx, RedisModuleString **argv, int argc, Object *object) {
    if (!object_put(ctx, argv[1], object_share(object))) return reply_error(ctx, WRONG_TYPE);
    redis.Replicate(ctx, redis.StringPtrLen(argv[0], NULL), "v", argv + 1, (size_t)argc - 1);
    return reply_ok(ctx);
}

static int reply(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    const Answer *answer = redis.GetBlockedClientPrivateData(ctx);
    if (answer && answer->error) return reply_error(ctx, answer->error);
    return answer ? store(ctx, argv, argc, answer->object) : reply_ok(ctx);
}

static void release_answer(RedisModuleCtx *ctx, void *data) {
    (void)ctx;
    Answer *answer = data;
    if (!answer) return;
    if (answer->error) redis.Free(answer->error);
    object_release(answer->object);
    redis.Free(answer);
}

static void strings_release(RedisModuleString **strings, int count) {
    for (int i = 0; i < count; i++) redis.FreeString(NULL, strings[i]);
    if (strings) redis.Free(strings);
}

static void job_free(Job *job) {
    alarm_clear(&job->deadline);
    for (int i = 0; i < job->input_count; i++) tensor_release(job->inputs[i]);
    if (job->inputs) redis.Free(job->inputs);
    strings_release(job->outputs, job->output_count);
    if (job->extra) redis.Free(job->extra);
    object_release(job->object);
    redis.Free(job);
}

/* A client that leaves takes its job with it, unless that runs already. */
static void left(RedisModuleCtx *ctx, RedisModuleBlockedClient *client) {
    (void)ctx;
    Job *job = waiting_remove(client);
    if (!job) return;
    job->client = NULL;
    redis.UnblockClient(client, NULL);
    if (lane_remove(&job->object->runs.lane, job)) job_free(job);
}

Job *job_new(RedisModuleCtx *ctx, Work work, Object *object) {
    static uint64_t last_number;
    if (!object->runs.number) object->runs.number = ++last_number;
    Job *job = redis.Calloc(1, sizeof *job);
    job->work = work;
    job->object = object_share(object);
    job->db = redis.GetSelectedDb(ctx);
    job->queued_ms = now_ms();
    job->client = redis.BlockClient(ctx, reply, NULL, release_answer, 0);
    redis.SetDisconnectCallback(job->client, left);
    waiting_add(job);
    return job;
}

size_t job_bytes(const Job *job) {
    size_t bytes = 0;
    for (int i = 0; i < job->input_count; i++) bytes += job->inputs[i]->bytes.size;
    return bytes;
}

void job_set_outputs(Job *job, RedisModuleString **names, int count) {
    job->outputs = redis.Alloc((size_t)count * sizeof *names);
    for (job->output_count = 0; job->output_count < count; job->output_count++) {
        size_t size;
        const char *name = redis.StringPtrLen(names[job->output_count], &size);
        job->outputs[job->output_count] = redis.CreateString(NULL, name, size);
    }
}

static char *error_copy(const char *error) {
    size_t size = strlen(error) + 1;
    char *copy = redis.Alloc(size);
    for (size_t i = 0; i < size; i++) copy[i] = error[i] == '\r' || error[i] == '\n' ? ' ' : error[i];
    return copy;
}

static Answer *answer_new(const Job *job, const char *error) {
    if (!error && job->work != WORK_LOAD) return NULL;
    Answer *answer = redis.Calloc(1, sizeof *answer);
    if (error)
        answer->error = error_copy(error);
    else
        answer->object = object_share(job->object);
    return answer;
}

void job_answer(Job *job, const char *error) {
    alarm_clear(&job->deadline);
    if (!job->client) return;
    RedisModuleBlockedClient *client = job->client;
    waiting_remove(client);
    job->client = NULL;
    redis.SetDisconnectCallback(client, NULL);
    redis.UnblockClient(client, answer_new(job, error));
}

void job_finish(Job *job, const char *error) {
    Stats *stats = &job->object->runs.stats;
    job_answer(job, error);
    if (job->work != WORK_LOAD) {
        stats->calls++;
        stats->errors += error != NULL;
    }
    job_free(job);
}
