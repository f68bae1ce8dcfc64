// SPDX-License-Identifier: GPL-2.0

#include <linux/srcu.h>

#include "../../drivers/gpio/gpiolib.h"

#ifdef CONFIG_GPIOLIB_IRQCHIP

__rust_helper void rust_helper_gpio_device_synchronize(struct gpio_device *gdev)
{
	synchronize_srcu(&gdev->srcu);
}

#endif /* CONFIG_GPIOLIB_IRQCHIP */
