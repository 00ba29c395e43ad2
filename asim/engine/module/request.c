#include <stdio.h>
#include <string.h>

#include "alarm.h"
#include "execute.h"

static const char *timeout(Cursor *cursor, Request *request) {
    if (!cursor_left(cursor)) return "ERR No value provided for TIMEOUT";
    if (!cursor_integer(cursor, 1, &request->timeout_ms)) return "ERR Invalid value for TIMEOUT";
    if (request->timeout_ms > MOST_MS) request->timeout_ms = MOST_MS;
    return NULL;
}

typedef struct Section {
    const char *word, *bad_count, *not_positive, *too_few;
} Section;

static const Section SECTIONS[] = {
    {"KEYS", "ERR Invalid argument for keys_count", "ERR Keys count must be a positive integer",
     "ERR number of keys does not match the number of given arguments"},
    {"INPUTS", "ERR Invalid argument for input_count", "ERR Input count must be a positive integer",
     "ERR number of input keys to AI.MODELEXECUTE command does not match the number of given arguments"},
    {"ARGS", "ERR Invalid argument for args_count", "ERR Args count must be a positive integer",
     "ERR number of arguments does not match the number of given arguments"},
    {"OUTPUTS", "ERR Invalid argument for output_count", "ERR Output count must be a positive integer",
     "ERR number of output keys to AI.MODELEXECUTE command does not match the number of given arguments"},
};

static const char *section(Cursor *cursor, const Section *section, Words *words) {
    int64_t count;
    if (!cursor_integer(cursor, INT64_MIN, &count)) return section->bad_count;
    if (count <= 0) return section->not_positive;
    if (count > cursor_left(cursor)) return section->too_few;
    *words = (Words){.first = cursor->argv + cursor->at, .count = (int)count, .given = true};
    cursor->at += (int)count;
    return NULL;
}

/* What is no word that is known here. */
static const char *unknown(RedisModuleString *word, char *words, size_t room) {
    size_t size;
    const char *text = redis.StringPtrLen(word, &size);
    snprintf(words, room, "ERR Invalid argument: %.*s", size > 100 ? 100 : (int)size, text);
    return words;
}

const char *request_counted(Cursor cursor, Request *request, char *words, size_t room) {
    Words *const into[] = {&request->keys, &request->inputs, &request->arguments, &request->outputs};
    const char *error = NULL;
    while (!error && cursor_left(&cursor)) {
        RedisModuleString *word = cursor.argv[cursor.at++];
        int i = 0;
        while (i < 4 && !argument_is(word, SECTIONS[i].word)) i++;
        if (i < 4 && !into[i]->given)
            error = section(&cursor, &SECTIONS[i], into[i]);
        else
            error = argument_is(word, "TIMEOUT") ? timeout(&cursor, request) : unknown(word, words, room);
    }
    return error;
}

const char *request_uncounted(Cursor cursor, Request *request) {
    const char *error = NULL;
    Words *words = NULL;
    while (!error && cursor_left(&cursor)) {
        RedisModuleString *word = cursor.argv[cursor.at];
        bool inputs = argument_is(word, "INPUTS"), outputs = argument_is(word, "OUTPUTS");
        cursor.at++;
        if (inputs || outputs) {
            words = inputs ? &request->inputs : &request->outputs;
            if (words->given) return inputs ? "ERR INPUTS given twice" : "ERR OUTPUTS given twice";
            *words = (Words){.first = cursor.argv + cursor.at, .given = true};
        } else if (words == &request->inputs && argument_is(word, "$")) {
            if (request->list != NO_LIST) return "ERR already encountered a variable size list of tensors";
            request->list = words->count;
        } else if (argument_is(word, "TIMEOUT")) {
            error = timeout(&cursor, request);
            words = NULL;
        } else if (words) {
            words->count++;
        } else {
            return "ERR INPUTS not specified";
        }
    }
    return error;
}
