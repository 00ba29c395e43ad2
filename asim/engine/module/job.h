/* One request that a worker is to do, from its command until its answer. Main thread only. */
#ifndef ASIM_JOB_H
#define ASIM_JOB_H

#include "alarm.h"
#include "object.h"
#include "tensor.h"

typedef enum Work { WORK_RUN = 1, WORK_CALL, WORK_LOAD, WORK_DROP, WORK_PREPARE, WORK_SHARED } Work; /* as workers are told */

typedef struct Job {
    struct Job *next; /* in its lane, or in its batch */
    struct Job *sibling; /* in its slot of the table of waiting clients */
    Work work;
    Object *object;
    RedisModuleBlockedClient *client; /* NULL: it was answered, or has gone */
    int db;
    int64_t queued_ms, timeout_ms; /* timeout 0: none */
    Alarm deadline;
    int64_t rows; /* along dimension 0 of every input, where they agree and may be put together; else 0 */
    int input_count, output_count;
    Tensor **inputs;
    RedisModuleString **outputs;
    char *extra; /* of a CALL: what the worker is told besides */
    size_t extra_size;
} Job;

/* Of all its inputs. */
size_t job_bytes(const Job *job);
/* Blocks the client. The job has a reference of its own to the object. */
Job *job_new(RedisModuleCtx *ctx, Work work, Object *object);
/* Keeps the names of its outputs. */
void job_set_outputs(Job *job, RedisModuleString **names, int count);
/* Answers the client now, unless it was answered already: an error, or OK (NULL), for which a LOAD stores its object.
 * The job lives on. */
void job_answer(Job *job, const char *error);
/* Answers, and counts the run in the object's statistics; then frees the job. */
void job_finish(Job *job, const char *error);

#endif
