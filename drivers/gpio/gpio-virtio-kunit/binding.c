// SPDX-License-Identifier: GPL-2.0
/*
 * Two drivers are bound to a device in turn
 *
 * The other driver does what most virtio drivers do: the device's priv field
 * points to memory that its remove frees, and is not cleared.
 *
 * Names begin with the number of the bug in a driver or the core:
 *
 *	K4	a change of the configuration tears a read of several fields
 *	K9	a device whose restore has failed cannot ask for a reset
 *	S1	the driver uses the priv that the previous driver has left
 *	S3	the end of a suspend or reset of another binding opens open queues
 *	S4	a callback of one driver runs on the data of another
 *	S5	a change of the configuration is reported during remove
 *	S8	callbacks run while the queues are deleted
 *	S10	the driver finds queues of a device that has refused the features
 */

#include <linux/atomic.h>
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/prandom.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/virtio_config.h>
#include <uapi/linux/virtio_ids.h>

#include <kunit/resource.h>

#include "fixture.h"
#include "shuffle.h"

static unsigned int binding_steps = 1000;
module_param(binding_steps, uint, 0444);
MODULE_PARM_DESC(binding_steps, "Number of steps of the test that rebinds at random");

static unsigned int binding_seed = 1;
module_param(binding_seed, uint, 0444);
MODULE_PARM_DESC(binding_seed, "Seed of the test that rebinds at random");

/* The other driver */

struct other {
	struct virtqueue *vq;
	bool found;
	bool leaves;
	unsigned int calls;
};

/* Callbacks of the other driver on a device that it does not have. */
static atomic_t strays;

/* Its remove clears priv, for tests of other bugs. */
static bool other_is_tidy;

static struct virtio_driver other_driver;

/* Its data, or NULL in an unexpected callback. */
static struct other *other_data(struct virtio_device *vdev)
{
	struct other *other = vdev->priv;

	if (vdev->dev.driver != &other_driver.driver || other->leaves) {
		atomic_inc(&strays);
		return NULL;
	}
	other->calls++;
	return other;
}

static void other_callback(struct virtqueue *vq)
{
	other_data(vq->vdev);
}

static void other_close(struct virtio_device *vdev, struct other *other)
{
	virtio_reset_device(vdev);
	if (other->found)
		vdev->config->del_vqs(vdev);
	other->found = false;
}

static int other_open(struct virtio_device *vdev, struct other *other)
{
	struct virtqueue_info info = { "requestq", other_callback };
	int ret;

	/* This driver has not suspended the device. */
	if (other->found)
		vdev->config->del_vqs(vdev);
	ret = virtio_find_vqs(vdev, 1, &other->vq, &info, NULL);
	other->found = !ret;
	return ret;
}

static int other_probe(struct virtio_device *vdev)
{
	struct other *other = kzalloc_obj(*other);
	int ret;

	if (!other)
		return -ENOMEM;
	vdev->priv = other;
	/* Some drivers keep it in priv. */
	dev_set_drvdata(&vdev->dev, other);
	ret = other_open(vdev, other);
	if (ret) {
		kfree(other);
		return ret;
	}
	virtio_device_ready(vdev);
	return 0;
}

static void other_remove(struct virtio_device *vdev)
{
	struct other *other = vdev->priv;

	other->leaves = true;
	other_close(vdev, other);
	/* Poison the memory, so that a use after free fails without KASAN, too. */
	memset(other, 0xa5, sizeof(*other));
	kfree(other);
	if (other_is_tidy)
		vdev->priv = NULL;
}

static void other_config_changed(struct virtio_device *vdev)
{
	other_data(vdev);
}

static int other_suspend(struct virtio_device *vdev)
{
	struct other *other = other_data(vdev);

	if (!other)
		return -ENODEV;
	other_close(vdev, other);
	return 0;
}

static int other_resume(struct virtio_device *vdev)
{
	struct other *other = other_data(vdev);

	return other ? other_open(vdev, other) : -ENODEV;
}

static const struct virtio_device_id other_ids[] = {
	{ VIRTIO_ID_GPIO, VIRTIO_DEV_ANY_ID },
	{ }
};

static struct virtio_driver other_driver = {
	.driver.name	= "gpio-virtio-other",
	.id_table	= other_ids,
	.probe		= other_probe,
	.remove		= other_remove,
	.config_changed	= other_config_changed,
#ifdef CONFIG_PM_SLEEP
	.freeze		= other_suspend,
	.restore	= other_resume,
#endif
	.reset_prepare	= other_suspend,
	.reset_done	= other_resume,
};

/* The tested driver. */
static struct device_driver *tested;

static void other_exit(void *data)
{
	unregister_virtio_driver(&other_driver);
}

/* The tested driver is bound. */
static struct fixture *plug_two(struct kunit *test)
{
	struct fixture *f;

	other_is_tidy = false;
	atomic_set(&strays, 0);
	KUNIT_ASSERT_EQ(test, register_virtio_driver(&other_driver), 0);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, other_exit, NULL));
	f = plug(test);
	tested = f->vdev->dev.driver;
	KUNIT_ASSERT_PTR_NE(test, tested, &other_driver.driver);
	return f;
}

static struct fixture *plug_two_tidy(struct kunit *test)
{
	struct fixture *f = plug_two(test);

	other_is_tidy = true;
	return f;
}

static int bind_to(struct fixture *f, struct device_driver *drv)
{
	unbind_driver(f);
	return device_driver_attach(drv, &f->vdev->dev);
}

static int bind_other(struct fixture *f)
{
	return bind_to(f, &other_driver.driver);
}

static int bind_tested(struct fixture *f)
{
	return bind_to(f, tested);
}

/* Returns the value of a line, or an error if the tested driver is not bound. */
static int use_line(struct fixture *f)
{
	struct gpio_desc *desc;
	int ret = -ENODEV;

	if (!find_chip(f))
		return -ENODEV;
	desc = line_get(f, 0, GPIOD_IN);
	if (!IS_ERR(desc)) {
		ret = gpiod_get_value_cansleep(desc);
		line_put(f, desc);
	}
	put_chip(f);
	/* While the device is suspended each request waits for its timeout. */
	WRITE_ONCE(f->steps, f->steps + 1);
	return ret;
}

/* Binds the driver again, and uses it. */
static void expect_works(struct fixture *f)
{
	KUNIT_ASSERT_EQ(f->test, bind_tested(f), 0);
	KUNIT_EXPECT_EQ(f->test, use_line(f), 0);
	KUNIT_EXPECT_EQ(f->test, atomic_read(&strays), 0);
	KUNIT_EXPECT_FALSE(f->test, f->hung);
}

/* S1: priv of the previous driver */

static void s1_binds_after_another_driver(struct kunit *test)
{
	struct fixture *f = plug_two(test);

	for (int i = 0; i < 3; i++) {
		KUNIT_ASSERT_EQ(test, bind_other(f), 0);
		expect_works(f);
	}
	unbind_driver(f);
}

static void s1_probe_fails_after_another_driver(struct kunit *test)
{
	struct fixture *f = plug_two(test);
	struct virtio_gpio_config space = f->g->space;

	/* Before the driver has set up a queue. */
	KUNIT_ASSERT_EQ(test, bind_other(f), 0);
	space.ngpio = 0;
	kunit_virtio_set_config(f->g->dev, &space);
	KUNIT_EXPECT_NE(test, bind_tested(f), 0);
	kunit_virtio_set_config(f->g->dev, &f->g->space);

	/* And while it sets up a queue. */
	KUNIT_ASSERT_EQ(test, bind_other(f), 0);
	kunit_virtio_fail_find(f->g->dev, 1);
	KUNIT_EXPECT_NE(test, bind_tested(f), 0);

	expect_works(f);
}

static void s1_shuts_down_after_another_driver(struct kunit *test)
{
	struct fixture *f = plug_two(test);

	KUNIT_ASSERT_EQ(test, bind_other(f), 0);
	KUNIT_ASSERT_EQ(test, bind_tested(f), 0);
	device_lock(&f->vdev->dev);
	shut_down(f);
	device_unlock(&f->vdev->dev);
	KUNIT_EXPECT_LT(test, use_line(f), 0);
}

static void s1_resumes_after_another_driver(struct kunit *test)
{
	struct fixture *f = plug_two(test);

	KUNIT_ASSERT_EQ(test, bind_other(f), 0);
	KUNIT_ASSERT_EQ(test, bind_tested(f), 0);
	KUNIT_ASSERT_EQ(test, freeze(f), 0);
	KUNIT_ASSERT_EQ(test, restore(f), 0);
	KUNIT_EXPECT_EQ(test, use_line(f), 0);
}

/* The transport suspends the device, or has it reset, and resumes it. */

struct pause {
	const char *name;
	int (*begin)(struct fixture *f);
	int (*end)(struct fixture *f);
};

static int reset_prepare(struct fixture *f)
{
	return virtio_device_reset_prepare(f->vdev);
}

static int reset_done(struct fixture *f)
{
	return virtio_device_reset_done(f->vdev);
}

static const struct pause pauses[] = {
	{ "reset", reset_prepare, reset_done },
	{ "sleep", freeze, restore },
};

KUNIT_ARRAY_PARAM_DESC(pause, pauses, name);

static void skip_without_sleep(struct kunit *test, const struct pause *pause)
{
	if (pause->begin == freeze && !IS_ENABLED(CONFIG_PM_SLEEP))
		kunit_skip(test, "needs CONFIG_PM_SLEEP");
}

/* S3: the driver is bound again during that */

static void s3_resumes_another_binding(struct kunit *test)
{
	const struct pause *pause = test->param_value;
	struct fixture *f;

	skip_without_sleep(test, pause);
	f = plug_two_tidy(test);
	KUNIT_ASSERT_EQ(test, pause->begin(f), 0);
	KUNIT_ASSERT_EQ(test, bind_tested(f), 0);
	pause->end(f);
	use_line(f);
	expect_works(f);
}

static void s3_resumes_with_another_driver_between(struct kunit *test)
{
	const struct pause *pause = test->param_value;
	struct fixture *f;

	skip_without_sleep(test, pause);
	f = plug_two_tidy(test);
	KUNIT_ASSERT_EQ(test, pause->begin(f), 0);
	KUNIT_ASSERT_EQ(test, bind_other(f), 0);
	KUNIT_ASSERT_EQ(test, bind_tested(f), 0);
	pause->end(f);
	use_line(f);
	expect_works(f);
}

#define ORDER_STEPS	4

/* The next step is one of these. */
enum step {
	STEP_PAUSE,
	STEP_UNBIND,
	STEP_OTHER,
	STEP_TESTED,
	STEPS
};

static const char step_names[] = "puot";

static void take_step(struct fixture *f, enum step next, const struct pause *pause,
		      bool *paused)
{
	switch (next) {
	case STEP_PAUSE:
		if (*paused)
			pause->end(f);
		else
			pause->begin(f);
		*paused = !*paused;
		break;
	case STEP_UNBIND:
		unbind_driver(f);
		break;
	case STEP_OTHER:
		KUNIT_EXPECT_EQ(f->test, bind_other(f), 0);
		break;
	case STEP_TESTED:
		KUNIT_EXPECT_EQ(f->test, bind_tested(f), 0);
		break;
	case STEPS:
		break;
	}
}

static void s3_any_order(struct kunit *test)
{
	const struct pause *pause = test->param_value;
	struct fixture *f;

	skip_without_sleep(test, pause);
	f = plug_two_tidy(test);
	for (unsigned int order = 0; order < 1 << (2 * ORDER_STEPS); order++) {
		char name[ORDER_STEPS + 1] = {};
		bool paused = false;

		for (unsigned int i = 0; i < ORDER_STEPS; i++)
			name[i] = step_names[order >> (2 * i) & 3];
		if (!strchr(name, step_names[STEP_PAUSE]))
			continue;
		for (unsigned int i = 0; i < ORDER_STEPS; i++)
			take_step(f, order >> (2 * i) & 3, pause, &paused);
		if (paused)
			pause->end(f);
		use_line(f);
		KUNIT_ASSERT_EQ_MSG(test, bind_tested(f), 0, "after %s", name);
		KUNIT_ASSERT_EQ_MSG(test, use_line(f), 0, "after %s", name);
		KUNIT_ASSERT_EQ_MSG(test, atomic_read(&strays), 0, "after %s", name);
	}
}

/* S4: the driver is bound again within a callback of that */

/* One thread is the transport, and one writes to sysfs. */
struct turn {
	int (*of_transport)(struct fixture *f);
	int (*of_user)(struct fixture *f);
};

static int transport_job(struct job *job)
{
	const struct turn *turn = job->arg;

	return turn->of_transport(job->f);
}

static int user_job(struct job *job)
{
	const struct turn *turn = job->arg;

	return turn->of_user(job->f);
}

/*
 * The core reads which driver is bound. Before it calls that driver, the user
 * binds the other one, unless the core prevents it.
 */
static void rebind_in_the_middle(struct fixture *f, int (*transport)(struct fixture *f),
				 int (*user)(struct fixture *f))
{
	struct turn turn = { .of_transport = transport, .of_user = user };
	struct kunit_virtio *dev = f->g->dev;
	struct job *jobs[2];

	kunit_virtio_stop_at(dev, KUNIT_VIRTIO_OP_GET_STATUS, 1);
	jobs[0] = job_start(f, transport_job, &turn);
	KUNIT_EXPECT_TRUE(f->test, kunit_virtio_wait_stopped(dev, KUNIT_VIRTIO_OP_GET_STATUS,
							     10000));
	jobs[1] = job_start(f, user_job, &turn);
	job_wait(jobs[1], 100);
	kunit_virtio_release_all(dev);
	/* The threads access this stack. */
	for (int i = 0; i < 2; i++) {
		while (!job_wait(jobs[i], 1000))
			;
	}
	KUNIT_EXPECT_EQ(f->test, jobs[1]->ret, 0);
	KUNIT_EXPECT_EQ(f->test, atomic_read(&strays), 0);
}

static void s4_begins_with_another_driver(struct kunit *test)
{
	const struct pause *pause = test->param_value;
	struct fixture *f;

	skip_without_sleep(test, pause);
	f = plug_two_tidy(test);
	KUNIT_ASSERT_EQ(test, bind_other(f), 0);
	rebind_in_the_middle(f, pause->begin, bind_tested);
	pause->end(f);
	expect_works(f);

	rebind_in_the_middle(f, pause->begin, bind_other);
	pause->end(f);
	expect_works(f);
}

static void s4_ends_with_another_driver(struct kunit *test)
{
	const struct pause *pause = test->param_value;
	struct fixture *f;

	skip_without_sleep(test, pause);
	f = plug_two_tidy(test);
	KUNIT_ASSERT_EQ(test, bind_other(f), 0);
	KUNIT_ASSERT_EQ(test, pause->begin(f), 0);
	rebind_in_the_middle(f, pause->end, bind_tested);
	expect_works(f);

	KUNIT_ASSERT_EQ(test, pause->begin(f), 0);
	rebind_in_the_middle(f, pause->end, bind_other);
	expect_works(f);
}

/* S5: the configuration changes meanwhile */

static int change_config(struct job *job)
{
	while (!READ_ONCE(job->stop)) {
		virtio_config_changed(job->f->vdev);
		cond_resched();
	}
	return 0;
}

static void s5_config_changes_all_the_time(struct kunit *test)
{
	const struct pause *pause = test->param_value;
	struct fixture *f;
	struct job *job;

	skip_without_sleep(test, pause);
	f = plug_two_tidy(test);
	job = job_start(f, change_config, NULL);
	for (int i = 0; i < 10; i++) {
		KUNIT_EXPECT_EQ(test, bind_other(f), 0);
		pause->begin(f);
		pause->end(f);
		KUNIT_EXPECT_EQ(test, bind_tested(f), 0);
		pause->begin(f);
		pause->end(f);
		unbind_driver(f);
	}
	WRITE_ONCE(job->stop, true);
	KUNIT_EXPECT_TRUE(test, job_wait(job, 2 * driver_patience()));
	expect_works(f);
}

static int unbind(struct fixture *f)
{
	unbind_driver(f);
	return 0;
}

/* The end of a resume enables reports of changes during remove. */
static void s5_config_changes_after_a_resume(struct kunit *test)
{
	const struct pause *pause = test->param_value;
	struct turn turn = { .of_transport = pause->end, .of_user = unbind };
	struct kunit_virtio *dev;
	struct job *jobs[2];
	struct fixture *f;

	skip_without_sleep(test, pause);
	f = plug_two_tidy(test);
	dev = f->g->dev;
	KUNIT_ASSERT_EQ(test, bind_other(f), 0);
	KUNIT_ASSERT_EQ(test, pause->begin(f), 0);

	/* The core calls the driver, and then reads the status. */
	kunit_virtio_stop_at(dev, KUNIT_VIRTIO_OP_FIND_VQS, 1);
	jobs[0] = job_start(f, transport_job, &turn);
	KUNIT_EXPECT_TRUE(test, kunit_virtio_wait_stopped(dev, KUNIT_VIRTIO_OP_FIND_VQS, 10000));
	kunit_virtio_stop_at(dev, KUNIT_VIRTIO_OP_GET_STATUS, 1);
	kunit_virtio_release(dev, KUNIT_VIRTIO_OP_FIND_VQS);
	KUNIT_EXPECT_TRUE(test, kunit_virtio_wait_stopped(dev, KUNIT_VIRTIO_OP_GET_STATUS,
							  10000));

	/* The core has disabled reports, or waits for the resume. */
	kunit_virtio_stop_at(dev, KUNIT_VIRTIO_OP_RESET, 1);
	jobs[1] = job_start(f, user_job, &turn);
	kunit_virtio_wait_stopped(dev, KUNIT_VIRTIO_OP_RESET, 100);
	kunit_virtio_release(dev, KUNIT_VIRTIO_OP_GET_STATUS);
	while (!job_wait(jobs[0], 1000))
		;

	KUNIT_EXPECT_TRUE(test, kunit_virtio_wait_stopped(dev, KUNIT_VIRTIO_OP_RESET, 10000));
	virtio_config_changed(f->vdev);
	KUNIT_EXPECT_EQ(test, atomic_read(&strays), 0);
	kunit_virtio_release_all(dev);
	while (!job_wait(jobs[1], 1000))
		;
	expect_works(f);
}

/* S10, K9: a resume, or a reset, that fails */

/* Waits until a line works, with time for all retries of the driver. */
static bool works_soon(struct fixture *f)
{
	for (int i = 0; i < 40; i++) {
		if (!use_line(f))
			return true;
		msleep(driver_patience() / 40);
	}
	return false;
}

static void s10_features_are_refused_when_it_is_reset(struct kunit *test)
{
	struct fixture *f = plug_two_tidy(test);

	kunit_virtio_refuse_features(f->g->dev, 0, 2);
	kunit_virtio_needs_reset(f->g->dev);
	KUNIT_EXPECT_TRUE(test, works_soon(f));
}

static void s10_features_are_not_taken_when_it_is_reset(struct kunit *test)
{
	struct fixture *f = plug_two_tidy(test);

	kunit_virtio_fail_finalize(f->g->dev, 2);
	kunit_virtio_needs_reset(f->g->dev);
	KUNIT_EXPECT_TRUE(test, works_soon(f));
}

static void s10_features_are_refused_from_now_on(struct kunit *test)
{
	struct fixture *f = plug_two_tidy(test);

	kunit_virtio_refuse_features(f->g->dev, 1, UINT_MAX);
	kunit_virtio_needs_reset(f->g->dev);
	KUNIT_EXPECT_TRUE(test, works_soon(f));
	kunit_virtio_needs_reset(f->g->dev);
	msleep(driver_patience());
	KUNIT_EXPECT_LT(test, use_line(f), 0);
	KUNIT_EXPECT_NE(test, bind_tested(f), 0);
	kunit_virtio_refuse_features(f->g->dev, 0, 0);
	expect_works(f);
}

/* Suspends the device, or prepares its reset; the resume fails before the driver is called. */
static void resume_refused(struct fixture *f, unsigned int times)
{
	const struct pause *pause = f->test->param_value;

	skip_without_sleep(f->test, pause);
	KUNIT_ASSERT_EQ(f->test, pause->begin(f), 0);
	kunit_virtio_refuse_features(f->g->dev, 0, times);
	KUNIT_EXPECT_EQ(f->test, pause->end(f), -ENODEV);
}

static void s10_features_are_refused_when_it_resumes(struct kunit *test)
{
	struct fixture *f = plug_two_tidy(test);

	resume_refused(f, 1);
	expect_works(f);
}

/* The core fails before it calls the driver. */
static void k12_recovers_from_a_resume_that_fails_early(struct kunit *test)
{
	struct fixture *f = plug_two_tidy(test);

	resume_refused(f, 1);
	KUNIT_EXPECT_TRUE(test, works_soon(f));
}

static void k12_callers_do_not_wait_for_a_resume_that_failed(struct kunit *test)
{
	struct fixture *f = plug_two_tidy(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);

	resume_refused(f, UINT_MAX);
	KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), -ENODEV);
	line_put(f, desc);
	kunit_virtio_refuse_features(f->g->dev, 0, 0);
	expect_works(f);
}

static void k9_asks_for_a_reset_after_a_failed_resume(struct kunit *test)
{
	const struct pause *pause = test->param_value;
	struct fixture *f;

	skip_without_sleep(test, pause);
	f = plug_two_tidy(test);
	KUNIT_ASSERT_EQ(test, pause->begin(f), 0);
	kunit_virtio_fail_find(f->g->dev, 1);
	KUNIT_EXPECT_LT(test, pause->end(f), 0);
	kunit_virtio_needs_reset(f->g->dev);
	KUNIT_EXPECT_TRUE(test, works_soon(f));

	/* The core had disabled reports for the pause. */
	kunit_virtio_needs_reset(f->g->dev);
	KUNIT_EXPECT_FALSE(test, f->vdev->config_change_pending);
	KUNIT_EXPECT_TRUE(test, works_soon(f));
	KUNIT_EXPECT_EQ(test, kunit_virtio_status(f->g->dev) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

/* Surprise removal */

static int get_value(struct job *job)
{
	return gpiod_get_value_cansleep(job->arg);
}

static void pulled_device_is_let_go_of(struct kunit *test)
{
	struct fixture *f = plug_two_tidy(test);
	struct gpio_desc *desc = line_get(f, 0, GPIOD_IN);
	struct job *job;

	irq_get(f, 1, IRQF_TRIGGER_RISING);
	fault(f, .type = VIRTIO_GPIO_MSG_GET_VALUE, .line = 0, .hold = true);
	job = job_start(f, get_value, desc);
	assert_soon(f, 1, "get 0");
	kunit_virtio_pull(f->g->dev);
	KUNIT_EXPECT_TRUE(test, job_wait(job, driver_patience()));
	KUNIT_EXPECT_LT(test, job->ret, 0);
	KUNIT_EXPECT_LT(test, gpiod_get_value_cansleep(desc), 0);
	/* The core warns once that the status is not zero. */
	kunit_warning_suppress(test)
		unplug_device(f);
	KUNIT_EXPECT_FALSE(test, f->hung);
}

/* S8: a reset does not wait for callbacks */

static void s8_unbinds_while_a_callback_runs(struct kunit *test)
{
	struct turn turn = { .of_user = unbind };
	struct fixture *f = plug_two_tidy(test);
	struct kunit_virtio *dev = f->g->dev;
	struct job *job;

	kunit_virtio_late_irqs(dev);
	kunit_virtio_set_irq(dev, KUNIT_VIRTIO_PROCESS);
	kunit_virtio_stop_at(dev, KUNIT_VIRTIO_OP_CALLBACK, 1);
	/* A driver may poll for answers with callbacks disabled. */
	kunit_virtio_interrupt(dev, REQUESTQ);
	KUNIT_EXPECT_TRUE(test, kunit_virtio_wait_stopped(dev, KUNIT_VIRTIO_OP_CALLBACK, 10000));
	job = job_start(f, user_job, &turn);
	/* The queues are not deleted before the callback returns. */
	KUNIT_EXPECT_FALSE(test, job_wait(job, 100));
	kunit_virtio_release_all(dev);
	while (!job_wait(job, 1000))
		;
	expect_works(f);
}

static int interrupt_all_the_time(struct job *job)
{
	while (!READ_ONCE(job->stop)) {
		kunit_virtio_interrupt(job->f->g->dev, REQUESTQ);
		kunit_virtio_interrupt(job->f->g->dev, EVENTQ);
		cond_resched();
	}
	return 0;
}

static void s8_interrupts_come_late(struct kunit *test)
{
	const struct pause *pause = test->param_value;
	struct fixture *f;
	struct job *job;

	skip_without_sleep(test, pause);
	f = plug_two_tidy(test);
	kunit_virtio_late_irqs(f->g->dev);
	job = job_start(f, interrupt_all_the_time, NULL);
	for (int i = 0; i < 5; i++) {
		KUNIT_EXPECT_EQ(test, bind_tested(f), 0);
		KUNIT_EXPECT_EQ(test, use_line(f), 0);
		KUNIT_EXPECT_EQ(test, pause->begin(f), 0);
		KUNIT_EXPECT_EQ(test, pause->end(f), 0);
		KUNIT_EXPECT_EQ(test, use_line(f), 0);
	}
	unbind_driver(f);
	msleep(20);
	WRITE_ONCE(job->stop, true);
	KUNIT_EXPECT_TRUE(test, job_wait(job, 2 * driver_patience()));
	KUNIT_EXPECT_GT(test, kunit_virtio_dropped(f->g->dev, REQUESTQ), 0);
	expect_works(f);
	/* An interrupt may arrive on another processor after the driver has synchronized. */
	kunit_virtio_forgive(f->g->dev, KUNIT_VIRTIO_RULE_CALLBACK);
}

/* K4: the configuration changes between two reads in probe */

static void k4_config_changes_while_it_is_read(struct kunit *test)
{
	struct fixture *f = prepare(test, .ngpio = 8);
	struct virtio_gpio_config space = f->g->space;

	space.ngpio = cpu_to_le16(4);
	kunit_virtio_set_config_after(f->g->dev, &space, 1);
	plug_prepared(f);
	KUNIT_ASSERT_NOT_NULL(test, f->gdev);
	KUNIT_EXPECT_EQ(test, gpio_device_get_chip(f->gdev)->ngpio, 4);
}

/* Bounce buffers */

static void works_with_bounce_buffers(struct kunit *test)
{
	static const char names[] = "zero\0one\0two";
	struct fixture *f = prepare(test, .ngpio = 3, .names = names,
				    .names_size = sizeof(names));
	struct irq_user *user;
	struct gpio_desc *desc;

	KUNIT_ASSERT_EQ(test, kunit_virtio_bounce(f->g->dev), 0);
	plug_prepared(f);
	KUNIT_ASSERT_NOT_NULL(test, f->gdev);
	KUNIT_EXPECT_STREQ(test, gpio_device_get_chip(f->gdev)->names[2], "two");

	desc = line_get(f, 0, GPIOD_IN);
	for (int level = 1; level >= 0; level--) {
		gpio_model_level(f->g, 0, level);
		KUNIT_EXPECT_EQ(test, gpiod_get_value_cansleep(desc), level);
	}
	line_get(f, 1, GPIOD_OUT_HIGH);
	KUNIT_EXPECT_EQ(test, gpio_model_line(f->g, 1).value, 1);
	user = irq_get(f, 2, IRQF_TRIGGER_RISING);
	for (int i = 1; i <= 3; i++) {
		gpio_model_rise(f->g, 2);
		assert_irqs(user, i);
	}
}

/* All of these, at random */

/* Returns whether it has bound a driver. */
static bool soak_step(struct fixture *f, struct rnd_state *rnd, const struct pause **pause)
{
	static const enum step steps[] = { STEP_UNBIND, STEP_OTHER, STEP_TESTED };
	bool paused = *pause;
	enum step step = STEP_UNBIND;
	unsigned int kinds = IS_ENABLED(CONFIG_PM_SLEEP) ? ARRAY_SIZE(pauses) : 1;

	switch (prandom_u32_state(rnd) % 8) {
	case 0:
	case 1:
	case 2:
		/* It fails while queues cannot be set up. */
		kunit_virtio_fail_find(f->g->dev, 0);
		step = steps[prandom_u32_state(rnd) % ARRAY_SIZE(steps)];
		take_step(f, step, NULL, NULL);
		break;
	case 3:
	case 4:
		if (!paused)
			*pause = &pauses[prandom_u32_state(rnd) % kinds];
		take_step(f, STEP_PAUSE, *pause, &paused);
		if (!paused)
			*pause = NULL;
		break;
	case 5:
		virtio_config_changed(f->vdev);
		break;
	case 6:
		kunit_virtio_needs_reset(f->g->dev);
		break;
	case 7:
		kunit_virtio_fail_find(f->g->dev, prandom_u32_state(rnd) % 2);
		break;
	}
	/* A driver may wait for the end of the pause until its timeout. */
	if (!*pause || !(prandom_u32_state(rnd) % 16))
		use_line(f);
	WRITE_ONCE(f->steps, f->steps + 1);
	return step != STEP_UNBIND;
}

static void rebinds_at_random(struct kunit *test)
{
	struct fixture *f = plug_two(test);
	const struct pause *pause = NULL;
	unsigned int binds = 0;
	struct rnd_state rnd;

	prandom_seed_state(&rnd, binding_seed);
	for (unsigned int i = 0; i < binding_steps && !f->hung; i++) {
		binds += soak_step(f, &rnd, &pause);
		KUNIT_ASSERT_EQ_MSG(test, atomic_read(&strays), 0, "step %u", i);
		KUNIT_ASSERT_EQ_MSG(test, kernel_splats(f), 0, "step %u", i);
	}
	kunit_info(test, "%u drivers were bound\n", binds);
	kunit_virtio_fail_find(f->g->dev, 0);
	if (pause)
		pause->end(f);
	expect_works(f);
	/* Messages that the driver sent before it was told of the reset. */
	kunit_virtio_forgive(f->g->dev, KUNIT_VIRTIO_RULE_NEEDS_RESET);
}

static const struct kunit_attributes slow = { .speed = KUNIT_SPEED_SLOW };

static struct kunit_case cases[] = {
	KUNIT_CASE(s1_binds_after_another_driver),
	KUNIT_CASE(s1_probe_fails_after_another_driver),
	KUNIT_CASE(s1_shuts_down_after_another_driver),
	KUNIT_CASE(s1_resumes_after_another_driver),
	KUNIT_CASE_PARAM(s3_resumes_another_binding, pause_gen_params),
	KUNIT_CASE_PARAM(s3_resumes_with_another_driver_between, pause_gen_params),
	KUNIT_CASE_PARAM_ATTR(s3_any_order, pause_gen_params, slow),
	KUNIT_CASE_PARAM(s4_begins_with_another_driver, pause_gen_params),
	KUNIT_CASE_PARAM(s4_ends_with_another_driver, pause_gen_params),
	KUNIT_CASE_PARAM(s5_config_changes_all_the_time, pause_gen_params),
	KUNIT_CASE_PARAM(s5_config_changes_after_a_resume, pause_gen_params),
	KUNIT_CASE(s10_features_are_refused_when_it_is_reset),
	KUNIT_CASE(s10_features_are_not_taken_when_it_is_reset),
	KUNIT_CASE(s10_features_are_refused_from_now_on),
	KUNIT_CASE_PARAM(s10_features_are_refused_when_it_resumes, pause_gen_params),
	KUNIT_CASE_PARAM(k12_recovers_from_a_resume_that_fails_early, pause_gen_params),
	KUNIT_CASE_PARAM(k12_callers_do_not_wait_for_a_resume_that_failed, pause_gen_params),
	KUNIT_CASE_PARAM(k9_asks_for_a_reset_after_a_failed_resume, pause_gen_params),
	KUNIT_CASE(pulled_device_is_let_go_of),
	KUNIT_CASE(s8_unbinds_while_a_callback_runs),
	KUNIT_CASE_PARAM(s8_interrupts_come_late, pause_gen_params),
	KUNIT_CASE(k4_config_changes_while_it_is_read),
	KUNIT_CASE(works_with_bounce_buffers),
	KUNIT_CASE_SLOW(rebinds_at_random),
	{ }
};

static struct kunit_suite gpio_virtio_binding_suite = {
	.name		= "gpio_virtio_binding",
	.suite_init	= shuffle_cases,
	.init		= fixture_init,
	.test_cases	= cases,
};

kunit_test_suite(gpio_virtio_binding_suite);
