// SPDX-License-Identifier: GPL-2.0
/*
 * A model of the virtio GPIO device for KUnit tests
 */

#include <linux/array_size.h>
#include <linux/delay.h>
#include <linux/glob.h>
#include <linux/jiffies.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/virtio_config.h>
#include <uapi/linux/virtio_ids.h>

#include <kunit/test.h>
#include <kunit/virtio.h>

#include "model.h"

#define REQUESTQ	0
#define EVENTQ		1

/* Number of events after which a driver is taken to be in a loop. */
#define MAX_EVENTS	4000

static const char * const direction_names[] = { "none", "out", "in" };

static const char *type_name(u32 type)
{
	static const char * const names[] = {
		"none", "rising", "falling", "both", "high", "?", "?", "?", "low",
	};

	return type < ARRAY_SIZE(names) ? names[type] : "?";
}

/* The log */

static __printf(2, 3) void note(struct gpio_model *g, const char *fmt, ...)
{
	va_list args;

	if (g->log_len == GPIO_MODEL_LOG_LINES)
		return;
	va_start(args, fmt);
	vscnprintf(g->log[g->log_len], GPIO_MODEL_LOG_LINE, fmt, args);
	va_end(args);
	/* Pairs with log_len(): the line is complete. */
	smp_store_release(&g->log_len, g->log_len + 1);
}

/* Lines up to this one can be read without a lock. */
static unsigned int log_len(struct gpio_model *g)
{
	/* Pairs with note(). */
	return smp_load_acquire(&g->log_len);
}

/* Reports a violation, which fails any test. */
static __printf(2, 3) void breach(struct gpio_model *g, const char *fmt, ...)
{
	va_list args;

	if (g->breaches++)
		return;
	va_start(args, fmt);
	vscnprintf(g->breach, sizeof(g->breach), fmt, args);
	va_end(args);
}

/* Faults */

static struct gpio_fault find_fault(struct gpio_model *g, u16 type, unsigned int line)
{
	if (g->mutate)
		return g->mutate(g, type, line);

	for (unsigned int i = 0; i < g->num_faults; i++) {
		struct gpio_fault *f = &g->faults[i], found = *f;

		if (f->type != type && (f->type != ANY_MESSAGE || type >= EVENT))
			continue;
		if (f->line != ANY_LINE && f->line != line)
			continue;
		if (f->count && !--f->count)
			*f = g->faults[--g->num_faults];
		return found;
	}

	return (struct gpio_fault){ };
}

/* Answers */

static struct gpio_model_answer *answer_of(struct kunit_virtio_buffer *buf)
{
	struct gpio_model *g = kunit_virtio_priv(buf->dev);

	return &g->answers[buf->queue][buf->head];
}

/* Returns a buffer with the chosen answer. */
static void send_answer(struct gpio_model *g, struct kunit_virtio_buffer *buf)
{
	struct gpio_model_answer *a = answer_of(buf);
	u8 response[2] = { a->status, a->value };

	if (!a->silent)
		kunit_virtio_write(buf, 0, response, sizeof(response));
	if (buf->queue == REQUESTQ) {
		g->in_flight--;
		note(g, "%s %s", a->status == VIRTIO_GPIO_STATUS_OK ? "ok" : "error",
		     a->text);
	} else {
		g->events++;
		note(g, "event %s", a->text);
	}
	kunit_virtio_complete_after(buf, a->used, (u64)a->delay_us * NSEC_PER_USEC);
}

static void give(struct gpio_model *g, struct kunit_virtio_buffer *buf,
		 const struct gpio_fault *f)
{
	struct gpio_model_answer *a = answer_of(buf);

	if (f->error)
		a->status = VIRTIO_GPIO_STATUS_ERR;
	if (f->with & WITH_STATUS)
		a->status = f->status;
	if (f->with & WITH_VALUE)
		a->value = f->value;
	if (f->with & WITH_USED)
		a->used = f->used;
	a->silent = f->silent;
	a->delay_us = f->delay_us;

	if (!g->rescued && (f->hold || f->drop))
		list_add_tail(&buf->list, &g->held);
	else
		send_answer(g, buf);
}

/* Events */

static void return_event(struct gpio_model *g, unsigned int n, u8 status)
{
	struct gpio_model_line *line = &g->lines[n];
	struct kunit_virtio_buffer *buf = line->event;
	struct gpio_model_answer *a = answer_of(buf);
	struct gpio_fault f = find_fault(g, EVENT, n);

	if (g->events >= g->max_events && !g->rescued)
		return;

	line->event = NULL;
	*a = (struct gpio_model_answer){ .status = status, .used = 1 };
	if (f.with & WITH_STATUS)
		status = f.status;
	scnprintf(a->text, sizeof(a->text), status > 1 ? "%u %#x" :
		  status ? "%u valid" : "%u invalid", n, status);
	give(g, buf, &f);
}

/* A level is not latched, but read when the line is unmasked. */
static bool is_active(const struct gpio_model_line *line)
{
	switch (line->type) {
	case VIRTIO_GPIO_IRQ_TYPE_LEVEL_HIGH:
		return line->level;
	case VIRTIO_GPIO_IRQ_TYPE_LEVEL_LOW:
		return !line->level;
	default:
		return line->latched;
	}
}

static void sense(struct gpio_model *g, unsigned int n)
{
	struct gpio_model_line *line = &g->lines[n];

	if (line->event && is_active(line)) {
		line->latched = false;
		return_event(g, n, VIRTIO_GPIO_IRQ_STATUS_VALID);
	}
}

static void event_available(struct gpio_model *g, struct kunit_virtio_buffer *buf)
{
	struct virtio_gpio_irq_request request = { };
	struct gpio_model_line *line;
	struct gpio_fault f;
	unsigned int n;

	kunit_virtio_read(buf, 0, &request, sizeof(request));
	n = le16_to_cpu(request.gpio);
	note(g, "arm %u", n);

	if (buf->out_len != sizeof(request) ||
	    buf->in_len != sizeof(struct virtio_gpio_irq_response))
		breach(g, "D8: event buffer of %zu and %zu bytes", buf->out_len,
		       buf->in_len);
	if (n >= g->config.ngpio) {
		breach(g, "D8: event buffer of line %u", n);
		return;
	}

	line = &g->lines[n];
	if (line->event) {
		if (!g->lied)
			breach(g, "D8: two event buffers of line %u", n);
		return;
	}
	line->event = buf;
	f = find_fault(g, ARM, n);

	if (g->rescued) {
		return;
	} else if (f.with & WITH_STATUS) {
		return_event(g, n, f.status);
	} else if (line->type == VIRTIO_GPIO_IRQ_TYPE_NONE) {
		/* In flight when the line was disabled, or a violation. */
		if (!line->was_enabled && !g->lied)
			breach(g, "D7: line %u is unmasked, but not enabled", n);
		return_event(g, n, VIRTIO_GPIO_IRQ_STATUS_INVALID);
	} else {
		sense(g, n);
	}
}

/* Messages */

static void disable_irq_of(struct gpio_model *g, unsigned int n)
{
	struct gpio_model_line *line = &g->lines[n];

	line->type = VIRTIO_GPIO_IRQ_TYPE_NONE;
	line->latched = false;
	if (line->event && (g->invalid != INVALID_HELD || g->rescued))
		return_event(g, n, VIRTIO_GPIO_IRQ_STATUS_INVALID);
}

static bool set_direction(struct gpio_model *g, unsigned int n, u32 direction)
{
	struct gpio_model_line *line = &g->lines[n];

	switch (direction) {
	case VIRTIO_GPIO_DIRECTION_NONE:
		disable_irq_of(g, n);
		line->value = 0;
		line->was_enabled = false;
		break;
	case VIRTIO_GPIO_DIRECTION_OUT:
		if (line->type != VIRTIO_GPIO_IRQ_TYPE_NONE && !g->lied)
			breach(g, "D4: line %u is an interrupt and made an output", n);
		break;
	case VIRTIO_GPIO_DIRECTION_IN:
		break;
	default:
		breach(g, "D1: direction %u", direction);
		return false;
	}

	line->direction = direction;
	return true;
}

static bool set_type(struct gpio_model *g, unsigned int n, u32 type)
{
	struct gpio_model_line *line = &g->lines[n];

	if (g->config.no_irq) {
		breach(g, "D3: message about an interrupt of line %u", n);
		return false;
	}

	switch (type) {
	case VIRTIO_GPIO_IRQ_TYPE_NONE:
		disable_irq_of(g, n);
		return true;
	case VIRTIO_GPIO_IRQ_TYPE_EDGE_RISING:
	case VIRTIO_GPIO_IRQ_TYPE_EDGE_FALLING:
	case VIRTIO_GPIO_IRQ_TYPE_EDGE_BOTH:
	case VIRTIO_GPIO_IRQ_TYPE_LEVEL_HIGH:
	case VIRTIO_GPIO_IRQ_TYPE_LEVEL_LOW:
		break;
	default:
		breach(g, "D1: interrupt type %u", type);
		return false;
	}

	if (line->direction == VIRTIO_GPIO_DIRECTION_OUT) {
		if (!g->lied)
			breach(g, "D4: interrupt type %u for output %u", type, n);
		return false;
	}
	if (line->type != VIRTIO_GPIO_IRQ_TYPE_NONE) {
		if (!g->lied)
			breach(g, "D6: line %u goes from %s to %s", n,
			       type_name(line->type), type_name(type));
		return false;
	}
	if (g->config.strict && line->direction != VIRTIO_GPIO_DIRECTION_IN)
		return false;

	line->type = type;
	line->was_enabled = true;
	return true;
}

static bool write_names(struct gpio_model *g, struct kunit_virtio_buffer *buf)
{
	struct gpio_model_answer *a = answer_of(buf);
	u32 size = le32_to_cpu(g->space.gpio_names_size);

	if (!size) {
		breach(g, "D10: GET_LINE_NAMES without names");
		return false;
	}
	if (buf->in_len != (size_t)size + 1)
		breach(g, "D10: %zu bytes for %u bytes of names", buf->in_len, size);

	/* The status is written with the rest of the answer. */
	if (g->config.names_size)
		a->value = g->config.names[0];
	kunit_virtio_write(buf, 1, g->config.names, g->config.names_size);
	a->used = 1 + size;
	return true;
}

/* The message as the log has it. */
static void describe(char *text, u16 type, unsigned int n, u32 value)
{
	switch (type) {
	case VIRTIO_GPIO_MSG_GET_NAMES:
		strscpy(text, "names", GPIO_MODEL_LOG_LINE);
		break;
	case VIRTIO_GPIO_MSG_GET_DIRECTION:
		scnprintf(text, GPIO_MODEL_LOG_LINE, "get-direction %u", n);
		break;
	case VIRTIO_GPIO_MSG_SET_DIRECTION:
		scnprintf(text, GPIO_MODEL_LOG_LINE, "direction %u %s", n,
			  value < ARRAY_SIZE(direction_names) ?
			  direction_names[value] : "?");
		break;
	case VIRTIO_GPIO_MSG_GET_VALUE:
		scnprintf(text, GPIO_MODEL_LOG_LINE, "get %u", n);
		break;
	case VIRTIO_GPIO_MSG_SET_VALUE:
		scnprintf(text, GPIO_MODEL_LOG_LINE, "set %u %u", n, value);
		break;
	case VIRTIO_GPIO_MSG_IRQ_TYPE:
		scnprintf(text, GPIO_MODEL_LOG_LINE, "type %u %s", n, type_name(value));
		break;
	default:
		scnprintf(text, GPIO_MODEL_LOG_LINE, "message %#x %u", type, n);
	}
}

static bool act(struct gpio_model *g, struct kunit_virtio_buffer *buf, u16 type,
		unsigned int n, u32 value)
{
	struct gpio_model_line *line = &g->lines[n];
	struct gpio_model_answer *a = answer_of(buf);

	switch (type) {
	case VIRTIO_GPIO_MSG_GET_NAMES:
		return write_names(g, buf);
	case VIRTIO_GPIO_MSG_GET_DIRECTION:
		a->value = line->direction;
		return true;
	case VIRTIO_GPIO_MSG_SET_DIRECTION:
		return set_direction(g, n, value);
	case VIRTIO_GPIO_MSG_GET_VALUE:
		a->value = line->direction == VIRTIO_GPIO_DIRECTION_OUT ? line->value :
									  line->level;
		return true;
	case VIRTIO_GPIO_MSG_SET_VALUE:
		if (value > 1) {
			breach(g, "D1: value %u", value);
			return false;
		}
		line->value = value;
		return true;
	case VIRTIO_GPIO_MSG_IRQ_TYPE:
		return set_type(g, n, value);
	default:
		breach(g, "D1: message of type %u", type);
		return false;
	}
}

static void message_available(struct gpio_model *g, struct kunit_virtio_buffer *buf)
{
	struct gpio_model_answer *a = answer_of(buf);
	struct virtio_gpio_request request = { };
	struct gpio_fault f;
	unsigned int n;
	bool ok = false;
	u16 type;

	kunit_virtio_read(buf, 0, &request, sizeof(request));
	type = le16_to_cpu(request.type);
	n = le16_to_cpu(request.gpio);

	g->messages++;
	g->max_in_flight = max(g->max_in_flight, ++g->in_flight);
	*a = (struct gpio_model_answer){ .used = 2 };
	describe(a->text, type, n, le32_to_cpu(request.value));
	note(g, "%s", a->text);

	if (buf->out_len != sizeof(request) ||
	    (type != VIRTIO_GPIO_MSG_GET_NAMES &&
	     buf->in_len != sizeof(struct virtio_gpio_response)))
		breach(g, "D1: %zu and %zu bytes for %s", buf->out_len, buf->in_len,
		       a->text);

	f = find_fault(g, type, n);
	if (n >= g->config.ngpio)
		breach(g, "D1: line %u", n);
	else if (f.drop && !g->rescued)
		ok = true;
	else if (!f.error)
		ok = act(g, buf, type, n, le32_to_cpu(request.value));

	if (!ok)
		a->status = VIRTIO_GPIO_STATUS_ERR;
	give(g, buf, &f);
}

/* Operations of struct kunit_virtio_ops */

static void gpio_model_available(struct kunit_virtio *dev,
				 struct kunit_virtio_buffer *buf)
{
	struct gpio_model *g = kunit_virtio_priv(dev);

	if (buf->queue == EVENTQ)
		event_available(g, buf);
	else
		message_available(g, buf);
}

static void gpio_model_reset(struct kunit_virtio *dev)
{
	struct gpio_model *g = kunit_virtio_priv(dev);

	note(g, "reset");
	INIT_LIST_HEAD(&g->held);
	g->in_flight = 0;
	for (unsigned int i = 0; i < g->config.ngpio; i++) {
		struct gpio_model_line *line = &g->lines[i];

		*line = (struct gpio_model_line){ .level = line->level };
	}
}

static void release_all(struct gpio_model *g, bool backwards)
{
	while (!list_empty(&g->held)) {
		struct kunit_virtio_buffer *buf = backwards ?
			list_last_entry(&g->held, struct kunit_virtio_buffer, list) :
			list_first_entry(&g->held, struct kunit_virtio_buffer, list);

		list_del_init(&buf->list);
		send_answer(g, buf);
	}
}

static void gpio_model_rescue(struct kunit_virtio *dev)
{
	struct gpio_model *g = kunit_virtio_priv(dev);

	g->rescued = true;
	g->num_faults = 0;
	g->mutate = NULL;
	release_all(g, false);
}

static const struct kunit_virtio_ops gpio_model_ops = {
	.available	= gpio_model_available,
	.reset		= gpio_model_reset,
	.rescue		= gpio_model_rescue,
};

/* Control by tests */

void gpio_model_fault(struct gpio_model *g, const struct gpio_fault *fault)
{
	unsigned long flags = kunit_virtio_lock(g->dev);
	bool room = g->num_faults < GPIO_MODEL_MAX_FAULTS;

	if (room)
		g->faults[g->num_faults++] = *fault;
	kunit_virtio_unlock(g->dev, flags);
	KUNIT_EXPECT_TRUE(g->test, room);
}

/* Ends all faults. Held messages stay held. */
void gpio_model_heal(struct gpio_model *g)
{
	unsigned long flags = kunit_virtio_lock(g->dev);

	g->num_faults = 0;
	kunit_virtio_unlock(g->dev, flags);
}

unsigned int gpio_model_held(struct gpio_model *g)
{
	unsigned long flags = kunit_virtio_lock(g->dev);
	unsigned int count = list_count_nodes(&g->held);

	kunit_virtio_unlock(g->dev, flags);
	return count;
}

/* Answers all held messages together. */
void gpio_model_release(struct gpio_model *g, bool backwards)
{
	unsigned long flags = kunit_virtio_lock(g->dev);

	release_all(g, backwards);
	kunit_virtio_unlock(g->dev, flags);
}

/* Answers one of the held messages: number @nth modulo their count. */
void gpio_model_release_one(struct gpio_model *g, unsigned int nth)
{
	unsigned long flags = kunit_virtio_lock(g->dev);
	unsigned int held = list_count_nodes(&g->held);
	struct kunit_virtio_buffer *buf;

	if (held) {
		nth %= held;
		list_for_each_entry(buf, &g->held, list) {
			if (!nth--)
				break;
		}
		list_del_init(&buf->list);
		send_answer(g, buf);
	}
	kunit_virtio_unlock(g->dev, flags);
}

/* Changes the level of a line from outside. */
void gpio_model_level(struct gpio_model *g, unsigned int n, bool level)
{
	unsigned long flags = kunit_virtio_lock(g->dev);
	struct gpio_model_line *line = &g->lines[n];
	u8 edge = level ? VIRTIO_GPIO_IRQ_TYPE_EDGE_RISING :
			  VIRTIO_GPIO_IRQ_TYPE_EDGE_FALLING;

	if (line->level != level && line->type <= VIRTIO_GPIO_IRQ_TYPE_EDGE_BOTH &&
	    (line->type & edge))
		line->latched = true;
	line->level = level;
	sense(g, n);
	kunit_virtio_unlock(g->dev, flags);
}

/* One rising edge, after a falling one if the level is high already. */
void gpio_model_rise(struct gpio_model *g, unsigned int n)
{
	gpio_model_level(g, n, false);
	gpio_model_level(g, n, true);
}

/* Returns the buffer that INVALID_HELD has kept back. */
void gpio_model_return_invalid(struct gpio_model *g, unsigned int n)
{
	unsigned long flags = kunit_virtio_lock(g->dev);

	if (g->lines[n].event)
		return_event(g, n, VIRTIO_GPIO_IRQ_STATUS_INVALID);
	kunit_virtio_unlock(g->dev, flags);
}

struct gpio_model_line gpio_model_line(struct gpio_model *g, unsigned int n)
{
	unsigned long flags = kunit_virtio_lock(g->dev);
	struct gpio_model_line line = g->lines[n];

	kunit_virtio_unlock(g->dev, flags);
	return line;
}

/* Queries of the log */

/* Ignores all earlier lines. */
void gpio_model_mark(struct gpio_model *g)
{
	g->mark = log_len(g);
}

unsigned int gpio_model_count(struct gpio_model *g, const char *pattern)
{
	unsigned int len = log_len(g);
	unsigned int count = 0;

	for (unsigned int i = g->mark; i < len; i++)
		count += glob_match(pattern, g->log[i]);
	return count;
}

/* Waits until as many lines of the log match, also where processors are busy. */
bool gpio_model_wait(struct gpio_model *g, const char *pattern, unsigned int count)
{
	unsigned long end = jiffies + 10 * HZ;

	while (gpio_model_count(g, pattern) < count) {
		if (time_after(jiffies, end))
			return false;
		fsleep(200);
	}
	return true;
}

/* Returns the first pattern that does not match in order. */
const char *gpio_model_in_order(struct gpio_model *g, const char * const *patterns)
{
	unsigned int len = log_len(g);

	for (unsigned int i = g->mark; i < len && *patterns; i++)
		patterns += glob_match(*patterns, g->log[i]);
	return *patterns;
}

void gpio_model_dump(struct gpio_model *g)
{
	unsigned int len = log_len(g);
	unsigned int from = max_t(int, g->mark, (int)len - 60);

	for (unsigned int i = from; i < len; i++)
		kunit_info(g->test, "%4u %s\n", i, g->log[i]);
}

void gpio_model_check(struct gpio_model *g)
{
	if (g->breaches)
		KUNIT_FAIL(g->test, "device: %s (%u breaches)", g->breach, g->breaches);
	if (g->events >= g->max_events)
		KUNIT_FAIL(g->test, "the driver has sent %u event buffers back", g->events);
}

/* Number of violations, if the first was of that requirement. */
unsigned int gpio_model_breaches(struct gpio_model *g, const char *requirement)
{
	return strstarts(g->breach, requirement) ? g->breaches : 0;
}

void gpio_model_forgive(struct gpio_model *g)
{
	g->breaches = 0;
}

/* Returns %NULL when there is not enough memory. Freed with the test. */
static bool bounce;
module_param(bounce, bool, 0444);
MODULE_PARM_DESC(bounce, "Let memory reach each device through bounce buffers");

struct gpio_model *gpio_model_create(struct kunit *test,
				     const struct gpio_model_config *config)
{
	struct gpio_model *g = kunit_kzalloc(test, sizeof(*g), GFP_KERNEL);
	struct kunit_virtio_queue_config queues[2];
	struct kunit_virtio_config virtio = { };

	if (!g)
		return NULL;

	g->test = test;
	g->config = *config;
	g->max_events = MAX_EVENTS;
	INIT_LIST_HEAD(&g->held);
	if (!g->config.ngpio)
		g->config.ngpio = 8;

	queues[REQUESTQ] = (struct kunit_virtio_queue_config){
		.size	= config->request_ring ?: 64,
		.out	= sizeof(struct virtio_gpio_request),
		.in	= sizeof(struct virtio_gpio_response),
	};
	queues[EVENTQ] = (struct kunit_virtio_queue_config){
		.size	= config->event_ring ?: 64,
		.out	= sizeof(struct virtio_gpio_irq_request),
		.in	= sizeof(struct virtio_gpio_irq_response),
	};

	g->lines = kunit_kcalloc(test, g->config.ngpio, sizeof(*g->lines), GFP_KERNEL);
	g->log = kunit_kcalloc(test, GPIO_MODEL_LOG_LINES, sizeof(*g->log), GFP_KERNEL);
	if (!g->lines || !g->log)
		return NULL;
	for (unsigned int i = 0; i < ARRAY_SIZE(queues); i++) {
		g->answers[i] = kunit_kcalloc(test, queues[i].size,
					      sizeof(*g->answers[i]), GFP_KERNEL);
		if (!g->answers[i])
			return NULL;
	}

	g->space.ngpio = cpu_to_le16(g->config.ngpio);
	g->space.gpio_names_size = cpu_to_le32(config->claim_size ?: config->names_size);

	virtio.id = config->id ?: VIRTIO_ID_GPIO;
	virtio.features = config->ring_features;
	if (!config->no_irq)
		virtio.features |= BIT_ULL(VIRTIO_GPIO_F_IRQ);
	virtio.config = &g->space;
	virtio.config_len = sizeof(g->space);
	virtio.queues = queues;
	virtio.num_queues = config->no_irq ? 1 : 2;
	virtio.ops = &gpio_model_ops;
	virtio.priv = g;
	g->dev = kunit_virtio_alloc(test, &virtio);
	if (!g->dev || (bounce && kunit_virtio_bounce(g->dev)))
		return NULL;
	return g;
}
