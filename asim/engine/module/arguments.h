/* Reading the arguments of a command, without allocating. */
#ifndef ASIM_ARGUMENTS_H
#define ASIM_ARGUMENTS_H

#include <stdbool.h>

#include "redis_api.h"

/* A whole decimal number, nothing before or after it. False when it is none or does not fit. */
bool parse_integer(const char *text, size_t size, int64_t *value);
bool argument_integer(RedisModuleString *argument, int64_t *value);

/* Whether the text is this word (given in upper case), in any case. */
bool is_word(const char *text, size_t size, const char *word);
bool argument_is(RedisModuleString *argument, const char *word);

/* Walks over the arguments of one command. */
typedef struct Cursor {
    RedisModuleString **argv;
    int argc, at;
} Cursor;

static inline int cursor_left(const Cursor *cursor) { return cursor->argc - cursor->at; }
/* Steps over the word when it is the next argument. */
bool cursor_skip(Cursor *cursor, const char *word);
/* The next argument as a number of at least `least`; steps over it. */
bool cursor_integer(Cursor *cursor, int64_t least, int64_t *value);

#endif
