// SPDX-License-Identifier: GPL-2.0
/*
 * The KUnit suites of virtio GPIO drivers
 */

#include <linux/module.h>

#include <kunit/test.h>

#include "suites.h"

kunit_test_suites(&gpio_virtio_model_suite, &gpio_virtio_spec_suite,
		  &gpio_virtio_irq_suite, &gpio_virtio_life_suite,
		  &gpio_virtio_faults_suite);

MODULE_DESCRIPTION("KUnit tests of virtio GPIO drivers");
MODULE_LICENSE("GPL");
