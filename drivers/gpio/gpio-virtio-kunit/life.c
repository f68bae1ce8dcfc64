// SPDX-License-Identifier: GPL-2.0
/*
 * Bind, unbind, suspend, reset
 *
 * Names begin with the number of the bug in a driver:
 *
 *	A8	DEVICE_NEEDS_RESET is ignored
 *	D1	a suspended device is not set up again
 *	D2	a device that was reset is not set up again
 *	D5	interrupts do not wake the system up
 */

#include <linux/delay.h>
#include <linux/sched/signal.h>
#include <linux/virtio_config.h>

#include "fixture.h"
#include "shuffle.h"

static int get_value(struct job *job)
{
	return gpiod_get_value_cansleep(job->arg);
}

/* The driver has bound again, and its chip works. */
static void expect_new_chip(struct fixture *f)
{
	KUNIT_ASSERT_TRUE(f->test, find_chip(f));
	KUNIT_EXPECT_EQ(f->test, gpiod_get_value_cansleep(line_get(f, 0, GPIOD_IN)), 0);
}

static void is_bound_again_and_again(struct kunit *test)
{
	struct fixture *f = plug(test);

	for (int i = 0; i < 5; i++) {
		unbind_driver(f);
		KUNIT_ASSERT_EQ(test, bind_driver(f), 1);
	}
	expect_new_chip(f);
}

static void chip_is_gone_after_unbind(struct kunit *test)
{
	struct fixture *f = plug(test);

	unbind_driver(f);
	KUNIT_EXPECT_FALSE(test, find_chip(f));
}

static void line_fails_after_unbind(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	unbind_driver(f);
	KUNIT_EXPECT_LT(test, gpiod_get_value_cansleep(desc), 0);
	KUNIT_EXPECT_LT(test, gpiod_direction_output(desc, 1), 0);
}

static void unbinds_with_lines_and_interrupts_in_use(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 2, IRQF_TRIGGER_RISING);

	line_get(f, 0, GPIOD_IN);
	line_get(f, 1, GPIOD_OUT_HIGH);
	irq_put(user);
	unbind_driver(f);
	KUNIT_EXPECT_EQ(test, kunit_virtio_busy(f->g->dev, EVENTQ), 0);
}

static unsigned int references(struct fixture *f)
{
	return kref_read(&f->vdev->dev.kobj.kref);
}

static void nothing_is_left_after_unbind(struct kunit *test)
{
	struct fixture *f = plug(test);
	unsigned int before;

	unbind_driver(f);
	before = references(f);
	KUNIT_ASSERT_EQ(test, bind_driver(f), 1);
	unbind_driver(f);
	/* Some references are dropped a little later. */
	for (int i = 0; i < 50 && references(f) != before; i++)
		msleep(20);
	KUNIT_EXPECT_EQ(test, references(f), before);
}

static int get_value_until_it_fails(struct job *job)
{
	int ret;

	do {
		ret = gpiod_get_value_cansleep(job->arg);
	} while (ret >= 0 && !READ_ONCE(job->stop));
	return ret;
}

static void unbinds_under_load(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct job *jobs[4];

	for (int i = 0; i < 4; i++)
		jobs[i] = job_start(f, get_value_until_it_fails, line_get(f, i, GPIOD_IN));
	assert_soon(f, 10, "get 3");
	unbind_driver(f);
	for (int i = 0; i < 4; i++) {
		KUNIT_EXPECT_TRUE(test, job_wait(jobs[i], 2 * driver_patience()));
		KUNIT_EXPECT_LT(test, jobs[i]->ret, 0);
	}
}

static void unbinds_while_events_come(struct kunit *test)
{
	struct fixture *f = plug(test);

	for (int n = 0; n < 10; n++) {
		struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

		gpio_model_rise(f->g, 0);
		irq_put(user);
		gpio_model_rise(f->g, 0);
		unbind_driver(f);
		gpio_model_rise(f->g, 0);
		KUNIT_ASSERT_EQ(test, bind_driver(f), 1);
		KUNIT_ASSERT_TRUE(test, find_chip(f));
	}
}

static void two_devices_do_not_mix(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_model *second = gpio_model_create(test, &(struct gpio_model_config){
		.ngpio = 3,
	});
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	KUNIT_ASSERT_NOT_NULL(test, second);
	KUNIT_ASSERT_EQ(test, kunit_virtio_register(second->dev), 0);
	gpio_model_level(second, 0, true);
	assert_irqs(user, 0);
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(line_get(f, 1, GPIOD_IN)), 0);
	kunit_virtio_unregister(second->dev);
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
	gpio_model_check(second);
}

static void a8_pending_message_ends_when_a_reset_is_needed(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct job *job;

	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 0, .hold = true);
	job = job_start(f, get_value, line_get(f, 0, GPIOD_IN));
	assert_soon(f, 1, "get 0");
	gpio_model_heal(f->g);
	kunit_virtio_needs_reset(f->g->dev);
	KUNIT_EXPECT_TRUE(test, job_wait(job, driver_patience() / 2));
	KUNIT_EXPECT_FALSE(test, f->hung);
}

/* A reset clears the state of the device. */

static void use_lines(struct fixture *f, struct irq_user **user)
{
	line_get(f, 0, GPIOD_OUT_HIGH);
	line_get(f, 1, GPIOD_IN);
	line_get(f, 2, GPIOD_IN);
	line_get(f, 7, GPIOD_OUT_HIGH);
	*user = irq_get(f, 2, IRQF_TRIGGER_FALLING);
	gpio_model_level(f->g, 2, true);
	gpio_model_level(f->g, 2, false);
	assert_irqs(*user, 1);
	gpio_model_mark(f->g);
}

static void expect_as_before(struct fixture *f, struct irq_user *user)
{
	struct gpio_desc *in = line_desc(f, 1);

	assert_soon(f, 1, "arm 2");
	EXPECT_LOG(f, "set 0 1", "ok direction 0 out");
	EXPECT_LOG(f, "ok direction 1 in");
	EXPECT_LOG(f, "ok direction 2 in", "ok type 2 falling", "arm 2");
	EXPECT_LOG(f, "set 7 1", "ok direction 7 out");
	expect_count(f, 0, "direction [3-6] *");
	KUNIT_EXPECT_EQ(f->test, gpio_model_line(f->g, 0).value, 1);
	gpio_model_level(f->g, 1, true);
	KUNIT_EXPECT_EQ(f->test, gpiod_get_value_cansleep(in), 1);
	gpio_model_level(f->g, 2, true);
	gpio_model_level(f->g, 2, false);
	assert_irqs(user, 2);
}

static void a8_is_as_before_when_it_was_reset(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user;

	use_lines(f, &user);
	kunit_virtio_needs_reset(f->g->dev);
	expect_as_before(f, user);
	KUNIT_EXPECT_LE(test, log_count_device(f), 2);
}

static void a8_needs_resets_under_load(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *descs[4];
	struct job *jobs[4];

	/* Keeps the log of the device from overflowing on a fast machine. */
	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = ANY_LINE, .delay_us = 1000);
	for (int i = 0; i < 4; i++)
		descs[i] = line_get(f, i, GPIOD_IN);
	for (int n = 0; n < 2; n++) {
		unsigned int resets = kunit_virtio_resets(f->g->dev);

		for (int i = 0; i < 4; i++)
			jobs[i] = job_start(f, get_value_until_it_fails, descs[i]);
		gpio_model_mark(f->g);
		assert_soon(f, 10, "get 3");
		kunit_virtio_needs_reset(f->g->dev);
		/* Messages that the driver sent before it was told. */
		kunit_virtio_forgive(f->g->dev, KUNIT_VIRTIO_RULE_NEEDS_RESET);
		assert_soon(f, 1, "reset");
		for (int i = 0; i < 4; i++) {
			WRITE_ONCE(jobs[i]->stop, true);
			KUNIT_EXPECT_TRUE(test, job_wait(jobs[i], 2 * driver_patience()));
			KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(descs[i]), 0);
		}
		KUNIT_EXPECT_GT(test, kunit_virtio_resets(f->g->dev), resets);
	}
}

static void a8_unbinds_while_it_is_reset(struct kunit *test)
{
	struct fixture *f = plug(test);

	for (int i = 0; i < 5; i++) {
		kunit_virtio_needs_reset(f->g->dev);
		fsleep(200 * i);
		unbind_driver(f);
		KUNIT_ASSERT_EQ(test, bind_driver(f), 1);
	}
	expect_new_chip(f);
}

static void a8_transport_resets_it_meanwhile(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user;

	use_lines(f, &user);
	for (int i = 0; i < 3; i++) {
		gpio_model_mark(f->g);
		kunit_virtio_needs_reset(f->g->dev);
		fsleep(200 * i);
		KUNIT_ASSERT_EQ(test, virtio_device_reset_prepare(f->vdev), 0);
		KUNIT_ASSERT_EQ(test, virtio_device_reset_done(f->vdev), 0);
	}
	expect_as_before(f, user);
}

static void a8_reset_fails_at_first(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user;

	use_lines(f, &user);
	kunit_virtio_fail_find(f->g->dev, 1);
	kunit_virtio_needs_reset(f->g->dev);
	expect_as_before(f, user);
}

/* The event queue is the only one in use then. */
static void expect_edge_after_failed_notification(struct fixture *f, struct irq_user *user)
{
	assert_soon(f, 1, "arm 0");
	kunit_virtio_fail_notify(f->g->dev, true);
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
	gpio_model_mark(f->g);
	kunit_virtio_fail_notify(f->g->dev, false);
	assert_soon(f, 1, "arm 0");
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 2);
}

static void a8_notification_of_a_callback_fails(struct kunit *test)
{
	struct fixture *f = plug(test);

	expect_edge_after_failed_notification(f, irq_get(f, 0, IRQF_TRIGGER_RISING));
}

static void a8_notification_of_a_thread_fails(struct kunit *test)
{
	struct fixture *f = plug(test);

	expect_edge_after_failed_notification(f, irq_get_threaded(f, 0, IRQF_TRIGGER_RISING));
}

static void expect_failure_soon(struct fixture *f, struct gpio_desc *desc)
{
	struct job *job = job_start(f, get_value, desc);

	KUNIT_EXPECT_TRUE(f->test, job_wait(job, 2 * driver_patience()));
	KUNIT_EXPECT_LT(f->test, job->ret, 0);
}

static void ask_again_and_again(struct fixture *f)
{
	unsigned int resets = kunit_virtio_resets(f->g->dev);

	for (int i = 0; i < 120; i++) {
		kunit_virtio_needs_reset(f->g->dev);
		fsleep(driver_patience() * 3);
		WRITE_ONCE(f->steps, f->steps + 1);
	}
	resets = kunit_virtio_resets(f->g->dev) - resets;
	KUNIT_EXPECT_GE(f->test, resets, 1);
	KUNIT_EXPECT_LE(f->test, resets, 10);
	KUNIT_EXPECT_LE(f->test, log_count_device(f), 3);
}

static void a8_transport_revives_what_was_given_up(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user;

	use_lines(f, &user);
	ask_again_and_again(f);
	expect_failure_soon(f, line_desc(f, 1));

	gpio_model_mark(f->g);
	KUNIT_ASSERT_EQ(test, virtio_device_reset_prepare(f->vdev), 0);
	KUNIT_ASSERT_EQ(test, virtio_device_reset_done(f->vdev), 0);
	expect_as_before(f, user);

	/* The driver still resets it on demand. */
	gpio_model_mark(f->g);
	kunit_virtio_needs_reset(f->g->dev);
	assert_soon(f, 1, "ok direction 1 in");
}

/* How often workers had nothing to do. */
static unsigned long worker_sleeps(void)
{
	unsigned long count = 0;
	struct task_struct *task;

	guard(rcu)();
	for_each_process(task) {
		if (task->flags & PF_WQ_WORKER)
			count += READ_ONCE(task->nvcsw);
	}
	return count;
}

/* No work item runs every few milliseconds. */
static void expect_idle_workers(struct fixture *f)
{
	unsigned long before = worker_sleeps();

	msleep(600);
	KUNIT_EXPECT_LT(f->test, worker_sleeps() - before, 15);
}

static void a8_reset_never_works(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);
	struct irq_user *user = irq_get(f, 1, IRQF_TRIGGER_RISING);

	kunit_virtio_fail_find(f->g->dev, UINT_MAX);
	ask_again_and_again(f);
	expect_failure_soon(f, desc);
	irq_put(user);
	expect_idle_workers(f);
	KUNIT_EXPECT_TRUE(test, kunit_virtio_status(f->g->dev) & VIRTIO_CONFIG_S_FAILED);
	line_put(f, desc);

	kunit_virtio_fail_find(f->g->dev, 0);
	unbind_driver(f);
	KUNIT_ASSERT_EQ(test, bind_driver(f), 1);
	expect_new_chip(f);
}

static void a8_change_without_a_reset(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);
	struct irq_user *user = irq_get(f, 1, IRQF_TRIGGER_RISING);
	unsigned int resets = kunit_virtio_resets(f->g->dev);

	for (int i = 1; i <= 3; i++) {
		virtio_config_changed(f->vdev);
		KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), 0);
		gpio_model_rise(f->g, 1);
		assert_irqs(user, i);
	}
	KUNIT_EXPECT_EQ(test, kunit_virtio_resets(f->g->dev), resets);
}

/* The device keeps half of the slots, and is not reset for that any more. */
static void a8_change_after_the_last_reset(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ngpio = 4, .request_ring = 8);
	struct gpio_desc *silent = line_get(f, 0, GPIOD_IN);
	struct gpio_desc *desc = line_get(f, 1, GPIOD_IN);
	unsigned int resets;

	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 0, .drop = true);
	do {
		resets = kunit_virtio_resets(f->g->dev);
		for (int i = 0; i < 2; i++)
			KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(silent), -ETIMEDOUT);
		/* Longer than the driver backs off. */
		msleep(driver_patience() / 8);
		WRITE_ONCE(f->steps, f->steps + 1);
	} while (kunit_virtio_resets(f->g->dev) > resets);

	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), 0);
	virtio_config_changed(f->vdev);
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), 0);
}

static void a8_no_message_before_the_next_reset(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	/* The driver may back off before each but the first. */
	for (int i = 0; i < 3; i++) {
		gpio_model_mark(f->g);
		kunit_virtio_needs_reset(f->g->dev);
		assert_soon(f, 1, "ok direction 0 in");
	}
	gpio_model_mark(f->g);
	kunit_virtio_needs_reset(f->g->dev);
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), 0);
	EXPECT_LOG(f, "reset", "ok direction 0 in", "get 0");
}

/* The end of a reset does not let messages go if the device needs another one by then. */
static void a8_device_needs_another_reset_meanwhile(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);
	struct job *get;

	fault(f, .type = VIRTIO_GPIO_MSG_SET_DIRECTION, .line = 0, .count = 1, .hold = true);
	gpio_model_mark(f->g);
	kunit_virtio_needs_reset(f->g->dev);
	assert_soon(f, 1, "direction 0 in");
	kunit_virtio_needs_reset(f->g->dev);
	get = job_start(f, get_value, desc);
	KUNIT_EXPECT_FALSE(test, job_wait(get, 20));

	gpio_model_mark(f->g);
	gpio_model_release(f->g, false);
	KUNIT_EXPECT_TRUE(test, job_wait(get, driver_patience()));
	KUNIT_EXPECT_EQ(test, get->ret, 0);
	EXPECT_LOG(f, "reset", "ok direction 0 in", "get 0");
}

/* A change that is not about a reset costs none. */
static void a8_change_while_it_is_restored(struct kunit *test)
{
	struct fixture *f = plug(test);

	line_get(f, 0, GPIOD_IN);
	irq_get(f, 1, IRQF_TRIGGER_RISING);
	fault(f, .type = VIRTIO_GPIO_MSG_SET_DIRECTION, .line = 0, .count = 1, .hold = true);
	gpio_model_mark(f->g);
	kunit_virtio_needs_reset(f->g->dev);
	assert_soon(f, 1, "direction 0 in");
	virtio_config_changed(f->vdev);
	gpio_model_release(f->g, false);

	assert_soon(f, 1, "ok type 1 rising");
	expect_count(f, 1, "reset");
}

static void a8_no_type_before_another_reset(struct kunit *test)
{
	struct fixture *f = plug(test);

	irq_get(f, 1, IRQF_TRIGGER_RISING);
	irq_get(f, 2, IRQF_TRIGGER_RISING);
	fault(f, .type = VIRTIO_GPIO_MSG_IRQ_TYPE, .line = 1, .count = 1, .hold = true);
	gpio_model_mark(f->g);
	kunit_virtio_needs_reset(f->g->dev);
	assert_soon(f, 1, "type 1 rising");
	kunit_virtio_needs_reset(f->g->dev);
	gpio_model_release(f->g, false);

	assert_soon(f, 1, "ok type 1 rising");
	assert_soon(f, 1, "ok type 2 rising");
	EXPECT_LOG(f, "reset", "type 1 rising", "reset", "ok type 2 rising");
}

static int request_rising(struct job *job)
{
	return irq_request(job->arg, IRQF_TRIGGER_RISING);
}

static void a8_type_is_not_sent_again_after_a_reset(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ngpio = 8, .request_ring = 2);
	struct gpio_desc *desc = line_get(f, 1, GPIOD_IN);
	struct irq_user *user = irq_user(f, 0);
	struct job *get, *request;

	line_get(f, 0, GPIOD_IN);
	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 1, .count = 1, .hold = true);
	get = job_start(f, get_value, desc);
	assert_soon(f, 1, "get 1");
	/* The type waits for room in the ring. */
	request = job_start(f, request_rising, user);
	job_sleeps(request);
	expect_count(f, 0, "type 0 rising");

	gpio_model_mark(f->g);
	kunit_virtio_needs_reset(f->g->dev);
	KUNIT_EXPECT_TRUE(test, job_wait(get, driver_patience()));
	KUNIT_EXPECT_TRUE(test, job_wait(request, driver_patience()));
	KUNIT_EXPECT_EQ(test, request->ret, 0);
	assert_soon(f, 1, "ok type 0 rising");
	msleep(50);
	expect_count(f, 1, "type 0 rising");
}

static void a8_shutdown_is_the_end(struct kunit *test)
{
	struct fixture *f = plug(test);
	unsigned int resets;

	/* A reset has failed, and the next one is pending. */
	gpio_model_mark(f->g);
	kunit_virtio_fail_find(f->g->dev, UINT_MAX);
	kunit_virtio_needs_reset(f->g->dev);
	assert_soon(f, 1, "reset");

	device_lock(&f->vdev->dev);
	shut_down(f);
	kunit_virtio_fail_find(f->g->dev, 0);
	resets = kunit_virtio_resets(f->g->dev);
	device_unlock(&f->vdev->dev);

	/* Each attempt resets twice, the shutdown once. */
	if (resets > 2 * 3 + 1)
		kunit_skip(test, "the driver has given up already");
	msleep(driver_patience());
	KUNIT_EXPECT_EQ(test, kunit_virtio_resets(f->g->dev), resets);
}

static void d1_is_as_before_after_suspend(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user;

	use_lines(f, &user);
	KUNIT_ASSERT_EQ(test, freeze(f), 0);
	KUNIT_ASSERT_EQ(test, restore(f), 0);
	expect_as_before(f, user);
}

static void d1_no_message_while_suspended(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);
	struct job *job;

	KUNIT_ASSERT_EQ(test, freeze(f), 0);
	job = job_start(f, get_value, desc);
	msleep(20);
	expect_count(f, 0, "get 0");
	KUNIT_ASSERT_EQ(test, restore(f), 0);
	/* It may have failed, or waited. */
	KUNIT_EXPECT_TRUE(test, job_wait(job, driver_patience() / 2));
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), 0);
}

static void d1_pending_message_ends_when_suspended(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);
	struct job *job;

	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 0, .count = 1, .hold = true);
	job = job_start(f, get_value, desc);
	assert_soon(f, 1, "get 0");
	KUNIT_ASSERT_EQ(test, freeze(f), 0);
	KUNIT_ASSERT_EQ(test, restore(f), 0);
	KUNIT_EXPECT_TRUE(test, job_wait(job, driver_patience() / 2));
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), 0);
}

static void d1_restore_fails(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	irq_get(f, 1, IRQF_TRIGGER_RISING);
	KUNIT_ASSERT_EQ(test, freeze(f), 0);
	kunit_virtio_fail_find(f->g->dev, UINT_MAX);
	KUNIT_EXPECT_LT(test, restore(f), 0);
	expect_failure_soon(f, desc);
	unbind_driver(f);
	KUNIT_EXPECT_FALSE(test, f->hung);
}

static void d1_no_retries_after_a_failed_restore(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 1, IRQF_TRIGGER_RISING);

	KUNIT_ASSERT_EQ(test, freeze(f), 0);
	kunit_virtio_fail_find(f->g->dev, UINT_MAX);
	KUNIT_EXPECT_LT(test, restore(f), 0);
	irq_put(user);
	expect_idle_workers(f);
}

/* The host may have made it one, and a consumer need not set its value. */
static void d1_output_keeps_the_value_of_the_device(struct kunit *test)
{
	struct fixture *f = prepare(test, .ngpio = 8);

	fault(f, .type = VIRTIO_GPIO_MSG_GET_DIRECTION, .line = 3,
	      .with = WITH_VALUE, .value = VIRTIO_GPIO_DIRECTION_OUT);
	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 3,
	      .with = WITH_VALUE, .value = 1);
	plug_prepared(f);
	line_get(f, 3, GPIOD_ASIS);
	gpio_model_mark(f->g);
	KUNIT_ASSERT_EQ(test, freeze(f), 0);
	KUNIT_ASSERT_EQ(test, restore(f), 0);
	EXPECT_LOG(f, "set 3 1", "ok direction 3 out");
	expect_count(f, 0, "set 3 0");
}

/* The device, which was reset, is told nothing of an output that it had before. */
static void d1_output_without_a_consumer_is_left_alone(struct kunit *test)
{
	struct fixture *f = prepare(test, .ngpio = 8);

	fault(f, .type = VIRTIO_GPIO_MSG_GET_DIRECTION, .line = 3,
	      .with = WITH_VALUE, .value = VIRTIO_GPIO_DIRECTION_OUT);
	plug_prepared(f);
	line_get(f, 2, GPIOD_OUT_HIGH);
	gpio_model_mark(f->g);
	KUNIT_ASSERT_EQ(test, freeze(f), 0);
	KUNIT_ASSERT_EQ(test, restore(f), 0);
	EXPECT_LOG(f, "set 2 1", "ok direction 2 out");
	expect_count(f, 0, "set 3 ?");
	expect_count(f, 0, "direction 3 *");
}

/* Values and directions that could not be sent are not lost. */
static void d1_replay_cannot_be_mapped(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user;

	use_lines(f, &user);
	KUNIT_ASSERT_EQ(test, freeze(f), 0);
	kunit_virtio_fail_map(f->g->dev, 1);
	KUNIT_ASSERT_EQ(test, restore(f), 0);
	expect_as_before(f, user);
}

static void d1_device_is_dead_when_restored(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	irq_get(f, 1, IRQF_TRIGGER_RISING);
	KUNIT_ASSERT_EQ(test, freeze(f), 0);
	kunit_virtio_fail_notify(f->g->dev, true);
	restore(f);
	expect_failure_soon(f, desc);
	unbind_driver(f);
	KUNIT_EXPECT_FALSE(test, f->hung);
}

static void d1_silent_device_delays_the_resume_once(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user;
	ktime_t start;

	for (int i = 0; i < 8; i++)
		user = irq_get(f, i, IRQF_TRIGGER_RISING);
	KUNIT_ASSERT_EQ(test, freeze(f), 0);
	fault(f, .type = VIRTIO_GPIO_MSG_IRQ_TYPE, .line = ANY_LINE, .drop = true);
	gpio_model_mark(f->g);
	start = ktime_get();
	KUNIT_ASSERT_EQ(test, restore(f), 0);
	/* Eight timeouts would take longer than the patience. */
	KUNIT_EXPECT_LT(test, ktime_ms_delta(ktime_get(), start), driver_patience() / 2);
	gpio_model_heal(f->g);
	assert_soon(f, 8, "arm ?");
	gpio_model_rise(f->g, 7);
	assert_irqs(user, 1);
}

/* The interrupts that are not restored by then are restored later. */
static void d1_slow_device_does_not_hold_up_the_resume(struct kunit *test)
{
	struct fixture *f = plug_with(test, .ngpio = 80, .event_ring = 256);
	struct irq_user *user;
	ktime_t start;

	for (int i = 0; i < 80; i++)
		user = irq_get(f, i, IRQF_TRIGGER_RISING);
	KUNIT_ASSERT_EQ(test, freeze(f), 0);
	fault(f, .type = VIRTIO_GPIO_MSG_IRQ_TYPE, .line = ANY_LINE,
	      .delay_us = 100 * USEC_PER_MSEC);
	gpio_model_mark(f->g);
	start = ktime_get();
	KUNIT_ASSERT_EQ(test, restore(f), 0);
	KUNIT_EXPECT_LT(test, ktime_ms_delta(ktime_get(), start), 80 * 100 - 1000);
	gpio_model_heal(f->g);
	assert_soon(f, 80, "arm *");
	gpio_model_rise(f->g, 79);
	assert_irqs(user, 1);
}

static void d1_unbinds_while_suspended(struct kunit *test)
{
	struct fixture *f = plug(test);

	line_get(f, 0, GPIOD_OUT_HIGH);
	KUNIT_ASSERT_EQ(test, freeze(f), 0);
	unbind_driver(f);
	KUNIT_EXPECT_FALSE(test, f->hung);
}

static struct fixture *plug_waking(struct kunit *test)
{
	struct fixture *f = prepare(test, .ngpio = 8);

	plug_prepared(f);
	KUNIT_ASSERT_NOT_NULL(test, f->gdev);
	device_init_wakeup(&f->vdev->dev, true);
	return f;
}

static void restore_action(void *data)
{
	restore(data);
}

/* A test that fails ends it, too. */
static void suspend(struct fixture *f)
{
	if (!IS_ENABLED(CONFIG_SUSPEND))
		kunit_skip(f->test, "needs CONFIG_SUSPEND");
	KUNIT_ASSERT_EQ(f->test, freeze_to_idle(f), 0);
	KUNIT_ASSERT_EQ(f->test, 0,
			kunit_add_action_or_reset(f->test, restore_action, f));
}

static int resume(struct fixture *f)
{
	kunit_remove_action(f->test, restore_action, f);
	return restore(f);
}

/* Lines 0 and 1 interrupt. The first of them is to wake the system up. */
static void suspend_with_wakeup(struct fixture *f, struct irq_user *users[2])
{
	users[0] = irq_get(f, 0, IRQF_TRIGGER_RISING);
	users[1] = irq_get(f, 1, IRQF_TRIGGER_RISING);
	KUNIT_ASSERT_EQ(f->test, enable_irq_wake(users[0]->irq), 0);
	gpio_model_mark(f->g);
	suspend(f);
}

static void expect_restored(struct fixture *f, struct irq_user *users[2])
{
	int count = atomic_read(&users[0]->count);

	assert_soon(f, 1, "arm 1");
	EXPECT_LOG(f, "reset", "ok type 0 rising", "arm 0");
	EXPECT_LOG(f, "reset", "ok type 1 rising", "arm 1");
	gpio_model_rise(f->g, 0);
	gpio_model_rise(f->g, 1);
	assert_irqs(users[0], count + 1);
	assert_irqs(users[1], 1);
	KUNIT_EXPECT_EQ(f->test, disable_irq_wake(users[0]->irq), 0);
}

static void expect_resumed(struct fixture *f, struct irq_user *users[2])
{
	gpio_model_mark(f->g);
	KUNIT_ASSERT_EQ(f->test, resume(f), 0);
	expect_restored(f, users);
}

static void expect_suspend_to_reset(struct fixture *f)
{
	gpio_model_mark(f->g);
	suspend(f);
	expect_count(f, 1, "reset");
	KUNIT_EXPECT_EQ(f->test, resume(f), 0);
}

static void d5_line_wakes_the_system(struct kunit *test)
{
	struct fixture *f = plug_waking(test);
	struct irq_user *users[2];

	suspend_with_wakeup(f, users);
	assert_soon(f, 1, "ok type 1 none");
	gpio_model_rise(f->g, 1);
	gpio_model_rise(f->g, 0);
	assert_irqs(users[0], 1);
	/* It may do so again. */
	assert_soon(f, 1, "arm 0");
	gpio_model_rise(f->g, 0);
	assert_irqs(users[0], 2);
	expect_count(f, 0, "reset");
	expect_count(f, 0, "type 0 *");
	KUNIT_EXPECT_EQ(test, atomic_read(&users[1]->count), 0);

	expect_resumed(f, users);
}

/* As that of a consumer that is suspended after the controller. */
static void d5_line_is_to_wake_the_system_after_all(struct kunit *test)
{
	struct fixture *f = plug_waking(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	gpio_model_mark(f->g);
	suspend(f);
	assert_soon(f, 1, "ok type 0 none");
	KUNIT_ASSERT_EQ(test, enable_irq_wake(user->irq), 0);
	EXPECT_LOG(f, "ok type 0 none", "ok type 0 rising", "arm 0");
	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
	KUNIT_EXPECT_EQ(test, disable_irq_wake(user->irq), 0);
	expect_count(f, 0, "reset");
	KUNIT_EXPECT_EQ(test, resume(f), 0);
}

static void d5_device_cannot_wake_the_system(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	KUNIT_ASSERT_EQ(test, enable_irq_wake(user->irq), 0);
	expect_suspend_to_reset(f);
	KUNIT_EXPECT_EQ(test, disable_irq_wake(user->irq), 0);
}

static void d5_device_without_interrupts_is_reset(struct kunit *test)
{
	struct fixture *f = plug_waking(test);

	line_get(f, 0, GPIOD_IN);
	expect_suspend_to_reset(f);
}

static void d5_hibernation_resets_the_device(struct kunit *test)
{
	struct fixture *f = plug_waking(test);
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	KUNIT_ASSERT_EQ(test, enable_irq_wake(user->irq), 0);
	gpio_model_mark(f->g);
	KUNIT_ASSERT_EQ(test, freeze(f), 0);
	expect_count(f, 1, "reset");
	KUNIT_EXPECT_EQ(test, restore(f), 0);
	KUNIT_EXPECT_EQ(test, disable_irq_wake(user->irq), 0);
}

static void d5_unbinds_while_it_may_wake_the_system(struct kunit *test)
{
	struct fixture *f = plug_waking(test);
	struct irq_user *users[2];

	suspend_with_wakeup(f, users);
	kunit_remove_action(test, restore_action, f);
	unbind_driver(f);
	KUNIT_EXPECT_EQ(test, bind_driver(f), 1);
	expect_new_chip(f);
}

/* Those of a consumer that is resumed before the controller would wait for it in vain. */
static void d5_requests_do_not_wait_for_the_resume(struct kunit *test)
{
	struct fixture *f = plug_waking(test);
	struct gpio_desc *desc = line_get(f, 2, GPIOD_IN);
	struct irq_user *users[2];
	struct job *job;

	suspend_with_wakeup(f, users);
	job = job_start(f, get_value, desc);
	KUNIT_EXPECT_TRUE(test, job_wait(job, driver_patience()));
	KUNIT_EXPECT_EQ(test, job->ret, 0);
	expect_resumed(f, users);
}

/* It is reset, as it may not have taken back the types. */
static void d5_device_does_not_answer(struct kunit *test)
{
	struct fixture *f = plug_waking(test);
	struct irq_user *users[2];

	fault(f, .type = VIRTIO_GPIO_MSG_GET_DIRECTION, .line = 0, .count = 1, .hold = true);
	suspend_with_wakeup(f, users);
	expect_count(f, 1, "reset");
	expect_resumed(f, users);
}

/* Freezing holds the lock that the reset needs: neither waits for the other. */
static void d5_device_needs_a_reset_meanwhile(struct kunit *test)
{
	struct fixture *f = plug_waking(test);
	struct irq_user *users[2];
	ktime_t start = ktime_get();

	kunit_virtio_needs_reset(f->g->dev);
	suspend_with_wakeup(f, users);
	KUNIT_EXPECT_LT(test, ktime_ms_delta(ktime_get(), start), 3000);
	expect_resumed(f, users);
}

/* The interrupts that are not to wake the system up would be enabled again. */
static void d5_no_reset_before_the_resume(struct kunit *test)
{
	struct fixture *f = plug_waking(test);
	struct gpio_desc *desc = line_get(f, 2, GPIOD_IN);
	struct irq_user *users[2];
	struct job *job;

	suspend_with_wakeup(f, users);
	virtio_break_device(f->vdev);
	job = job_start(f, get_value, desc);
	KUNIT_EXPECT_TRUE(test, job_wait(job, driver_patience()));
	KUNIT_EXPECT_LT(test, job->ret, 0);
	msleep(100);
	expect_count(f, 0, "reset");
	expect_resumed(f, users);
}

static void d5_restore_fails(struct kunit *test)
{
	struct fixture *f = plug_waking(test);
	struct gpio_desc *desc = line_get(f, 2, GPIOD_IN);
	struct irq_user *users[2];

	suspend_with_wakeup(f, users);
	kunit_virtio_fail_finalize(f->g->dev, UINT_MAX);
	KUNIT_EXPECT_LT(test, resume(f), 0);
	KUNIT_EXPECT_TRUE(test, list_empty(&f->vdev->vqs));
	expect_failure_soon(f, desc);
}

/* The features are refused once; the driver has the device reset again. */
static void d5_restore_fails_at_first(struct kunit *test)
{
	struct fixture *f = plug_waking(test);
	struct irq_user *users[2];

	suspend_with_wakeup(f, users);
	kunit_virtio_fail_finalize(f->g->dev, 1);
	gpio_model_mark(f->g);
	KUNIT_EXPECT_LT(test, resume(f), 0);
	expect_restored(f, users);
}

static void d2_is_as_before_after_reset(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user;

	use_lines(f, &user);
	KUNIT_ASSERT_EQ(test, virtio_device_reset_prepare(f->vdev), 0);
	KUNIT_ASSERT_EQ(test, virtio_device_reset_done(f->vdev), 0);
	expect_as_before(f, user);
}

static int reset_function(struct job *job)
{
	return virtio_device_reset_prepare(job->f->vdev) ?:
	       virtio_device_reset_done(job->f->vdev);
}

/* The reset of the transport stops after the driver was told, and its queues are closed. */
static struct job *stop_in_reset(struct fixture *f)
{
	struct job *job;

	kunit_virtio_stop_at(f->g->dev, KUNIT_VIRTIO_OP_RESET, 1);
	job = job_start(f, reset_function, NULL);
	KUNIT_ASSERT_TRUE(f->test, kunit_virtio_wait_stopped(f->g->dev, KUNIT_VIRTIO_OP_RESET,
							     driver_patience()));
	return job;
}

static void end_reset(struct fixture *f, struct job *job)
{
	kunit_virtio_release(f->g->dev, KUNIT_VIRTIO_OP_RESET);
	KUNIT_EXPECT_TRUE(f->test, job_wait(job, driver_patience()));
	KUNIT_EXPECT_EQ(f->test, job->ret, 0);
}

static void d2_message_during_a_reset_waits(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);
	struct job *reset, *get;

	reset = stop_in_reset(f);
	get = job_start(f, get_value, desc);
	KUNIT_EXPECT_FALSE(test, job_wait(get, 20));
	end_reset(f, reset);
	KUNIT_EXPECT_TRUE(test, job_wait(get, driver_patience()));
	/* It may have timed out on a busy host. */
	KUNIT_EXPECT_TRUE_MSG(test, get->ret == 0 || get->ret == -ETIMEDOUT, "%d", get->ret);
	EXPECT_LOG(f, "reset", "ok direction 0 in");
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), 0);
}

static void d2_message_without_room_waits_for_the_reset(struct kunit *test)
{
	struct fixture *f = plug_with(test, .request_ring = 2);
	struct gpio_desc *descs[2];
	struct job *reset, *gets[2];

	for (int i = 0; i < 2; i++)
		descs[i] = line_get(f, i, GPIOD_IN);
	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 0, .count = 1, .hold = true);
	gets[0] = job_start(f, get_value, descs[0]);
	assert_soon(f, 1, "get 0");
	reset = stop_in_reset(f);
	gets[1] = job_start(f, get_value, descs[1]);
	/* The driver may look after waits from time to time. */
	msleep(50);
	end_reset(f, reset);
	for (int i = 0; i < 2; i++)
		KUNIT_EXPECT_TRUE(test, job_wait(gets[i], driver_patience()));
	KUNIT_EXPECT_TRUE_MSG(test, gets[1]->ret == 0 || gets[1]->ret == -ETIMEDOUT, "%d",
			      gets[1]->ret);
	for (int i = 0; i < 2; i++)
		KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(descs[i]), 0);
}

static void d2_task_that_resets_it_is_killed(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct irq_user *user;
	struct job *job;

	use_lines(f, &user);
	fault(f, .type = VIRTIO_GPIO_MSG_SET_DIRECTION, .line = 0, .count = 1, .drop = true);
	job = job_start(f, reset_function, NULL);
	assert_soon(f, 1, "direction 0 out");
	job_kill(job);
	KUNIT_EXPECT_TRUE(test, job_wait(job, driver_patience()));
	expect_as_before(f, user);
}

static void d2_is_reset_again_and_again(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);
	struct irq_user *user = irq_get(f, 7, IRQF_TRIGGER_RISING);

	for (int i = 1; i <= 5; i++) {
		KUNIT_ASSERT_EQ(test, virtio_device_reset_prepare(f->vdev), 0);
		KUNIT_ASSERT_EQ(test, virtio_device_reset_done(f->vdev), 0);
		gpio_model_level(f->g, 0, i & 1);
		KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), i & 1);
		gpio_model_rise(f->g, 7);
		assert_irqs(user, i);
	}
}

static void d2_pending_message_ends_at_reset(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);
	struct job *job;

	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 0, .count = 1, .hold = true);
	job = job_start(f, get_value, desc);
	assert_soon(f, 1, "get 0");
	KUNIT_ASSERT_EQ(test, virtio_device_reset_prepare(f->vdev), 0);
	KUNIT_ASSERT_EQ(test, virtio_device_reset_done(f->vdev), 0);
	KUNIT_EXPECT_TRUE(test, job_wait(job, driver_patience() / 2));
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), 0);
}

static void d2_reset_under_load(struct kunit *test)
{
	struct fixture *f = plug(test);
	struct gpio_desc *descs[4];
	struct job *jobs[4];

	for (int i = 0; i < 4; i++) {
		descs[i] = line_get(f, i, GPIOD_IN);
		jobs[i] = job_start(f, get_value_until_it_fails, descs[i]);
	}
	assert_soon(f, 10, "get 3");
	KUNIT_ASSERT_EQ(test, virtio_device_reset_prepare(f->vdev), 0);
	KUNIT_ASSERT_EQ(test, virtio_device_reset_done(f->vdev), 0);
	for (int i = 0; i < 4; i++) {
		WRITE_ONCE(jobs[i]->stop, true);
		KUNIT_EXPECT_TRUE(test, job_wait(jobs[i], 2 * driver_patience()));
		KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(descs[i]), 0);
	}
}

static struct kunit_case cases[] = {
	KUNIT_CASE(is_bound_again_and_again),
	KUNIT_CASE(chip_is_gone_after_unbind),
	KUNIT_CASE(line_fails_after_unbind),
	KUNIT_CASE(unbinds_with_lines_and_interrupts_in_use),
	KUNIT_CASE(nothing_is_left_after_unbind),
	KUNIT_CASE_SLOW(unbinds_under_load),
	KUNIT_CASE(unbinds_while_events_come),
	KUNIT_CASE(two_devices_do_not_mix),
	KUNIT_CASE(a8_pending_message_ends_when_a_reset_is_needed),
	KUNIT_CASE(a8_is_as_before_when_it_was_reset),
	KUNIT_CASE_SLOW(a8_needs_resets_under_load),
	KUNIT_CASE(a8_unbinds_while_it_is_reset),
	KUNIT_CASE(a8_transport_resets_it_meanwhile),
	KUNIT_CASE(a8_reset_fails_at_first),
	KUNIT_CASE(a8_notification_of_a_callback_fails),
	KUNIT_CASE(a8_notification_of_a_thread_fails),
	KUNIT_CASE_SLOW(a8_transport_revives_what_was_given_up),
	KUNIT_CASE_SLOW(a8_reset_never_works),
	KUNIT_CASE(a8_change_without_a_reset),
	KUNIT_CASE(a8_change_after_the_last_reset),
	KUNIT_CASE(a8_no_message_before_the_next_reset),
	KUNIT_CASE(a8_device_needs_another_reset_meanwhile),
	KUNIT_CASE(a8_change_while_it_is_restored),
	KUNIT_CASE(a8_no_type_before_another_reset),
	KUNIT_CASE(a8_type_is_not_sent_again_after_a_reset),
	KUNIT_CASE(a8_shutdown_is_the_end),
	KUNIT_CASE(d1_is_as_before_after_suspend),
	KUNIT_CASE(d1_no_message_while_suspended),
	KUNIT_CASE(d1_pending_message_ends_when_suspended),
	KUNIT_CASE(d1_restore_fails),
	KUNIT_CASE(d1_no_retries_after_a_failed_restore),
	KUNIT_CASE(d1_output_keeps_the_value_of_the_device),
	KUNIT_CASE(d1_output_without_a_consumer_is_left_alone),
	KUNIT_CASE(d1_replay_cannot_be_mapped),
	KUNIT_CASE(d1_device_is_dead_when_restored),
	KUNIT_CASE(d1_silent_device_delays_the_resume_once),
	KUNIT_CASE_SLOW(d1_slow_device_does_not_hold_up_the_resume),
	KUNIT_CASE(d1_unbinds_while_suspended),
	KUNIT_CASE(d5_line_wakes_the_system),
	KUNIT_CASE(d5_line_is_to_wake_the_system_after_all),
	KUNIT_CASE(d5_device_cannot_wake_the_system),
	KUNIT_CASE(d5_device_without_interrupts_is_reset),
	KUNIT_CASE(d5_hibernation_resets_the_device),
	KUNIT_CASE(d5_unbinds_while_it_may_wake_the_system),
	KUNIT_CASE(d5_requests_do_not_wait_for_the_resume),
	KUNIT_CASE(d5_device_does_not_answer),
	KUNIT_CASE(d5_device_needs_a_reset_meanwhile),
	KUNIT_CASE(d5_no_reset_before_the_resume),
	KUNIT_CASE(d5_restore_fails),
	KUNIT_CASE(d5_restore_fails_at_first),
	KUNIT_CASE(d2_is_as_before_after_reset),
	KUNIT_CASE(d2_message_during_a_reset_waits),
	KUNIT_CASE(d2_message_without_room_waits_for_the_reset),
	KUNIT_CASE(d2_task_that_resets_it_is_killed),
	KUNIT_CASE(d2_is_reset_again_and_again),
	KUNIT_CASE(d2_pending_message_ends_at_reset),
	KUNIT_CASE_SLOW(d2_reset_under_load),
	{ }
};

static struct kunit_suite gpio_virtio_life_suite = {
	.name		= "gpio_virtio_life",
	.suite_init	= shuffle_cases,
	.init		= fixture_init,
	.test_cases	= cases,
};

kunit_test_suite(gpio_virtio_life_suite);
