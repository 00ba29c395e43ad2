#include "arguments.h"

bool parse_integer(const char *text, size_t size, int64_t *value) {
    bool negative = size > 0 && text[0] == '-';
    size_t i = negative;
    uint64_t number = 0, limit = (uint64_t)INT64_MAX + negative;
    if (i == size) return false;
    for (; i < size; i++) {
        unsigned digit = (unsigned char)text[i] - (unsigned)'0';
        if (digit > 9 || number > (limit - digit) / 10) return false;
        number = number * 10 + digit;
    }
    *value = negative ? (int64_t)(0 - number) : (int64_t)number;
    return true;
}

bool argument_integer(RedisModuleString *argument, int64_t *value) {
    size_t size;
    const char *text = redis.StringPtrLen(argument, &size);
    return parse_integer(text, size, value);
}

bool is_word(const char *text, size_t size, const char *word) {
    size_t i = 0;
    for (; i < size && word[i]; i++) {
        char c = text[i];
        if ((c >= 'a' && c <= 'z' ? c - 32 : c) != word[i]) return false;
    }
    return i == size && !word[i];
}

bool argument_is(RedisModuleString *argument, const char *word) {
    size_t size;
    const char *text = redis.StringPtrLen(argument, &size);
    return is_word(text, size, word);
}

bool cursor_skip(Cursor *cursor, const char *word) {
    if (cursor->at >= cursor->argc || !argument_is(cursor->argv[cursor->at], word)) return false;
    cursor->at++;
    return true;
}

bool cursor_integer(Cursor *cursor, int64_t least, int64_t *value) {
    if (cursor->at >= cursor->argc) return false;
    return argument_integer(cursor->argv[cursor->at++], value) && *value >= least;
}
