// SPDX-License-Identifier: GPL-2.0-only
/*
 * gpio-line-churn LINES SECONDS LINE...
 *
 * Uses lines of the chip that has LINES lines while that chip comes and goes. One process for
 * each line requests it in turn as an output, an input and for its edges, works with it, and
 * gives it back, with whatever chip is there. That there is none is no failure, any other
 * error and a wrong value are. Ends after SECONDS, or with SIGTERM; prints for each line when
 * it was used for the first time, how many requests there were, and how many of them met no chip.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/gpio.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

/* The device is not there, or not any more. */
static int absent(int error)
{
	return error == ENODEV || error == ENXIO || error == ENOENT;
}

/* Opens the chip that has so many lines. */
static int open_chip(unsigned int lines)
{
	DIR *dev = opendir("/dev");
	struct dirent *entry;
	int fd = -1;

	while (fd < 0 && (entry = readdir(dev))) {
		struct gpiochip_info info;
		char path[sizeof("/dev/") + sizeof(entry->d_name)];

		if (strncmp(entry->d_name, "gpiochip", strlen("gpiochip")))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (ioctl(fd, GPIO_GET_CHIPINFO_IOCTL, &info) || info.lines != lines) {
			close(fd);
			fd = -1;
		}
	}
	closedir(dev);
	if (fd < 0)
		errno = ENOENT;
	return fd;
}

static int request(int chip, unsigned int line, __u64 flags)
{
	struct gpio_v2_line_request request = {
		.offsets = { line },
		.consumer = "gpio-line-churn",
		.config.flags = flags,
		.num_lines = 1,
	};

	return ioctl(chip, GPIO_V2_GET_LINE_IOCTL, &request) ? -1 : request.fd;
}

/* Values of an output read back as they were set. */
static int drive(int fd)
{
	for (unsigned int n = 0; n < 4; n++) {
		struct gpio_v2_line_values set = { .bits = n & 1, .mask = 1 };
		struct gpio_v2_line_values get = { .mask = 1 };

		if (ioctl(fd, GPIO_V2_LINE_SET_VALUES_IOCTL, &set) ||
		    ioctl(fd, GPIO_V2_LINE_GET_VALUES_IOCTL, &get))
			return -1;
		if (get.bits != set.bits) {
			errno = EILSEQ;
			return -1;
		}
	}
	return 0;
}

static int sense(int fd)
{
	struct gpio_v2_line_values get = { .mask = 1 };

	return ioctl(fd, GPIO_V2_LINE_GET_VALUES_IOCTL, &get);
}

static int watch(int fd)
{
	struct pollfd events = { .fd = fd, .events = POLLIN };
	struct gpio_v2_line_event event;

	/* A chip that goes says so with POLLHUP or POLLERR. */
	if (poll(&events, 1, 2) > 0 && events.revents & POLLIN &&
	    read(fd, &event, sizeof(event)) < 0)
		return -1;
	return 0;
}

static const struct {
	__u64 flags;
	int (*work)(int fd);
} uses[] = {
	{ GPIO_V2_LINE_FLAG_OUTPUT, drive },
	{ GPIO_V2_LINE_FLAG_INPUT, sense },
	{ GPIO_V2_LINE_FLAG_INPUT | GPIO_V2_LINE_FLAG_EDGE_RISING |
	  GPIO_V2_LINE_FLAG_EDGE_FALLING, watch },
};

/* One use of the line; 0, or what has gone wrong. */
static int use(unsigned int lines, unsigned int line, unsigned int n)
{
	int chip = open_chip(lines), error = 0, fd;

	if (chip < 0)
		return errno;
	fd = request(chip, line, uses[n].flags);
	if (fd < 0 || uses[n].work(fd))
		error = errno;
	if (fd >= 0)
		close(fd);
	close(chip);
	return error;
}

/* SIGTERM is blocked. */
static int told_to_end(void)
{
	sigset_t pending;

	sigpending(&pending);
	return sigismember(&pending, SIGTERM);
}

static int churn(unsigned int lines, unsigned int line, time_t seconds)
{
	unsigned long requests = 0, used = 0, missed = 0, failed = 0;
	time_t until = time(NULL) + seconds;

	while (!told_to_end() && time(NULL) < until) {
		unsigned int n = requests++ % ARRAY_SIZE(uses);
		int error = use(lines, line, n);

		if (!error) {
			if (!used++)
				printf("line %u: in use\n", line);
			continue;
		}
		if (absent(error)) {
			missed++;
		} else {
			failed++;
			printf("line %u, use %u: %s\n", line, n, strerror(error));
		}
		/* Yields the processor to the task that brings the chip back. */
		usleep(1000);
	}
	printf("line %u: %lu requests, %lu without a chip, %lu failed\n", line, requests, missed,
	       failed);
	return failed || !used;
}

int main(int argc, char **argv)
{
	int count = argc - 3, left, status, bad = 0;
	pid_t *children;
	sigset_t signals;

	if (argc < 4) {
		fprintf(stderr, "usage: %s LINES SECONDS LINE...\n", argv[0]);
		return 2;
	}
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	/* The processes share it. */
	setlinebuf(stdout);

	children = calloc(count, sizeof(*children));
	for (int i = 0; i < count; i++) {
		children[i] = fork();
		if (children[i] < 0) {
			perror("fork");
			return 1;
		}
		if (!children[i])
			return churn(atoi(argv[1]), atoi(argv[i + 3]), atoi(argv[2]));
	}
	for (left = count; left;) {
		if (sigwaitinfo(&signals, NULL) == SIGTERM) {
			for (int i = 0; i < count; i++)
				kill(children[i], SIGTERM);
		}
		for (; waitpid(-1, &status, WNOHANG) > 0; left--)
			bad |= status;
	}
	return bad ? 1 : 0;
}
