// SPDX-License-Identifier: GPL-2.0-only
/*
 * Resets a virtio GPIO device as the end of the system does, but for the end: the virtqueues stay.
 *
 * Does so when it is loaded, to the device "label".
 */

#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/gpio/driver.h>
#include <linux/module.h>
#include <linux/virtio.h>

static char *label;
module_param(label, charp, 0);
MODULE_PARM_DESC(label, "label of the GPIO chip");

static int __init device_shutdown_init(void)
{
	struct virtio_device *vdev;
	struct gpio_device *gdev;

	gdev = label ? gpio_device_find_by_label(label) : NULL;
	if (!gdev)
		return -ENODEV;

	vdev = dev_to_virtio(gpio_device_get_chip(gdev)->parent);
	scoped_guard(device, &vdev->dev)
		virtio_device_shutdown(vdev);
	gpio_device_put(gdev);
	return 0;
}
module_init(device_shutdown_init);

static void __exit device_shutdown_exit(void)
{
}
module_exit(device_shutdown_exit);

MODULE_DESCRIPTION("Resets a device, for tests");
MODULE_LICENSE("GPL");
