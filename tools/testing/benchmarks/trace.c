// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the kernel's trace events tell: allocations, and when interrupts came.
 */

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

#define TRACING "/sys/kernel/tracing/"

static void enable(const char *event, bool on)
{
	char path[256];

	snprintf(path, sizeof(path), TRACING "events/%s/enable", event);
	write_file(path, on ? "1" : "0");
}

/* Kept open, as to open it is an allocation of its own. */
static int tracing_on = -1;

static void turn(const char *on)
{
	if (write(tracing_on, on, 1) != 1)
		die("tracing_on");
}

static void start(void)
{
	if (tracing_on < 0) {
		tracing_on = open(TRACING "tracing_on", O_WRONLY | O_CLOEXEC);
		if (tracing_on < 0)
			die("tracing_on");
		write_file(TRACING "trace_clock", "mono");
		write_file(TRACING "trace_options", "nohash-ptr");
	}
	write_file(TRACING "trace", "");
	turn("1");
}

void trace_allocations(bool frees)
{
	/* As much as a probe of the largest chip needs. */
	write_file(TRACING "buffer_size_kb", frees ? "49152" : "8192");
	enable("kmem/kmalloc", true);
	enable("kmem/kmem_cache_alloc", true);
	enable("kmem/kfree", frees);
	enable("kmem/kmem_cache_free", frees);
	start();
}

void trace_interrupts(void)
{
	enable("irq/irq_handler_entry", true);
	start();
}

void trace_stop(void)
{
	turn("0");
	enable("kmem", false);
	enable("irq", false);
}

/* Calls `each` for all events; all must have found room. */
static void read_trace(void (*each)(const char *line, void *data), void *data)
{
	FILE *file = fopen(TRACING "trace", "r");
	char line[1024];
	unsigned long kept, written;

	if (!file)
		die("cannot read the trace");
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "# entries-in-buffer/entries-written: %lu/%lu", &kept,
			   &written) == 2) {
			if (kept != written)
				die("the trace has lost events");
		} else if (*line != '#') {
			each(line, data);
		}
	}
	fclose(file);
}

/*
 * Whether an event happened on our behalf: in this program, in the threads of its
 * interrupts, or in an interrupt that found the processor idle.
 */
static bool is_ours(const char *line)
{
	while (*line == ' ')
		line++;
	return !strncmp(line, "gpio-bench", 10) || !strncmp(line, "<idle>", 6) ||
	       !strncmp(line, "irq/", 4);
}

struct site {
	char name[64];
	unsigned long sum;
};

struct sites {
	struct site list[64];
	unsigned long total;
};

/* The function that an event was in. */
static bool site_of(const char *line, char name[64])
{
	const char *at = strstr(line, "call_site=");

	return at && sscanf(at, "call_site=%63[^+ ]", name) == 1;
}

static void add_to_site(struct sites *sites, const char *name, unsigned long value)
{
	size_t i;

	sites->total += value;
	for (i = 0; i < ARRAY_SIZE(sites->list); i++) {
		struct site *site = &sites->list[i];

		if (!*site->name)
			strcpy(site->name, name);
		if (!strcmp(site->name, name)) {
			site->sum += value;
			return;
		}
	}
}

static void print_sites(const char *name, const struct sites *sites)
{
	size_t i;

	printf(", \"%s\": %lu, \"sites\": {", name, sites->total);
	for (i = 0; i < ARRAY_SIZE(sites->list) && *sites->list[i].name; i++)
		printf("%s\"%s\": %lu", i ? ", " : "", sites->list[i].name, sites->list[i].sum);
	printf("}");
}

static void count_site(const char *line, void *data)
{
	char name[64];

	if (is_ours(line) && site_of(line, name))
		add_to_site(data, name, 1);
}

/* Prints how many allocations there were, and which functions made them. */
void trace_print_allocations(void)
{
	struct sites sites = { 0 };

	read_trace(count_site, &sites);
	print_sites("allocations", &sites);
}

/* An allocation, or with negative size the end of one. */
struct block {
	uint64_t address;
	size_t order;
	long size;
	char site[64];
};

struct blocks {
	struct block *list;
	size_t count, room;
};

static void collect_block(const char *line, void *data)
{
	const char *size = strstr(line, "bytes_alloc="), *address = strstr(line, "ptr=");
	struct blocks *blocks = data;
	struct block *block;

	/* What we allocate may be freed by others. */
	if (!address || (size && !is_ours(line)))
		return;
	if (blocks->count == blocks->room) {
		blocks->room = blocks->room ? 2 * blocks->room : 1024;
		blocks->list = realloc(blocks->list, blocks->room * sizeof(*blocks->list));
		if (!blocks->list)
			die("cannot allocate the blocks");
	}
	block = &blocks->list[blocks->count];
	if (!site_of(line, block->site))
		return;
	block->address = strtoull(strchr(address, '=') + 1, NULL, 16);
	block->order = blocks->count++;
	block->size = size ? atol(strchr(size, '=') + 1) : -1;
}

static int compare(const void *a, const void *b)
{
	const struct block *x = a, *y = b;

	if (x->address != y->address)
		return x->address < y->address ? -1 : 1;
	return x->order < y->order ? -1 : 1;
}

/*
 * Nodes of the tree in which kernfs keeps its numbers: one holds 64 of them, so whether an
 * operation needs another depends on those before it.
 */
static bool is_node(const struct block *block)
{
	return !strcmp(block->site, "radix_tree_node_alloc") || !strcmp(block->site, "idr_get_free");
}

/*
 * Prints how much of what was allocated while the trace was on is still allocated at its
 * end, and which functions did that.
 */
void trace_print_memory(void)
{
	struct blocks blocks = { 0 };
	struct sites sites = { 0 };
	size_t i;

	read_trace(collect_block, &blocks);
	qsort(blocks.list, blocks.count, sizeof(*blocks.list), compare);
	for (i = 0; i < blocks.count; i++) {
		const struct block *block = &blocks.list[i];
		bool last = i + 1 == blocks.count || block->address != block[1].address;

		if (last && block->size > 0 && !is_node(block))
			add_to_site(&sites, block->site, block->size);
	}
	free(blocks.list);
	print_sites("bytes", &sites);
}

static void note_interrupt(const char *line, void *data)
{
	const char *at = strstr(line, ": irq_handler_entry:");
	uint64_t *last = data;

	if (!at || !strstr(at, "name=virtio"))
		return;
	while (at > line && at[-1] != ' ')
		at--;
	*last = (uint64_t)(strtod(at, NULL) * 1e9);
}

/* When the last interrupt of a virtio device came; 0 if none did. */
uint64_t trace_last_interrupt(void)
{
	uint64_t last = 0;

	read_trace(note_interrupt, &last);
	return last;
}
