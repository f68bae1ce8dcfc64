// SPDX-License-Identifier: GPL-2.0-only
/*
 * gpio-fail-alloc bind DRIVER-DIRECTORY DEVICE
 * gpio-fail-alloc request CHIP LINE
 *
 * Does something again and again, and has first the first allocation of memory in it fail,
 * then the second, and so on until all have been through. `bind` binds DEVICE, which has no
 * driver, and leaves it bound. `request` requests a line, as an output, as an input, and for
 * its edges, works with it and gives it back.
 *
 * Prints how often it failed, and with what error; any other than ENOMEM is a failure of
 * ours, but for EINVAL from gpiolib when there is no memory for the IRQ domain. Needs
 * CONFIG_FAILSLAB or CONFIG_FAIL_PAGE_ALLOC, and no `ignore-gfp-wait`.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/gpio.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

static int fail_nth;

/* The N-th allocation of this task from now on fails; with 0 none does. */
static void arm(unsigned int n)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", n);
	if (pwrite(fail_nth, text, strlen(text), 0) < 0) {
		perror("fail-nth");
		exit(2);
	}
}

/* How many allocations are left until the one that fails; 0 if it has failed. */
static unsigned int left(void)
{
	char text[16] = "";

	if (pread(fail_nth, text, sizeof(text) - 1, 0) < 0) {
		perror("fail-nth");
		exit(2);
	}
	return atoi(text);
}

static const char *directory, *device;

/* With a failing allocation in the write, if NTH is not zero. */
static int write_to(const char *file, unsigned int nth)
{
	char path[256];
	int fd, status;

	snprintf(path, sizeof(path), "%s/%s", directory, file);
	fd = open(path, O_WRONLY);
	if (fd < 0) {
		perror(path);
		exit(2);
	}
	arm(nth);
	status = write(fd, device, strlen(device)) < 0 ? -errno : 0;
	close(fd);
	return status;
}

static int bind_device(unsigned int nth)
{
	return write_to("bind", nth);
}

static int unbind_device(void)
{
	return write_to("unbind", 0);
}

static int chip;
static unsigned int line;
static __u64 flags;

static int work(int fd)
{
	struct gpio_v2_line_values values = { .bits = 1, .mask = 1 };
	struct gpio_v2_line_config config = { .flags = GPIO_V2_LINE_FLAG_INPUT };

	if (flags & GPIO_V2_LINE_FLAG_OUTPUT && ioctl(fd, GPIO_V2_LINE_SET_VALUES_IOCTL, &values))
		return -errno;
	if (ioctl(fd, GPIO_V2_LINE_GET_VALUES_IOCTL, &values))
		return -errno;
	return ioctl(fd, GPIO_V2_LINE_SET_CONFIG_IOCTL, &config) ? -errno : 0;
}

static int request_line(unsigned int nth)
{
	struct gpio_v2_line_request request = {
		.offsets = { line },
		.consumer = "gpio-fail-alloc",
		.config.flags = flags,
		.num_lines = 1,
	};
	int status;

	arm(nth);
	if (ioctl(chip, GPIO_V2_GET_LINE_IOCTL, &request))
		return -errno;
	status = work(request.fd);
	close(request.fd);
	return status;
}

/* Returns whether all failures were clean. */
static int sweep(const char *what, int (*act)(unsigned int nth), int (*undo)(void),
		 int also_good)
{
	unsigned int failed = 0, survived = 0, odd = 0, n;

	for (n = 1;; n++) {
		int status = act(n), rest = left();

		arm(0);
		if (rest) {
			if (status) {
				printf("%s: with all its memory: %s\n", what, strerror(-status));
				odd++;
			}
			break;
		}
		if (!status) {
			survived++;
			status = undo ? undo() : 0;
			if (status) {
				printf("%s: cannot be undone: %s\n", what, strerror(-status));
				return 0;
			}
			continue;
		}
		failed++;
		if (status != -ENOMEM && status != also_good) {
			printf("%s: allocation %u: %s\n", what, n, strerror(-status));
			odd++;
		}
	}
	printf("%s: %u allocations, %u failures, %u made no difference, %u odd\n", what, n - 1,
	       failed, survived, odd);
	return n > 1 && failed && !odd;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		__u64 flags;
	} kinds[] = {
		{ "output", GPIO_V2_LINE_FLAG_OUTPUT },
		{ "input", GPIO_V2_LINE_FLAG_INPUT },
		{ "edges", GPIO_V2_LINE_FLAG_INPUT | GPIO_V2_LINE_FLAG_EDGE_RISING |
			   GPIO_V2_LINE_FLAG_EDGE_FALLING },
	};
	int clean = 1;

	if (argc != 4) {
		fprintf(stderr, "usage: %s bind DRIVER DEVICE | request CHIP LINE\n", argv[0]);
		return 2;
	}
	fail_nth = open("/proc/thread-self/fail-nth", O_RDWR);
	if (fail_nth < 0) {
		perror("/proc/thread-self/fail-nth");
		return 2;
	}
	if (!strcmp(argv[1], "bind")) {
		directory = argv[2];
		device = argv[3];
		return !sweep("bind", bind_device, unbind_device, -EINVAL);
	}
	chip = open(argv[2], O_RDWR);
	if (chip < 0) {
		perror(argv[2]);
		return 2;
	}
	line = atoi(argv[3]);
	for (unsigned int i = 0; i < ARRAY_SIZE(kinds); i++) {
		flags = kinds[i].flags;
		clean &= sweep(kinds[i].name, request_line, NULL, -ENOMEM);
	}
	return !clean;
}
