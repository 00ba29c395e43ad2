#define _POSIX_C_SOURCE 200809L
#include "worker.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static uint64_t last_task;

/* -- objects that are gone: the last reference may be released in any thread */

static pthread_mutex_t gone_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t *gone;
static size_t gone_count, gone_room;
static atomic_bool any_gone;

static void gone_add(uint64_t **list, size_t *count, size_t *room, uint64_t object) {
    if (*count == *room) {
        *room = *room ? 2 * *room : 16;
        *list = redis.Realloc(*list, *room * sizeof(uint64_t));
    }
    (*list)[(*count)++] = object;
}

void worker_forget(uint64_t object) {
    pthread_mutex_lock(&gone_lock);
    gone_add(&gone, &gone_count, &gone_room, object);
    pthread_mutex_unlock(&gone_lock);
    atomic_store(&any_gone, true);
}

/* Ten times a second or so. */
static void cron(RedisModuleCtx *ctx, Event event, uint64_t subevent, void *data) {
    (void)ctx, (void)event, (void)subevent, (void)data;
    if (!atomic_exchange(&any_gone, false)) return;
    pthread_mutex_lock(&gone_lock);
    for (Queue *queue = queue_first(); queue; queue = queue->next)
        for (Worker *worker = queue->workers; worker; worker = worker->next)
            for (size_t i = 0; i < gone_count; i++)
                gone_add(&worker->gone, &worker->gone_count, &worker->gone_room, gone[i]);
    gone_count = 0;
    pthread_mutex_unlock(&gone_lock);
    for (Queue *queue = queue_first(); queue; queue = queue->next) workers_feed(queue);
}

/* -- tasks */

Worker *worker_of(unsigned long long client) {
    for (Queue *queue = queue_first(); queue; queue = queue->next)
        for (Worker *worker = queue->workers; worker; worker = worker->next)
            if (worker->client == client) return worker;
    return NULL;
}

Worker *worker_attach(Queue *queue, unsigned long long client) {
    Worker *worker = redis.Calloc(1, sizeof *worker);
    worker->queue = queue;
    worker->client = client;
    worker->to_prepare = queue->to_prepare;
    worker->next = queue->workers;
    queue->workers = worker;
    if (queue->failed) redis.Free(queue->failed);
    queue->failed = NULL;
    return worker;
}

static void begin(Worker *worker, Work work, Job *jobs, int64_t rows) {
    worker->tasks[worker->count++] = (Task){.number = ++last_task, .work = work, .jobs = jobs, .rows = rows};
}

static bool others_are_free(const Worker *one) {
    for (const Worker *worker = one->queue->workers; worker; worker = worker->next)
        if (worker != one && (worker->idle || worker->woken)) return true;
    return false;
}

static size_t bytes_of(const Job *jobs) {
    size_t bytes = 0;
    for (const Job *job = jobs; job; job = job->next) bytes += job_bytes(job);
    return bytes;
}

/* More runs of the same object, while they are short. */
static void begin_more(Worker *worker, Job *jobs) {
    int64_t each = jobs->object->runs.typical_us, all = each, rows;
    size_t bytes = bytes_of(jobs);
    if (!each || jobs->work == WORK_LOAD || others_are_free(worker)) return;
    while (worker->count < MOST_TASKS && (all += each) <= TASKS_US && bytes < TASKS_BYTES) {
        Job *more = queue_take_like(jobs, &rows);
        if (!more) return;
        bytes += bytes_of(more);
        begin(worker, more->work, more, rows);
    }
}

bool worker_feed(Worker *worker) {
    Job *jobs;
    int64_t rows;
    worker->answered = worker->count = 0;
    if ((worker->dropping = worker->gone_count)) {
        begin(worker, WORK_DROP, NULL, 0);
        return true;
    }
    if ((jobs = queue_take(worker->queue, &rows))) {
        begin(worker, jobs->work, jobs, rows);
        begin_more(worker, jobs);
        return true;
    }
    for (int backend = 0; backend < BACKENDS; backend++) {
        if (!(worker->to_prepare & 1u << backend)) continue;
        worker->to_prepare &= ~(1u << backend);
        worker->prepare = (Backend)backend;
        begin(worker, WORK_PREPARE, NULL, 0);
        return true;
    }
    return false;
}

void worker_give_up(Worker *worker, const char *error) {
    for (; worker_busy(worker); worker->answered++) outcome_lost(worker_task(worker), error, false);
    worker->answered = worker->count = 0;
    worker->dropping = 0;
    begin(worker, WORK_DROP, NULL, 0);
}

void worker_close(Worker *worker) {
    if (worker->fetched) close(worker->fetched);
    worker->fetched = 0;
}

void worker_dropped(Worker *worker) {
    if (!worker->dropping) return;
    worker->gone_count -= worker->dropping;
    memmove(worker->gone, worker->gone + worker->dropping, worker->gone_count * sizeof *worker->gone);
}

/* What came in the same turn of the loop is handed over together. */
static int reply_task(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv, (void)argc;
    Worker *worker = redis.GetBlockedClientPrivateData(ctx);
    worker->woken = false;
    if (!worker_feed(worker)) begin(worker, WORK_DROP, NULL, 0); /* of nothing: what there was is gone */
    task_reply(ctx, worker);
    return REDIS_OK;
}

void worker_wait(RedisModuleCtx *ctx, Worker *worker) {
    worker->idle = redis.BlockClient(ctx, reply_task, NULL, NULL, 0);
}

static void wake(Worker *worker) {
    RedisModuleBlockedClient *client = worker->idle;
    worker->idle = NULL;
    worker->woken = true;
    redis.UnblockClient(client, worker);
}

void workers_feed(Queue *queue) {
    size_t woken = 0;
    bool ready = queue_ready(queue);
    for (const Worker *worker = queue->workers; worker; worker = worker->next) woken += worker->woken;
    for (Worker *worker = queue->workers; worker; worker = worker->next) {
        bool useful = worker->gone_count || worker->to_prepare || (ready && woken < queue->waiting);
        if (!worker->idle || !useful) continue;
        wake(worker);
        woken++;
    }
}

void workers_prepare(Queue *queue, Backend backend) {
    for (Worker *worker = queue->workers; worker; worker = worker->next) worker->to_prepare |= 1u << backend;
    queue->to_prepare |= 1u << backend;
    workers_feed(queue);
}

static void overdue(Alarm *alarm) {
    Worker *worker = CONTAINER(alarm, Worker, overdue);
    pid_t pid = (pid_t)worker->pid;
    worker_leave(worker, "ERR the worker that ran this did not end in time; it was killed");
    if (pid > 1) kill(pid, SIGKILL);
}

void worker_expect(Worker *worker, int64_t limit_ms) {
    if (limit_ms) alarm_set(&worker->overdue, now_ms() + limit_ms + engine.overdue_ms, overdue);
}

void worker_leave(Worker *worker, const char *error) {
    Worker **link = &worker->queue->workers;
    while (*link != worker) link = &(*link)->next;
    *link = worker->next;
    bool guilty = !worker->spared;
    for (Worker *other = worker->queue->workers; other; other = other->next) {
        if (other->pid != worker->pid || !worker_busy(other)) continue;
        other->spared = true; /* one of them ended the process; nobody knows which */
        guilty = false;
    }
    /* tasks that were handed over together are of one object, which is counted once */
    for (; worker_busy(worker); worker->answered++, guilty = false) outcome_lost(worker_task(worker), error, guilty);
    if (worker->gone) redis.Free(worker->gone);
    alarm_clear(&worker->overdue);
    alarm_clear(&worker->give_back);
    shared_release(&worker->shared);
    worker_close(worker);
    redis.Free(worker);
}

static void client_changed(RedisModuleCtx *ctx, Event event, uint64_t subevent, void *data) {
    (void)ctx, (void)event;
    if (subevent != CLIENT_DISCONNECTED) return;
    Worker *worker = worker_of(((const ClientInfo *)data)->id);
    if (!worker) return;
    if (worker->idle) {
        RedisModuleBlockedClient *client = worker->idle;
        worker->idle = NULL;
        redis.UnblockClient(client, NULL);
    }
    worker_leave(worker, "ERR the worker that ran this ended: it crashed, needed too much memory, or took too long");
}

int worker_register(RedisModuleCtx *ctx) {
    detached = redis.GetDetachedThreadSafeContext(ctx);
    if (redis.SubscribeToServerEvent(ctx, (Event){EVENT_CRON, EVENT_VERSION}, cron) != REDIS_OK) return 0;
    return redis.SubscribeToServerEvent(ctx, (Event){EVENT_CLIENT_CHANGE, EVENT_VERSION}, client_changed) == REDIS_OK;
}
