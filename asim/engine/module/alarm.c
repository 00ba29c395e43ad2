/* A binary heap, earliest first, and one timer of the server for its top: setting an alarm that is not the next one
 * costs no timer. */
#define _POSIX_C_SOURCE 200809L
#include <time.h>

#include "alarm.h"

RedisModuleCtx *detached;

static Alarm **heap; /* heap[0] is not used */
static size_t count, room;
static RedisModuleTimerID timer;
static int64_t timer_ms; /* when it goes off; meaningless when timer is 0 */

int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void put(Alarm *alarm, size_t place) {
    heap[place] = alarm;
    alarm->place = place;
}

static void rise(Alarm *alarm, size_t place) {
    for (; place > 1 && heap[place / 2]->when_ms > alarm->when_ms; place /= 2) put(heap[place / 2], place);
    put(alarm, place);
}

static void sink(Alarm *alarm, size_t place) {
    for (size_t child; (child = 2 * place) <= count; place = child) {
        if (child < count && heap[child + 1]->when_ms < heap[child]->when_ms) child++;
        if (heap[child]->when_ms >= alarm->when_ms) break;
        put(heap[child], place);
    }
    put(alarm, place);
}

static void ring(RedisModuleCtx *ctx, void *data);

static void arm(void) {
    if (!count || (timer && timer_ms <= heap[1]->when_ms)) return;
    if (timer) redis.StopTimer(detached, timer, NULL);
    int64_t left = heap[1]->when_ms - now_ms();
    timer_ms = heap[1]->when_ms;
    timer = redis.CreateTimer(detached, left > 0 ? left : 0, ring, NULL);
}

static void ring(RedisModuleCtx *ctx, void *data) {
    (void)ctx, (void)data;
    timer = 0;
    int64_t now = now_ms();
    while (count && heap[1]->when_ms <= now) {
        Alarm *due = heap[1];
        alarm_clear(due);
        due->ring(due);
    }
    arm();
}

void alarm_clear(Alarm *alarm) {
    size_t place = alarm->place;
    if (!place) return;
    alarm->place = 0;
    Alarm *last = heap[count--];
    if (last == alarm) return;
    if (place > 1 && heap[place / 2]->when_ms > last->when_ms)
        rise(last, place);
    else
        sink(last, place);
}

void alarm_set(Alarm *alarm, int64_t when_ms, void (*action)(Alarm *alarm)) {
    if (alarm->place && alarm->when_ms == when_ms) return;
    alarm_clear(alarm);
    if (count + 1 >= room) {
        room = room ? 2 * room : 64;
        heap = redis.Realloc(heap, room * sizeof(Alarm *));
    }
    alarm->ring = action;
    alarm->when_ms = when_ms;
    rise(alarm, ++count);
    arm();
}
