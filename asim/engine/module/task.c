/* The message that tells a worker what to do: asim/engine/protocol.py is its other end. Numbers are little-endian, which
 * is what every machine that asim runs on has. */
#include <string.h>

#include "worker.h"

enum { ALIGNMENT = 16, MOST_KEPT = 1 << 16 };

typedef struct TaskHead {
    uint32_t work, limit_ms;
    uint64_t task, object;
    uint32_t inputs, expected, extra, rows;
} TaskHead;

typedef struct TensorHead {
    uint8_t dtype, ndim, padding[6];
    uint64_t bytes;
} TensorHead;

_Static_assert(sizeof(TaskHead) == 40 && sizeof(TensorHead) == 16, "as workers read them");

static size_t aligned(size_t size) { return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

/* The bytes of one input, of all jobs of the batch. */
static uint64_t input_bytes(const Task *task, int input) {
    uint64_t bytes = 0;
    for (const Job *job = task->jobs; job; job = job->next) bytes += job->inputs[input]->bytes.size;
    return bytes;
}

/* How long the worker may take: as long as anybody waits, and a while longer. */
static uint32_t limit_of(const Task *task) {
    int64_t longest = 0, now = now_ms();
    for (const Job *job = task->jobs; job; job = job->next) {
        int64_t left = job->timeout_ms ? job->queued_ms + job->timeout_ms - now : INT64_MAX / 2;
        /* a run that was abandoned early may take as long again, before it is taken for one that hangs */
        int64_t grace = job->timeout_ms > engine.grace_ms ? job->timeout_ms : engine.grace_ms;
        if (left < 0) left = 0;
        if (left < INT64_MAX / 2) left += grace;
        if (left > longest) longest = left;
    }
    int64_t most = engine.execution_timeout_ms;
    if (most && (!longest || longest > most)) longest = most;
    return longest > UINT32_MAX ? 0 : (uint32_t)longest;
}

static TaskHead head_of(const Worker *worker, const Task *task) {
    TaskHead head = {.work = task->work, .task = task->number};
    const Job *job = task->jobs;
    if (task->work == WORK_DROP) head.extra = (uint32_t)(worker->dropping * sizeof(uint64_t));
    if (task->work == WORK_PREPARE) head.extra = (uint32_t)strlen(BACKEND_NAMES[worker->prepare]);
    if (!job) return head;
    head.limit_ms = limit_of(task);
    head.object = job->object->runs.number;
    head.inputs = (uint32_t)job->input_count;
    head.expected = (uint32_t)job->output_count;
    head.extra = (uint32_t)job->extra_size;
    head.rows = (uint32_t)task->rows;
    return head;
}

static size_t size_of(const Task *task, const TaskHead *head) {
    size_t heads = 0, data = 0;
    for (uint32_t i = 0; i < head->inputs; i++) {
        heads += sizeof(TensorHead) + task->jobs->inputs[i]->ndim * sizeof(int64_t);
        data += aligned(input_bytes(task, (int)i));
    }
    return aligned(sizeof *head + head->extra) + aligned(heads) + data;
}

static char *put(char *at, const void *data, size_t size) {
    if (size) memcpy(at, data, size);
    return at + size;
}

static char *put_input_head(char *at, const Task *task, int input) {
    const Tensor *tensor = task->jobs->inputs[input];
    TensorHead head = {.dtype = tensor->dtype, .ndim = tensor->ndim, .bytes = input_bytes(task, input)};
    char *dims = put(at, &head, sizeof head);
    at = put(dims, tensor->dims, tensor->ndim * sizeof(int64_t));
    if (task->rows) memcpy(dims, &task->rows, sizeof(int64_t));
    return at;
}

static char *put_input(char *at, const Task *task, int input) {
    for (const Job *job = task->jobs; job; job = job->next) {
        const Bytes *bytes = &job->inputs[input]->bytes;
        at = put(at, bytes_data(bytes), bytes->size);
    }
    return at;
}

static char *put_extra(char *at, const Worker *worker, const Task *task, uint32_t size) {
    if (task->work == WORK_DROP) return put(at, worker->gone, size);
    if (task->work == WORK_PREPARE) return put(at, BACKEND_NAMES[worker->prepare], size);
    return task->jobs ? put(at, task->jobs->extra, size) : at;
}

/* Zeros up to the next multiple of the alignment. */
static char *pad(char *start, char *at) {
    size_t used = (size_t)(at - start), left = aligned(used) - used;
    memset(at, 0, left);
    return at + left;
}

static char *write_task(char *start, const Worker *worker, const Task *task, const TaskHead *head) {
    char *at = put(start, head, sizeof *head);
    at = pad(start, put_extra(at, worker, task, head->extra));
    for (uint32_t i = 0; i < head->inputs; i++) at = put_input_head(at, task, (int)i);
    at = pad(start, at);
    for (uint32_t i = 0; i < head->inputs; i++) at = pad(start, put_input(at, task, (int)i));
    return at;
}

static void write_tasks(char *at, const Worker *worker, const TaskHead *heads) {
    for (int i = 0; i < worker->count; i++) at = write_task(at, worker, &worker->tasks[i], &heads[i]);
}

/* The tasks are in memory that the worker can see; this says where. */
static void reply_shared(RedisModuleCtx *ctx, const Shared *shared, size_t size) {
    TaskHead head = {
        .work = WORK_SHARED, .task = (uint64_t)shared->fd, .object = size, .expected = shared->generation,
    };
    redis.ReplyWithStringBuffer(ctx, (const char *)&head, sizeof head);
}

void task_reply(RedisModuleCtx *ctx, Worker *worker) {
    static char kept[MOST_KEPT];
    TaskHead heads[MOST_TASKS] = {{0}};
    size_t size = 0;
    int64_t limit = 0;
    for (int i = 0; i < worker->count; i++) {
        heads[i] = head_of(worker, &worker->tasks[i]);
        size += size_of(&worker->tasks[i], &heads[i]);
        limit += heads[i].limit_ms;
    }
    worker_expect(worker, limit);
    if (worker->shares && size >= SHARED_FROM && shared_reserve(&worker->shared, size)) {
        alarm_clear(&worker->give_back);
        write_tasks(worker->shared.data, worker, heads);
        reply_shared(ctx, &worker->shared, size);
        return;
    }
    char *message = size <= sizeof kept ? kept : alloc_or_null(size);
    if (!message) {
        worker_give_up(worker, "ERR not enough memory for the inputs of this run");
        task_reply(ctx, worker);
        return;
    }
    write_tasks(message, worker, heads);
    redis.ReplyWithStringBuffer(ctx, message, size);
    if (message != kept) redis.Free(message);
}
