// SPDX-License-Identifier: GPL-2.0
/*
 * The order of the tests of virtio GPIO drivers
 */

#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/prandom.h>

#include <kunit/test.h>

#include "shuffle.h"

static unsigned int shuffle;
module_param(shuffle, uint, 0644);
MODULE_PARM_DESC(shuffle, "Seed to shuffle the tests of each suite by, 0 for none");

/* No test may depend on the state that another one has left. */
int shuffle_cases(struct kunit_suite *suite)
{
	size_t left = kunit_suite_num_test_cases(suite);
	struct rnd_state rnd;

	if (!shuffle)
		return 0;

	prandom_seed_state(&rnd, shuffle);
	for (; left > 1; left--)
		swap(suite->test_cases[left - 1],
		     suite->test_cases[prandom_u32_state(&rnd) % left]);
	return 0;
}

MODULE_DESCRIPTION("KUnit tests of virtio GPIO drivers");
MODULE_LICENSE("GPL");
