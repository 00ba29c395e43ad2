#include "rdb.h"

#include <string.h>

bool rdb_number(RedisModuleIO *rdb, uint64_t most, uint64_t *value) {
    *value = redis.LoadUnsigned(rdb);
    return !redis.IsIOError(rdb) && *value <= most;
}

bool rdb_bytes(RedisModuleIO *rdb, char **data, size_t *size) {
    *data = redis.LoadStringBuffer(rdb, size);
    if (*data && !redis.IsIOError(rdb)) return true;
    if (*data) redis.Free(*data);
    *data = NULL;
    return false;
}

bool rdb_text(RedisModuleIO *rdb, Text **text) {
    char *data;
    size_t size;
    if (!rdb_bytes(rdb, &data, &size)) return false;
    *text = text_new(data, size);
    redis.Free(data);
    return true;
}

/* Servers try short strings as numbers, with strtoll, and so read on until a byte that is no digit. */
enum { TRIED_AS_NUMBER = 31 };

void rdb_save_bytes(RedisModuleIO *rdb, const char *data, size_t size) {
    char ended[TRIED_AS_NUMBER + 1] = {0};
    if (size > TRIED_AS_NUMBER) {
        redis.SaveStringBuffer(rdb, data, size);
        return;
    }
    if (size) memcpy(ended, data, size);
    redis.SaveStringBuffer(rdb, ended, size);
}

void rdb_save_text(RedisModuleIO *rdb, const Text *text) { rdb_save_bytes(rdb, text->data, text->size); }

bool rdb_names(RedisModuleIO *rdb, Names *names) {
    uint64_t count;
    *names = (Names){.count = 0};
    if (!rdb_number(rdb, MOST_NAMES, &count)) return false;
    if (count) names->texts = redis.Calloc(count, sizeof(Text *));
    while (names->count < count && rdb_text(rdb, &names->texts[names->count])) names->count++;
    return names->count == count;
}

void rdb_save_names(RedisModuleIO *rdb, const Names *names) {
    redis.SaveUnsigned(rdb, names->count);
    for (size_t i = 0; i < names->count; i++) rdb_save_text(rdb, names->texts[i]);
}

void digest_names(RedisModuleDigest *digest, const Names *names) {
    for (size_t i = 0; i < names->count; i++)
        redis.DigestAddStringBuffer(digest, names->texts[i]->data, names->texts[i]->size);
    redis.DigestEndSequence(digest);
}

void names_release(Names *names) {
    for (size_t i = 0; i < names->count; i++) redis.Free(names->texts[i]);
    if (names->texts) redis.Free(names->texts);
    *names = (Names){.count = 0};
}

Names names_copy(const Names *names) {
    Names copy = {.count = names->count, .texts = NULL};
    if (copy.count) copy.texts = redis.Calloc(copy.count, sizeof(Text *));
    for (size_t i = 0; i < copy.count; i++) copy.texts[i] = text_new(names->texts[i]->data, names->texts[i]->size);
    return copy;
}

size_t names_memory(const Names *names) {
    size_t total = names->count * sizeof(Text *);
    for (size_t i = 0; i < names->count; i++) total += sizeof(Text) + names->texts[i]->size;
    return total;
}

Emitted emit_begin(size_t most) {
    return (Emitted){.argv = redis.Calloc(most, sizeof(RedisModuleString *)), .argc = 0};
}

static void emit(Emitted *emitted, RedisModuleString *argument) { emitted->argv[emitted->argc++] = argument; }

void emit_word(Emitted *emitted, const char *word) { emit(emitted, redis.CreateString(NULL, word, strlen(word))); }

void emit_text(Emitted *emitted, const Text *text) {
    emit(emitted, redis.CreateString(NULL, text->data, text->size));
}

void emit_number(Emitted *emitted, int64_t number) { emit(emitted, redis.CreateStringFromLongLong(NULL, number)); }

void emit_names(Emitted *emitted, const char *word, const Names *names) {
    if (!names->count) return;
    emit_word(emitted, word);
    emit_number(emitted, (int64_t)names->count);
    for (size_t i = 0; i < names->count; i++) emit_text(emitted, names->texts[i]);
}

void emit_bytes(Emitted *emitted, const Bytes *bytes) {
    emit(emitted, bytes->string ? redis.HoldString(NULL, bytes->string)
                                : redis.CreateString(NULL, bytes_data(bytes), bytes->size));
}

void emit_end(Emitted *emitted, RedisModuleIO *aof, const char *command, RedisModuleString *key) {
    redis.EmitAOF(aof, command, "sv", key, emitted->argv, emitted->argc);
    for (size_t i = 0; i < emitted->argc; i++) redis.FreeString(NULL, emitted->argv[i]);
    redis.Free(emitted->argv);
}
