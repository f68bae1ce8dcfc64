/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The KUnit suites of virtio GPIO drivers
 */
#ifndef _GPIO_VIRTIO_SUITES_H
#define _GPIO_VIRTIO_SUITES_H

extern struct kunit_suite gpio_virtio_model_suite;
extern struct kunit_suite gpio_virtio_fixture_suite;
extern struct kunit_suite gpio_virtio_spec_suite;
extern struct kunit_suite gpio_virtio_irq_suite;
extern struct kunit_suite gpio_virtio_faults_suite;
extern struct kunit_suite gpio_virtio_fuzz_suite;
extern struct kunit_suite gpio_virtio_life_suite;
extern struct kunit_suite gpio_virtio_binding_suite;

/* The suite_init of each. */
int shuffle_cases(struct kunit_suite *suite);

#endif /* _GPIO_VIRTIO_SUITES_H */
