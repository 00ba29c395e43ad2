/* What the server calls first: registers the types, the commands and the filter. */
#include <stdio.h>

#include "commands.h"
#include "object.h"
#include "tensor.h"
#include "worker.h"

enum { VERSION = 1 };

typedef struct Command {
    const char *name;
    CommandHandler handler;
    const char *flags;
    const char *categories; /* besides "ai", for servers with categories of modules */
    int arity;
    uint64_t key_flags; /* of the key at 1; 0 where there is none, or the handler reports the keys */
    const char *summary;
} Command;

enum {
    READS = SPEC_READS | SPEC_ACCESS,
    STORES = SPEC_OVERWRITES | SPEC_UPDATES,
    DELETES = SPEC_REMOVES | SPEC_DELETES,
};

#define WRITE "write deny-oom"
#define RUN "write deny-oom getkeys-api"
/* No "write": a server that refuses writes must not refuse its workers, whose runs were let in as writes. */
#define WORKER "may-replicate deny-script no-slowlog no-monitor"

static const Command COMMANDS[] = {
    {"AI.TENSORSET", tensor_set_command, WRITE, "write", -3, STORES, "Stores a tensor."},
    {"AI.TENSORGET", tensor_get_command, "readonly fast", "read fast", -2, READS, "Returns a tensor."},
    {"AI.MODELSTORE", model_store_command, WRITE, "write", -4, STORES, "Stores a model."},
    {"AI.MODELGET", model_get_command, "readonly fast", "read fast", -2, READS, "Returns a model."},
    {"AI.MODELDEL", model_del_command, "write", "write", 2, DELETES, "Deletes a model."},
    {"AI._MODELSCAN", model_scan_command, "readonly", "read", 1, 0, "Lists this server's models and their tags."},
    {"AI.SCRIPTSET", script_set_command, WRITE, "write", -5, STORES, "Stores a script."},
    {"AI.SCRIPTSTORE", script_store_command, WRITE, "write", -8, STORES, "Stores a script with its entry points."},
    {"AI.SCRIPTGET", script_get_command, "readonly fast", "read fast", -2, READS, "Returns a script."},
    {"AI.SCRIPTDEL", script_del_command, "write", "write", 2, DELETES, "Deletes a script."},
    {"AI._SCRIPTSCAN", script_scan_command, "readonly", "read", 1, 0, "Lists this server's scripts and their tags."},
    {"AI.INFO", info_command, "readonly fast", "read fast", -2, READS, "Returns the run statistics of a model or script."},
    {"AI.CONFIG", config_command, "readonly fast", "fast", -2, 0, "Reads or sets what clients ask about storing models."},
    {"AI.MODELEXECUTE", model_execute_command, RUN, "write", -8, 0, "Runs a model."},
    {"AI.MODELRUN", model_run_command, RUN, "write", -3, 0, "Runs a model."},
    {"AI.SCRIPTEXECUTE", script_execute_command, RUN, "write", -5, 0, "Runs a function of a script."},
    {"AI.SCRIPTRUN", script_run_command, RUN, "write", -4, 0, "Runs a function of a script."},
    {"AI.DAGEXECUTE", dag_command, "write deny-oom", "write", -1, 0, "Not supported."},
    {"AI.DAGEXECUTE_RO", dag_command, "readonly", "read", -1, 0, "Not supported."},
    {"AI.DAGRUN", dag_command, "write deny-oom", "write", -1, 0, "Not supported."},
    {"AI.DAGRUN_RO", dag_command, "readonly", "read", -1, 0, "Not supported."},
    {"ASIM.DONE", done_command, WORKER, "dangerous", -2, 0, "A worker's answer to its task. Has no answer itself."},
    {"ASIM.NEXT", next_command, WORKER, "dangerous", 1, 0, "Waits for a worker's next task."},
    {"ASIM.FETCH", fetch_command, WORKER, "dangerous", 1, 0, "Returns the model or script of a worker's task."},
    {"ASIM.PREPARE", prepare_command, "admin deny-script", "admin dangerous", 3, 0, "Says that a model is on its way."},
    {"ASIM.WANTED", wanted_command, "admin deny-script", "admin dangerous", -1, 0, "Waits for devices to need workers."},
    {"ASIM.WORKER", worker_command, "admin deny-script", "admin dangerous", 4, 0, "Says that there can be no worker."},
    {"ASIM.CONFIGSET", config_set_command, "admin deny-script allow-loading allow-stale", "admin dangerous", -3, 0,
     "Sets server parameters that touch neither files nor addresses nor access."},
};

static int has_key(const Command *command) { return command->key_flags || strstr(command->flags, "getkeys-api"); }

static void describe(RedisModuleCommand *handle, const Command *command) {
    static const CommandInfoVersion version = {
        /* the sizes of a history entry and of an argument, of which there are none */
        .version = 1, .sizeof_history = 2 * sizeof(char *), .sizeof_keyspec = sizeof(KeySpec), .sizeof_arg = 9 * sizeof(char *),
    };
    KeySpec keys[2] = {{
        .flags = command->key_flags, .begin_type = BEGIN_INDEX, .begin.index.pos = 1,
        .find_type = FIND_RANGE, .find.range = {.lastkey = 0, .keystep = 1, .limit = 0},
    }};
    CommandInfo info = {
        .version = &version, .summary = command->summary, .arity = command->arity,
        .key_specs = command->key_flags ? keys : NULL,
    };
    redis.SetCommandInfo(handle, &info);
}

static int create(RedisModuleCtx *ctx, const Command *command, int categories) {
    int key = has_key(command);
    if (redis.CreateCommand(ctx, command->name, command->handler, command->flags, key, key, key) != REDIS_OK) return 0;
    RedisModuleCommand *handle = redis.GetCommand ? redis.GetCommand(ctx, command->name) : NULL;
    if (!handle) return 1;
    if (redis.SetCommandInfo) describe(handle, command);
    if (categories && redis.SetCommandACLCategories) {
        char all[64];
        snprintf(all, sizeof all, "ai %s", command->categories);
        redis.SetCommandACLCategories(handle, all);
    }
    return 1;
}

static int commands_register(RedisModuleCtx *ctx) {
    int categories = redis.AddACLCategory && redis.AddACLCategory(ctx, "ai") == REDIS_OK;
    for (size_t i = 0; i < sizeof COMMANDS / sizeof *COMMANDS; i++)
        if (!create(ctx, &COMMANDS[i], categories)) return 0;
    return 1;
}

static bool option(Cursor *cursor, const char *word, int64_t *value) {
    return cursor_skip(cursor, word) && cursor_integer(cursor, 0, value);
}

/* [WORKERS] [MODEL_EXECUTION_TIMEOUT ms] [GRACE ms] [OVERDUE ms] */
static bool read_arguments(Cursor cursor) {
    engine = (struct Engine){.execution_timeout_ms = 600000, .grace_ms = 5000, .overdue_ms = 60000};
    engine.workers = cursor_skip(&cursor, "WORKERS");
    while (cursor_left(&cursor))
        if (!option(&cursor, "MODEL_EXECUTION_TIMEOUT", &engine.execution_timeout_ms) &&
            !option(&cursor, "GRACE", &engine.grace_ms) && !option(&cursor, "OVERDUE", &engine.overdue_ms))
            return false;
    return true;
}

__attribute__((visibility("default"))) int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    const char *missing = redis_api_load(ctx);
    if (missing) {
        fprintf(stderr, "asim: this server is too old (6.2 is needed): its module interface lacks %s\n", missing);
        return REDIS_ERR;
    }
    if (redis.IsModuleNameBusy("asim")) return REDIS_ERR;
    redis.SetModuleAttribs(ctx, "asim", VERSION, REDIS_API_VERSION);
    redis.SetModuleOptions(ctx, OPTION_HANDLE_IO_ERRORS | OPTION_HANDLE_ASYNC_LOADING);
    if (!read_arguments((Cursor){.argv = argv, .argc = argc})) {
        redis.Log(ctx, "warning", "arguments: [WORKERS] [MODEL_EXECUTION_TIMEOUT ms] [GRACE ms] [OVERDUE ms], whole numbers from 0 on");
        return REDIS_ERR;
    }
    int types = tensor_type_register(ctx) && model_type_register(ctx) && script_type_register(ctx);
    return types && commands_register(ctx) && filter_register(ctx) && worker_register(ctx) ? REDIS_OK : REDIS_ERR;
}
