// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of the fixture of the KUnit tests of virtio GPIO drivers
 *
 * Each runs an inner test that has to fail.
 */

/* For pr_debug(). */
#define DEBUG

#include <linux/gpio/driver.h>
#include <linux/iopoll.h>
#include <linux/jiffies.h>
#include <linux/printk.h>
#include <linux/virtio_config.h>

#include "fixture.h"
#include "shuffle.h"

/* The inner test. */
struct inner {
	struct kunit test;
	void (*fn)(struct fixture *f);
};

static void inner_try(void *context)
{
	struct inner *inner = context;
	struct kunit *test = &inner->test;

	KUNIT_ASSERT_EQ(test, fixture_init(test), 0);
	inner->fn(plug(test));
}

static void inner_catch(void *context)
{
}

static enum kunit_status run_inner(struct kunit *test, void (*fn)(struct fixture *f))
{
	struct inner *inner = kunit_kzalloc(test, sizeof(*inner), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, inner);
	kunit_init_test(&inner->test, "inner", NULL);
	inner->fn = fn;
	inner->test.try_catch = (struct kunit_try_catch){
		.test		= &inner->test,
		.try		= inner_try,
		.catch		= inner_catch,
		.timeout	= 60 * HZ,
	};
	kunit_try_catch_run(&inner->test.try_catch, inner);
	kunit_cleanup(&inner->test);
	return inner->test.status;
}

static void one_interrupt(struct fixture *f)
{
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);

	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
}

static void passes_what_is_right(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, run_inner(test, one_interrupt), KUNIT_SUCCESS);
}

static void one_interrupt_too_many(struct fixture *f)
{
	struct irq_user *user = irq_get(f, 0, IRQF_TRIGGER_RISING);
	int count;

	gpio_model_rise(f->g, 0);
	assert_irqs(user, 1);
	assert_soon(f, 2, "arm 0");
	gpio_model_rise(f->g, 0);
	/* If none comes, the inner test passes, which fails the outer one. */
	read_poll_timeout(atomic_read, count, count > 1, 200, 10 * USEC_PER_SEC, false,
			  &user->count);
	assert_irqs(user, 1);
}

static void fails_for_a_surplus_interrupt(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, run_inner(test, one_interrupt_too_many), KUNIT_FAILURE);
}

/* At a level that is not printed on the console, where it would count as a warning. */
static void warning(struct fixture *f)
{
	pr_debug("WARNING: of a test of tests\n");
}

static void fails_for_a_warning_of_the_kernel(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, run_inner(test, warning), KUNIT_FAILURE);
}

static int no_direction(struct gpio_chip *gc, unsigned int offset)
{
	return GPIO_LINE_DIRECTION_IN;
}

static struct gpio_chip left_chip = {
	.label		= "kunit-left",
	.base		= -1,
	.ngpio		= 1,
	.get_direction	= no_direction,
};

static void leave_chip(struct fixture *f)
{
	KUNIT_ASSERT_EQ(f->test, gpiochip_add_data(&left_chip, NULL), 0);
	/* The device is its parent, but may be removed first. */
	left_chip.parent = &f->vdev->dev;
}

static void fails_for_a_chip_that_outlives_the_device(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, run_inner(test, leave_chip), KUNIT_FAILURE);
	left_chip.parent = NULL;
	gpiochip_remove(&left_chip);
}

/* The device was ready before. */
static void break_a_rule(struct fixture *f)
{
	virtio_add_status(f->vdev, VIRTIO_CONFIG_S_DRIVER_OK);
}

static void fails_for_a_broken_rule_of_virtio(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, run_inner(test, break_a_rule), KUNIT_FAILURE);
}

static int wait_to_stop(struct job *job)
{
	virtio_device_reset_prepare(job->f->vdev);
	return 0;
}

/* The thread has to end before the device is removed. */
static void stop_a_thread(struct fixture *f)
{
	enum kunit_virtio_op op = KUNIT_VIRTIO_OP_GET_STATUS;

	kunit_virtio_stop_at(f->g->dev, op, 1);
	job_start(f, wait_to_stop, NULL);
	KUNIT_EXPECT_TRUE(f->test, kunit_virtio_wait_stopped(f->g->dev, op, 10000));
}

static void ends_a_thread_that_is_stopped(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, run_inner(test, stop_a_thread), KUNIT_SUCCESS);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(passes_what_is_right),
	KUNIT_CASE(fails_for_a_surplus_interrupt),
	KUNIT_CASE(fails_for_a_warning_of_the_kernel),
	KUNIT_CASE(fails_for_a_chip_that_outlives_the_device),
	KUNIT_CASE(fails_for_a_broken_rule_of_virtio),
	KUNIT_CASE(ends_a_thread_that_is_stopped),
	{ }
};

static struct kunit_suite gpio_virtio_fixture_suite = {
	.name		= "gpio_virtio_fixture",
	.suite_init	= shuffle_cases,
	.test_cases	= cases,
};

kunit_test_suite(gpio_virtio_fixture_suite);
