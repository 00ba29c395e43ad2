/* The processes that run models: what each does, and what it is given. Main thread only. */
#ifndef ASIM_WORKER_H
#define ASIM_WORKER_H

#include "job.h"

/* One connection of a worker. It is idle, or does a task. */
typedef struct Worker {
    struct Worker *next;
    Queue *queue;
    unsigned long long client;      /* its connection's number */
    RedisModuleBlockedClient *idle; /* its connection while it waits for a task; NULL: it does one */
    Work doing;                     /* 0: nothing */
    uint64_t task;                  /* the task's number */
    Job *jobs;                      /* of a RUN (perhaps several, merged), a CALL or a LOAD; else NULL */
    int64_t rows;                   /* of merged jobs along dimension 0; 0: not merged */
    Backend prepare;                /* what a PREPARE names */
    unsigned to_prepare;            /* a bit for each backend that it is to get ready for */
    uint64_t *gone;                 /* objects that it is to forget */
    size_t gone_count, gone_room;
    size_t dropping;                /* so many of these it is being told */
} Worker;

Worker *worker_of(unsigned long long client);
/* A connection says that it is a worker. */
Worker *worker_attach(Queue *queue, unsigned long long client);
/* Its connection ended: what it did is lost. */
void worker_leave(Worker *worker);
/* Blocks an idle worker's connection until there is a task. */
void worker_wait(RedisModuleCtx *ctx, Worker *worker);
/* Gives an idle worker its next task. False when there is nothing to do. */
bool worker_feed(Worker *worker);
/* It has forgotten what it was told to. */
void worker_dropped(Worker *worker);
/* Gives tasks to those that are idle. */
void workers_feed(Queue *queue);
/* Every worker of the device is to load what this backend needs. */
void workers_prepare(Queue *queue, Backend backend);
/* Those who wait for wanted devices are told. */
void wanted_changed(void);

/* Answers a worker's command with its task (task.c). */
void task_reply(RedisModuleCtx *ctx, const Worker *worker);

/* What a worker's answer means for the jobs of its task (outcome.c). False: it makes no sense. The jobs are done with
 * in either case. */
bool outcome_take(RedisModuleCtx *ctx, Worker *worker, RedisModuleString **argv, int argc);
/* The worker ended while it did these. */
void outcome_lost(Job *jobs);

int worker_register(RedisModuleCtx *ctx);

#endif
