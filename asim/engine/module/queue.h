/* The jobs that wait for workers: one queue for each device, one lane in it for each model or script. Workers take from
 * the lanes in turn, so that no model keeps the others waiting. Main thread only. */
#ifndef ASIM_QUEUE_H
#define ASIM_QUEUE_H

#include <stdbool.h>

#include "alarm.h"

struct Job;
struct Queue;
struct Worker;

/* A MINBATCHTIMEOUT of 0 means "for ever" in RedisAI; here it means this. */
enum { MINBATCHTIMEOUT_MS = 10 };

typedef struct Lane {
    struct Lane *next, *previous; /* in the queue's ring, while there are jobs */
    struct Queue *queue;
    struct Job *first, *last;
    Alarm ripe; /* when its head has waited for others long enough */
} Lane;

typedef struct Queue {
    struct Queue *next;
    char device[10];
    Lane *turn; /* the lane whose turn it is; NULL: there are no jobs */
    size_t waiting; /* jobs in all lanes */
    struct Worker *workers;
    unsigned to_prepare; /* a bit for each backend that new workers are to get ready for */
    char *failed; /* why no worker can be started; NULL: none was seen to fail */
} Queue;

/* How the module was loaded. */
extern struct Engine {
    bool workers;                   /* there are workers, or will be when they are wanted */
    int64_t execution_timeout_ms;   /* what a run may take at most; 0: any time */
    int64_t grace_ms;               /* what a run that nobody waits for any more may still take */
    int64_t overdue_ms;             /* after the end of its time, until a worker is killed that does not end by itself;
                                       importing a framework and, for a run, loading its object do not
                                       count as its time, and may be as long */
} engine;

/* The queue of a device; from now on that device is wanted. NULL where there are no workers, or too many devices. */
Queue *queue_want(const char *device);
enum { MOST_DEVICES = 32 };
/* Why there is no queue. */
const char *queue_refusal(void);
Queue *queue_first(void);

/* Puts a job at the end of its object's lane, and sees whether a worker can take it. May answer and free it. */
void queue_push(Queue *queue, struct Job *job);
/* Whether there are jobs that may run now. */
bool queue_ready(Queue *queue);
/* Takes the jobs that are to run together next, linked, with the rows of all of them (0: a job by itself); NULL when
 * there are none. */
struct Job *queue_take(Queue *queue, int64_t *rows);
/* The same for the next jobs of the object that this job is of. */
struct Job *queue_take_like(const struct Job *job, int64_t *rows);
/* Answers every waiting job with this error. */
void queue_fail(Queue *queue, const char *error);
/* True when the job was waiting in this lane; then it no longer is. */
bool lane_remove(Lane *lane, struct Job *job);
/* Answers every job that waits in it. */
void lane_fail(Lane *lane, const char *error);

/* Tells workers, sooner or later, that there is no such object any more. Any thread. */
void worker_forget(uint64_t object);

#endif
