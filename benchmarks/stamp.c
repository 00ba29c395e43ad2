/* A process that says when it runs and when it ends, at next to no cost.
 *
 * usage: stamp MILLISECONDS
 *
 * Takes the time, sleeps, and as its last act takes the time again and writes both (nanoseconds of the real-time clock)
 * to its standard output.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
	long ms = argc > 1 ? atol(argv[1]) : 0;
	struct timespec pause = {ms / 1000, ms % 1000 * 1000000L};
	char text[64];
	long long begin = now();
	int length;

	if (ms)
		nanosleep(&pause, NULL);
	length = snprintf(text, sizeof text, "%lld %lld\n", begin, now());
	_exit(write(1, text, length) != length);
}
