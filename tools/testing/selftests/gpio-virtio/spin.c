// SPDX-License-Identifier: GPL-2.0-only
/*
 * spin SECONDS: how much a task that only computes gets done, on each processor; prints the
 * number of rounds of the one that did least.
 */

#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static unsigned long spin(double seconds)
{
	struct timespec start, now;
	unsigned long rounds = 0;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		for (unsigned int i = 0; i < 20000; i++)
			asm volatile("");
		rounds++;
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec - start.tv_sec + (now.tv_nsec - start.tv_nsec) / 1e9 < seconds);
	return rounds;
}

int main(int argc, char **argv)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN), least = -1;
	unsigned long *rounds;

	if (argc != 2) {
		fprintf(stderr, "usage: %s SECONDS\n", argv[0]);
		return 2;
	}
	rounds = mmap(NULL, processors * sizeof(*rounds), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (rounds == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	for (long cpu = 0; cpu < processors; cpu++) {
		cpu_set_t mine;

		CPU_ZERO(&mine);
		CPU_SET(cpu, &mine);
		if (!fork()) {
			sched_setaffinity(0, sizeof(mine), &mine);
			rounds[cpu] = spin(atof(argv[1]));
			return 0;
		}
	}
	while (wait(NULL) > 0)
		;
	for (long cpu = 0; cpu < processors; cpu++)
		if (least < 0 || rounds[cpu] < rounds[least])
			least = cpu;
	printf("%lu\n", rounds[least]);
	return 0;
}
