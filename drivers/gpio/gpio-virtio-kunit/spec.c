// SPDX-License-Identifier: GPL-2.0
/*
 * Requirements of the virtio GPIO specification on a driver
 *
 * Each name begins with the number of the requirement:
 *
 *	D1	a message is a pair of a readable request and a writable response
 *	D2	messages may be sent in parallel
 *	D3	no interrupts without VIRTIO_GPIO_F_IRQ
 *	D4	no interrupts of outputs
 *	D5	type NONE when an interrupt is freed
 *	D6	type NONE before another type
 *	D7	a line is enabled before it is unmasked
 *	D8	one buffer per line in the eventq
 *	D9	SET_VALUE before SET_DIRECTION out
 *	D10	names are read if there are any, into a buffer of their size
 *	D11	direction NONE when a line is released
 *	D12	the rules of the virtio core
 *
 * The model reports violations of most of them itself; the tests make the driver
 * run the code that could violate them.
 */

#include <linux/delay.h>
#include <linux/irq.h>
#include <linux/virtio_config.h>

#include "../gpiolib.h"
#include "fixture.h"
#include "shuffle.h"

static const char names[] = "clock\0\0data\0a b\0\0\0\0last";

static void d1_each_message_is_a_pair(struct kunit *test)
{
	struct fixture *f = plug_with(test, .names = names, .names_size = sizeof(names));
	struct gpio_desc *desc = line_get(f, 3, GPIOD_IN);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, desc);
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), 0);
	KUNIT_EXPECT_EQ(test, gpiod_direction_output(desc, 1), 0);
	KUNIT_EXPECT_EQ(test, gpiod_set_value_cansleep(desc, 0), 0);
	EXPECT_LOG(f, "ok names", "ok direction 3 in", "ok get 3", "ok set 3 1",
		   "ok direction 3 out", "ok set 3 0");
}

static void d1_values_go_both_ways(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *in = line_get(f, 0, GPIOD_IN);
	struct gpio_desc *out = line_get(f, 7, GPIOD_OUT_LOW);

	for (int value = 1; value >= 0; value--) {
		gpio_model_level(f->g, 0, value);
		KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(in), value);
		KUNIT_EXPECT_EQ(test, gpiod_set_value_cansleep(out, value), 0);
		KUNIT_EXPECT_EQ(test, gpio_model_line(f->g, 7).value, value);
	}
}

static void d1_directions_go_both_ways(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 2, GPIOD_IN);

	KUNIT_EXPECT_EQ(test, gpio_model_line(f->g, 2).direction, VIRTIO_GPIO_DIRECTION_IN);
	KUNIT_EXPECT_EQ(test, gpiod_get_direction(desc), GPIO_LINE_DIRECTION_IN);
	KUNIT_EXPECT_EQ(test, gpiod_direction_output(desc, 0), 0);
	KUNIT_EXPECT_EQ(test, gpio_model_line(f->g, 2).direction, VIRTIO_GPIO_DIRECTION_OUT);
	KUNIT_EXPECT_EQ(test, gpiod_get_direction(desc), GPIO_LINE_DIRECTION_OUT);
	KUNIT_EXPECT_EQ(test, gpiod_direction_input(desc), 0);
	KUNIT_EXPECT_EQ(test, gpio_model_line(f->g, 2).direction, VIRTIO_GPIO_DIRECTION_IN);
}

static void d1_directions_are_those_of_the_device(struct kunit *test)
{
	struct fixture *f = prepare(test, .ngpio = 8);

	fault(f, .type = VIRTIO_GPIO_MSG_GET_DIRECTION, .line = 3,
	      .with = WITH_VALUE, .value = VIRTIO_GPIO_DIRECTION_OUT);
	plug_prepared(f);
	for (int i = 0; i < 8; i++)
		KUNIT_EXPECT_EQ(test, i == 3, gpiod_get_direction(line_desc(f, i)) ==
					      GPIO_LINE_DIRECTION_OUT);
}

static void d1_operations_may_sleep(struct kunit *test)
{
	struct fixture *f = plug(test);

	KUNIT_EXPECT_TRUE(test, gpiod_cansleep(line_get(f, 0, GPIOD_IN)));
}

static int get_value(struct job *job)
{
	return gpiod_get_value_cansleep(job->arg);
}

static void d2_answers_for_other_lines_may_overtake(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct job *jobs[4];

	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = ANY_LINE, .hold = true);
	for (int i = 0; i < 4; i++) {
		gpio_model_level(f->g, i, i & 1);
		jobs[i] = job_start(f, get_value, line_get(f, i, GPIOD_IN));
	}
	for (int i = 0; i < 4; i++)
		assert_soon(f, 1, ((const char *[]){ "get 0", "get 1", "get 2", "get 3" })[i]);
	gpio_model_release(f->g, true);
	for (int i = 0; i < 4; i++) {
		KUNIT_EXPECT_TRUE(test, job_wait(jobs[i], 2 * driver_patience()));
		KUNIT_EXPECT_EQ(test, jobs[i]->ret, i & 1);
	}
}

static void d3_no_interrupts_without_the_feature(struct kunit *test)
{
	struct fixture *f = plug_with(test, .no_irq = true);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	KUNIT_EXPECT_LT(test, gpiod_to_irq(desc), 0);
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), 0);
	expect_count(f, 0, "type *");
}

static void d4_no_interrupt_of_an_output(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user;

	line_get(f, 0, GPIOD_OUT_LOW);
	user = irq_user(f, 0);
	KUNIT_EXPECT_LT(test, irq_request(user, IRQF_TRIGGER_RISING), 0);
	expect_count(f, 0, "type 0 rising");
	expect_count(f, 0, "arm 0");
}

static void d4_no_output_while_it_is_an_interrupt(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	irq_get(f, 0, IRQF_TRIGGER_RISING);
	KUNIT_EXPECT_LT(test, gpiod_direction_output(desc, 1), 0);
	expect_count(f, 0, "direction 0 out");
}

/* gpiolib emulates the open drain: the device sees an input or a low output. */
static void d4_open_drain_is_an_output_or_an_interrupt(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_OUT_LOW_OPEN_DRAIN);
	struct irq_user *user = irq_user(f, 0);

	KUNIT_EXPECT_EQ(test, irq_request(user, IRQF_TRIGGER_RISING), -EBUSY);
	KUNIT_EXPECT_EQ(test, gpio_model_line(f->g, 0).direction, VIRTIO_GPIO_DIRECTION_OUT);
	KUNIT_EXPECT_EQ(test, gpiod_set_value_cansleep(desc, 1), 0);
	KUNIT_EXPECT_EQ(test, irq_request(user, IRQF_TRIGGER_RISING), 0);
	KUNIT_EXPECT_EQ(test, gpiod_set_value_cansleep(desc, 0), -EBUSY);
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
	irq_put(user);
	KUNIT_EXPECT_EQ(test, gpiod_set_value_cansleep(desc, 0), 0);
}

static void d5_type_none_when_the_interrupt_is_freed(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	expect_count(f, 1, "type 0 rising");
	gpio_model_mark(f->g);
	irq_put(user);
	assert_soon(f, 1, "type 0 none");
	KUNIT_EXPECT_EQ(test, gpio_model_line(f->g, 0).type, VIRTIO_GPIO_IRQ_TYPE_NONE);
	KUNIT_EXPECT_EQ(test, kunit_virtio_busy(f->g->dev, EVENTQ), 0);
}

static void d6_none_before_another_type(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	KUNIT_EXPECT_EQ(test, irq_set_irq_type(user->irq, IRQ_TYPE_EDGE_FALLING), 0);
	assert_soon(f, 1, "ok type 0 falling");
	EXPECT_LOG(f, "type 0 rising", "type 0 none", "type 0 falling");
}

static void d6_new_type_is_in_force(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	irq_set_irq_type(user->irq, IRQ_TYPE_EDGE_FALLING);
	assert_soon(f, 2, "arm 0");
	gpio_model_level(f->g, 0, true);
	assert_irqs(user, 0);
	gpio_model_level(f->g, 0, false);
	assert_irqs(user, 1);
}

static void d6_same_type_again_changes_nothing(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	irq_set_irq_type(user->irq, IRQ_TYPE_EDGE_RISING);
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
}

static int request_rising(struct job *job)
{
	return irq_request(job->arg, IRQF_TRIGGER_RISING);
}

static void d7_enabled_before_unmasked(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_user(f, 0);
	struct job *job;

	fault(f, .type = VIRTIO_GPIO_MSG_IRQ_TYPE, .line = 0, .hold = true);
	job = job_start(f, request_rising, user);
	assert_soon(f, 1, "type 0 rising");
	fsleep(2000);
	expect_count(f, 0, "arm 0");
	gpio_model_heal(f->g);
	gpio_model_release(f->g, false);
	KUNIT_EXPECT_TRUE(test, job_wait(job, 2 * driver_patience()));
	KUNIT_EXPECT_EQ(test, job->ret, 0);
	assert_soon(f, 1, "arm 0");
	EXPECT_LOG(f, "ok type 0 rising", "arm 0");
}

static void d8_one_buffer_per_line(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	for (int i = 1; i <= 20; i++) {
		gpio_model_rise(f->g, 0);
		assert_irqs(user, i);
		disable_irq(user->irq);
		enable_irq(user->irq);
	}
	fsleep(2000);
	KUNIT_EXPECT_EQ(test, kunit_virtio_busy(f->g->dev, EVENTQ), 1);
}

static void d9_value_before_direction(struct kunit *test)
{
	struct fixture *f = plug(test);

	line_get(f, 3, GPIOD_OUT_HIGH);
	EXPECT_LOG(f, "set 3 1", "direction 3 out");
	expect_count(f, 1, "direction 3 out");
}

static void d9_value_before_direction_from_input(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 3, GPIOD_IN);

	KUNIT_EXPECT_EQ(test, gpiod_direction_output(desc, 1), 0);
	EXPECT_LOG(f, "direction 3 in", "set 3 1", "direction 3 out");
	KUNIT_EXPECT_EQ(test, gpio_model_line(f->g, 3).value, 1);
}

static void d10_no_names_no_message(struct kunit *test)
{
	struct fixture *f = plug(test);

	expect_count(f, 0, "names");
	KUNIT_EXPECT_NULL(test, line_desc(f, 0)->name);
}

static void d10_names_are_those_of_the_device(struct kunit *test)
{
	static const char * const expected[] = {
		"clock", NULL, "data", "a b", NULL, NULL, NULL, "last",
	};
	struct fixture *f = plug_with(test, .names = names, .names_size = sizeof(names));

	expect_count(f, 1, "names");
	for (unsigned int i = 0; i < ARRAY_SIZE(expected); i++) {
		const char *name = line_desc(f, i)->name;

		/* gpiolib may return an empty name or NULL. */
		if (expected[i])
			KUNIT_EXPECT_STREQ(test, name, expected[i]);
		else
			KUNIT_EXPECT_TRUE(test, !name || !*name);
	}
}

static void d10_names_are_asked_for_once(struct kunit *test)
{
	struct fixture *f = plug_with(test, .names = names, .names_size = sizeof(names));

	line_put(f, line_get(f, 0, GPIOD_IN));
	line_put(f, line_get(f, 0, GPIOD_IN));
	expect_count(f, 1, "names");
}

static void d11_direction_none_when_the_line_is_freed(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 3, GPIOD_OUT_HIGH);

	expect_count(f, 0, "direction 3 none");
	line_put(f, desc);
	assert_soon(f, 1, "direction 3 none");
}

static void d11_a_freed_line_can_be_requested_again(struct kunit *test)
{
	struct fixture *f = plug(test);

	line_put(f, line_get(f, 3, GPIOD_OUT_HIGH));
	line_get(f, 3, GPIOD_IN);
	assert_soon(f, 1, "ok direction 3 in");
	EXPECT_LOG(f, "direction 3 out", "direction 3 none", "direction 3 in");
}

static void d11_not_while_the_interrupt_is_used(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 3, GPIOD_IN);
	struct irq_user *user = irq_get(f, 3, IRQF_TRIGGER_RISING);

	line_put(f, desc);
	fsleep(2000);
	gpio_model_rise(f->g, 3);
	assert_irqs(user, 1);
}

static int put_line(struct job *job)
{
	line_put(job->f, job->arg);
	return 0;
}

/* The message waits for room in the ring, and by then the line has another user. */
static void d11_not_when_the_line_is_used_again(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ngpio = 8, .request_ring = 2);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);
	struct irq_user *user = irq_user(f, 0);
	struct job *jobs[3];

	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 1, .count = 1, .hold = true);
	jobs[0] = job_start(f, get_value, line_get(f, 1, GPIOD_IN));
	assert_soon(f, 1, "get 1");
	jobs[1] = job_start(f, put_line, desc);
	job_sleeps(jobs[1]);
	jobs[2] = job_start(f, request_rising, user);
	job_sleeps(jobs[2]);
	gpio_model_release(f->g, false);
	for (int i = 0; i < 3; i++)
		KUNIT_EXPECT_TRUE(test, job_wait(jobs[i], driver_patience()));
	KUNIT_EXPECT_EQ(test, jobs[2]->ret, 0);
	expect_count(f, 0, "direction 0 none");
	KUNIT_EXPECT_EQ(test, gpio_model_line(f->g, 0).direction, VIRTIO_GPIO_DIRECTION_IN);
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
}

static void d12_binds_and_unbinds_by_the_rules(struct kunit *test)
{
	struct fixture *f = plug(test);

	line_get(f, 0, GPIOD_OUT_HIGH);
	irq_get(f, 1, IRQF_TRIGGER_RISING);
	KUNIT_EXPECT_EQ(test, kunit_virtio_status(f->g->dev),
			VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
			VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
	unbind_driver(f);
	KUNIT_EXPECT_EQ(test, kunit_virtio_status(f->g->dev),
			VIRTIO_CONFIG_S_ACKNOWLEDGE);
	KUNIT_EXPECT_GT(test, kunit_virtio_resets(f->g->dev), 1);
}

static void d12_with_indirect_descriptors(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ring_features =
				      BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC));
	struct irq_user *user = irq_get(f, 1, IRQF_TRIGGER_RISING);

	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(line_get(f, 0, GPIOD_IN)), 0);
	gpio_model_rise(f->g, 1);
	assert_irqs(user, 1);
}

static void d12_with_event_indices(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ring_features =
				      BIT_ULL(VIRTIO_RING_F_EVENT_IDX));
	struct irq_user *user = irq_get(f, 1, IRQF_TRIGGER_RISING);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	/* The indices wrap around the ring several times. */
	for (int i = 1; i <= 200; i++) {
		gpio_model_level(f->g, 0, i & 1);
		KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), i & 1);
		gpio_model_rise(f->g, 1);
		assert_soon(f, i + 1, "arm 1");
	}
	assert_irqs(user, 200);
}

static void d12_with_the_smallest_rings(struct kunit *test)
{
	struct fixture *f = plug_with(test, .request_ring = 2, .event_ring = 2);
	struct irq_user *user = irq_get(f, 1, IRQF_TRIGGER_RISING);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_OUT_HIGH);

	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), 1);
	gpio_model_rise(f->g, 1);
	assert_irqs(user, 1);
}

static void d12_with_the_largest_rings(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ngpio = 512, .request_ring = 1024,
				      .event_ring = 1024);
	struct irq_user *users[] = {
		irq_get(f, 0, IRQF_TRIGGER_RISING), irq_get(f, 511, IRQF_TRIGGER_RISING),
	};
	struct gpio_desc *desc = line_get(f, 510, GPIOD_OUT_HIGH);

	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), 1);
	gpio_model_rise(f->g, 0);
	gpio_model_rise(f->g, 511);
	assert_irqs(users[0], 1);
	assert_irqs(users[1], 1);
}

static void d12_no_use_while_a_reset_is_needed(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);
	unsigned int resets = kunit_virtio_resets(f->g->dev);
	int ret;

	kunit_virtio_needs_reset(f->g->dev);
	/* It may fail, or work because the driver has reset the device. */
	ret = gpiod_get_value_cansleep(desc);
	KUNIT_EXPECT_TRUE(test, ret < 0 || kunit_virtio_resets(f->g->dev) > resets);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(d1_each_message_is_a_pair),
	KUNIT_CASE(d1_values_go_both_ways),
	KUNIT_CASE(d1_directions_go_both_ways),
	KUNIT_CASE(d1_directions_are_those_of_the_device),
	KUNIT_CASE(d1_operations_may_sleep),
	KUNIT_CASE(d2_answers_for_other_lines_may_overtake),
	KUNIT_CASE(d3_no_interrupts_without_the_feature),
	KUNIT_CASE(d4_no_interrupt_of_an_output),
	KUNIT_CASE(d4_no_output_while_it_is_an_interrupt),
	KUNIT_CASE(d4_open_drain_is_an_output_or_an_interrupt),
	KUNIT_CASE(d5_type_none_when_the_interrupt_is_freed),
	KUNIT_CASE(d6_none_before_another_type),
	KUNIT_CASE(d6_new_type_is_in_force),
	KUNIT_CASE(d6_same_type_again_changes_nothing),
	KUNIT_CASE(d7_enabled_before_unmasked),
	KUNIT_CASE(d8_one_buffer_per_line),
	KUNIT_CASE(d9_value_before_direction),
	KUNIT_CASE(d9_value_before_direction_from_input),
	KUNIT_CASE(d10_no_names_no_message),
	KUNIT_CASE(d10_names_are_those_of_the_device),
	KUNIT_CASE(d10_names_are_asked_for_once),
	KUNIT_CASE(d11_direction_none_when_the_line_is_freed),
	KUNIT_CASE(d11_a_freed_line_can_be_requested_again),
	KUNIT_CASE(d11_not_while_the_interrupt_is_used),
	KUNIT_CASE(d11_not_when_the_line_is_used_again),
	KUNIT_CASE(d12_binds_and_unbinds_by_the_rules),
	KUNIT_CASE(d12_with_indirect_descriptors),
	KUNIT_CASE(d12_with_event_indices),
	KUNIT_CASE(d12_with_the_smallest_rings),
	KUNIT_CASE(d12_with_the_largest_rings),
	KUNIT_CASE(d12_no_use_while_a_reset_is_needed),
	{ }
};

static struct kunit_suite gpio_virtio_spec_suite = {
	.name		= "gpio_virtio_spec",
	.suite_init	= shuffle_cases,
	.init		= fixture_init,
	.test_cases	= cases,
};

kunit_test_suite(gpio_virtio_spec_suite);
