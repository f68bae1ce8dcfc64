// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of gpiolib: flags and interrupts of lines while others use
 * them, and while their chip is removed; arrays of lines.
 */

#include <linux/anon_inodes.h>
#include <linux/cleanup.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/gpio/consumer.h>
#include <linux/gpio/driver.h>
#include <linux/gpio/machine.h>
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/irqdesc.h>
#include <linux/irqdomain.h>
#include <linux/kobject.h>
#include <linux/kthread.h>
#include <linux/mman.h>
#include <linux/mutex.h>
#include <linux/pm_runtime.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/uaccess.h>

#include <uapi/linux/gpio.h>
#include <uapi/linux/sched/types.h>

#include <kunit/device.h>
#include <kunit/test.h>

#include "gpiolib.h"

#define LINES	4
#define LINE	1
#define LAST	(LINES - 1)

/* A task that gets here completes @reached and waits for @go_on. */
struct stop_point {
	bool armed;
	struct completion reached;
	struct completion go_on;
};

struct test_chip {
	struct gpio_chip gc;
	struct mutex bus_lock; /* of all lines */
	int bus_locks;
	int started;
	/* What the next get_direction() or free() does meanwhile. */
	int (*meanwhile)(struct test_chip *chip);
	struct stop_point in_get;
	struct stop_point in_bus_unlock;
	struct stop_point after_bus_unlock;
	struct stop_point in_resume;
	/* Lines of the last get_multiple() or set_multiple(), in a test of arrays. */
	unsigned long wanted;
	int requested;
	/* Descriptors of its own do not keep the device. */
	struct gpio_device *gdev;
	struct gpio_desc *desc;
	int irq;
	struct completion removed;
};

struct task {
	void (*job)(struct test_chip *chip);
	struct test_chip *chip;
	struct completion done;
	struct task_struct *thread;
};

static void stop_at(struct stop_point *stop)
{
	if (!stop->armed)
		return;
	stop->armed = false;
	complete(&stop->reached);
	wait_for_completion(&stop->go_on);
}

static irqreturn_t test_handler(int irq, void *data)
{
	return IRQ_HANDLED;
}

static int request_line(struct test_chip *chip)
{
	return request_threaded_irq(chip->irq, NULL, test_handler,
				    IRQF_ONESHOT | IRQF_TRIGGER_RISING, "test", chip);
}

static void do_meanwhile(struct test_chip *chip)
{
	int (*meanwhile)(struct test_chip *chip) = chip->meanwhile;

	chip->meanwhile = NULL;
	if (meanwhile)
		meanwhile(chip);
}

static int test_get_direction(struct gpio_chip *gc, unsigned int offset)
{
	do_meanwhile(gpiochip_get_data(gc));
	return GPIO_LINE_DIRECTION_IN;
}

static void test_free(struct gpio_chip *gc, unsigned int offset)
{
	do_meanwhile(gpiochip_get_data(gc));
}

static int test_direction_input(struct gpio_chip *gc, unsigned int offset)
{
	return 0;
}

static int test_get(struct gpio_chip *gc, unsigned int offset)
{
	stop_at(&((struct test_chip *)gpiochip_get_data(gc))->in_get);
	return 0;
}

static int test_direction_output(struct gpio_chip *gc, unsigned int offset, int value)
{
	return 0;
}

/* Gets or sets nothing. */
static int test_multiple(struct gpio_chip *gc, unsigned long *mask, unsigned long *bits)
{
	struct test_chip *chip = gpiochip_get_data(gc);

	chip->wanted = *mask;
	return 0;
}

static struct test_chip *chip_of(struct irq_data *data)
{
	return container_of(irq_data_get_irq_chip_data(data), struct test_chip, gc);
}

static void test_irq_mask(struct irq_data *data)
{
	gpiochip_disable_irq(irq_data_get_irq_chip_data(data), irqd_to_hwirq(data));
}

static void test_irq_unmask(struct irq_data *data)
{
	gpiochip_enable_irq(irq_data_get_irq_chip_data(data), irqd_to_hwirq(data));
}

static unsigned int test_irq_startup(struct irq_data *data)
{
	chip_of(data)->started++;
	test_irq_unmask(data);
	return 0;
}

static void test_irq_shutdown(struct irq_data *data)
{
	chip_of(data)->started--;
	test_irq_mask(data);
}

static int test_irq_set_type(struct irq_data *data, unsigned int type)
{
	return IRQ_SET_MASK_OK;
}

static void test_irq_bus_lock(struct irq_data *data)
{
	struct test_chip *chip = chip_of(data);

	mutex_lock(&chip->bus_lock);
	chip->bus_locks++;
}

static void test_irq_bus_sync_unlock(struct irq_data *data)
{
	struct test_chip *chip = chip_of(data);

	stop_at(&chip->in_bus_unlock);
	chip->bus_locks--;
	mutex_unlock(&chip->bus_lock);
	if (irqd_to_hwirq(data) == LAST)
		stop_at(&chip->after_bus_unlock);
}

static const struct irq_chip test_irq_chip = {
	.name = "gpiolib-irq-test",
	.irq_startup = test_irq_startup,
	.irq_shutdown = test_irq_shutdown,
	.irq_mask = test_irq_mask,
	.irq_unmask = test_irq_unmask,
	.irq_set_type = test_irq_set_type,
	.irq_bus_lock = test_irq_bus_lock,
	.irq_bus_sync_unlock = test_irq_bus_sync_unlock,
	.flags = IRQCHIP_IMMUTABLE,
	GPIOCHIP_IRQ_RESOURCE_HELPERS,
};

static struct test_chip *new_chip(struct kunit *test)
{
	struct test_chip *chip;
	struct device *dev;

	dev = kunit_device_register(test, "gpiolib-irq-test");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dev);

	/* Not kunit_kzalloc(): a test that fails may leave tasks behind. */
	chip = kzalloc_obj(*chip);
	KUNIT_ASSERT_NOT_NULL(test, chip);
	mutex_init(&chip->bus_lock);
	init_completion(&chip->removed);
	init_completion(&chip->in_get.reached);
	init_completion(&chip->in_get.go_on);
	init_completion(&chip->in_bus_unlock.reached);
	init_completion(&chip->in_bus_unlock.go_on);
	init_completion(&chip->after_bus_unlock.reached);
	init_completion(&chip->after_bus_unlock.go_on);
	init_completion(&chip->in_resume.reached);
	init_completion(&chip->in_resume.go_on);

	chip->gc = (struct gpio_chip){
		.label = "gpiolib-irq-test",
		.parent = dev,
		.owner = THIS_MODULE,
		.base = -1,
		.ngpio = LINES,
		.can_sleep = true,
		.free = test_free,
		.get_direction = test_get_direction,
		.direction_input = test_direction_input,
		.get = test_get,
	};
	gpio_irq_chip_set_chip(&chip->gc.irq, &test_irq_chip);
	chip->gc.irq.handler = handle_level_irq;
	chip->gc.irq.default_type = IRQ_TYPE_NONE;
	return chip;
}

static struct test_chip *add_chip(struct kunit *test)
{
	struct test_chip *chip = new_chip(test);

	KUNIT_ASSERT_EQ(test, gpiochip_add_data(&chip->gc, chip), 0);

	chip->gdev = gpio_device_get(chip->gc.gpiodev);
	chip->desc = gpiochip_request_own_desc(&chip->gc, LINE, "test", 0, GPIOD_ASIS);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, chip->desc);
	chip->irq = gpiod_to_irq(chip->desc);
	KUNIT_ASSERT_GT(test, chip->irq, 0);
	return chip;
}

static void remove_chip(struct test_chip *chip)
{
	gpiochip_remove(&chip->gc);
	complete_all(&chip->removed);
}

static void free_chip(struct test_chip *chip)
{
	gpio_device_put(chip->gdev);
	kfree(chip);
}

static int run_task(void *data)
{
	struct task *task = data;

	task->job(task->chip);
	complete_all(&task->done);
	return 0;
}

static struct task *start(struct kunit *test, struct test_chip *chip,
			  void (*job)(struct test_chip *chip), bool urgent)
{
	struct sched_param param = { .sched_priority = MAX_RT_PRIO - 1 };
	struct task *task;

	task = kzalloc_obj(*task);
	KUNIT_ASSERT_NOT_NULL(test, task);
	task->job = job;
	task->chip = chip;
	init_completion(&task->done);
	task->thread = kthread_create(run_task, task, "gpiolib-irq-test");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task->thread);
	if (urgent)
		sched_setscheduler_nocheck(task->thread, SCHED_FIFO, &param);
	wake_up_process(task->thread);
	return task;
}

static bool ends(struct completion *done)
{
	return wait_for_completion_timeout(done, msecs_to_jiffies(2000));
}

/* A task that did not end still uses what it was given. */
static void finish(struct kunit *test, struct task *task)
{
	bool done = ends(&task->done);

	KUNIT_EXPECT_TRUE(test, done);
	if (done)
		kfree(task);
}

static void read_line(struct test_chip *chip)
{
	gpiod_get_value_cansleep(chip->desc);
}

static void change_type(struct test_chip *chip)
{
	irq_set_irq_type(chip->irq, IRQ_TYPE_EDGE_FALLING);
}

static void request_irq_of_line(struct test_chip *chip)
{
	chip->requested = request_line(chip);
}

static void wait_until_numb(struct kunit *test, struct test_chip *chip)
{
	for (int i = 0; i < 100 && gpiod_to_irq(chip->desc) != -ENODEV; i++)
		msleep(20);
}

/* Gives others the time to do what they must not do. */
static void a_while(void)
{
	msleep(100);
}

static void flags_survive_get_direction(struct kunit *test)
{
	struct test_chip *chip = add_chip(test);

	chip->meanwhile = request_line;
	KUNIT_EXPECT_EQ(test, gpiod_get_direction(chip->desc), 1);
	KUNIT_EXPECT_TRUE(test, gpiochip_line_is_irq(&chip->gc, LINE));

	kunit_warning_suppress(test) {
		free_irq(chip->irq, chip);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 0);
	}
	gpiochip_free_own_desc(chip->desc);
	remove_chip(chip);
	free_chip(chip);
}

static void flags_survive_free(struct kunit *test)
{
	struct test_chip *chip = add_chip(test);

	chip->meanwhile = request_line;
	gpiochip_free_own_desc(chip->desc);
	KUNIT_EXPECT_TRUE(test, gpiochip_line_is_irq(&chip->gc, LINE));

	kunit_warning_suppress(test) {
		free_irq(chip->irq, chip);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 0);
	}
	remove_chip(chip);
	free_chip(chip);
}

/* An operation in progress holds up the removal; from then on requests fail. */
static void no_request_during_removal(struct kunit *test)
{
	struct test_chip *chip = add_chip(test);
	struct task *reader, *remover;
	int ret;

	chip->in_get.armed = true;
	reader = start(test, chip, read_line, false);
	KUNIT_ASSERT_TRUE(test, ends(&chip->in_get.reached));
	remover = start(test, chip, remove_chip, false);
	wait_until_numb(test, chip);

	ret = request_line(chip);
	KUNIT_EXPECT_EQ(test, ret, -ENODEV);
	if (!ret)
		free_irq(chip->irq, chip);

	complete(&chip->in_get.go_on);
	finish(test, reader);
	finish(test, remover);
	gpiochip_free_own_desc(chip->desc);
	KUNIT_EXPECT_EQ(test, chip->started, 0);
	free_chip(chip);
}

/* System calls may be using the interrupts that they have requested. */
static void interrupts_are_freed_after_operations(struct kunit *test)
{
	struct test_chip *chip = add_chip(test);
	struct task *reader, *remover;

	KUNIT_ASSERT_EQ(test, request_line(chip), 0);
	chip->in_get.armed = true;
	reader = start(test, chip, read_line, false);
	KUNIT_ASSERT_TRUE(test, ends(&chip->in_get.reached));
	remover = start(test, chip, remove_chip, false);
	wait_until_numb(test, chip);
	a_while();
	KUNIT_EXPECT_EQ(test, chip->started, 1);

	complete(&chip->in_get.go_on);
	finish(test, reader);
	finish(test, remover);
	gpiochip_free_own_desc(chip->desc);
	KUNIT_EXPECT_EQ(test, chip->started, 0);
	free_chip(chip);
}

/* The remover runs as soon as the request lets go of the mutex. */
static void removal_waits_for_request(struct kunit *test)
{
	struct test_chip *chip = add_chip(test);
	struct task *requester, *remover;

	chip->in_bus_unlock.armed = true;
	requester = start(test, chip, request_irq_of_line, false);
	KUNIT_ASSERT_TRUE(test, ends(&chip->in_bus_unlock.reached));
	remover = start(test, chip, remove_chip, true);
	wait_until_numb(test, chip);
	a_while();

	complete(&chip->in_bus_unlock.go_on);
	finish(test, requester);
	finish(test, remover);
	gpiochip_free_own_desc(chip->desc);
	KUNIT_EXPECT_EQ(test, chip->started, 0);
	free_chip(chip);
}

/* One operation holds the bus lock, another one waits for it. */
static void removal_waits_for_bus_lock(struct kunit *test)
{
	struct test_chip *chip = add_chip(test);
	struct task *holder, *waiter, *remover;

	chip->in_bus_unlock.armed = true;
	holder = start(test, chip, change_type, false);
	KUNIT_ASSERT_TRUE(test, ends(&chip->in_bus_unlock.reached));
	waiter = start(test, chip, change_type, false);
	a_while();
	remover = start(test, chip, remove_chip, false);
	wait_until_numb(test, chip);
	a_while();
	KUNIT_EXPECT_FALSE(test, completion_done(&chip->removed));

	complete(&chip->in_bus_unlock.go_on);
	finish(test, holder);
	finish(test, waiter);
	finish(test, remover);
	gpiochip_free_own_desc(chip->desc);
	KUNIT_EXPECT_EQ(test, chip->bus_locks, 0);
	KUNIT_EXPECT_FALSE(test, mutex_is_locked(&chip->bus_lock));
	/* Who still holds the lock would use it. */
	if (!chip->bus_locks)
		free_chip(chip);
}

/* The lock is free then, but the callback is still in the code of the chip. */
static void removal_waits_for_the_end_of_callbacks(struct kunit *test)
{
	struct test_chip *chip = add_chip(test);
	struct task *user, *remover;

	chip->irq = irq_create_mapping(chip->gc.irq.domain, LAST);
	chip->after_bus_unlock.armed = true;
	user = start(test, chip, change_type, false);
	KUNIT_ASSERT_TRUE(test, ends(&chip->after_bus_unlock.reached));
	remover = start(test, chip, remove_chip, false);
	wait_until_numb(test, chip);
	a_while();
	KUNIT_EXPECT_FALSE(test, completion_done(&chip->removed));

	complete(&chip->after_bus_unlock.go_on);
	finish(test, user);
	finish(test, remover);
	gpiochip_free_own_desc(chip->desc);
	free_chip(chip);
}

#if defined(CONFIG_PM) && defined(CONFIG_SPARSE_IRQ)
static int test_runtime_resume(struct device *dev)
{
	stop_at(&((struct test_chip *)dev_get_drvdata(dev))->in_resume);
	return 0;
}

static struct dev_pm_domain test_pm_domain = {
	.ops.runtime_resume = test_runtime_resume,
};

/* It resumes the chip before it takes any lock. */
static void request_keeps_the_descriptor(struct kunit *test)
{
	struct test_chip *chip = add_chip(test);
	struct device *dev = chip->gc.parent;
	struct task *requester;
	struct irq_desc *desc;

	dev_set_drvdata(dev, chip);
	dev->pm_domain = &test_pm_domain;
	pm_runtime_enable(dev);
	irq_domain_set_pm_device(chip->gc.irq.domain, dev);
	desc = irq_data_to_desc(irq_get_irq_data(chip->irq));
	KUNIT_EXPECT_EQ(test, rcuref_read(&desc->refcnt), 1);

	chip->in_resume.armed = true;
	requester = start(test, chip, request_irq_of_line, false);
	KUNIT_ASSERT_TRUE(test, ends(&chip->in_resume.reached));
	KUNIT_EXPECT_EQ(test, rcuref_read(&desc->refcnt), 2);
	remove_chip(chip);
	/* A descriptor is freed after a grace period. */
	rcu_barrier();

	complete(&chip->in_resume.go_on);
	finish(test, requester);
	KUNIT_EXPECT_LT(test, chip->requested, 0);
	pm_runtime_disable(dev);
	dev->pm_domain = NULL;
	gpiochip_free_own_desc(chip->desc);
	free_chip(chip);
}
#endif

#ifdef CONFIG_GPIO_CDEV
/* A request of the line for its rising edges, as user space makes it. */
static struct file *request_events(struct kunit *test, struct test_chip *chip,
				   struct file **cdev)
{
	const struct file_operations *fops = chip->gc.gpiodev->chrdev.ops;
	struct gpio_v2_line_request __user *user;
	struct gpio_v2_line_request *request;
	struct inode *inode;
	struct file *file;

	/* No more than gpio_chrdev_open() needs. */
	inode = kunit_kzalloc(test, sizeof(*inode), GFP_KERNEL);
	request = kunit_kzalloc(test, sizeof(*request), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, inode);
	KUNIT_ASSERT_NOT_NULL(test, request);
	inode->i_cdev = &chip->gc.gpiodev->chrdev;

	*cdev = anon_inode_getfile("gpiolib-irq-test", fops, NULL, O_RDWR);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, *cdev);
	KUNIT_ASSERT_EQ(test, fops->open(inode, *cdev), 0);

	user = (void __user *)kunit_vm_mmap(test, NULL, 0, PAGE_SIZE, PROT_READ | PROT_WRITE,
					    MAP_ANONYMOUS | MAP_PRIVATE, 0);
	KUNIT_ASSERT_NE(test, (unsigned long)user, 0);
	strscpy(request->consumer, "test");
	request->offsets[0] = LINE + 1;
	request->num_lines = 1;
	request->config.flags = GPIO_V2_LINE_FLAG_INPUT | GPIO_V2_LINE_FLAG_EDGE_RISING;
	KUNIT_ASSERT_EQ(test, copy_to_user(user, request, sizeof(*request)), 0);
	KUNIT_ASSERT_EQ(test, fops->unlocked_ioctl(*cdev, GPIO_V2_GET_LINE_IOCTL,
						   (unsigned long)user), 0);
	KUNIT_ASSERT_EQ(test, copy_from_user(request, user, sizeof(*request)), 0);

	file = fget(request->fd);
	KUNIT_ASSERT_NOT_NULL(test, file);
	close_fd(request->fd);
	return file;
}

/* The interrupt of the request is freed once, by gpiolib or by the consumer. */
static void requests_may_end_during_removal(struct kunit *test)
{
	struct test_chip *chip = add_chip(test);
	struct task *reader, *remover;
	struct file *file, *cdev;

	file = request_events(test, chip, &cdev);
	chip->in_get.armed = true;
	reader = start(test, chip, read_line, false);
	KUNIT_ASSERT_TRUE(test, ends(&chip->in_get.reached));
	remover = start(test, chip, remove_chip, false);
	wait_until_numb(test, chip);
	a_while();

	kunit_warning_suppress(test) {
		fput(file);
		flush_delayed_fput();
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 0);
	}
	complete(&chip->in_get.go_on);
	finish(test, reader);
	finish(test, remover);
	KUNIT_EXPECT_EQ(test, chip->started, 0);
	gpiochip_free_own_desc(chip->desc);
	fput(cdev);
	flush_delayed_fput();
	free_chip(chip);
}

/* gpiolib does not free the request's interrupt behind its back. */
static void requests_free_their_interrupts(struct kunit *test)
{
	struct test_chip *chip = add_chip(test);
	struct file *file, *cdev;
	struct task *remover;

	/* The one that comes next holds up the removal while it is freed. */
	chip->irq = irq_create_mapping(chip->gc.irq.domain, LAST);
	KUNIT_ASSERT_EQ(test, request_line(chip), 0);
	file = request_events(test, chip, &cdev);
	chip->after_bus_unlock.armed = true;
	remover = start(test, chip, remove_chip, false);
	KUNIT_EXPECT_TRUE(test, ends(&chip->after_bus_unlock.reached));

	kunit_warning_suppress(test) {
		fput(file);
		flush_delayed_fput();
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 0);
	}
	complete(&chip->after_bus_unlock.go_on);
	finish(test, remover);
	KUNIT_EXPECT_EQ(test, chip->started, 0);
	gpiochip_free_own_desc(chip->desc);
	fput(cdev);
	flush_delayed_fput();
	free_chip(chip);
}

struct read_of_events {
	struct file *file;
	struct completion done;
	ssize_t ret;
};

static int read_events(void *data)
{
	struct read_of_events *read = data;
	loff_t pos = 0;

	/* Nothing is copied, as there is no event. */
	read->ret = read->file->f_op->read(read->file, NULL,
					   sizeof(struct gpio_v2_line_event), &pos);
	complete(&read->done);
	return 0;
}

static void reading_does_not_keep_the_chip(struct kunit *test)
{
	struct test_chip *chip = add_chip(test);
	struct read_of_events read;
	struct task *remover;
	struct file *cdev;
	int irq;

	read.file = request_events(test, chip, &cdev);
	init_completion(&read.done);
	irq = irq_find_mapping(chip->gc.irq.domain, LINE + 1);
	KUNIT_ASSERT_FALSE(test, IS_ERR(kthread_run(read_events, &read, "gpiolib-irq-test")));
	a_while();

	remover = start(test, chip, remove_chip, false);
	KUNIT_EXPECT_TRUE(test, ends(&remover->done));
	KUNIT_EXPECT_TRUE(test, ends(&read.done));
	KUNIT_EXPECT_EQ(test, read.ret, -ENODEV);

	/* If they wait for each other, an event ends it. */
	if (!completion_done(&remover->done))
		generic_handle_irq_safe(irq);
	finish(test, remover);
	gpiochip_free_own_desc(chip->desc);
	fput(read.file);
	fput(cdev);
	flush_delayed_fput();
	free_chip(chip);
}
#endif /* CONFIG_GPIO_CDEV */

#ifdef CONFIG_GPIO_SYSFS
static int look_up_line(struct test_chip *chip)
{
	chip->gdev = gpio_device_get(chip->gc.gpiodev);
	chip->desc = gpio_device_get_desc(chip->gdev, LINE);
	return 0;
}

static void failed_registration_leaves_no_chip(struct kunit *test)
{
	struct test_chip *chip = new_chip(test);
	struct kobject *kobj;

	/* The class in sysfs wants a directory of that name. */
	kobj = kobject_create_and_add("gpio", &chip->gc.parent->kobj);
	KUNIT_ASSERT_NOT_NULL(test, kobj);
	chip->meanwhile = look_up_line;
	KUNIT_EXPECT_EQ(test, gpiochip_add_data(&chip->gc, chip), -EEXIST);
	kobject_put(kobj);

	KUNIT_ASSERT_NOT_NULL(test, chip->gdev);
	KUNIT_EXPECT_EQ(test, gpiod_get_direction(chip->desc), -ENODEV);
	free_chip(chip);
}
#endif /* CONFIG_GPIO_SYSFS */

KUNIT_DEFINE_ACTION_WRAPPER(end_array, gpiod_put_array, struct gpio_descs *);
KUNIT_DEFINE_ACTION_WRAPPER(end_table, gpiod_remove_lookup_table, struct gpiod_lookup_table *);

static void end_chip(void *data)
{
	struct test_chip *chip = data;

	gpiochip_remove(&chip->gc);
	kfree(chip);
}

/* Of an array, a consumer may get or set the first lines only. */
static void others_of_an_array_stay_out(struct kunit *test)
{
	struct test_chip *chip = new_chip(test);
	struct gpiod_lookup_table *table;
	struct gpio_descs *descs;
	unsigned long values = 0;

	chip->gc.direction_output = test_direction_output;
	chip->gc.get_multiple = test_multiple;
	chip->gc.set_multiple = test_multiple;
	KUNIT_ASSERT_EQ(test, gpiochip_add_data(&chip->gc, chip), 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, end_chip, chip), 0);

	table = kunit_kzalloc(test, struct_size(table, table, LINES + 1), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, table);
	table->dev_id = dev_name(chip->gc.parent);
	for (unsigned int i = 0; i < LINES; i++)
		table->table[i] = GPIO_LOOKUP_IDX(chip->gc.label, i, "test", i,
						  GPIO_ACTIVE_HIGH);
	gpiod_add_lookup_table(table);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, end_table, table), 0);
	descs = gpiod_get_array(chip->gc.parent, "test", GPIOD_OUT_LOW);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, descs);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, end_array, descs), 0);
	KUNIT_ASSERT_NOT_NULL(test, descs->info);

	for (unsigned int lines = LINES; lines > 1; lines--) {
		unsigned long mask = GENMASK(lines - 1, 0);

		KUNIT_EXPECT_EQ(test, 0,
				gpiod_set_array_value_cansleep(lines, descs->desc,
							       descs->info, &values));
		KUNIT_EXPECT_EQ(test, chip->wanted, mask);
		chip->wanted = 0;
		KUNIT_EXPECT_EQ(test, 0,
				gpiod_get_array_value_cansleep(lines, descs->desc,
							       descs->info, &values));
		KUNIT_EXPECT_EQ(test, chip->wanted, mask);
		chip->wanted = 0;
	}
}

static struct kunit_case gpiolib_irq_cases[] = {
	KUNIT_CASE(flags_survive_get_direction),
	KUNIT_CASE(flags_survive_free),
	KUNIT_CASE(no_request_during_removal),
	KUNIT_CASE(interrupts_are_freed_after_operations),
	KUNIT_CASE(removal_waits_for_request),
	KUNIT_CASE(removal_waits_for_bus_lock),
	KUNIT_CASE(removal_waits_for_the_end_of_callbacks),
#if defined(CONFIG_PM) && defined(CONFIG_SPARSE_IRQ)
	KUNIT_CASE(request_keeps_the_descriptor),
#endif
#ifdef CONFIG_GPIO_CDEV
	KUNIT_CASE(requests_may_end_during_removal),
	KUNIT_CASE(requests_free_their_interrupts),
	KUNIT_CASE(reading_does_not_keep_the_chip),
#endif
#ifdef CONFIG_GPIO_SYSFS
	KUNIT_CASE(failed_registration_leaves_no_chip),
#endif
	KUNIT_CASE(others_of_an_array_stay_out),
	{}
};

static struct kunit_suite gpiolib_irq_suite = {
	.name = "gpiolib_irq",
	.test_cases = gpiolib_irq_cases,
};

kunit_test_suite(gpiolib_irq_suite);

MODULE_DESCRIPTION("KUnit tests of the interrupts of GPIO lines");
MODULE_LICENSE("GPL");
