// SPDX-License-Identifier: GPL-2.0-only
/*
 * gpio-bench time|count OPERATIONS
 *
 * Measures operations on the lines of virtio GPIO chips, in a guest of scripts/bench, by the
 * character device and by sysfs. Prints a stream of JSON objects, one for each workload: the
 * percentiles of the nanoseconds that an operation takes, the guest's counters, and the
 * device's counters before and after. `count` counts allocations as well, by tracing, which
 * makes the times meaningless.
 *
 * A workload that needs more lines than any chip has is left out: the driver may have
 * refused that chip.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/gpio.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

/* Most events that a request keeps for its reader. */
#define EVENT_ROOM 1024
/* Most that are read at once. */
#define BATCH 64
/* Timeout for any operation. */
#define PATIENCE_MS 2000
#define TASKS 4
#define TASKS_SECONDS 60

bool counting;

void die(const char *what)
{
	fprintf(stderr, "gpio-bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

/* Chips */

/* Opens the chip with so many lines, -1 if there is none. */
static int open_chip(unsigned int lines, struct gpiochip_info *info)
{
	struct dirent *entry;
	DIR *dir = opendir("/dev");

	if (!dir)
		die("/dev");
	while ((entry = readdir(dir))) {
		char path[300];
		int fd;

		if (strncmp(entry->d_name, "gpiochip", 8))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (!ioctl(fd, GPIO_GET_CHIPINFO_IOCTL, info) && info->lines == lines) {
			closedir(dir);
			return fd;
		}
		close(fd);
	}
	closedir(dir);
	return -1;
}

static int request(int chip, unsigned int first, unsigned int count, uint64_t flags)
{
	struct gpio_v2_line_request request = {
		.consumer = "gpio-bench",
		.config.flags = flags,
		.num_lines = count,
		.event_buffer_size = EVENT_ROOM,
	};
	unsigned int i;

	for (i = 0; i < count; i++)
		request.offsets[i] = first + i;
	if (ioctl(chip, GPIO_V2_GET_LINE_IOCTL, &request))
		die("cannot request lines");
	return request.fd;
}

/* Operations */

struct operand {
	int chip;
	int fd;
	unsigned int lines;
	unsigned int round;
};

static uint64_t mask_of(unsigned int lines)
{
	return lines < 64 ? (1ull << lines) - 1 : ~0ull;
}

static void get(const struct operand *on)
{
	struct gpio_v2_line_values values = { .mask = mask_of(on->lines) };

	if (ioctl(on->fd, GPIO_V2_LINE_GET_VALUES_IOCTL, &values))
		die("cannot get values");
}

static void set_to(const struct operand *on, uint64_t bits)
{
	struct gpio_v2_line_values values = { .bits = bits, .mask = mask_of(on->lines) };

	if (ioctl(on->fd, GPIO_V2_LINE_SET_VALUES_IOCTL, &values))
		die("cannot set values");
}

static void set(const struct operand *on)
{
	set_to(on, ~0ull);
}

static void toggle(const struct operand *on)
{
	set_to(on, on->round & 1 ? ~0ull : 0);
}

static void direction_output(const struct operand *on)
{
	struct gpio_v2_line_config config = { .flags = GPIO_V2_LINE_FLAG_OUTPUT };

	if (ioctl(on->fd, GPIO_V2_LINE_SET_CONFIG_IOCTL, &config))
		die("cannot make lines outputs");
}

static void request_release(const struct operand *on)
{
	close(request(on->chip, 0, on->lines, GPIO_V2_LINE_FLAG_OUTPUT));
}

struct workload {
	const char *name;
	void (*operation)(const struct operand *on);
	/* How the lines are requested beforehand, if at all. */
	uint64_t flags;
	/* How many times longer than one get it takes, about. */
	unsigned int cost;
};

static void measure(const struct workload *it, unsigned int chip, unsigned int lines,
		    unsigned int rounds)
{
	struct section section = { .name = it->name, .lines = lines, .chip = chip };
	struct operand on = { .lines = lines };
	struct gpiochip_info info;
	uint64_t start;

	on.chip = open_chip(chip, &info);
	if (on.chip < 0)
		return;
	rounds = rounds / (lines * it->cost) + 20;
	if (it->flags)
		on.fd = request(on.chip, 0, lines, it->flags);
	for (on.round = 0; on.round < rounds / 10; on.round++)
		it->operation(&on);
	section_begin(&section, rounds);
	for (on.round = 0; on.round < rounds; on.round++) {
		start = operation_begin();
		it->operation(&on);
		operation_end(&section, start);
	}
	section_end(&section);
	if (it->flags)
		close(on.fd);
	close(on.chip);
}

/* The same get on the last line of chips of several sizes, in turn. */
static void scale(unsigned int rounds)
{
	static const unsigned int sizes[] = { 8, 512, 65535 };
	struct section sections[ARRAY_SIZE(sizes)];
	struct operand on[ARRAY_SIZE(sizes)];
	unsigned int chips = 0, round, i;
	struct gpiochip_info info;
	uint64_t start;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		int chip = open_chip(sizes[i], &info);

		if (chip < 0)
			continue;
		on[chips] = (struct operand){ .lines = 1, .chip = chip };
		on[chips].fd = request(chip, sizes[i] - 1, 1, GPIO_V2_LINE_FLAG_INPUT);
		sections[chips] = (struct section){ .name = "scale", .lines = 1, .chip = sizes[i] };
		section_reserve(&sections[chips], rounds);
		chips++;
	}
	for (round = 0; round < rounds; round++) {
		for (i = 0; i < chips; i++) {
			start = now();
			get(&on[i]);
			section_sample(&sections[i], now() - start);
		}
	}
	for (i = 0; i < chips; i++) {
		section_print(&sections[i]);
		close(on[i].fd);
		close(on[i].chip);
	}
}

/* Edges */

/* Reads what has come of up to `most` events; none only if none comes for long. */
static unsigned int read_events(int fd, struct gpio_v2_line_event *events, unsigned int most)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	ssize_t length;

	if (poll(&pollfd, 1, PATIENCE_MS) != 1)
		return 0;
	length = read(fd, events, most * sizeof(*events));
	if (length <= 0)
		die("cannot read events");
	return length / sizeof(*events);
}

/* For an edge of unknown direction gpiolib asks for the value, which would be another request. */
#define RISING (GPIO_V2_LINE_FLAG_INPUT | GPIO_V2_LINE_FLAG_EDGE_RISING)

/*
 * From an output to an edge that it makes on another line, until the edge was read; and from
 * the interrupt of that edge until then.
 */
static void loop(unsigned int chip, unsigned int rounds)
{
	struct section whole = { .name = "edge-loop", .lines = 1, .chip = chip };
	struct section wake = { .name = "edge-wake", .lines = 1, .chip = chip };
	struct operand on = { .lines = 1 };
	struct gpio_v2_line_event event;
	struct gpiochip_info info;
	uint64_t start, end;
	int in;

	on.chip = open_chip(chip, &info);
	if (on.chip < 0)
		return;
	on.fd = request(on.chip, 0, 1, GPIO_V2_LINE_FLAG_OUTPUT);
	set_to(&on, 0);
	host("vgpio --device lines%u wire 0 1", chip);
	in = request(on.chip, 1, 1, RISING);
	section_reserve(&wake, rounds);
	section_begin(&whole, rounds);
	while (whole.count < rounds) {
		start = operation_begin();
		set_to(&on, 1);
		if (!read_events(in, &event, 1)) {
			whole.lost++;
			break;
		}
		end = now();
		operation_end(&whole, start);
		section_sample(&wake, end - event.timestamp_ns);
		set_to(&on, 0);
	}
	section_end(&whole);
	section_print(&wake);
	close(in);
	close(on.fd);
	close(on.chip);
	host("vgpio --device lines%u wire 0", chip);
}

static void print_lines(char *to, unsigned int lines)
{
	unsigned int i;

	for (i = 0; i < lines; i++)
		to += sprintf(to, " %u", i);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Whether this task runs before the threads of interrupts, which would keep it from reading. */
static void urgent(bool on)
{
	struct sched_param param = { .sched_priority = on ? 90 : 0 };

	if (sched_setscheduler(0, on ? SCHED_FIFO : SCHED_OTHER, &param))
		die("cannot set the priority");
}

/*
 * Edges as fast as they are taken: the device makes the next edge of a line when its
 * interrupt is unmasked again. An operation is one rising edge.
 */
static void rate(unsigned int chip, unsigned int lines, unsigned int each)
{
	struct section section = { .name = "edge-rate", .lines = lines, .chip = chip };
	unsigned int total = each * lines, had = 0, some, i;
	struct gpio_v2_line_event events[BATCH];
	struct gpiochip_info info;
	uint64_t *times;
	char list[512];
	pid_t starter;
	int fd, in;

	fd = open_chip(chip, &info);
	if (fd < 0)
		return;
	times = calloc(total + BATCH, sizeof(*times));
	if (!times)
		die("cannot allocate the times");
	in = request(fd, 0, lines, RISING);
	print_lines(list, lines);
	section_begin(&section, total);
	/* Not by this task, which has to read from the first edge on. */
	starter = fork();
	if (!starter) {
		host("vgpio --device lines%u swing --count %u%s", chip, 2 * each, list);
		_exit(0);
	}
	urgent(true);
	while (had < total && (some = read_events(in, events, BATCH)))
		for (i = 0; i < some; i++)
			times[had++] = events[i].timestamp_ns;
	urgent(false);
	waitpid(starter, NULL, 0);
	/* Threads of several lines do not keep to the order of their interrupts. */
	qsort(times, had, sizeof(*times), compare);
	for (i = lines; i < had; i++)
		section_sample(&section, (times[i] - times[i - lines]) / lines);
	section.lost = total - had;
	section_end(&section);
	free(times);
	close(in);
	close(fd);
}

/* An edge on each line at once: from the first interrupt until the last edge was read. */
static void burst(unsigned int chip, unsigned int lines, unsigned int bursts)
{
	struct section section = { .name = "edge-burst", .lines = lines, .chip = chip };
	struct gpio_v2_line_event events[BATCH];
	unsigned int round, had, some, i;
	struct gpiochip_info info;
	char list[512];
	uint64_t first;
	int fd, in;

	fd = open_chip(chip, &info);
	if (fd < 0)
		return;
	in = request(fd, 0, lines, RISING);
	print_lines(list, lines);
	section_begin(&section, bursts);
	host("start burst vgpio --device lines%u toggle --count %u --interval 10ms%s", chip,
	     2 * bursts, list);
	for (round = 0; round < bursts; round++) {
		first = UINT64_MAX;
		for (had = 0; had < lines; had += some) {
			some = read_events(in, events, lines - had);
			if (!some)
				break;
			for (i = 0; i < some; i++)
				if (events[i].timestamp_ns < first)
					first = events[i].timestamp_ns;
		}
		section.lost += lines - had;
		if (had < lines)
			break;
		section_sample(&section, now() - first);
	}
	host("finish burst");
	section_end(&section);
	close(in);
	close(fd);
}

/* Probe */

struct device {
	char name[GPIO_MAX_NAME_SIZE];
	char driver[256];
};

/* Finds the virtio device behind the chip with so many lines, and its driver. */
static bool find_device(unsigned int lines, struct device *device)
{
	struct gpiochip_info info;
	char path[256];
	ssize_t length;
	int fd = open_chip(lines, &info);

	if (fd < 0)
		return false;
	close(fd);
	strcpy(device->name, info.label);
	snprintf(path, sizeof(path), "/sys/bus/virtio/devices/%s/driver", device->name);
	length = readlink(path, device->driver, sizeof(device->driver) - 1);
	if (length < 0)
		die(path);
	device->driver[length] = '\0';
	memmove(device->driver, strrchr(device->driver, '/') + 1,
		strlen(strrchr(device->driver, '/')));
	return true;
}

static void drive(const struct device *device, const char *what)
{
	char path[512];

	snprintf(path, sizeof(path), "/sys/bus/virtio/drivers/%s/%s", device->driver, what);
	write_file(path, device->name);
}

/*
 * Binding the driver to a device; and from its beginning to the last interrupt, when the
 * device has told all that there is to know, which leaves out the registration of the chip.
 */
static void probe(unsigned int lines, unsigned int rounds)
{
	struct section section = { .name = "probe", .lines = lines, .chip = lines };
	struct section talk = { .name = "probe-talk", .lines = lines, .chip = lines };
	struct device device;
	unsigned int round;
	uint64_t start;

	if (!find_device(lines, &device))
		return;
	section_begin(&section, rounds);
	for (round = 0; round < rounds; round++) {
		drive(&device, "unbind");
		start = operation_begin();
		drive(&device, "bind");
		operation_end(&section, start);
	}
	section_end(&section);
	if (counting)
		return;

	section_reserve(&talk, rounds);
	for (round = 0; round < rounds; round++) {
		uint64_t last;

		drive(&device, "unbind");
		trace_interrupts();
		start = now();
		drive(&device, "bind");
		trace_stop();
		last = trace_last_interrupt();
		if (last > start)
			section_sample(&talk, last - start);
	}
	section_print(&talk);
}

/* Memory that a bound device takes. */
static void memory(unsigned int lines)
{
	struct device device;

	if (!find_device(lines, &device))
		return;
	drive(&device, "unbind");
	trace_allocations(true);
	drive(&device, "bind");
	/* Until the uevents were received, and freed. */
	usleep(500000);
	trace_stop();
	printf("{\"workload\": \"memory\", \"lines\": %u, \"chip\": %u", lines, lines);
	trace_print_memory();
	printf("}\n");
	fflush(stdout);
}

/* Several tasks that each get a line of their own. */
static void tasks(unsigned int chip, unsigned int rounds)
{
	struct section section = { .name = "tasks", .lines = TASKS, .chip = chip };
	unsigned int task, running = TASKS, failed = 0;
	uint64_t *samples, deadline;
	struct gpiochip_info info;
	pid_t pids[TASKS];
	size_t i, size = TASKS * rounds * sizeof(*samples);
	int fd = open_chip(chip, &info);

	if (fd < 0)
		return;
	samples = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (samples == MAP_FAILED)
		die("cannot allocate the samples");
	section_begin(&section, TASKS * rounds);
	for (task = 0; task < TASKS; task++) {
		pids[task] = fork();
		if (!pids[task]) {
			struct operand on = { .lines = 1 };
			uint64_t start;

			/* If it never returns, its output must not keep the pipe open. */
			close(STDOUT_FILENO);
			close(STDERR_FILENO);
			on.fd = request(fd, task, 1, GPIO_V2_LINE_FLAG_INPUT);
			for (on.round = 0; on.round < rounds; on.round++) {
				start = now();
				get(&on);
				samples[task * rounds + on.round] = now() - start;
			}
			_exit(0);
		}
	}
	/* A driver that loses answers leaves tasks behind that cannot even be killed. */
	for (deadline = now() + TASKS_SECONDS * 1000000000ull; running && now() < deadline;) {
		int status;

		if (waitpid(-1, &status, WNOHANG) <= 0) {
			usleep(1000);
			continue;
		}
		running--;
		if (status)
			failed++;
	}
	section.failed = running + failed;
	for (i = 0; i < TASKS * rounds; i++)
		if (samples[i])
			section_sample(&section, samples[i]);
	section_end(&section);
	for (task = 0; running && task < TASKS; task++)
		kill(pids[task], SIGKILL);
	close(fd);
}

int main(int argc, char **argv)
{
	static const struct workload workloads[] = {
		{ "get", get, GPIO_V2_LINE_FLAG_INPUT, 1 },
		{ "set", set, GPIO_V2_LINE_FLAG_OUTPUT, 1 },
		{ "toggle", toggle, GPIO_V2_LINE_FLAG_OUTPUT, 1 },
		{ "output", direction_output, GPIO_V2_LINE_FLAG_OUTPUT, 2 },
		{ "request", request_release, 0, 4 },
	};
	static const unsigned int lines[] = { 1, 2, 4, 8, 16, 32, 64 };
	static const unsigned int chips[] = { 8, 64, 512, 1024, 65535 };
	unsigned int rounds, i, k;

	counting = argc == 3 && !strcmp(argv[1], "count");
	rounds = argc == 3 ? strtoul(argv[2], NULL, 0) : 0;
	if (!rounds || (!counting && strcmp(argv[1], "time"))) {
		fprintf(stderr, "usage: gpio-bench time|count OPERATIONS\n");
		return 2;
	}

	for (k = 0; k < ARRAY_SIZE(lines); k++)
		for (i = 0; i < ARRAY_SIZE(workloads); i++)
			measure(&workloads[i], 64, lines[k], rounds);
	loop(64, rounds / 4 + 20);
	rate(64, 1, rounds);
	rate(64, 64, rounds / 16 + 20);
	burst(64, 32, counting ? 20 : 60);
	if (!counting)
		scale(rounds);
	for (i = 0; i < ARRAY_SIZE(chips); i++) {
		if (chips[i] != 64)
			measure(&workloads[0], chips[i], 1, rounds / 4);
		if (chips[i] >= 64 && chips[i] <= 1024)
			probe(chips[i], 12);
		if (counting)
			memory(chips[i]);
	}
	/* The last, as the driver may not survive it. */
	tasks(64, rounds / 2);
	printf("{\"workload\": \"end\"}\n");
	return 0;
}
