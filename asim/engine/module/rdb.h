/* Reading and writing RDB files. What is read may be hostile (RESTORE), so every reader says whether it succeeded. */
#ifndef ASIM_RDB_H
#define ASIM_RDB_H

#include "bytes.h"

enum { ENCODING_VERSION = 1 };

/* At most `most`. */
bool rdb_number(RedisModuleIO *rdb, uint64_t most, uint64_t *value);
/* Memory from redis.Alloc, never NULL on success. */
bool rdb_bytes(RedisModuleIO *rdb, char **data, size_t *size);
void rdb_save_bytes(RedisModuleIO *rdb, const char *data, size_t size);
bool rdb_text(RedisModuleIO *rdb, Text **text);
void rdb_save_text(RedisModuleIO *rdb, const Text *text);

/* Arrays of texts, of any length up to this. */
enum { MOST_NAMES = 1 << 16 };
typedef struct Names {
    size_t count;
    Text **texts;
} Names;
bool rdb_names(RedisModuleIO *rdb, Names *names);
void rdb_save_names(RedisModuleIO *rdb, const Names *names);
void digest_names(RedisModuleDigest *digest, const Names *names);
void names_release(Names *names);
Names names_copy(const Names *names);
size_t names_memory(const Names *names);

/* Collects the arguments of one command for a rewritten AOF. */
typedef struct Emitted {
    RedisModuleString **argv;
    size_t argc;
} Emitted;
Emitted emit_begin(size_t most);
void emit_word(Emitted *emitted, const char *word);
void emit_text(Emitted *emitted, const Text *text);
void emit_number(Emitted *emitted, int64_t number);
/* WORD n name... unless there are none */
void emit_names(Emitted *emitted, const char *word, const Names *names);
void emit_bytes(Emitted *emitted, const Bytes *bytes);
void emit_end(Emitted *emitted, RedisModuleIO *aof, const char *command, RedisModuleString *key);

#endif
