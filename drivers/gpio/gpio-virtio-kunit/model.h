/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A virtio GPIO device for KUnit tests
 *
 * The model follows the device's half of the specification to the letter
 * unless a fault tells it otherwise. All that happens goes into a log of short
 * lines, in the order in which the device has seen or done it:
 *
 *	names				GET_LINE_NAMES
 *	get-direction 3			GET_DIRECTION
 *	direction 3 none|out|in		SET_DIRECTION
 *	get 3				GET_VALUE
 *	set 3 1				SET_VALUE
 *	type 3 none|rising|falling|both|high|low	SET_IRQ_TYPE
 *	ok get 3, error get 3		the answer to "get 3"
 *	arm 3				an event buffer has arrived
 *	event 3 valid|invalid|...	and was returned
 *	reset				the device was reset
 */
#ifndef _GPIO_VIRTIO_MODEL_H
#define _GPIO_VIRTIO_MODEL_H

#include <linux/types.h>
#include <uapi/linux/virtio_gpio.h>

struct kunit;
struct kunit_virtio;
struct kunit_virtio_buffer;

#define GPIO_MODEL_LOG_LINE	32
#define GPIO_MODEL_LOG_LINES	8192
#define GPIO_MODEL_MAX_FAULTS	8

/* In place of a line's number: all of them. */
#define ANY_LINE	(-1)

/* In place of a message's type. */
#define ANY_MESSAGE	0
#define EVENT		0x100
#define ARM		0x101

/**
 * struct gpio_fault - what the device does wrong
 * @type: messages of which type it affects, ANY_MESSAGE, EVENT for the
 *	return of event buffers, or ARM for their arrival: with a status they
 *	return at once
 * @line: of which line, or ANY_LINE
 * @count: how many of them, 0 for all
 * @drop: the message is neither acted on nor answered, as if the device were
 *	dead; gpio_model_release() answers it
 * @hold: the message is acted on, but not answered before
 *	gpio_model_release()
 * @error: the message is refused
 * @silent: nothing is written into the buffer
 * @delay_us: how much later the answer comes
 * @with: which of the following the answer has
 * @status: its status
 * @value: its value
 * @used: its used length
 */
struct gpio_fault {
	u16 type;
	int line;
	unsigned int count;
	bool drop;
	bool hold;
	bool error;
	bool silent;
	unsigned int delay_us;
#define WITH_STATUS	BIT(0)
#define WITH_VALUE	BIT(1)
#define WITH_USED	BIT(2)
	unsigned int with;
	u8 status;
	u8 value;
	u32 used;
};

/**
 * enum gpio_model_invalid - when the buffer of a line that is disabled returns
 * @INVALID_AFTER: after the answer to the message that disables it
 * @INVALID_BEFORE: before that answer
 * @INVALID_HELD: on gpio_model_return_invalid()
 */
enum gpio_model_invalid {
	INVALID_AFTER,
	INVALID_BEFORE,
	INVALID_HELD,
};

/* A line as the device has it. */
struct gpio_model_line {
	u8 direction;
	/* What the driver has set, and what is outside. */
	u8 value;
	u8 level;
	u8 type;
	bool latched;
	/* It was enabled since the driver last let go of it. */
	bool was_enabled;
	struct kunit_virtio_buffer *event;
};

/* The answer that a buffer will get. */
struct gpio_model_answer {
	u8 status;
	u8 value;
	u32 used;
	bool silent;
	unsigned int delay_us;
	char text[GPIO_MODEL_LOG_LINE];
};

/**
 * struct gpio_model_config - what the device is
 * @ngpio: number of lines, 8 if zero
 * @names: the block of names
 * @names_size: its size
 * @claim_size: a size of the block to claim in place of the real one
 * @no_irq: VIRTIO_GPIO_F_IRQ is not offered
 * @request_ring: size of the requestq, 64 if zero
 * @event_ring: size of the eventq, 64 if zero
 * @ring_features: transport features to offer
 * @strict: interrupts of lines that are no inputs are refused
 * @id: device ID in place of that of GPIO devices
 */
struct gpio_model_config {
	u16 ngpio;
	const char *names;
	u32 names_size;
	u32 claim_size;
	bool no_irq;
	unsigned int request_ring;
	unsigned int event_ring;
	u64 ring_features;
	bool strict;
	u32 id;
};

/**
 * struct gpio_model - the device
 * @test: the test that it is for
 * @dev: its virtio half
 * @config: what it is
 * @space: its configuration space
 * @lines: its lines
 * @invalid: when buffers return that were not used
 * @messages: number of messages it has got
 * @in_flight: number of them that are not answered
 * @max_in_flight: the most of them at a time
 * @events: number of event buffers it has returned
 * @max_events: no more of them: the driver goes round in circles
 * @mutate: decides on the fault of each message, EVENT and ARM in place of
 *	those that were added; it holds the lock of the device
 * @priv: for @mutate
 * @lied: the driver cannot know the state of the lines, because the device has
 *	not always told the truth
 */
struct gpio_model {
	struct kunit *test;
	struct kunit_virtio *dev;
	struct gpio_model_config config;
	struct virtio_gpio_config space;
	struct gpio_model_line *lines;
	enum gpio_model_invalid invalid;

	unsigned int messages;
	unsigned int in_flight;
	unsigned int max_in_flight;
	unsigned int events;
	unsigned int max_events;
	struct gpio_fault (*mutate)(struct gpio_model *g, u16 type, unsigned int line);
	void *priv;
	bool lied;

	/* private: */
	struct gpio_fault faults[GPIO_MODEL_MAX_FAULTS];
	unsigned int num_faults;
	struct gpio_model_answer *answers[2];
	struct list_head held;
	bool rescued;
	char (*log)[GPIO_MODEL_LOG_LINE];
	unsigned int log_len;
	unsigned int mark;
	unsigned int breaches;
	char breach[80];
};

struct gpio_model *gpio_model_create(struct kunit *test,
				     const struct gpio_model_config *config);

void gpio_model_fault(struct gpio_model *g, const struct gpio_fault *fault);
void gpio_model_heal(struct gpio_model *g);
unsigned int gpio_model_held(struct gpio_model *g);
void gpio_model_release(struct gpio_model *g, bool backwards);
void gpio_model_release_one(struct gpio_model *g, unsigned int nth);
void gpio_model_level(struct gpio_model *g, unsigned int line, bool level);
void gpio_model_rise(struct gpio_model *g, unsigned int line);
void gpio_model_return_invalid(struct gpio_model *g, unsigned int line);
struct gpio_model_line gpio_model_line(struct gpio_model *g, unsigned int line);

void gpio_model_mark(struct gpio_model *g);
unsigned int gpio_model_count(struct gpio_model *g, const char *pattern);
bool gpio_model_wait(struct gpio_model *g, const char *pattern, unsigned int count);
const char *gpio_model_in_order(struct gpio_model *g, const char * const *patterns);
void gpio_model_dump(struct gpio_model *g);

/* Fails the test for what the driver did wrong by itself. */
void gpio_model_check(struct gpio_model *g);
unsigned int gpio_model_breaches(struct gpio_model *g, const char *requirement);
void gpio_model_forgive(struct gpio_model *g);

#endif /* _GPIO_VIRTIO_MODEL_H */
