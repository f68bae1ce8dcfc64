// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is measured of a stretch of operations, and how it is printed.
 */

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "bench.h"

/* How often this program and its children gave up the processor to wait. */
static uint64_t switches_so_far(void)
{
	struct rusage self, children;

	if (getrusage(RUSAGE_SELF, &self) || getrusage(RUSAGE_CHILDREN, &children))
		die("getrusage");
	return self.ru_nvcsw + children.ru_nvcsw;
}

/* Interrupts of all virtio devices, not those of their lines, on all processors. */
static uint64_t interrupts_so_far(void)
{
	FILE *file = fopen("/proc/interrupts", "r");
	char line[1024];
	uint64_t sum = 0;

	if (!file)
		die("/proc/interrupts");
	while (fgets(line, sizeof(line), file)) {
		char *at = strchr(line, ':'), *end;

		if (!at || !strstr(line, "virtio") || strstr(line, "gpio-bench"))
			continue;
		for (at++;; at = end) {
			unsigned long long value = strtoull(at, &end, 10);

			if (end == at)
				break;
			sum += value;
		}
	}
	fclose(file);
	return sum;
}

/* The device's counters, a JSON object. */
static void print_counters(const char *name, unsigned int chip)
{
	printf(",\n\"%s\": ", name);
	host("vgpio stats --json --device lines%u", chip);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* All percentiles, from the least to the greatest. */
static void print_samples(struct section *section)
{
	size_t last = section->count - 1, i;

	printf(", \"operations\": %zu, \"ns\": [", section->count);
	qsort(section->samples, section->count, sizeof(*section->samples), compare);
	for (i = 0; section->count && i <= 100; i++)
		printf("%s%llu", i ? "," : "",
		       (unsigned long long)section->samples[(last * i + 50) / 100]);
	printf("]");
	free(section->samples);
	section->samples = NULL;
}

static void print_head(struct section *section)
{
	printf("{\"workload\": \"%s\", \"lines\": %u, \"chip\": %u", section->name, section->lines,
	       section->chip);
}

void section_reserve(struct section *section, size_t room)
{
	section->samples = calloc(room, sizeof(*section->samples));
	if (!section->samples)
		die("cannot allocate the samples");
	section->room = room;
	section->count = 0;
}

void section_begin(struct section *section, size_t room)
{
	section_reserve(section, room);
	print_head(section);
	print_counters("before", section->chip);
	section->switches = switches_so_far();
	section->interrupts = interrupts_so_far();
	if (counting)
		trace_allocations(false);
	section->start = now();
}

/* Has the emulator's plugin note how many instructions there were so far. */
static void mark(void)
{
#ifdef __x86_64__
	/* nopl 0x47504942(%rax,%rax,1) */
	__asm__ volatile(".byte 0x0f, 0x1f, 0x84, 0x00, 0x42, 0x49, 0x50, 0x47");
#endif
}

uint64_t operation_begin(void)
{
	mark();
	return now();
}

void operation_end(struct section *section, uint64_t start)
{
	section_sample(section, now() - start);
	mark();
	section->marked++;
}

void section_sample(struct section *section, uint64_t ns)
{
	if (section->count < section->room)
		section->samples[section->count++] = ns;
}

void section_end(struct section *section)
{
	uint64_t elapsed = now() - section->start, interrupts, switches;

	if (counting)
		trace_stop();
	interrupts = interrupts_so_far() - section->interrupts;
	switches = switches_so_far() - section->switches;
	print_counters("after", section->chip);
	printf(", \"elapsed\": %llu, \"interrupts\": %llu, \"switches\": %llu",
	       (unsigned long long)elapsed, (unsigned long long)interrupts,
	       (unsigned long long)switches);
	printf(", \"lost\": %llu, \"failed\": %u, \"marked\": %u",
	       (unsigned long long)section->lost, section->failed, section->marked);
	if (counting)
		trace_print_allocations();
	print_samples(section);
	printf("}\n");
	fflush(stdout);
}

void section_print(struct section *section)
{
	print_head(section);
	print_samples(section);
	printf("}\n");
	fflush(stdout);
}
