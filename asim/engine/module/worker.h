/* The processes that run models: what each does, and what it is given. Main thread only. */
#ifndef ASIM_WORKER_H
#define ASIM_WORKER_H

#include "job.h"
#include "shared.h"

/* What a worker is told to do at once. */
typedef struct Task {
    uint64_t number;
    Work work;
    Job *jobs;    /* of a RUN (perhaps several, merged), a CALL or a LOAD; else NULL */
    int64_t rows; /* of merged jobs along dimension 0; 0: not merged */
} Task;

/* Short runs of one object are handed over several at a time, as a message costs more than they do: so many at most,
 * and as many as take this long together. */
enum { MOST_TASKS = 16, TASKS_US = 300, TASKS_BYTES = 1 << 16 };

/* One connection of a worker. It is idle, or does tasks. */
typedef struct Worker {
    struct Worker *next;
    Queue *queue;
    unsigned long long client;      /* its connection's number */
    uint32_t pid;                   /* its process, which may have several connections */
    bool spared;                    /* another connection of its process was busy when that ended */
    RedisModuleBlockedClient *idle; /* its connection while it waits for a task; NULL: it does one */
    bool woken;                     /* it will be given one as soon as this turn of the server's loop is over */
    Task tasks[MOST_TASKS];         /* what it does, in order */
    int answered, count;            /* so many of them it has answered */
    bool shares;                    /* it can read shared memory */
    Shared shared;
    Alarm overdue;                  /* when no timer of the kernel's has ended it: it is stopped, or hangs in the kernel */
    Alarm give_back;                /* the shared memory, when it is not used any more */
    int fetched;                    /* the file in which it was given an object; 0: none */
    Backend prepare;                /* what a PREPARE names */
    unsigned to_prepare;            /* a bit for each backend that it is to get ready for */
    uint64_t *gone;                 /* objects that it is to forget */
    size_t gone_count, gone_room;
    size_t dropping;                /* so many of these it is being told */
} Worker;

Worker *worker_of(unsigned long long client);
/* A connection says that it is a worker. */
Worker *worker_attach(Queue *queue, unsigned long long client);
/* It is no worker any more: what it did is answered by this error. */
void worker_leave(Worker *worker, const char *error);
/* Blocks an idle worker's connection until there is a task. */
void worker_wait(RedisModuleCtx *ctx, Worker *worker);
/* Gives a worker that asked its next tasks. False when there is nothing to do. */
bool worker_feed(Worker *worker);
/* Answers its tasks with this error, and gives it nothing to do. */
void worker_give_up(Worker *worker, const char *error);
/* Closes what it was given an object in. */
void worker_close(Worker *worker);
/* It has forgotten what it was told to. */
void worker_dropped(Worker *worker);
/* Sees to it that those who are idle get what there is to do. */
void workers_feed(Queue *queue);
/* Every worker of the device is to load what this backend needs. */
void workers_prepare(Queue *queue, Backend backend);
/* Those who wait for wanted devices are told. */
void wanted_changed(void);

static inline bool worker_busy(const Worker *worker) { return worker->answered < worker->count; }
/* The task that it is to answer next; it has one. */
static inline Task *worker_task(Worker *worker) { return &worker->tasks[worker->answered]; }

/* It has so long for what it was given; 0: any time. */
void worker_expect(Worker *worker, int64_t limit_ms);

/* Answers a worker's command with its tasks (task.c). */
void task_reply(RedisModuleCtx *ctx, Worker *worker);

/* What a worker's answer means for the jobs of its task (outcome.c). False when it makes no sense; then nothing was done. */
bool outcome_take(RedisModuleCtx *ctx, Worker *worker, RedisModuleString **argv, int argc);
/* The task will have no answer. `guilty`: it is what ended the worker. */
void outcome_lost(const Task *task, const char *error, bool guilty);

int worker_register(RedisModuleCtx *ctx);

#endif
