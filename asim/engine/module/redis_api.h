/* The part of the server's module interface that this module uses.
 *
 * Own declarations: the interface is reached through one function, GetApi, whose address is the first pointer in the
 * context that the server passes to RedisModule_OnLoad. Names and numbers are those of the public documentation. */
#ifndef ASIM_REDIS_API_H
#define ASIM_REDIS_API_H

#include <stddef.h>
#include <stdint.h>

typedef struct RedisModuleCtx RedisModuleCtx;
typedef struct RedisModuleKey RedisModuleKey;
typedef struct RedisModuleString RedisModuleString;
typedef struct RedisModuleType RedisModuleType;
typedef struct RedisModuleIO RedisModuleIO;
typedef struct RedisModuleDigest RedisModuleDigest;
typedef struct RedisModuleCommand RedisModuleCommand;
typedef struct RedisModuleCallReply RedisModuleCallReply;
typedef struct RedisModuleScanCursor RedisModuleScanCursor;
typedef struct RedisModuleCommandFilter RedisModuleCommandFilter;
typedef struct RedisModuleCommandFilterCtx RedisModuleCommandFilterCtx;
typedef struct RedisModuleBlockedClient RedisModuleBlockedClient;
typedef uint64_t RedisModuleTimerID;

enum { REDIS_OK = 0, REDIS_ERR = 1 };
enum { REDIS_API_VERSION = 1 };
enum { KEY_READ = 1, KEY_WRITE = 2 };
enum { KEYTYPE_EMPTY = 0 };
enum { REPLY_LENGTH_LATER = -1 };
enum { NO_EXPIRE = -1 };
enum { FILTER_NOT_OWN_CALLS = 1 << 0 };
enum { OPTION_HANDLE_IO_ERRORS = 1 << 0, OPTION_HANDLE_ASYNC_LOADING = 1 << 2 };
enum { CONTEXT_LUA = 1 << 0, CONTEXT_MULTI = 1 << 1, CONTEXT_REPLICATED = 1 << 12, CONTEXT_LOADING = 1 << 13 };
enum { CONTEXT_AOF = 1 << 6 };
enum { CONTEXT_DENY_BLOCKING = 1 << 21 };

typedef int (*CommandHandler)(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
typedef void (*ScanHandler)(RedisModuleCtx *ctx, RedisModuleString *name, RedisModuleKey *key, void *data);
typedef void (*FilterHandler)(RedisModuleCommandFilterCtx *filter);
typedef void (*TimerHandler)(RedisModuleCtx *ctx, void *data);
typedef void (*ReleaseHandler)(RedisModuleCtx *ctx, void *data);
typedef void (*DisconnectHandler)(RedisModuleCtx *ctx, RedisModuleBlockedClient *client);

typedef struct Event {
    uint64_t id, version;
} Event;
enum { EVENT_CLIENT_CHANGE = 4, EVENT_CRON = 8, EVENT_VERSION = 1, CLIENT_DISCONNECTED = 1 };
typedef struct ClientInfo {
    uint64_t version, flags, id;
    char address[46];
    uint16_t port, db;
} ClientInfo;
typedef void (*EventHandler)(RedisModuleCtx *ctx, Event event, uint64_t subevent, void *data);

/* Version 3 is that of 6.2; later servers take it too. */
enum { TYPE_METHODS_VERSION = 3 };
typedef struct TypeMethods {
    uint64_t version;
    void *(*rdb_load)(RedisModuleIO *rdb, int encver);
    void (*rdb_save)(RedisModuleIO *rdb, void *value);
    void (*aof_rewrite)(RedisModuleIO *aof, RedisModuleString *key, void *value);
    size_t (*mem_usage)(const void *value);
    void (*digest)(RedisModuleDigest *digest, void *value);
    void (*free)(void *value);
    int (*aux_load)(RedisModuleIO *rdb, int encver, int when);
    void (*aux_save)(RedisModuleIO *rdb, int when);
    int aux_save_triggers;
    size_t (*free_effort)(RedisModuleString *key, const void *value);
    void (*unlink)(RedisModuleString *key, const void *value);
    void *(*copy)(RedisModuleString *from, RedisModuleString *to, const void *value);
    int (*defrag)(void *ctx, RedisModuleString *key, void **value);
} TypeMethods;

/* What SetCommandInfo (7.0 and later) takes. */
enum { SPEC_READS = 1 << 0, SPEC_OVERWRITES = 1 << 2, SPEC_REMOVES = 1 << 3, SPEC_ACCESS = 1 << 4 };
enum { SPEC_UPDATES = 1 << 5, SPEC_DELETES = 1 << 7 };
enum { BEGIN_INDEX = 2 };
enum { FIND_RANGE = 2 };

typedef struct KeySpec {
    const char *notes;
    uint64_t flags;
    int begin_type;
    union {
        struct { int pos; } index;
        struct { const char *keyword; int startfrom; } keyword;
    } begin;
    int find_type;
    union {
        struct { int lastkey, keystep, limit; } range;
        struct { int keynumidx, firstkey, keystep; } keynum;
    } find;
} KeySpec;

typedef struct CommandInfoVersion {
    int version;
    size_t sizeof_history, sizeof_keyspec, sizeof_arg;
} CommandInfoVersion;

typedef struct CommandInfo {
    const CommandInfoVersion *version;
    const char *summary, *complexity, *since;
    void *history;
    const char *tips;
    int arity;
    KeySpec *key_specs;
    void *args;
} CommandInfo;

/* X(return type, name, arguments) */
#define REDIS_REQUIRED(X)                                                                              \
    X(void, SetModuleAttribs, (RedisModuleCtx *, const char *, int, int))                              \
    X(int, IsModuleNameBusy, (const char *))                                                           \
    X(void, SetModuleOptions, (RedisModuleCtx *, int))                                                 \
    X(int, CreateCommand, (RedisModuleCtx *, const char *, CommandHandler, const char *, int, int, int)) \
    X(RedisModuleType *, CreateDataType, (RedisModuleCtx *, const char *, int, TypeMethods *))         \
    X(RedisModuleCommandFilter *, RegisterCommandFilter, (RedisModuleCtx *, FilterHandler, int))       \
    X(int, CommandFilterArgsCount, (RedisModuleCommandFilterCtx *))                                    \
    X(RedisModuleString *, CommandFilterArgGet, (RedisModuleCommandFilterCtx *, int))                  \
    X(int, CommandFilterArgReplace, (RedisModuleCommandFilterCtx *, int, RedisModuleString *))         \
    X(int, CommandFilterArgDelete, (RedisModuleCommandFilterCtx *, int))                               \
    X(void *, Alloc, (size_t))                                                                         \
    X(void *, Calloc, (size_t, size_t))                                                                \
    X(void *, Realloc, (void *, size_t))                                                               \
    X(void, Free, (void *))                                                                            \
    X(void, Log, (RedisModuleCtx *, const char *, const char *, ...))                                  \
    X(int, GetContextFlags, (RedisModuleCtx *))                                                        \
    X(RedisModuleKey *, OpenKey, (RedisModuleCtx *, RedisModuleString *, int))                         \
    X(void, CloseKey, (RedisModuleKey *))                                                              \
    X(int, KeyType, (RedisModuleKey *))                                                                \
    X(int, DeleteKey, (RedisModuleKey *))                                                              \
    X(long long, GetExpire, (RedisModuleKey *))                                                        \
    X(int, SetExpire, (RedisModuleKey *, long long))                                                   \
    X(RedisModuleType *, ModuleTypeGetType, (RedisModuleKey *))                                        \
    X(void *, ModuleTypeGetValue, (RedisModuleKey *))                                                  \
    X(int, ModuleTypeSetValue, (RedisModuleKey *, RedisModuleType *, void *))                          \
    X(int, ModuleTypeReplaceValue, (RedisModuleKey *, RedisModuleType *, void *, void **))             \
    X(const char *, StringPtrLen, (const RedisModuleString *, size_t *))                               \
    X(int, StringToDouble, (const RedisModuleString *, double *))                                      \
    X(RedisModuleString *, CreateString, (RedisModuleCtx *, const char *, size_t))                     \
    X(RedisModuleString *, CreateStringFromLongLong, (RedisModuleCtx *, long long))                    \
    X(RedisModuleString *, HoldString, (RedisModuleCtx *, RedisModuleString *))                        \
    X(void, FreeString, (RedisModuleCtx *, RedisModuleString *))                                       \
    X(int, WrongArity, (RedisModuleCtx *))                                                             \
    X(int, ReplyWithError, (RedisModuleCtx *, const char *))                                           \
    X(int, ReplyWithSimpleString, (RedisModuleCtx *, const char *))                                    \
    X(int, ReplyWithArray, (RedisModuleCtx *, long))                                                   \
    X(void, ReplySetArrayLength, (RedisModuleCtx *, long))                                             \
    X(int, ReplyWithLongLong, (RedisModuleCtx *, long long))                                           \
    X(int, ReplyWithDouble, (RedisModuleCtx *, double))                                                \
    X(int, ReplyWithStringBuffer, (RedisModuleCtx *, const char *, size_t))                            \
    X(int, ReplyWithString, (RedisModuleCtx *, RedisModuleString *))                                   \
    X(int, ReplyWithNull, (RedisModuleCtx *))                                                          \
    X(int, ReplyWithCallReply, (RedisModuleCtx *, RedisModuleCallReply *))                             \
    X(int, ReplicateVerbatim, (RedisModuleCtx *))                                                      \
    X(RedisModuleCallReply *, Call, (RedisModuleCtx *, const char *, const char *, ...))               \
    X(void, FreeCallReply, (RedisModuleCallReply *))                                                   \
    X(int, Replicate, (RedisModuleCtx *, const char *, const char *, ...))                             \
    X(RedisModuleBlockedClient *, BlockClient,                                                         \
      (RedisModuleCtx *, CommandHandler, CommandHandler, ReleaseHandler, long long))                   \
    X(int, UnblockClient, (RedisModuleBlockedClient *, void *))                                        \
    X(void, SetDisconnectCallback, (RedisModuleBlockedClient *, DisconnectHandler))                    \
    X(void *, GetBlockedClientPrivateData, (RedisModuleCtx *))                                         \
    X(unsigned long long, GetClientId, (RedisModuleCtx *))                                             \
    X(int, SubscribeToServerEvent, (RedisModuleCtx *, Event, EventHandler))                            \
    X(RedisModuleCtx *, GetDetachedThreadSafeContext, (RedisModuleCtx *))                              \
    X(RedisModuleTimerID, CreateTimer, (RedisModuleCtx *, long long, TimerHandler, void *))            \
    X(int, StopTimer, (RedisModuleCtx *, RedisModuleTimerID, void **))                                 \
    X(int, GetSelectedDb, (RedisModuleCtx *))                                                          \
    X(int, SelectDb, (RedisModuleCtx *, int))                                                          \
    X(int, IsKeysPositionRequest, (RedisModuleCtx *))                                                  \
    X(void, KeyAtPos, (RedisModuleCtx *, int))                                                         \
    X(RedisModuleScanCursor *, ScanCursorCreate, (void))                                               \
    X(void, ScanCursorDestroy, (RedisModuleScanCursor *))                                              \
    X(int, Scan, (RedisModuleCtx *, RedisModuleScanCursor *, ScanHandler, void *))                     \
    X(int, IsIOError, (RedisModuleIO *))                                                               \
    X(void, SaveUnsigned, (RedisModuleIO *, uint64_t))                                                 \
    X(uint64_t, LoadUnsigned, (RedisModuleIO *))                                                       \
    X(void, SaveStringBuffer, (RedisModuleIO *, const char *, size_t))                                 \
    X(char *, LoadStringBuffer, (RedisModuleIO *, size_t *))                                           \
    X(void, EmitAOF, (RedisModuleIO *, const char *, const char *, ...))                               \
    X(void, DigestAddStringBuffer, (RedisModuleDigest *, const char *, size_t))                        \
    X(void, DigestAddLongLong, (RedisModuleDigest *, long long))                                       \
    X(void, DigestEndSequence, (RedisModuleDigest *))

/* NULL where the server is too old for it. */
#define REDIS_OPTIONAL(X)                                                                 \
    X(void, TrimStringAllocation, (RedisModuleString *))                                  \
    X(void *, TryAlloc, (size_t))                                                         \
    X(void, KeyAtPosWithFlags, (RedisModuleCtx *, int, int))                              \
    X(RedisModuleCommand *, GetCommand, (RedisModuleCtx *, const char *))                 \
    X(int, SetCommandInfo, (RedisModuleCommand *, const CommandInfo *))                   \
    X(int, AddACLCategory, (RedisModuleCtx *, const char *))                              \
    X(int, SetCommandACLCategories, (RedisModuleCommand *, const char *))

#define REDIS_POINTER(type, name, arguments) type(*name) arguments;
extern struct RedisApi {
    REDIS_REQUIRED(REDIS_POINTER)
    REDIS_OPTIONAL(REDIS_POINTER)
} redis;

/* Looks up every function. Returns the name of a required one that the server lacks, or NULL when all are there. */
const char *redis_api_load(RedisModuleCtx *ctx);

#endif
