/* CONFIG SET for everybody, but of harmless parameters only; and whether there is a replica.
 *
 * Rules for users of Redis 6.2 cannot tell CONFIG SET of one parameter from that of another. So a filter turns CONFIG
 * SET of harmless parameters into ASIM.CONFIGSET, which a user may be allowed while CONFIG SET is forbidden. */
#include "arguments.h"
#include "commands.h"

#define NOT_HARMLESS "ERR ASIM.CONFIGSET sets only parameters that touch neither files nor addresses nor access"

/* In upper case; a last * stands for anything. Nothing here names a file, an address, a program or a user, locks others
 * out, or ends their connections. */
static const char *const HARMLESS[] = {
    "MAXMEMORY", "MAXMEMORY-POLICY", "MAXMEMORY-SAMPLES", "PROTO-MAX-BULK-LEN", "SAVE",
    "TCP-KEEPALIVE", "NOTIFY-KEYSPACE-EVENTS", "SLOWLOG-*", "LATENCY-MONITOR-THRESHOLD", "LAZYFREE-*",
    "ACTIVEREHASHING", "HZ", "DYNAMIC-HZ", "HASH-MAX-*", "LIST-*", "SET-MAX-*", "ZSET-MAX-*", "STREAM-NODE-MAX-*",
    "ACTIVEDEFRAG", "APPENDFSYNC",
    "NO-APPENDFSYNC-ON-REWRITE", "STOP-WRITES-ON-BGSAVE-ERROR", "RDBCOMPRESSION", "RDBCHECKSUM", "LUA-TIME-LIMIT",
    "BUSY-REPLY-THRESHOLD",
};

static bool matches(const char *name, size_t size, const char *pattern) {
    size_t stem = strlen(pattern) - 1;
    if (pattern[stem] != '*') return is_word(name, size, pattern);
    if (size <= stem) return false;
    for (size_t i = 0; i < stem; i++)
        if ((name[i] >= 'a' && name[i] <= 'z' ? name[i] - 32 : name[i]) != pattern[i]) return false;
    return true;
}

static bool harmless(RedisModuleString *parameter) {
    size_t size;
    const char *name = redis.StringPtrLen(parameter, &size);
    for (size_t i = 0; i < sizeof HARMLESS / sizeof *HARMLESS; i++)
        if (matches(name, size, HARMLESS[i])) return true;
    return false;
}

static bool replica_came;

/* A command, and no event of the server: that comes when the replica has the data, and misses what is written meanwhile. */
bool had_replica(void) { return replica_came; }

/* Sees every command, so it looks at the length of the first word before anything else. */
static void filter(RedisModuleCommandFilterCtx *command) {
    int argc = redis.CommandFilterArgsCount(command);
    size_t size;
    const char *name = redis.StringPtrLen(redis.CommandFilterArgGet(command, 0), &size);
    if (size == 4 || size == 5) replica_came = replica_came || is_word(name, size, "SYNC") || is_word(name, size, "PSYNC");
    if (argc < 4 || argc % 2 || size != 6 || !is_word(name, size, "CONFIG")) return;
    if (!argument_is(redis.CommandFilterArgGet(command, 1), "SET")) return;
    for (int i = 2; i < argc; i += 2)
        if (!harmless(redis.CommandFilterArgGet(command, i))) return;
    static const char instead[] = "ASIM.CONFIGSET";
    redis.CommandFilterArgReplace(command, 0, redis.CreateString(NULL, instead, sizeof instead - 1));
    redis.CommandFilterArgDelete(command, 1);
}

int filter_register(RedisModuleCtx *ctx) {
    return redis.RegisterCommandFilter(ctx, filter, FILTER_NOT_OWN_CALLS) != NULL;
}

int config_set_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc < 3 || argc % 2 == 0) return redis.WrongArity(ctx);
    for (int i = 1; i < argc; i += 2)
        if (!harmless(argv[i])) return reply_error(ctx, NOT_HARMLESS);
    RedisModuleCallReply *reply = redis.Call(ctx, "CONFIG", "cv", "SET", argv + 1, (size_t)(argc - 1));
    if (!reply) return reply_error(ctx, "ERR this server did not take CONFIG SET in this form");
    redis.ReplyWithCallReply(ctx, reply);
    redis.FreeCallReply(reply);
    return REDIS_OK;
}
