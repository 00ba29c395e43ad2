/* Things to do at a time. Main thread only. */
#ifndef ASIM_ALARM_H
#define ASIM_ALARM_H

#include "redis_api.h"

typedef struct Alarm {
    void (*ring)(struct Alarm *alarm);
    int64_t when_ms;
    size_t place; /* in the heap, from 1; 0: it is not set */
} Alarm;

/* The longest that anybody waits, in milliseconds: thirty years, and no sum of such numbers is out of range. */
#define MOST_MS ((int64_t)1 << 40)

/* Milliseconds of a clock that never goes back. */
int64_t now_ms(void);

/* Sets it, also anew. */
void alarm_set(Alarm *alarm, int64_t when_ms, void (*ring)(Alarm *alarm));
void alarm_clear(Alarm *alarm);

/* What code uses that was not called by a command. */
extern RedisModuleCtx *detached;

/* The structure that an alarm is part of. */
#define CONTAINER(pointer, type, member) ((type *)(void *)((char *)(pointer) - offsetof(type, member)))

#endif
