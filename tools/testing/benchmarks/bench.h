/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the parts of gpio-bench share.
 */

#ifndef GPIO_BENCH_H
#define GPIO_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof(*(array)))

/* The counting pass: allocations are traced, so times mean nothing. */
extern bool counting;

void die(const char *what);
uint64_t now(void);

/* host.c */
void host(const char *format, ...) __attribute__((format(printf, 1, 2)));
void write_file(const char *path, const char *text);

/* trace.c */
void trace_allocations(bool frees);
void trace_interrupts(void);
void trace_stop(void);
void trace_print_allocations(void);
void trace_print_memory(void);
uint64_t trace_last_interrupt(void);

/* section.c */

/*
 * A stretch of operations that is measured, from section_begin() to section_end(), which
 * prints a JSON object about it. Whatever there is to set up comes before, and to tear down
 * after.
 */
struct section {
	const char *name;
	/* Lines that one operation is about, and of the chip. */
	unsigned int lines, chip;
	/* Nanoseconds of each operation. */
	uint64_t *samples;
	size_t count, room;
	/* Edges that were made and that did not arrive. */
	uint64_t lost;
	/* Tasks that failed or never came back. */
	unsigned int failed;
	/* Operations whose instructions can be counted. */
	unsigned int marked;
	/* Counters at the beginning. */
	uint64_t start, switches, interrupts;
};

void section_begin(struct section *section, size_t room);
/* An operation of which both the time and the instructions count. */
uint64_t operation_begin(void);
void operation_end(struct section *section, uint64_t start);
/* One of which only the time does. */
void section_sample(struct section *section, uint64_t ns);
void section_end(struct section *section);
/* The same without counters: they are those of another section, or of several. */
void section_reserve(struct section *section, size_t room);
void section_print(struct section *section);

#endif
