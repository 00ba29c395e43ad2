/* ASIM.NEXT, ASIM.FETCH: what workers say. ASIM.PREPARE, ASIM.WANTED, ASIM.WORKER: what those say who start them.
 *
 * A worker answers a task and asks for the next by one command, so a batch costs it one message and one reply. */
#include <stdio.h>

#include "commands.h"
#include "worker.h"

/* -- what a worker says */

typedef struct HelloHead {
    uint32_t status, outputs;
    uint64_t task, duration_us;
    uint32_t pid, size;
} HelloHead;

/* A bit of `outputs` in a HELLO: the worker can open the server's files. */
enum { HELLO_SHARES = 1 };

/* A connection's first words: which device it serves. */
static Worker *hello(RedisModuleCtx *ctx, RedisModuleString *argument) {
    size_t size;
    HelloHead head;
    Device device;
    const char *data = redis.StringPtrLen(argument, &size);
    if (size < sizeof head) return NULL;
    memcpy(&head, data, sizeof head);
    if (head.status || head.size != size - sizeof head || !device_parse(data + sizeof head, head.size, &device)) return NULL;
    Queue *queue = queue_want(device.name);
    if (!queue) return NULL;
    Worker *worker = worker_attach(queue, redis.GetClientId(ctx));
    worker->shares = head.outputs & HELLO_SHARES;
    worker->pid = head.pid;
    return worker;
}

/* ASIM.DONE head [output...] has no answer, so that it can be sent together with ASIM.NEXT. */
int done_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc < 2) return redis.WrongArity(ctx);
    Worker *worker = worker_of(redis.GetClientId(ctx));
    if (!worker) return hello(ctx, argv[1]) ? REDIS_OK : reply_error(ctx, "ERR this is no worker's first message");
    if (outcome_take(ctx, worker, argv, argc)) return REDIS_OK;
    worker_leave(worker, "ERR the worker's answer makes no sense");
    return reply_error(ctx, "ERR this is no answer to the worker's task");
}

/* Another command than ASIM.DONE, as its arguments stay until there is a task: those of ASIM.DONE become tensors. */
int next_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv;
    if (argc != 1) return redis.WrongArity(ctx);
    if (redis.GetContextFlags(ctx) & CONTEXT_DENY_BLOCKING) return reply_error(ctx, "ERR not within a transaction");
    Worker *worker = worker_of(redis.GetClientId(ctx));
    if (!worker || worker_busy(worker) || worker->idle || worker->woken) return reply_error(ctx, "ERR this worker has a task to answer first");
    if (worker_feed(worker))
        task_reply(ctx, worker);
    else
        worker_wait(ctx, worker);
    return REDIS_OK;
}

/* A large blob is in a file, and the answer is the file's number and size. */
static int reply_blob(RedisModuleCtx *ctx, Worker *worker, const Bytes *blob) {
    int fd = worker->shares && blob->size >= SHARED_FROM ? shared_copy(bytes_data(blob), blob->size) : -1;
    if (fd < 0) return redis.ReplyWithStringBuffer(ctx, bytes_data(blob), blob->size);
    worker_close(worker);
    worker->fetched = fd;
    redis.ReplyWithArray(ctx, 2);
    redis.ReplyWithLongLong(ctx, fd);
    return redis.ReplyWithLongLong(ctx, (long long)blob->size);
}

int fetch_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv;
    if (argc != 1) return redis.WrongArity(ctx);
    Worker *worker = worker_of(redis.GetClientId(ctx));
    if (!worker || !worker_busy(worker) || !worker_task(worker)->jobs)
        return reply_error(ctx, "ERR this connection has no task with an object");
    const Object *object = worker_task(worker)->jobs->object;
    redis.ReplyWithArray(ctx, 7);
    reply_word(ctx, object->kind == KIND_MODEL ? "MODEL" : "SCRIPT");
    reply_word(ctx, BACKEND_NAMES[object->backend]);
    reply_word(ctx, object->device.name);
    reply_names(ctx, &object->inputs);
    reply_names(ctx, &object->outputs);
    reply_names(ctx, &object->entry_points);
    return reply_blob(ctx, worker, &object->blob->bytes);
}

/* -- what its keeper says */

/* ASIM.PREPARE backend device */
int prepare_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc != 3) return redis.WrongArity(ctx);
    size_t size;
    Device device;
    Backend backend = backend_parse(argv[1]);
    if (backend == BACKENDS) return reply_error(ctx, "ERR unsupported backend");
    const char *name = redis.StringPtrLen(argv[2], &size);
    if (!device_parse(name, size, &device)) return reply_error(ctx, "ERR Invalid DEVICE");
    Queue *queue = queue_want(device.name);
    if (!queue) return reply_error(ctx, queue_refusal());
    workers_prepare(queue, backend);
    return reply_ok(ctx);
}

/* The one who waits, and how many devices it knows. */
static RedisModuleBlockedClient *keeper;

static int reply_wanted(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv, (void)argc;
    long count = 0;
    for (const Queue *queue = queue_first(); queue; queue = queue->next) count++;
    redis.ReplyWithArray(ctx, count);
    for (const Queue *queue = queue_first(); queue; queue = queue->next) reply_word(ctx, queue->device);
    return REDIS_OK;
}

void wanted_changed(void) {
    if (!keeper) return;
    redis.SetDisconnectCallback(keeper, NULL);
    redis.UnblockClient(keeper, NULL);
    keeper = NULL;
}

static void keeper_left(RedisModuleCtx *ctx, RedisModuleBlockedClient *client) {
    (void)ctx;
    if (keeper == client) keeper = NULL;
    redis.UnblockClient(client, NULL);
}

static bool knows(RedisModuleString **argv, int argc, const char *device) {
    for (int i = 1; i < argc; i++)
        if (argument_is(argv[i], device)) return true;
    return false;
}

/* ASIM.WANTED known... */
int wanted_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (!engine.workers) return reply_error(ctx, queue_refusal());
    if (redis.GetContextFlags(ctx) & CONTEXT_DENY_BLOCKING) return reply_error(ctx, "ERR not within a transaction");
    for (const Queue *queue = queue_first(); queue; queue = queue->next)
        if (!knows(argv, argc, queue->device)) return reply_wanted(ctx, argv, argc);
    wanted_changed(); /* an earlier keeper is answered */
    keeper = redis.BlockClient(ctx, reply_wanted, NULL, NULL, 0);
    redis.SetDisconnectCallback(keeper, keeper_left);
    return REDIS_OK;
}

/* ASIM.WORKER FAILED device text */
int worker_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc != 4) return redis.WrongArity(ctx);
    size_t size;
    Device device;
    const char *name = redis.StringPtrLen(argv[2], &size);
    if (!argument_is(argv[1], "FAILED")) return reply_error(ctx, "ERR unsupported subcommand");
    if (!device_parse(name, size, &device)) return reply_error(ctx, "ERR Invalid DEVICE");
    Queue *queue = queue_want(device.name);
    if (!queue) return reply_error(ctx, queue_refusal());
    if (queue->workers) return reply_ok(ctx); /* one came up after all */
    static const char words[] = "ERR no inference worker for %s: %s";
    const char *text = redis.StringPtrLen(argv[3], &size);
    if (queue->failed) redis.Free(queue->failed);
    queue->failed = redis.Alloc(sizeof words + sizeof queue->device + size);
    snprintf(queue->failed, sizeof words + sizeof queue->device + size, words, queue->device, text);
    queue_fail(queue, queue->failed);
    return reply_ok(ctx);
}
