// SPDX-License-Identifier: GPL-2.0-only
/*
 * gpio-line-stress CHIP SECONDS LINE...
 *
 * One process for each line drives it, with values in no regular order, and reads back what
 * it drives, as fast as it can. Prints for each line how many operations there were, how
 * many failed and how many values were wrong; its exit status tells whether there was any.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/gpio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int request_output(const char *chip, unsigned int line)
{
	struct gpio_v2_line_request request = {
		.offsets = { line },
		.consumer = "gpio-line-stress",
		.config.flags = GPIO_V2_LINE_FLAG_OUTPUT,
		.num_lines = 1,
	};
	int fd = open(chip, O_RDWR);

	if (fd < 0 || ioctl(fd, GPIO_V2_GET_LINE_IOCTL, &request)) {
		fprintf(stderr, "%s line %u: cannot be driven: %s\n", chip, line, strerror(errno));
		exit(1);
	}
	close(fd);
	return request.fd;
}

static int stress(const char *chip, unsigned int line, time_t seconds)
{
	unsigned long operations = 0, failed = 0, wrong = 0;
	unsigned int random = line;
	int fd = request_output(chip, line);
	struct timespec now, end;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += seconds;
	do {
		struct gpio_v2_line_values set = { .bits = rand_r(&random) & 1, .mask = 1 };
		struct gpio_v2_line_values get = { .mask = 1 };

		operations += 2;
		if (ioctl(fd, GPIO_V2_LINE_SET_VALUES_IOCTL, &set))
			failed++;
		else if (ioctl(fd, GPIO_V2_LINE_GET_VALUES_IOCTL, &get))
			failed++;
		else if (get.bits != set.bits)
			wrong++;
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < end.tv_sec ||
		 (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));

	printf("line %u: %lu operations, %lu failed, %lu wrong\n", line, operations, failed, wrong);
	return failed || wrong;
}

int main(int argc, char **argv)
{
	int status, bad = 0;

	if (argc < 4) {
		fprintf(stderr, "usage: %s CHIP SECONDS LINE...\n", argv[0]);
		return 2;
	}
	for (int i = 3; i < argc; i++) {
		pid_t child = fork();

		if (child < 0) {
			perror("fork");
			return 1;
		}
		if (!child)
			return stress(argv[1], atoi(argv[i]), atoi(argv[2]));
	}
	while (wait(&status) > 0)
		bad |= status;
	return bad ? 1 : 0;
}
