// SPDX-License-Identifier: GPL-2.0-only
/*
 * A consumer of the interrupt of one GPIO line, to be steered by tests.
 *
 * User space can ask for edges only. This asks for any trigger, with a handler in hard
 * interrupt context or in a thread, and like a device with an "interrupts" property it does
 * not ask for the line as a GPIO. In debugfs, below gpio_irq_consumer/:
 *
 *   request   write "LABEL OFFSET TRIGGER CONTEXT": label of the chip, offset of the line,
 *             IRQ_TYPE_* as a number, "hard" or "thread"
 *   free      write anything
 *   enabled   write 0 for disable_irq(), 1 for enable_irq()
 *   trigger   write a number for irq_set_irq_type()
 *   count     read: how often the handler ran since the request
 *   limit     the hard handler calls disable_irq_nosync() at this count; 0 for never
 *   held      the threaded handler does not return before this is 0 again, as it is after free
 */

#include <linux/atomic.h>
#include <linux/cleanup.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/gpio/consumer.h>
#include <linux/gpio/driver.h>
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/uaccess.h>

static DEFINE_MUTEX(lock);
static struct dentry *dir;
static struct gpio_device *gdev;	/* while there is an interrupt */
static int irq;
static bool enabled;
static atomic_t count;
static u32 limit;
static bool held;

static irqreturn_t hard_handler(int irq, void *data)
{
	u32 now = atomic_inc_return(&count);

	if (limit && now == limit) {
		disable_irq_nosync(irq);
		enabled = false;
	}
	return IRQ_HANDLED;
}

static irqreturn_t thread_handler(int irq, void *data)
{
	atomic_inc(&count);
	do {
		fsleep(USEC_PER_MSEC);
	} while (READ_ONCE(held));
	return IRQ_HANDLED;
}

static int request_locked(const char *label, u32 offset, u32 trigger, const char *context)
{
	struct gpio_device *found __free(gpio_device_put) = NULL;
	struct gpio_desc *desc;
	int ret;

	if (gdev)
		return -EBUSY;
	found = gpio_device_find_by_label(label);
	if (!found)
		return -ENODEV;
	desc = gpio_device_get_desc(found, offset);
	if (IS_ERR(desc))
		return PTR_ERR(desc);
	irq = gpiod_to_irq(desc);
	if (irq < 0)
		return irq;

	atomic_set(&count, 0);
	if (!strcmp(context, "hard"))
		ret = request_irq(irq, hard_handler, trigger, "gpio_irq_consumer", &count);
	else if (!strcmp(context, "thread"))
		ret = request_threaded_irq(irq, NULL, thread_handler, trigger | IRQF_ONESHOT,
					   "gpio_irq_consumer", &count);
	else
		ret = -EINVAL;
	if (ret)
		return ret;
	enabled = true;
	gdev = no_free_ptr(found);
	return 0;
}

static void free_locked(void)
{
	if (!gdev)
		return;
	/* free_irq() waits for the handler. */
	WRITE_ONCE(held, false);
	free_irq(irq, &count);
	gpio_device_put(gdev);
	gdev = NULL;
}

static ssize_t request_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	char text[80], label[40], context[8];
	u32 offset, trigger;
	int ret;

	if (size >= sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, from, size))
		return -EFAULT;
	text[size] = '\0';
	if (sscanf(text, "%39s %u %u %7s", label, &offset, &trigger, context) != 4)
		return -EINVAL;

	guard(mutex)(&lock);
	ret = request_locked(label, offset, trigger, context);
	return ret ?: size;
}

static const struct file_operations request_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = request_write,
};

static ssize_t free_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	guard(mutex)(&lock);
	free_locked();
	return size;
}

static const struct file_operations free_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = free_write,
};

static int enabled_set(void *data, u64 value)
{
	guard(mutex)(&lock);
	if (!gdev)
		return -ENODEV;
	if (value && !enabled)
		enable_irq(irq);
	else if (!value && enabled)
		disable_irq(irq);
	enabled = value;
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(enabled_fops, NULL, enabled_set, "%llu\n");

static int trigger_set(void *data, u64 value)
{
	guard(mutex)(&lock);
	return gdev ? irq_set_irq_type(irq, value) : -ENODEV;
}
DEFINE_DEBUGFS_ATTRIBUTE(trigger_fops, NULL, trigger_set, "%llu\n");

static int __init gpio_irq_consumer_init(void)
{
	dir = debugfs_create_dir("gpio_irq_consumer", NULL);
	debugfs_create_file("request", 0200, dir, NULL, &request_fops);
	debugfs_create_file("free", 0200, dir, NULL, &free_fops);
	debugfs_create_file_unsafe("enabled", 0200, dir, NULL, &enabled_fops);
	debugfs_create_file_unsafe("trigger", 0200, dir, NULL, &trigger_fops);
	debugfs_create_atomic_t("count", 0400, dir, &count);
	debugfs_create_u32("limit", 0600, dir, &limit);
	debugfs_create_bool("held", 0600, dir, &held);
	return 0;
}
module_init(gpio_irq_consumer_init);

static void __exit gpio_irq_consumer_exit(void)
{
	debugfs_remove(dir);
	free_locked();
}
module_exit(gpio_irq_consumer_exit);

MODULE_DESCRIPTION("Consumer of a GPIO interrupt, for tests");
MODULE_LICENSE("GPL");
