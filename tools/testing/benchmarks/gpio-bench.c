// SPDX-License-Identifier: GPL-2.0-only
/*
 * gpio-bench CHIP COUNT
 *
 * Times operations on the lines of a chip by the character device. Prints a line for each
 * workload: its name, the median and the 99th percentile in nanoseconds per operation.
 * Workloads that need more lines than the chip has are left out.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/gpio.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static int chip;
static unsigned int lines_of_chip;

static void die(const char *what)
{
	fprintf(stderr, "gpio-bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static int request(unsigned int count, uint64_t flags)
{
	struct gpio_v2_line_request request = {
		.consumer = "gpio-bench",
		.config.flags = flags,
		.num_lines = count,
	};
	unsigned int i;

	for (i = 0; i < count; i++)
		request.offsets[i] = i;
	if (ioctl(chip, GPIO_V2_GET_LINE_IOCTL, &request))
		die("cannot request lines");
	return request.fd;
}

static uint64_t mask_of(unsigned int count)
{
	return count < 64 ? (1ull << count) - 1 : ~0ull;
}

static void get(int fd, unsigned int count, unsigned int round)
{
	struct gpio_v2_line_values values = { .mask = mask_of(count) };

	(void)round;
	if (ioctl(fd, GPIO_V2_LINE_GET_VALUES_IOCTL, &values))
		die("cannot get values");
}

static void set(int fd, unsigned int count, unsigned int round)
{
	struct gpio_v2_line_values values = {
		.bits = round & 1 ? ~0ull : 0,
		.mask = mask_of(count),
	};

	if (ioctl(fd, GPIO_V2_LINE_SET_VALUES_IOCTL, &values))
		die("cannot set values");
}

static void request_output(int fd, unsigned int count, unsigned int round)
{
	(void)fd;
	(void)round;
	close(request(count, GPIO_V2_LINE_FLAG_OUTPUT));
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void measure(const char *name, void (*operation)(int, unsigned int, unsigned int),
		    unsigned int count, uint64_t flags, unsigned int rounds)
{
	uint64_t *samples, start;
	unsigned int i;
	int fd = -1;

	if (count > lines_of_chip)
		return;
	samples = calloc(rounds, sizeof(*samples));
	if (!samples)
		die("cannot allocate the samples");
	if (flags)
		fd = request(count, flags);
	for (i = 0; i < rounds / 10 + 1; i++)
		operation(fd, count, i);
	for (i = 0; i < rounds; i++) {
		start = now();
		operation(fd, count, i);
		samples[i] = now() - start;
	}
	if (fd >= 0)
		close(fd);
	qsort(samples, rounds, sizeof(*samples), compare);
	printf("%s-%u %llu %llu\n", name, count, (unsigned long long)samples[rounds / 2],
	       (unsigned long long)samples[rounds - 1 - rounds / 100]);
	fflush(stdout);
	free(samples);
}

int main(int argc, char **argv)
{
	struct gpiochip_info info;
	static const unsigned int counts[] = { 1, 8, 64 };
	unsigned int rounds, i;

	if (argc != 3 || (rounds = strtoul(argv[2], NULL, 0)) == 0) {
		fprintf(stderr, "usage: gpio-bench CHIP COUNT\n");
		return 2;
	}
	chip = open(argv[1], O_RDWR);
	if (chip < 0 || ioctl(chip, GPIO_GET_CHIPINFO_IOCTL, &info))
		die(argv[1]);
	lines_of_chip = info.lines;

	for (i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		unsigned int some = rounds / counts[i] + 10;

		measure("get", get, counts[i], GPIO_V2_LINE_FLAG_INPUT, some);
		measure("set", set, counts[i], GPIO_V2_LINE_FLAG_OUTPUT, some);
		measure("request", request_output, counts[i], 0, some / 4 + 1);
	}
	return 0;
}
