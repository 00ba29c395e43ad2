/* What the commands that run something ask for. */
#ifndef ASIM_EXECUTE_H
#define ASIM_EXECUTE_H

#include "arguments.h"

/* Runs of arguments, all within one command's. */
typedef struct Words {
    RedisModuleString **first;
    int count;
    bool given;
} Words;

enum { NO_LIST = -1 };

typedef struct Request {
    Words keys, inputs, arguments, outputs;
    int list; /* number of the first input after a "$"; NO_LIST: there is none */
    int64_t timeout_ms; /* 0: none */
} Request;

/* Both return NULL, or what is wrong; some errors are put into `words`.
 * [KEYS n key...] [INPUTS n key...] [ARGS n arg...] [OUTPUTS n key...] [TIMEOUT ms] */
const char *request_counted(Cursor cursor, Request *request, char *words, size_t room);
/* [TIMEOUT ms] INPUTS key... [$ key...] OUTPUTS key... */
const char *request_uncounted(Cursor cursor, Request *request);

int execute_model(RedisModuleCtx *ctx, RedisModuleString **argv, int argc, bool counted);
int execute_script(RedisModuleCtx *ctx, RedisModuleString **argv, int argc, bool counted);

#endif
