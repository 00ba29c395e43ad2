#include "queue.h"

#include <stdio.h>
#include <string.h>

#include "job.h"
#include "worker.h"

struct Engine engine;
static Queue *queues;

Queue *queue_first(void) { return queues; }

static size_t queue_count;

const char *queue_refusal(void) {
    return engine.workers ? "ERR 32 devices have workers, and no more can" : "ERR this server has no inference workers";
}

Queue *queue_want(const char *device) {
    if (!engine.workers) return NULL;
    if (!strcmp(device, "GPU")) device = "GPU:0";
    Queue *queue = queues;
    while (queue && strcmp(queue->device, device)) queue = queue->next;
    if (queue || queue_count == MOST_DEVICES) return queue;
    queue_count++;
    queue = redis.Calloc(1, sizeof *queue);
    snprintf(queue->device, sizeof queue->device, "%s", device);
    queue->next = queues;
    queues = queue;
    wanted_changed();
    return queue;
}

static void lane_enter(Lane *lane, Queue *queue) {
    lane->queue = queue;
    if (!queue->turn) {
        queue->turn = lane->next = lane->previous = lane;
        return;
    }
    lane->next = queue->turn; /* the last in the ring */
    lane->previous = queue->turn->previous;
    lane->previous->next = lane->next->previous = lane;
}

static void lane_leave(Lane *lane) {
    Queue *queue = lane->queue;
    alarm_clear(&lane->ripe);
    if (queue->turn == lane) queue->turn = lane->next == lane ? NULL : lane->next;
    lane->previous->next = lane->next;
    lane->next->previous = lane->previous;
    lane->queue = NULL;
}

/* Cuts out the job after `before` (the first when that is NULL). The lane stays in its ring. */
static Job *cut(Lane *lane, Job *before) {
    Job **link = before ? &before->next : &lane->first, *job = *link;
    *link = job->next;
    if (lane->last == job) lane->last = before;
    job->next = NULL;
    lane->queue->waiting--;
    return job;
}

bool lane_remove(Lane *lane, Job *wanted) {
    Job *before = NULL, *job = lane->first;
    for (; job && job != wanted; job = job->next) before = job;
    if (!job) return false;
    cut(lane, before);
    if (!lane->first) lane_leave(lane);
    return true;
}

void lane_fail(Lane *lane, const char *error) {
    if (!lane->first) return;
    Object *object = object_share(lane->first->object); /* the lane is part of it */
    while (lane->first) {
        Job *job = lane->first;
        lane_remove(lane, job);
        job_finish(job, error);
    }
    object_release(object);
}

void queue_fail(Queue *queue, const char *error) {
    while (queue->turn) lane_fail(queue->turn, error);
}

/* Whether the second may run together with the first: like it in everything but the length of dimension 0. */
static bool alike(const Job *first, const Job *second) {
    if (!second->rows || first->input_count != second->input_count || first->output_count != second->output_count)
        return false;
    for (int i = 0; i < first->input_count; i++) {
        const Tensor *one = first->inputs[i], *other = second->inputs[i];
        if (one->dtype != other->dtype || one->ndim != other->ndim) return false;
        if (memcmp(one->dims + 1, other->dims + 1, (size_t)(one->ndim - 1) * sizeof(int64_t))) return false;
    }
    return true;
}

/* Rows of the head and of those that may run with it, counted until there are enough. */
static int64_t rows_ready(const Job *head) {
    int64_t rows = head->rows, most = head->object->batchsize;
    for (const Job *job = head->next; job && rows < most; job = job->next)
        if (alike(head, job)) rows += job->rows;
    return rows;
}

static bool batches(const Job *job) { return job->work == WORK_RUN && job->rows && job->object->batchsize; }

/* The server's timers go off up to 1 ms late, and patience is the longest that a request is to wait. */
static int64_t ripe_at(const Job *head) {
    int64_t patience = head->object->minbatchtimeout_ms;
    if (!patience) patience = MINBATCHTIMEOUT_MS;
    if (patience > MOST_MS) patience = MOST_MS;
    return head->queued_ms + (patience > 1 ? patience - 1 : patience);
}

static void ripened(Alarm *alarm) { workers_feed(CONTAINER(alarm, Lane, ripe)->queue); }

/* Whether its head may run now; if not, an alarm is set for when it may. */
static bool is_ripe(Lane *lane, int64_t now) {
    const Job *head = lane->first;
    int64_t least = head->object->minbatchsize, most = head->object->batchsize;
    if (least > most) least = most; /* no more come together */
    if (!batches(head) || least <= head->rows) return true;
    if (rows_ready(head) >= least || now >= ripe_at(head)) return true;
    alarm_set(&lane->ripe, ripe_at(head), ripened);
    return false;
}

/* Beyond this, merging costs the server more than it saves the worker. */
enum { MOST_MERGED = 64 << 20, MOST_ROWS = 1 << 30 };

/* Cuts out what may run together with the head; counts the rows of all. */
static void gather(Lane *lane, Job *head, int64_t *rows) {
    Job *last = head, *before = NULL;
    int64_t total = head->rows, most = head->object->batchsize;
    size_t bytes = job_bytes(head);
    for (Job *job = lane->first; job && total < most && bytes < MOST_MERGED;) {
        Job *next = job->next;
        if (alike(head, job) && job->rows < MOST_ROWS - total) {
            bytes += job_bytes(job);
            last = last->next = cut(lane, before);
            *rows = total += job->rows;
        } else {
            before = job;
        }
        job = next;
    }
}

/* The head, and with it those that may run together with it. */
static Job *lane_take(Lane *lane, int64_t *rows) {
    alarm_clear(&lane->ripe);
    Job *head = cut(lane, NULL);
    *rows = 0;
    if (batches(head)) gather(lane, head, rows);
    if (!lane->first) lane_leave(lane);
    return head;
}

/* The lane that is served next; NULL: none may be. */
static Lane *next_lane(Queue *queue) {
    Lane *lane = queue->turn;
    int64_t now = now_ms();
    if (!lane) return NULL;
    while (!is_ripe(lane, now))
        if ((lane = lane->next) == queue->turn) return NULL;
    return lane;
}

bool queue_ready(Queue *queue) { return next_lane(queue) != NULL; }

Job *queue_take(Queue *queue, int64_t *rows) {
    Lane *lane = next_lane(queue);
    if (!lane) return NULL;
    queue->turn = lane->next;
    Job *jobs = lane_take(lane, rows);
    next_lane(queue); /* so that alarms are set for those that are left */
    return jobs;
}

Job *queue_take_like(const Job *job, int64_t *rows) {
    Lane *lane = &job->object->runs.lane;
    return lane->first && is_ripe(lane, now_ms()) ? lane_take(lane, rows) : NULL;
}

static void expired(Alarm *alarm) {
    Job *job = CONTAINER(alarm, Job, deadline);
    char error[80];
    snprintf(error, sizeof error, "ERR TIMEDOUT: not done within %lld ms", (long long)job->timeout_ms);
    if (lane_remove(&job->object->runs.lane, job))
        job_finish(job, error);
    else
        job_answer(job, error); /* it runs; nobody waits for it any more */
}

void queue_push(Queue *queue, Job *job) {
    Lane *lane = &job->object->runs.lane;
    queue->waiting++;
    if (job->timeout_ms) alarm_set(&job->deadline, job->queued_ms + job->timeout_ms, expired);
    if (lane->first)
        lane->last = lane->last->next = job;
    else {
        lane->first = lane->last = job;
        lane_enter(lane, queue);
    }
    workers_feed(queue);
}
