/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The order of the tests of virtio GPIO drivers
 */
#ifndef _GPIO_VIRTIO_SHUFFLE_H
#define _GPIO_VIRTIO_SHUFFLE_H

struct kunit_suite;

/* The suite_init of a suite. */
int shuffle_cases(struct kunit_suite *suite);

#endif /* _GPIO_VIRTIO_SHUFFLE_H */
