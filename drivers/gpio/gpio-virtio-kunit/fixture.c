// SPDX-License-Identifier: GPL-2.0
/*
 * Fixture of the KUnit tests of virtio GPIO drivers
 */

#include <linux/delay.h>
#include <linux/glob.h>
#include <linux/gpio/machine.h>
#include <linux/iopoll.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/suspend.h>
#include <linux/virtio.h>

#include <kunit/resource.h>

#include "fixture.h"

/* Longer than the timeout of a driver. */
static unsigned int patience_ms = 8000;
module_param(patience_ms, uint, 0444);
MODULE_PARM_DESC(patience_ms, "Time in milliseconds after which a driver hangs");

unsigned int driver_patience(void)
{
	return patience_ms;
}

/* The watchdog */

static void watchdog_fn(struct work_struct *work)
{
	struct fixture *f = container_of(work, struct fixture, watchdog.work);
	unsigned int now = READ_ONCE(f->g->messages) + READ_ONCE(f->g->events) +
			   READ_ONCE(f->steps);

	if (now == f->watched) {
		if (!f->hung)
			KUNIT_FAIL(f->test, "the driver hangs");
		f->hung = true;
		kunit_virtio_rescue(f->g->dev);
	}
	f->watched = now;
	/* The test may hang again in its next operation. */
	queue_delayed_work(system_dfl_wq, &f->watchdog, msecs_to_jiffies(patience_ms));
}

/* The kernel log */

static unsigned int count_log(struct fixture *f, const char *pattern, const char *part)
{
	struct kmsg_dump_iter iter = f->log_start;
	unsigned int count = 0;
	char line[256];
	size_t len;

	while (kmsg_dump_get_line(&iter, false, line, sizeof(line) - 1, &len)) {
		char *text = line;

		line[len] = '\0';
		strim(line);
		/* Skip the time stamp, if there is one. */
		if (*text == '[')
			text = strchr(text, ']') ? strchr(text, ']') + 1 : text;
		text = skip_spaces(text);
		/* Skip messages of KUnit. */
		if (*text == '#')
			continue;
		count += glob_match(pattern, text) && (!part || strstr(text, part));
	}

	return count;
}

unsigned int log_count(struct fixture *f, const char *pattern)
{
	return count_log(f, pattern, NULL);
}

/* Lines that are about the device. */
unsigned int log_count_device(struct fixture *f)
{
	return count_log(f, "*", dev_name(&f->vdev->dev));
}

unsigned int kernel_splats(struct fixture *f)
{
	return log_count(f, "WARNING: *") + log_count(f, "BUG: *") +
	       log_count(f, "UBSAN: *") + log_count(f, "INFO: task *");
}

/* The log of the device */

bool wait_for_log(struct fixture *f, const char *pattern, unsigned int count)
{
	bool found = gpio_model_wait(f->g, pattern, count);

	WRITE_ONCE(f->steps, f->steps + 1);
	return found;
}

void expect_in_order(struct fixture *f, const char * const *patterns)
{
	const char *missing = gpio_model_in_order(f->g, patterns);

	if (missing) {
		gpio_model_dump(f->g);
		KUNIT_FAIL(f->test, "not in the log where it should be: %s", missing);
	}
}

void expect_count(struct fixture *f, unsigned int count, const char *pattern)
{
	unsigned int found = gpio_model_count(f->g, pattern);

	if (found != count) {
		gpio_model_dump(f->g);
		KUNIT_FAIL(f->test, "%u times in the log, not %u: %s", found, count,
			   pattern);
	}
}

void assert_soon(struct fixture *f, unsigned int count, const char *pattern)
{
	if (!wait_for_log(f, pattern, count)) {
		gpio_model_dump(f->g);
		KUNIT_FAIL_AND_ABORT(f->test, "%u times in the log, not %u: %s",
				     gpio_model_count(f->g, pattern), count, pattern);
	}
}

/* Set-up and end of a test */

int fixture_init(struct kunit *test)
{
	struct fixture *f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);

	if (!f)
		return -ENOMEM;

	f->test = test;
	INIT_DELAYED_WORK(&f->watchdog, watchdog_fn);
	kmsg_dump_rewind(&f->log_start);
	f->log_start.cur_seq = f->log_start.next_seq;
	test->priv = f;
	return 0;
}

static int match_parent(struct gpio_chip *gc, const void *data)
{
	return gc->parent == data;
}

/* Runs after all actions that the test has registered. */
static void end_fixture(void *data)
{
	struct fixture *f = data;

	struct gpio_device *gdev = gpio_device_find(&f->vdev->dev, match_parent);

	cancel_delayed_work_sync(&f->watchdog);
	gpio_model_check(f->g);
	if (gdev) {
		KUNIT_FAIL(f->test, "the chip outlives the device");
		gpio_device_put(gdev);
	}
	if (kernel_splats(f))
		KUNIT_FAIL(f->test, "%u warnings of the kernel", kernel_splats(f));
}

/* The device */

static void chip_action(void *data)
{
	gpio_device_put(data);
}

bool find_chip(struct fixture *f)
{
	f->gdev = gpio_device_find(&f->vdev->dev, match_parent);
	if (f->gdev)
		KUNIT_ASSERT_EQ(f->test, 0,
				kunit_add_action_or_reset(f->test, chip_action, f->gdev));
	return f->gdev;
}

/* Puts the chip that find_chip() has found, before the test ends. */
void put_chip(struct fixture *f)
{
	kunit_release_action(f->test, chip_action, f->gdev);
	f->gdev = NULL;
}

struct fixture *prepare_config(struct kunit *test, const struct gpio_model_config *config)
{
	struct fixture *f = test->priv;

	f->g = gpio_model_create(test, config);
	KUNIT_ASSERT_NOT_NULL(test, f->g);
	f->vdev = kunit_virtio_device(f->g->dev);
	return f;
}

static void unplug_action(void *data)
{
	unplug_device(data);
}

/* The driver need not bind. */
void plug_prepared(struct fixture *f)
{
	KUNIT_ASSERT_EQ(f->test, 0,
			kunit_add_action_or_reset(f->test, end_fixture, f));
	queue_delayed_work(system_dfl_wq, &f->watchdog, msecs_to_jiffies(patience_ms));
	KUNIT_ASSERT_EQ(f->test, kunit_virtio_register(f->g->dev), 0);
	KUNIT_ASSERT_EQ(f->test, 0,
			kunit_add_action_or_reset(f->test, unplug_action, f));
	find_chip(f);
}

struct fixture *plug_only(struct kunit *test, const struct gpio_model_config *config)
{
	struct fixture *f = prepare_config(test, config);

	plug_prepared(f);
	return f;
}

struct fixture *plug_config(struct kunit *test, const struct gpio_model_config *config)
{
	struct fixture *f = plug_only(test, config);

	KUNIT_ASSERT_NOT_NULL_MSG(test, f->gdev, "no chip: is there a driver?");
	return f;
}

void unplug_device(struct fixture *f)
{
	kunit_virtio_unregister(f->g->dev);
}

/* Unplugs the device, and plugs another one in. */
void replug(struct fixture *f, const struct gpio_model_config *config)
{
	/* Release actions use the device of the fixture, which is replaced here. */
	kunit_release_action(f->test, unplug_action, f);
	kunit_release_action(f->test, end_fixture, f);
	prepare_config(f->test, config);
	plug_prepared(f);
}

void unbind_driver(struct fixture *f)
{
	device_release_driver(&f->vdev->dev);
}

/* As on shutdown of the system, with the lock of the device held. */
void shut_down(struct fixture *f)
{
	f->vdev->dev.bus->shutdown(&f->vdev->dev);
}

/* Returns 1 if the driver has bound. */
int bind_driver(struct fixture *f)
{
	return device_attach(&f->vdev->dev);
}

/* As in a suspend and resume of the system. */
#ifdef CONFIG_PM_SLEEP
int freeze(struct fixture *f)
{
	return virtio_device_freeze(f->vdev);
}

int restore(struct fixture *f)
{
	return virtio_device_restore(f->vdev);
}
#else
int freeze(struct fixture *f)
{
	kunit_skip(f->test, "needs CONFIG_PM_SLEEP");
}

int restore(struct fixture *f)
{
	return -EOPNOTSUPP;
}
#endif

/* Not in a hibernation: the device may end it. */
int freeze_to_idle(struct fixture *f)
{
#ifdef CONFIG_SUSPEND
	int ret;

	pm_suspend_target_state = PM_SUSPEND_TO_IDLE;
	ret = freeze(f);
	pm_suspend_target_state = PM_SUSPEND_ON;
	return ret;
#else
	return freeze(f);
#endif
}

/* Lines */

static void line_action(void *data)
{
	gpiochip_free_own_desc(data);
}

struct gpio_desc *line_get(struct fixture *f, unsigned int line, enum gpiod_flags flags)
{
	struct gpio_chip *gc = gpio_device_get_chip(f->gdev);
	struct gpio_desc *desc = gpiochip_request_own_desc(gc, line, "kunit",
							   GPIO_ACTIVE_HIGH, flags);

	if (!IS_ERR(desc))
		KUNIT_ASSERT_EQ(f->test, 0,
				kunit_add_action_or_reset(f->test, line_action, desc));
	return desc;
}

void line_put(struct fixture *f, struct gpio_desc *desc)
{
	kunit_release_action(f->test, line_action, desc);
}

/* A line without requesting it. */
struct gpio_desc *line_desc(struct fixture *f, unsigned int line)
{
	return gpio_device_get_desc(f->gdev, line);
}

/* Interrupts */

static irqreturn_t irq_handler(int irq, void *data)
{
	struct irq_user *user = data;

	WRITE_ONCE(user->in_task, in_task());
	atomic_inc(&user->count);
	if (user->in_handler)
		user->in_handler(user);
	return IRQ_HANDLED;
}

static void irq_action(void *data)
{
	irq_put(data);
}

/* The interrupt of a line, for irq_request(). */
struct irq_user *irq_user(struct fixture *f, unsigned int line)
{
	struct irq_user *user = kunit_kzalloc(f->test, sizeof(*user), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(f->test, user);
	user->f = f;
	user->line = line;
	user->irq = gpiod_to_irq(line_desc(f, line));
	KUNIT_ASSERT_GT(f->test, user->irq, 0);
	KUNIT_ASSERT_EQ(f->test, 0,
			kunit_add_action_or_reset(f->test, irq_action, user));
	return user;
}

int irq_request(struct irq_user *user, unsigned long flags)
{
	int ret = request_irq(user->irq, irq_handler, flags, "kunit", user);

	user->requested = !ret;
	return ret;
}

struct irq_user *irq_get(struct fixture *f, unsigned int line, unsigned long flags)
{
	struct irq_user *user = irq_user(f, line);

	KUNIT_EXPECT_EQ(f->test, irq_request(user, flags), 0);
	return user;
}

struct irq_user *irq_get_threaded(struct fixture *f, unsigned int line,
				  unsigned long flags)
{
	struct irq_user *user = irq_user(f, line);
	int ret = request_threaded_irq(user->irq, NULL, irq_handler,
				       flags | IRQF_ONESHOT, "kunit", user);

	user->requested = !ret;
	KUNIT_EXPECT_EQ(f->test, ret, 0);
	return user;
}

void irq_put(struct irq_user *user)
{
	if (user->requested)
		free_irq(user->irq, user);
	user->requested = false;
}

/* Waits until the handler has run @count times; fails on more. */
void assert_irqs(struct irq_user *user, int count)
{
	unsigned long end = jiffies + 10 * HZ;

	while (atomic_read(&user->count) < count && time_before(jiffies, end))
		fsleep(200);
	/* A surplus interrupt would arrive soon. */
	fsleep(1000);
	WRITE_ONCE(user->f->steps, user->f->steps + 1);

	if (atomic_read(&user->count) != count) {
		gpio_model_dump(user->f->g);
		KUNIT_FAIL_AND_ABORT(user->f->test, "%d interrupts, not %d",
				     atomic_read(&user->count), count);
	}
}

/* Threads */

static int job_fn(void *data)
{
	struct job *job = data;

	allow_signal(SIGKILL);
	job->ret = job->fn(job);
	complete_all(&job->done);
	return 0;
}

static void job_action(void *data)
{
	struct job *job = data;

	WRITE_ONCE(job->stop, true);
	/* A device that was plugged in later is unplugged by now. */
	if (!completion_done(&job->done))
		kunit_virtio_release_all(job->f->g->dev);
	/* Some drivers never wake a caller: leak the thread. */
	if (!job_wait(job, 4 * driver_patience())) {
		KUNIT_FAIL(job->f->test, "a thread hangs");
		return;
	}
	kthread_stop_put(job->task);
	kfree(job);
}

/* The thread ends with the test. */
struct job *job_start(struct fixture *f, int (*fn)(struct job *job), void *arg)
{
	struct job *job = kzalloc_obj(*job);

	KUNIT_ASSERT_NOT_NULL(f->test, job);
	job->f = f;
	job->fn = fn;
	job->arg = arg;
	init_completion(&job->done);
	job->task = kthread_create(job_fn, job, "gpio-virtio-kunit");
	if (IS_ERR(job->task)) {
		kfree(job);
		KUNIT_FAIL_AND_ABORT(f->test, "no thread");
	}
	get_task_struct(job->task);
	KUNIT_ASSERT_EQ(f->test, 0,
			kunit_add_action_or_reset(f->test, job_action, job));
	wake_up_process(job->task);
	return job;
}

bool job_wait(struct job *job, unsigned int ms)
{
	bool done = wait_for_completion_timeout(&job->done, msecs_to_jiffies(ms));

	WRITE_ONCE(job->f->steps, job->f->steps + 1);
	return done;
}

/* Waits until the thread waits: for an answer, or for its turn. */
void job_sleeps(struct job *job)
{
	unsigned int state;

	if (read_poll_timeout(READ_ONCE, state, state & TASK_UNINTERRUPTIBLE, 200,
			      2 * USEC_PER_SEC, false, job->task->__state))
		KUNIT_FAIL_AND_ABORT(job->f->test, "a thread does not wait, its state is %#x",
				     state);
}

void job_kill(struct job *job)
{
	send_sig(SIGKILL, job->task, 1);
}
