/* The price of N external processes: what no launcher can avoid.
 *
 * usage: limit N IN_FLIGHT ROOT PROGRAM [ARGUMENT...]
 *
 * Each process gets a new directory ROOT/t<i>, which it runs in, and two new files there for its output and errors:
 * mkdir, chdir, two opens and posix_spawn for each, waitpid for whichever ends first. One thread, nothing else.
 * PROGRAM is a path. Prints one line: RESULT and a JSON object.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static double seconds(int who)
{
	struct rusage u;

	getrusage(who, &u);
	return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* The directory of the new process is made and entered here, so that the child has only the two files to open. */
static void launch(const char *root, int number, char **argv)
{
	posix_spawn_file_actions_t files;
	char directory[4096];
	pid_t pid;

	snprintf(directory, sizeof directory, "%s/t%d", root, number);
	if (mkdir(directory, 0777) || chdir(directory))
		die(directory);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 1, "out", O_WRONLY | O_CREAT | O_TRUNC, 0666);
	posix_spawn_file_actions_addopen(&files, 2, "err", O_WRONLY | O_CREAT | O_TRUNC, 0666);
	if (posix_spawn(&pid, argv[0], &files, NULL, argv, environ))
		die(argv[0]);
	posix_spawn_file_actions_destroy(&files);
}

static int collect(void)
{
	int status;

	if (waitpid(-1, &status, 0) < 0)
		die("waitpid");
	return status != 0;
}

int main(int argc, char **argv)
{
	int n, in_flight, live = 0, bad = 0;
	double begin, total;

	if (argc < 5) {
		fprintf(stderr, "usage: %s N IN_FLIGHT ROOT PROGRAM [ARGUMENT...]\n", argv[0]);
		return 2;
	}
	n = atoi(argv[1]);
	in_flight = atoi(argv[2]);
	begin = now();
	for (int i = 0; i < n; i++) {
		if (live == in_flight) {
			bad += collect();
			live--;
		}
		launch(argv[3], i, argv + 4);
		live++;
	}
	for (; live; live--)
		bad += collect();
	total = now() - begin;
	printf("RESULT {\"n\": %d, \"total_s\": %.6f, \"driver_cpu_s\": %.6f, \"tasks_cpu_s\": %.6f, \"bad\": %d}\n", n, total,
	       seconds(RUSAGE_SELF), seconds(RUSAGE_CHILDREN), bad);
	return 0;
}
