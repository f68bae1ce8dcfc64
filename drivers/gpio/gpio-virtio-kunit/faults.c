// SPDX-License-Identifier: GPL-2.0
/*
 * Devices that are slow, broken or hostile
 *
 * Names begin with the number of the bug in a driver:
 *
 *	B3	an event of the wrong length ends a line's events
 *	B4	an event of an unknown status ends a line's events
 *	B5	the wait for an answer is unbounded
 *	B6	a broken queue does not wake the waiters
 *	B8	two tasks use the ring at the same time
 *	B9	the block of names is read beyond its end
 *	B10	the size of the names overflows
 *	B11	the size of the names is too large to allocate
 *	B12	many lines
 *	B14	an answer that was not written is accepted
 *	B15	an invalid value is passed on
 *	B16	a device floods the log
 *	B20	interrupts are set up while the driver is unbound
 *	B21	pages mapped for the device hold other objects, too
 *	B22	the driver waits for an answer after a failed notification
 *	C1	a full requestq is an error
 *	C4	names are lost without a message
 *	D11	operations on several lines are sent one at a time
 *	D12	all errors are the same
 *	E1	directions are read one at a time
 *	E3	each message costs an allocation
 *	E4	an output costs two round trips
 */

#include <linux/delay.h>
#include <linux/irq.h>
#include <linux/mm.h>
#include <linux/virtio_config.h>

#include "../gpiolib.h"
#include "fixture.h"
#include "shuffle.h"

static int get_value(struct job *job)
{
	return gpiod_get_value_cansleep(job->arg);
}

/* B: events */

static void event_fault_leaves_the_line_alive(struct fixture *f)
{
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);
	int before;

	gpio_model_rise(f->g, 0);
	assert_soon(f, 1, "event 0 *");
	assert_soon(f, 2, "arm 0");
	before = atomic_read(&user->count);
	KUNIT_EXPECT_LE(f->test, before, 1);
	gpio_model_rise(f->g, 0);
	assert_irqs(user, before + 1);
}

static void b3_short_event(struct kunit *test)
{
	struct fixture *f = plug(test);

	fault(f, .type = EVENT, .line = 0, .count = 1, .with = WITH_USED, .used = 0);
	event_fault_leaves_the_line_alive(f);
}

static void b3_long_event(struct kunit *test)
{
	struct fixture *f = plug(test);

	fault(f, .type = EVENT, .line = 0, .count = 1, .with = WITH_USED, .used = 3);
	event_fault_leaves_the_line_alive(f);
}

static void b3_event_of_four_gigabytes(struct kunit *test)
{
	struct fixture *f = plug(test);

	fault(f, .type = EVENT, .line = 0, .count = 1, .with = WITH_USED,
	      .used = U32_MAX);
	event_fault_leaves_the_line_alive(f);
}

static void b4_event_of_unknown_status(struct kunit *test)
{
	struct fixture *f = plug(test);

	fault(f, .type = EVENT, .line = 0, .count = 1, .with = WITH_STATUS, .status = 2);
	event_fault_leaves_the_line_alive(f);
}

static void b4_event_that_was_not_written(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
	assert_soon(f, 2, "arm 0");
	fault(f, .type = EVENT, .line = 0, .count = 1, .silent = true);
	gpio_model_rise(f->g, 0);
	assert_soon(f, 3, "arm 0");
	/* The previous event is not delivered again. */
	assert_irqs(user, 1);
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 2);
}

/* B: messages */

static void b5_unanswered_message_times_out(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 0, .drop = true);
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), -ETIMEDOUT);
}

static void b5_caller_can_be_killed(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct job *job = job_start(f, get_value, line_get(f, 0, GPIOD_IN));

	KUNIT_ASSERT_TRUE(test, job_wait(job, 2 * driver_patience()));
	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 1, .drop = true);
	job = job_start(f, get_value, line_get(f, 1, GPIOD_IN));
	assert_soon(f, 1, "get 1");
	job_kill(job);
	KUNIT_EXPECT_TRUE(test, job_wait(job, 200));
	KUNIT_EXPECT_LT(test, job->ret, 0);
}

static void b5_names_that_never_come(struct kunit *test)
{
	struct fixture *f = prepare(test, .names = "a\0b", .names_size = 4, .ngpio = 2);

	fault(f, .type = VIRTIO_GPIO_MSG_GET_NAMES, .line = ANY_LINE, .drop = true);
	plug_prepared(f);
	KUNIT_EXPECT_FALSE(test, f->hung);
}

static void b5_directions_that_never_come(struct kunit *test)
{
	struct fixture *f = prepare(test, .ngpio = 2);

	fault(f, .type = VIRTIO_GPIO_MSG_GET_DIRECTION, .line = ANY_LINE, .drop = true);
	plug_prepared(f);
	KUNIT_EXPECT_FALSE(test, f->hung);
}

static void b5_dead_device_can_be_plugged_in_and_out(struct kunit *test)
{
	struct fixture *f = prepare(test, .names = "a\0b", .names_size = 4, .ngpio = 2);

	fault(f, .type = ANY_MESSAGE, .line = ANY_LINE, .drop = true);
	plug_prepared(f);
	unplug_device(f);
	KUNIT_EXPECT_FALSE(test, f->hung);
}

static void b5_unbind_while_a_message_is_unanswered(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct job *job;

	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 0, .drop = true);
	job = job_start(f, get_value, line_get(f, 0, GPIOD_IN));
	assert_soon(f, 1, "get 0");
	unbind_driver(f);
	KUNIT_EXPECT_TRUE(test, job_wait(job, 2 * driver_patience()));
	KUNIT_EXPECT_LT(test, job->ret, 0);
	KUNIT_EXPECT_FALSE(test, f->hung);
}

static void b5_unbind_of_a_device_that_died(struct kunit *test)
{
	struct fixture *f = plug(test);

	line_get(f, 0, GPIOD_OUT_HIGH);
	irq_get(f, 1, IRQF_TRIGGER_RISING);
	fault(f, .type = ANY_MESSAGE, .line = ANY_LINE, .drop = true);
	unbind_driver(f);
	KUNIT_EXPECT_FALSE(test, f->hung);
}

static void b5_lines_of_a_dead_device_can_be_freed(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_OUT_HIGH);
	struct irq_user *user = irq_get(f, 1, IRQF_TRIGGER_RISING);

	fault(f, .type = ANY_MESSAGE, .line = ANY_LINE, .drop = true);
	line_put(f, desc);
	irq_put(user);
	KUNIT_EXPECT_FALSE(test, f->hung);
}

/* Those who release lines do not wait in turn for a device that answers none. */
static void b5_many_lines_of_a_dead_device_can_be_freed(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ngpio = 32, .request_ring = 2);
	struct gpio_desc *descs[32];
	ktime_t start;

	for (int i = 0; i < ARRAY_SIZE(descs); i++)
		descs[i] = line_get(f, i, GPIOD_IN);
	fault(f, .type = ANY_MESSAGE, .line = ANY_LINE, .drop = true);
	start = ktime_get();
	for (int i = 0; i < ARRAY_SIZE(descs); i++) {
		line_put(f, descs[i]);
		WRITE_ONCE(f->steps, f->steps + 1);
	}
	KUNIT_EXPECT_LT(test, ktime_ms_delta(ktime_get(), start), (s64)driver_patience());
}

/* The late answer to an abandoned message is not taken for another answer. */
static void b5_late_answer_is_thrown_away(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 0, .count = 1, .drop = true,
	      .with = WITH_VALUE, .value = 0);
	KUNIT_EXPECT_LT(test, gpiod_get_value_cansleep(desc), 0);
	gpio_model_level(f->g, 0, true);
	gpio_model_release(f->g, false);
	for (int i = 0; i < 100; i++)
		KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), 1);
}

/* Its buffer is not reused while the device has it. */
static void b5_unanswered_message_keeps_its_buffer(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *silent = line_get(f, 0, GPIOD_IN);
	struct gpio_desc *other = line_get(f, 1, GPIOD_IN);

	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 0, .count = 1, .drop = true,
	      .with = WITH_VALUE, .value = 0);
	KUNIT_EXPECT_LT(test, gpiod_get_value_cansleep(silent), 0);
	gpio_model_level(f->g, 1, true);
	for (int i = 0; i < 100; i++)
		KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(other), 1);
	KUNIT_EXPECT_EQ(test, kunit_virtio_busy(f->g->dev, REQUESTQ), 1);
}

/* Four messages in flight, none of which is answered. */
static void lose_messages(struct fixture *f, struct gpio_desc **descs)
{
	struct job *jobs[4];

	for (int i = 0; i < 4; i++)
		descs[i] = line_get(f, i, GPIOD_IN);
	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = ANY_LINE, .count = 4,
	      .drop = true);
	for (int i = 0; i < 4; i++)
		jobs[i] = job_start(f, get_value, descs[i]);
	for (int i = 0; i < 4; i++)
		KUNIT_EXPECT_TRUE(f->test, job_wait(jobs[i], 2 * driver_patience()));
}

static void b5_buffers_of_late_answers_are_used_again(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ngpio = 4, .request_ring = 8);
	struct gpio_desc *descs[4];

	lose_messages(f, descs);
	gpio_model_release(f->g, true);
	msleep(20);
	/* Four messages in flight again. */
	for (int i = 0; i < 4; i++)
		KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(descs[i]), 0);
}

static void expect_value_soon(struct fixture *f, struct gpio_desc *desc)
{
	int ret;

	for (int i = 0; i < 20; i++) {
		ret = gpiod_get_value_cansleep(desc);
		if (ret >= 0)
			break;
		msleep(100);
		WRITE_ONCE(f->steps, f->steps + 1);
	}
	KUNIT_EXPECT_EQ(f->test, ret, 0);
}

static void b5_lost_messages_do_not_stop_the_chip(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ngpio = 4, .request_ring = 8);
	struct gpio_desc *descs[4];

	lose_messages(f, descs);
	for (int i = 0; i < 4; i++)
		expect_value_soon(f, descs[i]);
}

/* The driver need not wait for the answer to the message that deactivates a line. */
static void b5_lost_releases_do_not_stop_the_chip(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ngpio = 5, .request_ring = 8);
	struct gpio_desc *desc = line_get(f, 4, GPIOD_IN);
	struct gpio_desc *descs[4];

	for (int i = 0; i < 4; i++)
		descs[i] = line_get(f, i, GPIOD_IN);
	fault(f, .type = VIRTIO_GPIO_MSG_SET_DIRECTION, .line = ANY_LINE, .count = 4,
	      .drop = true);
	for (int i = 0; i < 4; i++)
		line_put(f, descs[i]);
	assert_soon(f, 4, "direction ? none");
	/* There is no room in the ring. */
	expect_value_soon(f, desc);
}

static void b5_silent_device_is_used_when_it_answers_again(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ngpio = 4, .request_ring = 8);
	struct gpio_desc *descs[4];

	lose_messages(f, descs);
	fault(f, .type = ANY_MESSAGE, .line = ANY_LINE, .drop = true);
	for (int i = 0; i < 4; i++) {
		gpiod_get_value_cansleep(descs[i & 3]);
		msleep(driver_patience() / 20);
		WRITE_ONCE(f->steps, f->steps + 1);
	}
	KUNIT_EXPECT_LE(test, kunit_virtio_resets(f->g->dev), 10);
	gpio_model_heal(f->g);
	gpio_model_release(f->g, false);
	for (int i = 0; i < 4; i++)
		expect_value_soon(f, descs[i]);
}

static void b6_wrong_id_in_the_used_ring(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	kunit_virtio_use_id(f->g->dev, REQUESTQ, 0xffff);
	/* The device is not slow, but dead. */
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), -ENODEV);
	KUNIT_EXPECT_FALSE(test, f->hung);
}

static void b6_id_of_another_buffer_in_the_used_ring(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	kunit_virtio_use_id(f->g->dev, REQUESTQ, 63);
	KUNIT_EXPECT_LT(test, gpiod_get_value_cansleep(desc), 0);
	KUNIT_EXPECT_FALSE(test, f->hung);
}

static void b6_broken_requestq_is_reset(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	kunit_virtio_use_id(f->g->dev, REQUESTQ, 0xffff);
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), -ENODEV);
	expect_value_soon(f, desc);
}

static void b6_broken_eventq_is_reset(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	assert_soon(f, 1, "arm 0");
	gpio_model_mark(f->g);
	kunit_virtio_use_id(f->g->dev, EVENTQ, 0xffff);
	/* The queue breaks with this event, which is lost. */
	gpio_model_rise(f->g, 0);
	assert_soon(f, 1, "arm 0");
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
}

static void b6_surprise_removal(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct job *job;

	irq_get(f, 1, IRQF_TRIGGER_RISING);
	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 0, .hold = true);
	job = job_start(f, get_value, line_get(f, 0, GPIOD_IN));
	assert_soon(f, 1, "get 0");
	virtio_break_device(f->vdev);
	unplug_device(f);
	KUNIT_EXPECT_TRUE(test, job_wait(job, 2 * driver_patience()));
	KUNIT_EXPECT_LT(test, job->ret, 0);
	KUNIT_EXPECT_FALSE(test, f->hung);
}

static void b6_use_after_surprise_removal(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	/* A device that is still there works again after a reset. */
	kunit_virtio_pull(f->g->dev);
	virtio_break_device(f->vdev);
	KUNIT_EXPECT_LT(test, gpiod_get_value_cansleep(desc), 0);
	KUNIT_EXPECT_LT(test, gpiod_direction_output(desc, 1), 0);
	/* The core warns, once, that the status is not zero. */
	kunit_warning_suppress(test)
		unplug_device(f);
	KUNIT_EXPECT_LT(test, gpiod_get_value_cansleep(desc), 0);
}

static void b6_shutdown(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct job *job;

	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 0, .hold = true);
	job = job_start(f, get_value, line_get(f, 0, GPIOD_IN));
	assert_soon(f, 1, "get 0");
	device_lock(&f->vdev->dev);
	shut_down(f);
	device_unlock(&f->vdev->dev);
	KUNIT_EXPECT_TRUE(test, job_wait(job, driver_patience() / 2));
	KUNIT_EXPECT_FALSE(test, f->hung);
}

static int get_value_often(struct job *job)
{
	struct gpio_desc *desc = job->arg;

	for (int i = 0; i < 300; i++) {
		int ret = gpiod_get_value_cansleep(desc);

		if (ret != 1)
			return ret ?: -EINVAL;
	}
	return 0;
}

static void b8_threads_do_not_harm_the_ring(struct kunit *test)
{
	struct fixture *f = plug_with(test, .request_ring = 16);
	struct job *jobs[4];

	/* Answers arrive while other messages are added. */
	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = ANY_LINE, .delay_us = 30);
	kunit_virtio_slow_map(f->g->dev, 20);
	for (int i = 0; i < 4; i++) {
		gpio_model_level(f->g, i, true);
		jobs[i] = job_start(f, get_value_often, line_get(f, i, GPIOD_IN));
	}
	for (int i = 0; i < 4; i++) {
		KUNIT_EXPECT_TRUE(test, job_wait(jobs[i], 60000));
		KUNIT_EXPECT_EQ(test, jobs[i]->ret, 0);
	}
}

static void b14_answer_that_was_not_written(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	gpio_model_level(f->g, 0, true);
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), 1);
	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 0, .silent = true);
	KUNIT_EXPECT_LT(test, gpiod_get_value_cansleep(desc), 0);
}

static void b15_value_that_is_none(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 0, .with = WITH_VALUE,
	      .value = 7);
	KUNIT_EXPECT_LT(test, gpiod_get_value_cansleep(desc), 0);
	KUNIT_EXPECT_EQ(test, log_count(f, "*fixing the driver*"), 0);
}

static void b15_direction_that_is_none(struct kunit *test)
{
	struct fixture *f = prepare(test, .ngpio = 2);

	fault(f, .type = VIRTIO_GPIO_MSG_GET_DIRECTION, .line = 0, .with = WITH_VALUE,
	      .value = 7);
	plug_prepared(f);
	KUNIT_ASSERT_NOT_NULL(test, f->gdev);
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(line_get(f, 0, GPIOD_IN)), 0);
}

static void b16_refusals_do_not_flood_the_log(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 0, .error = true);
	for (int i = 0; i < 200; i++)
		KUNIT_EXPECT_LT(test, gpiod_get_value_cansleep(desc), 0);
	KUNIT_EXPECT_LT(test, log_count_device(f), 50);
}

static void b16_refused_directions_do_not_flood_the_log(struct kunit *test)
{
	struct fixture *f = prepare(test, .ngpio = 500);

	fault(f, .type = VIRTIO_GPIO_MSG_GET_DIRECTION, .line = ANY_LINE, .error = true);
	plug_prepared(f);
	KUNIT_EXPECT_LT(test, log_count_device(f), 50);
}

static void b16_refused_types_do_not_flood_the_log(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_user(f, 0);

	fault(f, .type = VIRTIO_GPIO_MSG_IRQ_TYPE, .line = 0, .error = true);
	for (int i = 0; i < 100; i++) {
		irq_request(user, IRQF_TRIGGER_RISING);
		irq_put(user);
	}
	KUNIT_EXPECT_LT(test, log_count_device(f), 50);
}

static void b16_broken_events_do_not_flood_the_log(struct kunit *test)
{
	struct fixture *f = plug(test);

	irq_get(f, 0, IRQF_TRIGGER_RISING);
	fault(f, .type = EVENT, .line = 0, .with = WITH_USED, .used = 7);
	for (int i = 1; i <= 100; i++) {
		gpio_model_rise(f->g, 0);
		fsleep(500);
	}
	KUNIT_EXPECT_LT(test, log_count_device(f), 50);
}

static int change_type_often(struct job *job)
{
	struct irq_user *user = job->arg;

	for (int i = 0; !READ_ONCE(job->stop) && i < 100; i++)
		irq_set_irq_type(user->irq, i & 1 ? IRQ_TYPE_EDGE_RISING :
						    IRQ_TYPE_EDGE_FALLING);
	return 0;
}

static void b20_types_change_while_the_driver_is_unbound(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);
	struct job *job;

	fault(f, .type = VIRTIO_GPIO_MSG_IRQ_TYPE, .line = 0, .delay_us = 500);
	job = job_start(f, change_type_often, user);
	assert_soon(f, 2, "type 0 [rf]*");
	unbind_driver(f);
	/* The interrupt is gone with the chip. */
	user->requested = false;
	KUNIT_EXPECT_TRUE(test, job_wait(job, 2 * driver_patience()));
	KUNIT_EXPECT_FALSE(test, f->hung);
}

/* Slab objects share their pages with others, and an IOMMU maps whole pages. */
static bool in_slab(const struct vringh_kiov *part)
{
	for (unsigned int i = 0; i < part->used; i++)
		if (PageSlab(virt_to_page(part->iov[i].iov_base)))
			return true;
	return false;
}

static void b21_device_sees_no_page_of_other_objects(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 1, GPIOD_IN);
	const struct kunit_virtio_buffer *buf;
	struct job *job;

	irq_get(f, 0, IRQF_TRIGGER_RISING);
	assert_soon(f, 1, "arm 0");
	buf = gpio_model_line(f->g, 0).event;
	KUNIT_EXPECT_FALSE(test, in_slab(&buf->out));
	KUNIT_EXPECT_FALSE(test, in_slab(&buf->in));

	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 1, .hold = true);
	job = job_start(f, get_value, desc);
	assert_soon(f, 1, "get 1");
	buf = list_first_entry(&f->g->held, struct kunit_virtio_buffer, list);
	KUNIT_EXPECT_FALSE(test, in_slab(&buf->out));
	KUNIT_EXPECT_FALSE(test, in_slab(&buf->in));
	gpio_model_release(f->g, false);
	KUNIT_EXPECT_TRUE(test, job_wait(job, 2 * driver_patience()));
}

static void b22_notification_fails(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	kunit_virtio_fail_notify(f->g->dev, true);
	KUNIT_EXPECT_LT(test, gpiod_get_value_cansleep(desc), 0);
	KUNIT_EXPECT_FALSE(test, f->hung);
}

/* B: configuration and names */

static void b9_fewer_names_than_lines(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ngpio = 2, .names = "AAAAAA", .names_size = 7);

	KUNIT_EXPECT_STREQ(test, line_desc(f, 0)->name, "AAAAAA");
	KUNIT_EXPECT_NULL(test, line_desc(f, 1)->name);
}

static void b9_last_name_does_not_end(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ngpio = 2, .names = "first\0second",
				      .names_size = 12);

	KUNIT_EXPECT_STREQ(test, line_desc(f, 0)->name, "first");
}

static void b9_unprintable_names(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ngpio = 3, .names = "\x01\x02\0\xff\xfe\0ok",
				      .names_size = 9);

	KUNIT_EXPECT_STREQ(test, line_desc(f, 2)->name, "ok");
	KUNIT_EXPECT_NULL(test, line_desc(f, 0)->name);
	KUNIT_EXPECT_NULL(test, line_desc(f, 1)->name);
}

static void b9_names_of_the_wrong_length(struct kunit *test)
{
	struct fixture *f = prepare(test, .ngpio = 2, .names = "a\0b", .names_size = 4);

	fault(f, .type = VIRTIO_GPIO_MSG_GET_NAMES, .line = ANY_LINE, .with = WITH_USED,
	      .used = 2);
	plug_prepared(f);
	KUNIT_ASSERT_NOT_NULL(test, f->gdev);
	/* The single byte that was written is not a name. */
	KUNIT_EXPECT_NULL(test, line_desc(f, 0)->name);
	KUNIT_EXPECT_NULL(test, line_desc(f, 1)->name);
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(line_get(f, 0, GPIOD_IN)), 0);
}

static void b9_names_are_refused(struct kunit *test)
{
	struct fixture *f = prepare(test, .ngpio = 2, .names = "a\0b", .names_size = 4);

	fault(f, .type = VIRTIO_GPIO_MSG_GET_NAMES, .line = ANY_LINE, .error = true);
	plug_prepared(f);
	KUNIT_ASSERT_NOT_NULL(test, f->gdev);
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(line_get(f, 0, GPIOD_IN)), 0);
}

static void c4_lost_names_are_logged(struct kunit *test)
{
	struct fixture *f = prepare(test, .ngpio = 2, .names = "a\0b", .names_size = 4);

	fault(f, .type = VIRTIO_GPIO_MSG_GET_NAMES, .line = ANY_LINE, .error = true);
	plug_prepared(f);
	KUNIT_EXPECT_EQ(test, log_count_device(f), 1);
}

static void b10_names_of_four_gigabytes(struct kunit *test)
{
	struct fixture *f = plug_only(test, &(struct gpio_model_config){
		.ngpio = 2, .claim_size = U32_MAX,
	});

	if (f->gdev)
		KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(line_get(f, 0, GPIOD_IN)), 0);
}

static void b11_names_of_eight_megabytes(struct kunit *test)
{
	struct fixture *f = plug_only(test, &(struct gpio_model_config){
		.ngpio = 2, .names = "a\0b", .names_size = 4, .claim_size = SZ_8M,
	});

	KUNIT_EXPECT_NOT_NULL(test, f->gdev);
}

static void b12_no_lines(struct kunit *test)
{
	struct fixture *f = prepare(test, .ngpio = 1);

	f->g->space.ngpio = 0;
	kunit_virtio_set_config(f->g->dev, &f->g->space);
	plug_prepared(f);
	KUNIT_EXPECT_NULL(test, f->gdev);
	expect_count(f, 0, "get*");
}

static void b12_as_many_lines_as_there_can_be(struct kunit *test)
{
	struct fixture *f = prepare(test, .ngpio = U16_MAX, .request_ring = 256,
				    .event_ring = 256);
	struct irq_user *user;

	/* A driver may read the directions one at a time: answer at once. */
	kunit_virtio_set_irq(f->g->dev, KUNIT_VIRTIO_PROCESS);
	plug_prepared(f);
	KUNIT_ASSERT_NOT_NULL(test, f->gdev);
	kunit_virtio_set_irq(f->g->dev, KUNIT_VIRTIO_HARDIRQ);
	user = irq_get(f, U16_MAX - 1, IRQF_TRIGGER_RISING);
	gpio_model_rise(f->g, U16_MAX - 1);
	assert_irqs(user, 1);
}

/* C */

static void refuses_rings(struct kunit *test, const struct gpio_model_config *config)
{
	struct fixture *f = plug_only(test, config);

	KUNIT_EXPECT_NULL(test, f->gdev);
	KUNIT_EXPECT_EQ(test, log_count(f, "*too small*"), 1);
}

static void c1_requestq_that_is_too_small(struct kunit *test)
{
	refuses_rings(test, &(struct gpio_model_config){ .ngpio = 8, .request_ring = 1 });
}

static void c2_eventq_that_is_too_small(struct kunit *test)
{
	refuses_rings(test, &(struct gpio_model_config){ .ngpio = 8, .event_ring = 1 });
}

static void c1_full_requestq_is_waited_for(struct kunit *test)
{
	struct fixture *f = plug_with(test, .request_ring = 4);
	struct job *jobs[8];

	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = ANY_LINE, .delay_us = 2000);
	for (int i = 0; i < 8; i++) {
		gpio_model_level(f->g, i, i & 1);
		jobs[i] = job_start(f, get_value, line_get(f, i, GPIOD_IN));
	}
	for (int i = 0; i < 8; i++) {
		KUNIT_EXPECT_TRUE(test, job_wait(jobs[i], 2 * driver_patience()));
		KUNIT_EXPECT_EQ(test, jobs[i]->ret, i & 1);
	}
}

static void c1_killed_caller_leaves_its_turn(struct kunit *test)
{
	struct fixture *f = plug_with(test, .request_ring = 2);
	struct gpio_desc *descs[3];
	struct job *jobs[3];

	for (int i = 0; i < 3; i++)
		descs[i] = line_get(f, i, GPIOD_IN);
	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 0, .count = 1, .hold = true);
	/* The first one takes the only slot, the others wait in order. */
	for (int i = 0; i < 3; i++) {
		jobs[i] = job_start(f, get_value, descs[i]);
		job_sleeps(jobs[i]);
	}
	job_kill(jobs[1]);
	KUNIT_EXPECT_TRUE(test, job_wait(jobs[1], driver_patience()));
	KUNIT_EXPECT_EQ(test, jobs[1]->ret, -EINTR);
	gpio_model_release(f->g, false);
	for (int i = 0; i < 3; i += 2) {
		KUNIT_EXPECT_TRUE(test, job_wait(jobs[i], driver_patience()));
		KUNIT_EXPECT_EQ(test, jobs[i]->ret, 0);
	}
	expect_count(f, 0, "get 1");
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(descs[1]), 0);
}

static void c1_callers_are_served_in_order(struct kunit *test)
{
	struct fixture *f = plug_with(test, .request_ring = 2);
	struct gpio_desc *descs[4];
	struct job *jobs[4];

	for (int i = 0; i < 4; i++)
		descs[i] = line_get(f, i, GPIOD_IN);
	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 0, .count = 1, .hold = true);
	for (int i = 0; i < 4; i++) {
		jobs[i] = job_start(f, get_value, descs[i]);
		job_sleeps(jobs[i]);
	}
	gpio_model_release(f->g, false);
	for (int i = 0; i < 4; i++) {
		KUNIT_EXPECT_TRUE(test, job_wait(jobs[i], driver_patience()));
		KUNIT_EXPECT_EQ(test, jobs[i]->ret, 0);
	}
	EXPECT_LOG(f, "get 0", "get 1", "get 2", "get 3");
}

static int count_values(struct job *job)
{
	int count = 0;

	while (!READ_ONCE(job->stop)) {
		int ret = gpiod_get_value_cansleep(job->arg);

		if (ret < 0)
			return ret;
		count++;
	}
	return count;
}

static void c1_every_caller_gets_its_turn(struct kunit *test)
{
	struct fixture *f = plug_with(test, .request_ring = 2);
	struct job *jobs[4];
	int total = 0;

	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = ANY_LINE, .delay_us = 100);
	for (int i = 0; i < 4; i++)
		jobs[i] = job_start(f, count_values, line_get(f, i, GPIOD_IN));
	/* On a busy host a caller may get no processor for the time that a few turns take. */
	assert_soon(f, 400, "get *");
	for (int i = 0; i < 4; i++)
		WRITE_ONCE(jobs[i]->stop, true);
	for (int i = 0; i < 4; i++) {
		KUNIT_ASSERT_TRUE(test, job_wait(jobs[i], driver_patience()));
		KUNIT_EXPECT_GT(test, jobs[i]->ret, 0);
		total += jobs[i]->ret;
	}
	for (int i = 0; i < 4; i++)
		KUNIT_EXPECT_GT(test, 16 * jobs[i]->ret, total);
}

/* D */

static void d11_values_of_many_lines_at_once(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *descs[8];
	unsigned long values = 0;
	unsigned int before;

	for (int i = 0; i < 8; i++) {
		descs[i] = line_get(f, i, GPIOD_IN);
		gpio_model_level(f->g, i, i % 3 == 0);
	}
	before = kunit_virtio_notifications(f->g->dev, REQUESTQ);
	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = ANY_LINE, .delay_us = 1000);
	KUNIT_EXPECT_EQ(test, gpiod_get_array_value_cansleep(8, descs, NULL, &values), 0);
	KUNIT_EXPECT_EQ(test, values, 0x49);
	KUNIT_EXPECT_LE(test, kunit_virtio_notifications(f->g->dev, REQUESTQ) - before, 2);
	expect_count(f, 8, "get [0-9]*");
}

static void d11_values_are_set_at_once(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *descs[8];
	unsigned long values = 0x92;
	unsigned int before;

	for (int i = 0; i < 8; i++)
		descs[i] = line_get(f, i, GPIOD_OUT_LOW);
	before = kunit_virtio_notifications(f->g->dev, REQUESTQ);
	KUNIT_EXPECT_EQ(test, gpiod_set_array_value_cansleep(8, descs, NULL, &values), 0);
	for (int i = 0; i < 8; i++)
		KUNIT_EXPECT_EQ(test, gpio_model_line(f->g, i).value, values >> i & 1);
	KUNIT_EXPECT_LE(test, kunit_virtio_notifications(f->g->dev, REQUESTQ) - before, 2);
}

static void d11_more_lines_than_the_ring_has_room_for(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ngpio = 32, .request_ring = 8);
	unsigned long values = 0x5a5a1234;
	struct gpio_desc *descs[32];

	for (int i = 0; i < 32; i++)
		descs[i] = line_get(f, i, GPIOD_OUT_LOW);
	KUNIT_EXPECT_EQ(test, gpiod_set_array_value_cansleep(32, descs, NULL, &values), 0);
	values = 0;
	KUNIT_EXPECT_EQ(test, gpiod_get_array_value_cansleep(32, descs, NULL, &values), 0);
	KUNIT_EXPECT_EQ(test, values, 0x5a5a1234);
}

static void d11_one_of_many_lines_is_refused(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *descs[8];
	unsigned long values = 0;

	for (int i = 0; i < 8; i++)
		descs[i] = line_get(f, i, GPIOD_IN);
	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 5, .error = true);
	KUNIT_EXPECT_LT(test, gpiod_get_array_value_cansleep(8, descs, NULL, &values), 0);
	gpio_model_heal(f->g);
	KUNIT_EXPECT_EQ(test, gpiod_get_array_value_cansleep(8, descs, NULL, &values), 0);
}

static void d11_one_of_many_lines_cannot_be_set(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *descs[8];
	unsigned long values = 0xff;

	for (int i = 0; i < 8; i++)
		descs[i] = line_get(f, i, GPIOD_OUT_LOW);
	fault(f, .type = VIRTIO_GPIO_MSG_SET_VALUE, .line = 5, .error = true);
	KUNIT_EXPECT_LT(test, gpiod_set_array_value_cansleep(8, descs, NULL, &values), 0);
	gpio_model_heal(f->g);
	KUNIT_EXPECT_EQ(test, gpiod_set_array_value_cansleep(8, descs, NULL, &values), 0);
}

static void d12_refusal_is_an_io_error(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	fault(f, .type = ANY_MESSAGE, .line = 0, .error = true);
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), -EIO);
	KUNIT_EXPECT_EQ(test, gpiod_direction_output(desc, 1), -EIO);
	KUNIT_EXPECT_EQ(test, gpiod_direction_input(desc), -EIO);
	gpio_model_heal(f->g);
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), 0);
}

/* EIO means that the device has refused the request. */
static void d12_broken_queue_is_no_refusal(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	virtio_break_device(f->vdev);
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), -ENODEV);
}

static void d12_unknown_status_is_an_error(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 0, .with = WITH_STATUS,
	      .status = 0x80);
	KUNIT_EXPECT_LT(test, gpiod_get_value_cansleep(desc), 0);
}

static void d12_wrong_length_is_an_error(struct kunit *test)
{
	static const u32 lengths[] = { 0, 1, 3, U32_MAX };
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	for (unsigned int i = 0; i < ARRAY_SIZE(lengths); i++) {
		int ret;

		fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 0, .count = 1,
		      .with = WITH_USED, .used = lengths[i]);
		ret = gpiod_get_value_cansleep(desc);
		KUNIT_EXPECT_TRUE_MSG(test, ret == -EIO || ret == -EPROTO,
				      "%d with a length of %u", ret, lengths[i]);
	}
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), 0);
}

/* E */

static void e1_directions_are_asked_for_in_parallel(struct kunit *test)
{
	struct fixture *f = prepare(test, .ngpio = 32);

	fault(f, .type = VIRTIO_GPIO_MSG_GET_DIRECTION, .line = ANY_LINE,
	      .delay_us = 1000);
	plug_prepared(f);
	KUNIT_ASSERT_NOT_NULL(test, f->gdev);
	KUNIT_EXPECT_LE(test, kunit_virtio_notifications(f->g->dev, REQUESTQ), 8);
}

/* A table would be an allocation for each buffer, with the lock of the queue held. */
static void e3_no_indirect_descriptors(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ring_features =
				      BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC));
	unsigned int size, num_free;
	struct virtqueue *vq;

	irq_get(f, 0, IRQF_TRIGGER_RISING);
	virtio_device_for_each_vq(f->vdev, vq) {
		if (vq->index != EVENTQ)
			continue;
		size = virtqueue_get_vring_size(vq);
		num_free = vq->num_free;
		KUNIT_EXPECT_EQ(test, size - num_free, 2);
		return;
	}
	KUNIT_FAIL(test, "no eventq");
}

static void e4_output_is_one_round_trip(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);
	unsigned int before = kunit_virtio_notifications(f->g->dev, REQUESTQ);

	KUNIT_EXPECT_EQ(test, gpiod_direction_output(desc, 1), 0);
	KUNIT_EXPECT_EQ(test, kunit_virtio_notifications(f->g->dev, REQUESTQ) - before, 1);
	EXPECT_LOG(f, "set 0 1", "direction 0 out");
}

static void e4_refused_value_makes_no_output(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	fault(f, .type = VIRTIO_GPIO_MSG_SET_VALUE, .line = 0, .error = true);
	KUNIT_EXPECT_EQ(test, gpiod_direction_output(desc, 1), -EIO);
	assert_soon(f, 2, "ok direction 0 in");
	KUNIT_EXPECT_EQ(test, gpio_model_line(f->g, 0).direction, VIRTIO_GPIO_DIRECTION_IN);
	KUNIT_EXPECT_EQ(test, gpiod_get_direction(desc), GPIO_LINE_DIRECTION_IN);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(b3_short_event),
	KUNIT_CASE(b3_long_event),
	KUNIT_CASE(b3_event_of_four_gigabytes),
	KUNIT_CASE(b4_event_of_unknown_status),
	KUNIT_CASE(b4_event_that_was_not_written),
	KUNIT_CASE(b5_unanswered_message_times_out),
	KUNIT_CASE(b5_caller_can_be_killed),
	KUNIT_CASE(b5_names_that_never_come),
	KUNIT_CASE(b5_directions_that_never_come),
	KUNIT_CASE(b5_dead_device_can_be_plugged_in_and_out),
	KUNIT_CASE(b5_unbind_while_a_message_is_unanswered),
	KUNIT_CASE(b5_unbind_of_a_device_that_died),
	KUNIT_CASE(b5_lines_of_a_dead_device_can_be_freed),
	KUNIT_CASE_SLOW(b5_many_lines_of_a_dead_device_can_be_freed),
	KUNIT_CASE(b5_late_answer_is_thrown_away),
	KUNIT_CASE(b5_unanswered_message_keeps_its_buffer),
	KUNIT_CASE(b5_buffers_of_late_answers_are_used_again),
	KUNIT_CASE_SLOW(b5_lost_messages_do_not_stop_the_chip),
	KUNIT_CASE_SLOW(b5_lost_releases_do_not_stop_the_chip),
	KUNIT_CASE_SLOW(b5_silent_device_is_used_when_it_answers_again),
	KUNIT_CASE(b6_wrong_id_in_the_used_ring),
	KUNIT_CASE(b6_id_of_another_buffer_in_the_used_ring),
	KUNIT_CASE(b6_broken_requestq_is_reset),
	KUNIT_CASE(b6_broken_eventq_is_reset),
	KUNIT_CASE(b6_surprise_removal),
	KUNIT_CASE(b6_use_after_surprise_removal),
	KUNIT_CASE(b6_shutdown),
	KUNIT_CASE(b8_threads_do_not_harm_the_ring),
	KUNIT_CASE(b9_fewer_names_than_lines),
	KUNIT_CASE(b9_last_name_does_not_end),
	KUNIT_CASE(b9_unprintable_names),
	KUNIT_CASE(b9_names_of_the_wrong_length),
	KUNIT_CASE(b9_names_are_refused),
	KUNIT_CASE(b10_names_of_four_gigabytes),
	KUNIT_CASE(b11_names_of_eight_megabytes),
	KUNIT_CASE(b12_no_lines),
	KUNIT_CASE_SLOW(b12_as_many_lines_as_there_can_be),
	KUNIT_CASE(b14_answer_that_was_not_written),
	KUNIT_CASE(b15_value_that_is_none),
	KUNIT_CASE(b15_direction_that_is_none),
	KUNIT_CASE(b16_refusals_do_not_flood_the_log),
	KUNIT_CASE(b16_refused_directions_do_not_flood_the_log),
	KUNIT_CASE(b16_refused_types_do_not_flood_the_log),
	KUNIT_CASE(b16_broken_events_do_not_flood_the_log),
	KUNIT_CASE(b21_device_sees_no_page_of_other_objects),
	KUNIT_CASE(b22_notification_fails),
	KUNIT_CASE(c4_lost_names_are_logged),
	KUNIT_CASE(c1_requestq_that_is_too_small),
	KUNIT_CASE(c2_eventq_that_is_too_small),
	KUNIT_CASE(c1_full_requestq_is_waited_for),
	KUNIT_CASE(c1_killed_caller_leaves_its_turn),
	KUNIT_CASE(c1_callers_are_served_in_order),
	KUNIT_CASE(c1_every_caller_gets_its_turn),
	KUNIT_CASE(d11_values_of_many_lines_at_once),
	KUNIT_CASE(d11_values_are_set_at_once),
	KUNIT_CASE(d11_more_lines_than_the_ring_has_room_for),
	KUNIT_CASE(d11_one_of_many_lines_is_refused),
	KUNIT_CASE(d11_one_of_many_lines_cannot_be_set),
	KUNIT_CASE(d12_refusal_is_an_io_error),
	KUNIT_CASE(d12_broken_queue_is_no_refusal),
	KUNIT_CASE(d12_unknown_status_is_an_error),
	KUNIT_CASE(d12_wrong_length_is_an_error),
	KUNIT_CASE(e1_directions_are_asked_for_in_parallel),
	KUNIT_CASE(e3_no_indirect_descriptors),
	KUNIT_CASE(e4_output_is_one_round_trip),
	KUNIT_CASE(e4_refused_value_makes_no_output),
	/* Some drivers do not survive it. */
	KUNIT_CASE(b20_types_change_while_the_driver_is_unbound),
	{ }
};

static struct kunit_suite gpio_virtio_faults_suite = {
	.name		= "gpio_virtio_faults",
	.suite_init	= shuffle_cases,
	.init		= fixture_init,
	.test_cases	= cases,
};

kunit_test_suite(gpio_virtio_faults_suite);
